//! Recorded files: CSV forms, compression and archives, through the reader of replays.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rust_decimal::Decimal;
use tickcast::market::{UnixNanos, VALUE_MAX};
use tickcast::replay::{Columns, ReadRecording, Recorded, ReplayConfig};

use super::{Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "recording",
    check,
    work,
    // A file is read in chunks, so the memory does not depend on its length: the windows of the
    // decompressors, the chunks on their way, and the rows that wait for their order.
    memory: Memory {
        per_byte: 0,
        constant: 24 << 20,
    },
    // A small file unpacks to a long text.
    millis: 2000,
    bytes_max: 1 << 20,
    words: &[
        b",",
        b";",
        b"\t",
        b"\"",
        b"\"\"",
        b"\r\n",
        b"\r",
        b"true",
        b"False",
        b"id,price,qty,quote_qty,time,is_buyer_maker\n",
        b"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n",
        b"1723161255342",
        b"2500-01-01T00:00:00Z",
        b"18446744073.999999999",
        b"1e400",
        b"-0",
        b"NaN",
        b"\xef\xbb\xbf",
        b"\x1f\x8b\x08\x00",
        b"\x28\xb5\x2f\xfd",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1b[2J",
    ],
};

/// Names of the file: the symbol and the kind of data can be part of it. The first byte of an
/// input selects one.
const NAMES: [&str; 4] = [
    "BTCUSDT-trades-2024-08-08.csv",
    "BTCUSD_PERP-bookTicker-2024-08-08.csv",
    "trades.csv",
    "mapped.csv",
];

/// Clock of the server while it reads.
const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

/// Start of the names of the folders in which inputs are files; the process that reads them follows.
const FOLDER: &str = "tickcast-fuzz-";

/// Place for folders: memory, if the system has it.
static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    remove_abandoned(&place);
    place
});

/// Removes the folders of processes that were killed.
fn remove_abandoned(place: &Path) {
    let process_of = |name: &str| name.strip_prefix(FOLDER)?.split('-').next()?.parse().ok();
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let process: Option<u32> = entry.file_name().to_str().and_then(process_of);
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Another process may remove it, too.
            let _removed = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Folder with an input, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let folder = PLACE.join(format!("{FOLDER}{process}-{thread:?}"));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder is writable");
    }
}

/// Every row is an event or is skipped for a reason, every event is within the bounds of its
/// values, and the same text gives the same events in every wrapper.
pub(crate) fn check(bytes: &[u8]) {
    let Some((name, content)) = parts(bytes) else {
        return;
    };
    let Some((account, events)) = collected(name, content) else {
        return;
    };
    assert_eq!(
        events.len() as u64 + account.skipped,
        account.lines,
        "{account:?}"
    );
    events.iter().for_each(assert_in_bounds);
    if is_text(content) {
        for packed in [gzip(content), zstd(content), zip(name, content)] {
            let same = collected(name, &packed)
                .is_some_and(|other| other.1 == events && other.0 == account);
            assert!(same, "{account:?} {events:?}");
        }
    }
}

fn collected(name: &str, content: &[u8]) -> Option<(ReadRecording, Vec<Recorded>)> {
    let mut events = Vec::new();
    let account = read(name, content, &mut |event| events.push(event))?;
    Some((account, events))
}

fn assert_in_bounds(event: &Recorded) {
    match event {
        Recorded::Trade(trade) => {
            let (px, qty) = (trade.px.0, trade.qty.0);
            assert!(px > Decimal::ZERO && px <= VALUE_MAX, "{trade:?}");
            assert!(qty > Decimal::ZERO && qty <= VALUE_MAX, "{trade:?}");
            assert!(trade.ts < UnixNanos::END, "{trade:?}");
        }
        Recorded::Quote(quote) => {
            for level in [quote.bid, quote.ask].iter().flatten() {
                assert!(
                    level.px.0 > Decimal::ZERO && level.px.0 <= VALUE_MAX,
                    "{quote:?}"
                );
            }
            assert!(quote.ts < UnixNanos::END, "{quote:?}");
        }
    }
}

pub(crate) fn work(bytes: &[u8]) {
    if let Some((name, content)) = parts(bytes) {
        let _account = read(name, content, &mut |event| {
            drop(std::hint::black_box(event));
        });
    }
}

fn parts(bytes: &[u8]) -> Option<(&'static str, &[u8])> {
    let (first, content) = bytes.split_first()?;
    Some((NAMES[usize::from(*first) % NAMES.len()], content))
}

/// True if no wrapper is recognized, so that the content is text itself.
fn is_text(content: &[u8]) -> bool {
    !content.is_empty()
        && ![&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"PK"]
            .iter()
            .any(|magic| content.starts_with(magic))
}

fn read(name: &str, content: &[u8], on_event: &mut dyn FnMut(Recorded)) -> Option<ReadRecording> {
    let folder = Folder::new();
    let path = folder.0.join(name);
    std::fs::write(&path, content).expect("the folder is writable");
    let mut config = ReplayConfig::of(vec![path]);
    config.max_bad = u64::MAX;
    if name == "mapped.csv" {
        config.columns = Some(Columns {
            time: "t".to_owned(),
            symbol: Some("s".to_owned()),
            price: Some("p".to_owned()),
            qty: Some("q".to_owned()),
            bid: Some("b".to_owned()),
            ask: Some("a".to_owned()),
            ..Columns::default()
        });
    }
    match config.read_recordings(NOW, on_event) {
        Ok(read) => {
            for text in read.fault.iter().chain(&read.reasons) {
                assert_printable(text);
            }
            Some(read)
        }
        Err(error) => {
            assert_printable(&error.to_string());
            None
        }
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("a Vec takes all");
    encoder.finish().expect("a Vec takes all")
}

fn zstd(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).expect("a Vec takes all")
}

fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    archive.start_file(name, options).expect("a Vec takes all");
    archive.write_all(content).expect("a Vec takes all");
    archive.finish().expect("a Vec takes all").into_inner()
}
