//! Unsupported files, detected by name, first bytes or header, so that the error names the format
//! and the remedy.

/// Supported formats.
const SUPPORTED: &str =
    "supported are trades and quotes as CSV, plain or compressed with gzip, zstd or zip";

/// Names in folders and archives that are not data.
pub(super) fn by_name(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    if name.starts_with('.') {
        Some("hidden file")
    } else if ends(&[".checksum", ".sha256", ".sha512", ".md5", ".sig", ".asc"])
        || lower.ends_with("sha256sums")
        || lower.ends_with("md5sums")
    {
        Some("checksum file")
    } else if ends(&[".md", ".pdf", ".html", ".png", ".jpg"]) || lower.starts_with("readme") {
        Some("documentation")
    } else if ends(&[".tmp", ".part", ".partial", ".crdownload", ".lock"]) {
        Some("unfinished download")
    } else {
        None
    }
}

/// First bytes of unsupported formats, with the remedy.
const MAGICS: &[(&[u8], &str)] = &[
    (
        b"PAR1",
        "a Parquet file; convert it to CSV, e.g. with DuckDB: COPY (FROM 'x.parquet') TO 'x.csv'",
    ),
    (
        b"DBN",
        "a Databento DBN file; convert it with `dbn x.dbn --csv`, or download CSV, and map the columns under `columns`",
    ),
    (
        b"\xd4\xc3\xb2\xa1",
        "a pcap capture; decode its packets to CSV first",
    ),
    (
        b"\xa1\xb2\xc3\xd4",
        "a pcap capture; decode its packets to CSV first",
    ),
    (
        b"\x4d\x3c\xb2\xa1",
        "a pcap capture; decode its packets to CSV first",
    ),
    (
        b"\xa1\xb2\x3c\x4d",
        "a pcap capture; decode its packets to CSV first",
    ),
    (
        b"\x0a\x0d\x0d\x0a",
        "a pcapng capture; decode its packets to CSV first",
    ),
    (b"ARROW1", "an Arrow file; convert it to CSV"),
    (b"ORC", "an ORC file; convert it to CSV"),
    (b"Obj\x01", "an Avro file; convert it to CSV"),
    (b"\x89HDF", "an HDF5 file; convert it to CSV"),
    (b"\x93NUMPY", "a NumPy array; convert it to CSV"),
    (
        b"SQLite format 3",
        "an SQLite database; export the table as CSV",
    ),
    (
        b"\xfd7zXZ",
        "compressed with xz; recompress it with gzip or zstd",
    ),
    (
        b"BZh",
        "compressed with bzip2; recompress it with gzip or zstd",
    ),
    (b"7z\xbc\xaf", "a 7-Zip archive; use zip, gzip or zstd"),
    (
        b"\x04\x22\x4d\x18",
        "compressed with lz4; recompress it with gzip or zstd",
    ),
    (b"\x1f\x8b", "packed twice; unpack it once"),
    (b"\x28\xb5\x2f\xfd", "packed twice; unpack it once"),
    (
        b"PK\x03\x04",
        "an archive within an archive; extract the inner one",
    ),
    (
        b"\xff\xfe",
        "UTF-16 text; convert it with `iconv -f UTF-16 -t UTF-8`",
    ),
    (
        b"\xfe\xff",
        "UTF-16 text; convert it with `iconv -f UTF-16 -t UTF-8`",
    ),
    (b"%PDF", "a PDF document"),
];

/// Format whose files begin with these bytes.
pub(super) fn by_magic(start: &[u8]) -> Option<String> {
    if let Some((_, what)) = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Some(format!("this is {what}; {SUPPORTED}"));
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some(format!(
            "this is a tar archive; extract it and replay the folder; {SUPPORTED}"
        ));
    }
    let text = String::from_utf8_lossy(&start[..start.len().min(4096)]);
    let text = text.trim_start();
    if text.starts_with(['<']) {
        return Some("this is a web page or XML, perhaps a failed download".to_owned());
    }
    if text.starts_with(['{', '[']) {
        return Some(format!(
            "this is JSON; {SUPPORTED}; publish events as JSON lines with POST /v1/publish"
        ));
    }
    let first = text.lines().next().unwrap_or_default();
    let is_capture = first.split_once([' ', ':']).is_some_and(|(time, rest)| {
        !time.is_empty()
            && time.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && rest.trim_start().starts_with(['{', '['])
    });
    if is_capture {
        return Some(format!(
            "this is a raw capture of WebSocket messages; {SUPPORTED}"
        ));
    }
    start[..start.len().min(4096)]
        .contains(&0)
        .then(|| format!("this is a binary file; {SUPPORTED}"))
}

