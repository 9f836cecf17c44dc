//! Symbols, prices, quantities and times as sources write them.

use std::path::Path;

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use serde_json::Value;
use tickcast::bus::Emit;
use tickcast::market::{Body, UnixNanos};
use tickcast::protocol::{Control, DataEvent, Encoding, ServerMessage};
use tickcast::source::sim::Market;

use crate::harness::{Feed, subscribe};

const TARDIS: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";

/// Publishes lines and returns the report.
async fn publish(feed: &Feed, lines: &str) -> Result<Value> {
    let (status, report) =
        crate::publish::post(feed, "application/x-ndjson", "", lines.as_bytes()).await?;
    anyhow::ensure!(status == 200, "{status}: {report}");
    Ok(serde_json::from_str(&report)?)
}

fn replay(file: &Path, more: &str) -> String {
    format!(
        "sources: [{{name: tape, kind: replay, speed: max, begin: first-subscriber, files: [{:?}]{more}}}]",
        file.display().to_string()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn symbols_of_every_script_pass_through_every_interface() -> Result<()> {
    let symbols = ["币安人生USDT", "^GSPC", "ES=F", "@107", "a\"b\\c", "été"];
    let instruments: Vec<Value> = symbols
        .iter()
        .map(|symbol| serde_json::json!({"symbol": symbol}))
        .collect();
    let feed = Feed::start(&format!(
        "sources: [{{name: in, kind: push, open: true, instruments: {}}}]",
        serde_json::to_string(&instruments)?
    ))
    .await?;
    let mut clients = vec![
        feed.client(Encoding::Json).await?,
        feed.client(Encoding::Msgpack).await?,
    ];
    let topics: Vec<String> = symbols
        .iter()
        .map(|symbol| format!("trade:{symbol}"))
        .collect();
    for client in &mut clients {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let response = client.subscribe(subscribe(&names)).await?;
        assert_eq!(
            (response.ok.len(), response.err),
            (symbols.len(), Vec::new())
        );
    }
    let lines: Vec<String> = symbols
        .iter()
        .map(|symbol| {
            serde_json::json!({"ch": "trade", "sym": symbol, "px": "1", "qty": "1"}).to_string()
        })
        .collect();
    let response = publish(&feed, &lines.join("\n")).await?;
    assert_eq!(response["accepted"], symbols.len(), "{response}");
    for client in &mut clients {
        let mut came: Vec<String> = client
            .events(symbols.len())
            .await?
            .iter()
            .map(|event| event.topic.to_string())
            .collect();
        came.sort();
        let mut wanted = topics.clone();
        wanted.sort();
        assert_eq!(came, wanted);
    }
    let percent: String = "币安人生USDT"
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let snapshot = serde_json::from_str::<Value>(
        &feed
            .get(&format!("/v1/snapshot?topics=trade:{percent}"))
            .await?,
    )?;
    assert_eq!(snapshot["ok"][0]["topic"], "trade:币安人生USDT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn venue_spellings_are_mapped_and_listed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("t.csv");
    let spellings = [
        "BTCF0:USTF0",
        "AAPL  240119C00150000",
        "^GSPC",
        "BTC/USDT:USDT",
    ];
    let rows: String = spellings
        .iter()
        .enumerate()
        .map(|(n, symbol)| format!("x,{symbol},{},1,{n},buy,9,1\n", 1_760_054_400_000_000 + n))
        .collect();
    std::fs::write(&file, format!("{TARDIS}{rows}"))?;
    let feed = Feed::start(&replay(&file, "")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:*"])).await?;
    let mut came: Vec<String> = client
        .events(4)
        .await?
        .iter()
        .map(|event| event.topic.symbol.to_string())
        .collect();
    came.sort();
    let wanted = [
        "AAPL~20~20240119C00150000",
        "BTC/USDT~3AUSDT",
        "BTCF0~3AUSTF0",
        "^GSPC",
    ];
    assert_eq!(came, wanted);
    let listed = serde_json::from_str::<Value>(&feed.get("/v1/instruments").await?)?;
    let spelled: Vec<&str> = listed["instruments"]
        .as_array()
        .context("missing instruments")?
        .iter()
        .filter_map(|one| one["venue_symbol"].as_str())
        .collect();
    assert_eq!(
        spelled,
        ["AAPL  240119C00150000", "BTC/USDT:USDT", "BTCF0:USTF0"]
    );
    Ok(())
}

/// Prices of trades and bids, in the order of receipt.
fn prices(events: &[DataEvent]) -> Vec<String> {
    let price = |event: &DataEvent| match &event.body {
        Body::Trade(trade) => Some(format!("trade {}", trade.px.0)),
        Body::Quote(quote) => quote.bid.map(|bid| format!("bid {}", bid.px.0)),
        _ => None,
    };
    let mut prices: Vec<String> = events.iter().filter_map(price).collect();
    prices.sort();
    prices
}

/// The same events through a push source and a replay, under the same keys.
#[tokio::test(flavor = "multi_thread")]
async fn price_rules_are_the_same_for_every_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("t.csv");
    let header = "t,s,kind,px,qty,bid,bq,ask,aq\n";
    std::fs::write(
        &file,
        format!(
            "{header}1600000001,A,T,1,1,,,,\n1600000002,A,T,-1,1,,,,\n1600000003,A,T,0,1,,,,\n\
             1600000004,A,Q,,,-2,1,5,1\n1600000005,A,Q,,,0.0,1,5,1\n1600000006,A,Q,,,6,1,5,1\n1600000007,A,T,1,1,,,,\n"
        ),
    )?;
    let lines = [
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"-1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"0","qty":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"-2","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"0.0","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"6","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1"}"#,
    ]
    .join("\n");
    let columns = ", columns: {time: t, symbol: s, type: kind, trade: T, quote: Q, price: px, qty: qty, bid: bid, bid_qty: bq, ask: ask, ask_qty: aq}";
    let all = [
        (", crossed: false", vec![]),
        (", crossed: true", vec!["bid 6"]),
        (
            ", crossed: false, zero_prices: true",
            vec!["bid 0.0", "trade 0"],
        ),
        (
            ", crossed: false, negative_prices: true",
            vec!["bid -2", "bid 0.0", "trade -1", "trade 0"],
        ),
    ];
    for (keys, more) in all {
        let mut wanted: Vec<String> = more.into_iter().map(str::to_owned).collect();
        wanted.extend(["trade 1".to_owned(), "trade 1".to_owned()]);
        wanted.sort();
        let feed = Feed::start(&format!(
            "sources: [{{name: in, kind: push, open: true{keys}, instruments: [{{symbol: A}}]}}]"
        ))
        .await?;
        let mut client = feed.client(Encoding::Json).await?;
        client.subscribe(subscribe(&["trade:A", "quote:A"])).await?;
        let report = publish(&feed, &lines).await?;
        assert_eq!(report["accepted"], wanted.len(), "{keys}: {report}");
        assert_eq!(
            prices(&client.events(wanted.len()).await?),
            wanted,
            "push{keys}"
        );
        let feed = Feed::start(&replay(&file, &format!("{keys}{columns}"))).await?;
        let mut client = feed.client(Encoding::Json).await?;
        client.subscribe(subscribe(&["trade:A", "quote:A"])).await?;
        assert_eq!(
            prices(&client.events(wanted.len()).await?),
            wanted,
            "replay{keys}"
        );
    }
    Ok(())
}

#[test]
fn a_simulation_obeys_the_price_rules() -> Result<()> {
    let low = |keys: &str, start: &str| -> Result<(Decimal, bool)> {
        let text = format!(
            "sources: [{{name: s, kind: sim{keys}, instruments: [{{symbol: A, start: \"{start}\", tick_size: 1, spread: 3, rate: 1000/s}}]}}]"
        );
        let config = tickcast::config::Config::parse(&text, "test")?;
        let tickcast::config::SourceDetails::Sim(sim) = &config.sources[0].details else {
            anyhow::bail!("no simulation");
        };
        let mut market = Market::new(sim, UnixNanos(0));
        let mut emitted = Vec::new();
        market.advance(UnixNanos(10_000_000_000), &mut emitted, usize::MAX);
        let quotes = emitted.iter().filter_map(|emit| match emit {
            Emit::Quote(_, quote) => Some(quote),
            _ => None,
        });
        let lowest = quotes
            .clone()
            .filter_map(|quote| quote.bid.map(|bid| bid.px.0))
            .min();
        Ok((
            lowest.context("missing quotes")?,
            quotes.clone().any(tickcast::market::Quote::is_crossed),
        ))
    };
    assert_eq!(low("", "1")?, (Decimal::ONE, false));
    assert_eq!(low(", zero_prices: true", "1")?, (Decimal::ZERO, false));
    assert!(low(", negative_prices: true", "-5")?.0 < Decimal::ZERO);
    assert!(low(", crossed: true", "100")?.1);
    assert!(low("", "-5").is_err());
    Ok(())
}

#[test]
fn descriptions_have_no_format_characters() {
    let config = |description: &str| {
        let text = format!(
            "sources: [{{name: in, kind: push, open: true, instruments: [{{symbol: A, description: \"{description}\"}}]}}]"
        );
        tickcast::config::Config::parse(&text, "test")
    };
    assert!(config("Crude oil, été 原油").is_ok());
    for bad in [
        "\u{202e}evil\u{202c}",
        "a\u{200b}b",
        "\u{feff}a",
        "a\u{2028}b",
    ] {
        let error = config(bad)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("format characters"), "{bad:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_times_in_another_unit_are_rejected_naming_the_unit() -> Result<()> {
    let feed = Feed::start(
        "sources: [{name: in, kind: push, open: true, ahead: 2m, behind: 1h, instruments: [{symbol: A}]}]",
    )
    .await?;
    let now = tickcast::clock::Clock::start().now().0;
    let second = 1_000_000_000;
    let times = [
        (
            (now / second).to_string(),
            "in seconds: expected nanoseconds",
        ),
        (
            (now / 1_000_000).to_string(),
            "in milliseconds: expected nanoseconds",
        ),
        (
            (now / 1_000).to_string(),
            "in microseconds: expected nanoseconds",
        ),
        ("1".to_owned(), "in seconds"),
        (
            (now - 3700 * second).to_string(),
            "behind the server's clock (`behind` of the source)",
        ),
        (
            (now + 200 * second).to_string(),
            "ahead of the server's clock (`ahead` of the source)",
        ),
        (
            "18446744073709551615".to_owned(),
            "ahead of the server's clock",
        ),
        ("18446744073709551616".to_owned(), "invalid `ts`"),
        ("18446744073.999999999".to_owned(), "invalid `ts`"),
        ("-1".to_owned(), "invalid `ts`"),
        ("\"2026-01-01T00:00:00Z\"".to_owned(), "invalid `ts`"),
    ];
    let lines: Vec<String> = times
        .iter()
        .map(|(ts, _)| format!(r#"{{"ch":"trade","sym":"A","px":"1","qty":"1","ts":{ts}}}"#))
        .chain([format!(
            r#"{{"ch":"trade","sym":"A","px":"1","qty":"1","ts":{}}}"#,
            now - 3500 * second
        )])
        .collect();
    let report = publish(&feed, &lines.join("\n")).await?;
    assert_eq!(
        (&report["accepted"], &report["refused"]),
        (&1.into(), &times.len().into()),
        "{report}"
    );
    for (at, (_, wanted)) in times.iter().enumerate() {
        let message = report["errors"][at]["message"].as_str().unwrap_or_default();
        assert!(message.contains(wanted), "{message} lacks {wanted}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn publish_errors_name_the_expected_form_and_decimals_are_exact() -> Result<()> {
    let feed =
        Feed::start("sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]")
            .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:A"])).await?;
    let event = |fields: &str| format!("{{\"ch\":\"trade\",\"sym\":\"A\",{fields}}}");
    let good = [
        event(r#""px":10.50,"qty":2"#),
        event(r#""px":"0.10","qty":0.00000001,"id":42"#),
        event(r#""px":12345678901234.123456789,"qty":"1","side":null"#),
    ];
    let bad = [
        (
            event(r#""px":1.05e1,"qty":"1""#),
            r#"`px` has an exponent: expected a string, e.g. "px": "10.50""#,
        ),
        (
            event(r#""px":"1,5","qty":"1""#),
            r#"`px` "1,5" is not a decimal"#,
        ),
        (
            event(r#""qty":"1""#),
            r#"`px` is missing: expected a string, e.g. "px": "10.50""#,
        ),
        (event(r#""px":true,"qty":"1""#), "`px` is not a decimal"),
        (
            event(r#""px":"1","qty":"1","side":"B""#),
            r#"invalid `side`: expected "buy", "sell" or "none""#,
        ),
        (
            r#"{"ch":"trade","sym":7,"px":"1","qty":"1"}"#.to_owned(),
            r#"`sym` is not a string: expected e.g. "sym": "BTC-USD""#,
        ),
        (
            r#"{"sym":"A","px":"1","qty":"1"}"#.to_owned(),
            r#"`ch` is missing: expected e.g. "ch": "trade""#,
        ),
        (
            "[1]".to_owned(),
            r#"not an object; expected an event, e.g. {"ch":"trade""#,
        ),
        ("{'px': 1}".to_owned(), "invalid JSON at column 2"),
    ];
    let lines: Vec<&str> = good
        .iter()
        .map(String::as_str)
        .chain(bad.iter().map(|(line, _)| &**line))
        .collect();
    let report = publish(&feed, &lines.join("\n")).await?;
    assert_eq!(report["accepted"], good.len(), "{report}");
    for (at, (_, wanted)) in bad.iter().enumerate() {
        let message = report["errors"][at]["message"].as_str().unwrap_or_default();
        assert!(message.contains(wanted), "{message} lacks {wanted}");
    }
    let events = client.events(3).await?;
    let traded: Vec<String> = events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Trade(trade) => Some(format!("{} {}", trade.px.0, trade.qty.0)),
            _ => None,
        })
        .collect();
    assert_eq!(
        traded,
        ["10.50 2", "0.10 0.00000001", "12345678901234.123456789 1"]
    );
    let floats = rmp_serde::to_vec_named(&serde_json::json!([
        {"ch": "trade", "sym": "A", "px": 1.5, "qty": 1},
        {"ch": "trade", "sym": "A", "px": "1.5", "qty": 1},
    ]))?;
    let (status, report) = crate::publish::post(&feed, "application/msgpack", "", &floats).await?;
    assert!(
        status == 200 && report.contains("`px` is a float, which is not exact"),
        "{report}"
    );
    assert_eq!(client.events(1).await?.len(), 1);
    Ok(())
}

/// Peak memory of a process, in bytes.
pub(crate) fn peak_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("missing VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// Two-byte lines and one-byte nils, four bodies at once: each costs its entry, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_invalid_records_stay_within_the_memory_formula() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("feed.yaml");
    let text = "listen: 127.0.0.1:0\nsources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]\nlimits: {publish_events: 10000000}";
    std::fs::write(&file, text)?;
    let served = crate::terminal::serve(&["--config", &file.display().to_string()])?;
    let address: std::net::SocketAddr = served
        .address
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()?;
    let before = peak_bytes(served.id())?;
    let bytes = 1 << 20;
    let lines = b"1\n".repeat(bytes / 2);
    let nils = [&b"\xdd\x00\x0f\xff\xf8"[..], &vec![0xc0; bytes - 8]].concat();
    let post = |kind: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        async move { crate::harness::exchange(address, &request).await }
    };
    let (kind, packed) = ("application/x-ndjson", "application/msgpack");
    let (a, b, c, d) = tokio::try_join!(
        post(kind, &lines),
        post(packed, &nils),
        post(packed, &nils),
        post(packed, &nils)
    )?;
    assert!(
        a.contains(&format!("\"refused\":{}", bytes / 2)),
        "{}",
        &a[..200]
    );
    for response in [b, c, d] {
        assert!(response.starts_with("HTTP/1.1 200"), "{}", &response[..200]);
    }
    let grown = peak_bytes(served.id())?.saturating_sub(before);
    // Four bodies, twice each while they are received, and the reported errors; once it was 7 GiB.
    assert!(
        grown < 100 << 20,
        "{grown} bytes for four bodies of {bytes}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_too_many_records_is_rejected_entirely() -> Result<()> {
    let feed = Feed::start(
        "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]\nlimits: {publish_events: 3}",
    )
    .await?;
    let line = "{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1\",\"qty\":\"1\"}\n";
    for (count, wanted) in [(3, 200), (4, 413)] {
        let (status, report) = crate::publish::post(
            &feed,
            "application/x-ndjson",
            "",
            line.repeat(count).as_bytes(),
        )
        .await?;
        assert_eq!(status, wanted, "{report}");
        assert_eq!(
            report.contains("limits.publish_events"),
            wanted == 413,
            "{report}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_growing_number_of_decimals_is_reported_to_subscribers() -> Result<()> {
    let feed = Feed::start(
        "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A, price_scale: 2, qty_scale: 0}, {symbol: B}]}]",
    )
    .await?;
    for encoding in [Encoding::Json, Encoding::Msgpack] {
        let mut holder = feed.client(encoding).await?;
        holder.subscribe(subscribe(&["trade:A"])).await?;
        let decimals = if encoding == Encoding::Json {
            "001"
        } else {
            "0001"
        };
        let line = |px: &str| format!(r#"{{"ch":"trade","sym":"A","px":"{px}","qty":"0.5"}}"#);
        let report = publish(
            &feed,
            &[line("1.5"), line(&format!("1.{decimals}"))].join("\n"),
        )
        .await?;
        assert_eq!(report["accepted"], 2);
        let change = holder
            .control("instrument", |control| match control {
                tickcast::protocol::Control::Instrument(entry) => Some(entry.clone()),
                _ => None,
            })
            .await?;
        assert_eq!(
            (change.symbol.as_str(), change.price_scale, change.qty_scale),
            ("A", decimals.len() as u32, 1)
        );
        let listed = serde_json::from_str::<Value>(&feed.get("/v1/instruments").await?)?;
        assert_eq!(listed["instruments"][0]["price_scale"], decimals.len());
        assert_eq!(listed["instruments"][1]["price_scale"], 2);
    }
    Ok(())
}

/// 10^24 of price × quantity per trade, the maximum of the rules: the sum of a session holds 79,228
/// of them.
#[tokio::test(flavor = "multi_thread")]
async fn an_overflow_of_the_session_volume_rejects_trades() -> Result<()> {
    let feed =
        Feed::start("sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]")
            .await?;
    let line =
        "{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1000000000000000\",\"qty\":\"1000000000\"}\n";
    let report = publish(&feed, &line.repeat(80_000)).await?;
    assert_eq!(report["accepted"], 80_000);
    feed.until("rejected trades", |feed| {
        feed.metric("tickcast_source_events_dropped_total") >= 772.0
    })
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["ticker:A"])).await?;
    // Drops are counted before the following ticker is in the log.
    let ticker = |event: &DataEvent| match &event.body {
        Body::Ticker(ticker) if ticker.n >= 79_228 => Some((ticker.vwap, ticker.n, ticker.vol.0)),
        _ => None,
    };
    let (vwap, n, vol) = client
        .until("the ticker", |message| match message {
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                snapshot.events.first().and_then(ticker)
            }
            ServerMessage::Events(events) => events.last().and_then(ticker),
            ServerMessage::Control(_) => None,
        })
        .await?;
    assert_eq!((n, vol), (79_228, Decimal::from(79_228_000_000_000_u64)));
    assert_eq!(vwap, Decimal::from(1_000_000_000_000_000_u64));
    Ok(())
}

#[test]
fn hours_and_offsets_out_of_range_are_rejected() {
    let problem = |hours: &str| {
        let text = format!(
            "sources: [{{name: s, kind: sim, instruments: [{{symbol: A, start: 100, hours: {{{hours}}}}}]}}]"
        );
        tickcast::config::Config::parse(&text, "test")
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let day = r#"open: "09:30", close: "16:00""#;
    assert_eq!(problem(&format!("{day}, timezone: America/New_York")), "");
    assert_eq!(
        problem(r#"open: "00:00", close: "24:00", utc_offset: "+14:00""#),
        ""
    );
    for (hours, wanted) in [
        (
            r#"open: "09:30", close: "90099216:00""#.to_owned(),
            "invalid time of day",
        ),
        (
            r#"open: "09:30", close: "24:01""#.to_owned(),
            "invalid time of day",
        ),
        (
            r#"open: "4294967295:59", close: "10:00""#.to_owned(),
            "invalid time of day",
        ),
        (
            format!("{day}, utc_offset: \"+90099216:00\""),
            "invalid UTC offset",
        ),
        (
            format!("{day}, timezone: America/Gotham"),
            "unknown time zone",
        ),
        (
            format!("{day}, timezone: UTC, utc_offset: \"+01:00\""),
            "conflicts with timezone",
        ),
    ] {
        assert!(
            problem(&hours).contains(wanted),
            "{hours}: {}",
            problem(&hours)
        );
    }
}

/// External numbers whose arithmetic would wrap in a release build must fail in the tests.
#[test]
fn tests_run_with_overflow_checks() {
    let add = |a: u8| std::panic::catch_unwind(|| std::hint::black_box(a) + 1);
    assert!(add(255).is_err() && add(254).is_ok());
}