/// Content of a CSV file with these column names, if it is known and unsupported.
pub(super) fn by_header(names: &[&str], file: &str) -> Option<String> {
    let lower: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let has = |wanted: &[&str]| {
        wanted
            .iter()
            .all(|wanted| lower.iter().any(|name| name == wanted))
    };
    let tardis = "use Tardis `trades`, `quotes`, `book_ticker` or `book_snapshot_5`";
    let binance = "use Binance `trades`, `aggTrades` or `bookTicker`";
    let (what, instead) = if has(&["exchange", "is_snapshot", "side", "price", "amount"]) {
        ("Tardis incremental_book_L2 (order book updates)", tardis)
    } else if has(&["exchange", "funding_rate", "open_interest", "mark_price"]) {
        ("Tardis derivative_ticker", tardis)
    } else if has(&["exchange", "strike_price", "expiration"]) {
        ("Tardis options_chain", tardis)
    } else if has(&["exchange", "local_timestamp", "id", "side"]) && file.contains("liquidations") {
        ("Tardis liquidations", tardis)
    } else if has(&["first_update_id", "update_type"]) {
        ("Binance depth (order book updates)", binance)
    } else if has(&["percentage", "depth", "notional"]) {
        ("Binance bookDepth", binance)
    } else if has(&["create_time", "sum_open_interest"]) {
        ("Binance metrics", binance)
    } else if has(&["calc_time", "last_funding_rate"]) {
        ("Binance fundingRate", binance)
    } else if has(&["open", "high", "low", "close"]) {
        (
            "klines (bars)",
            "use trades; tickcast derives bars from them",
        )
    } else if has(&["price", "size", "action", "side", "order_id"]) {
        (
            "Databento MBO (orders)",
            "request the schema `trades` or `mbp-1`",
        )
    } else {
        return None;
    };
    Some(format!("{what} cannot be replayed; {instead}"))
}

/// Rows of klines without a header: 12 numbers, of which the first and the seventh are times.
pub(super) fn is_klines(cells: &[&str]) -> bool {
    let number = |at: usize| cells.get(at).and_then(|cell| cell.parse::<u64>().ok());
    let is_time = |at: usize| number(at).is_some_and(|time| time > 100_000_000_000);
    cells.len() == 12
        && is_time(0)
        && is_time(6)
        && cells.iter().all(|cell| cell.parse::<f64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_formats_are_named() {
        for (start, what) in [
            (&b"PAR1\x15\x04"[..], "Parquet"),
            (b"DBN\x03\x10", "DBN"),
            (b"\xd4\xc3\xb2\xa1\x02", "pcap"),
            (b"{\"ts\":1}\n", "JSON"),
            (b"  [1,2]", "JSON"),
            (b"1723161255030314667 {\"stream\":1}", "raw capture"),
            (b"<!DOCTYPE html>", "web page"),
            (b"\xff\xfea\0", "UTF-16"),
            (b"a\0b", "binary"),
        ] {
            let why = by_magic(start).unwrap_or_default();
            assert!(why.contains(what), "{what}: {why}");
        }
        assert_eq!(by_magic(b"1,5.10,2,9,1723161255342,True,True\n"), None);
        assert_eq!(by_magic(b"exchange,symbol\n"), None);
    }

    #[test]
    fn unsupported_headers_are_named() {
        for (header, what) in [
            ("open_time,open,high,low,close,volume", "klines"),
            ("Date,Open,High,Low,Close,Adj Close,Volume", "klines"),
            (
                "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount",
                "incremental_book_L2",
            ),
            (
                "exchange,symbol,timestamp,local_timestamp,funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price",
                "derivative_ticker",
            ),
            (
                "exchange,symbol,timestamp,local_timestamp,type,strike_price,expiration,open_interest",
                "options_chain",
            ),
            (
                "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu",
                "depth",
            ),
        ] {
            let names: Vec<&str> = header.split(',').collect();
            let why = by_header(&names, "x.csv").unwrap_or_default();
            assert!(why.contains(what), "{what}: {why}");
        }
        let trades = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount";
        let names: Vec<&str> = trades.split(',').collect();
        assert_eq!(by_header(&names, "binance_trades_2024.csv"), None);
        assert!(by_header(&names, "binance_liquidations_2024.csv").is_some());
        let cells: Vec<&str> = "1637971200000,0.1,0.2,0.1,0.1,5,1637971259999,1.0,79,1,0.5,0"
            .split(',')
            .collect();
        assert!(is_klines(&cells));
    }

    #[test]
    fn names_of_non_data_files_are_recognized() {
        for name in [
            "A.zip.CHECKSUM",
            ".hidden",
            "README.txt",
            "SHA256SUMS",
            "x.csv.part",
        ] {
            assert!(by_name(name).is_some(), "{name}");
        }
        assert!(by_name("A-trades-2024.csv.gz").is_none() && by_name("notes.txt").is_none());
    }
}
