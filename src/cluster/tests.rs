//! A reader of records alone rebuilds the log of the server that wrote them.

mod checkpoints;
mod forgetful_log;
mod origins;
mod takeover;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;

use super::items::{Packer, Unpacker};
use super::record::{Author, Kind, Position, Record};
use crate::bus::{Bus, Emit, MissedData, MissedKind, RestoredState, SourceSpec, input_queue};
use crate::clock::Clock;
use crate::log::{Batch, Catalog, Log, LogItem, Next, SourceId};
use crate::market::{
    Aggressor, Instrument, Level, Price, Qty, Quote, SourceKind, Symbol, Trade, TradeId, UnixNanos,
};
use crate::metrics::Metrics;
use crate::protocol::{Epoch, SourceState};
use crate::topic::TopicName;

const START: u64 = 1_767_225_600_000_000_000;

fn instruments(symbols: &[&str]) -> Emit {
    let one = |symbol: &&str| {
        Instrument::new(Symbol::new(symbol).expect("valid symbol"), SourceKind::Sim)
    };
    Emit::Instruments(symbols.iter().map(one).collect())
}

fn trade(local: u32, second: u64, px: &str) -> Emit {
    Emit::Trade(
        local,
        Trade {
            ts: UnixNanos(START + second * 1_000_000_000),
            px: Price(px.parse().expect("decimal")),
            qty: Qty(Decimal::ONE),
            side: Aggressor::Sell,
            id: TradeId::Text("t-1".into()),
        },
    )
}

fn quote(local: u32, second: u64) -> Emit {
    let level = |px: i64| {
        let (px, qty) = (Price(Decimal::new(px, 2)), Some(Qty(Decimal::TEN)));
        Some(Level { px, qty })
    };
    Emit::Quote(
        local,
        Quote {
            ts: UnixNanos(START + second * 1_000_000_000),
            bid: level(10_000),
            ask: level(10_001),
        },
    )
}

fn begin(name: &str) -> Emit {
    Emit::Begin(SourceSpec {
        name: name.into(),
        stale_after: Duration::from_secs(5),
        is_present: false,
        config: bytes::Bytes::new(),
    })
}

fn mark(second: u64) -> Emit {
    Emit::Watermark(UnixNanos(START + second * 1_000_000_000))
}

/// Every kind of item: announcements, growing scales, gaps, moved, removed and returned
/// instruments, new epochs, and states of sources.
fn eventful_day() -> Vec<(u16, Vec<Emit>)> {
    let missed = MissedData {
        kind: MissedKind::Trades,
        count: Some(3),
    };
    let moved: HashSet<Symbol> = [Symbol::new("C").expect("valid symbol")].into();
    vec![
        (0, vec![begin("first")]),
        (1, vec![begin("second")]),
        (
            0,
            vec![
                instruments(&["B", "A", "C"]),
                Emit::State(SourceState::Live),
            ],
        ),
        (1, vec![instruments(&["D"]), quote(0, 1)]),
        (
            0,
            vec![trade(0, 1, "10.00"), quote(1, 1), mark(1), trade(2, 2, "5")],
        ),
        (
            0,
            vec![Emit::Missed(0, missed), trade(0, 62, "10.12345"), mark(125)],
        ),
        // The config moves C to the second source, and drops A.
        (
            0,
            vec![
                Emit::Expect(Arc::new(moved)),
                begin("first"),
                instruments(&["B"]),
            ],
        ),
        (
            1,
            vec![
                begin("second"),
                instruments(&["D", "C"]),
                trade(1, 130, "6"),
                mark(131),
            ],
        ),
        (1, vec![Emit::Failed("broken file".into())]),
        // A returns.
        (
            0,
            vec![
                begin("first"),
                instruments(&["A", "B", "E"]),
                trade(0, 140, "7"),
                mark(141),
            ],
        ),
        (1, vec![Emit::Retire]),
    ]
}

/// Batches that a bus publishes for these inputs, one input after the other.
async fn published(inputs: Vec<(u16, Vec<Emit>)>) -> Vec<Arc<Batch>> {
    let clock = Clock::start();
    let log = Log::new(1 << 30, 0);
    let (emitter, mut queue) = input_queue(1 << 30, clock);
    let epoch = Epoch {
        origin: 7,
        generation: 0,
    };
    let metrics = Arc::new(Metrics::new());
    let specs = Vec::new();
    let log_of_bus = Arc::clone(&log);
    let mut bus = Bus::new(
        clock,
        log_of_bus,
        metrics,
        specs,
        epoch,
        RestoredState::default(),
    );
    for (source, mut emitted) in inputs {
        assert!(emitter.of(SourceId(source)).emit(&mut emitted).await);
        while bus.step(&mut queue) {}
    }
    let batch = |number| match log.read(number) {
        Next::Batch(batch) => batch,
        Next::Empty | Next::Overrun => unreachable!("the log keeps everything"),
    };
    (0..log.head()).map(batch).collect()
}

fn listing(catalog: &Catalog) -> String {
    let instruments: Vec<_> = catalog.instruments().collect();
    let topics: Vec<_> = ["trade:*", "quote:*", "bar:*:1m", "status:*"]
        .iter()
        .map(|pattern| match pattern.parse_name() {
            TopicName::Pattern(pattern) => catalog.matching(&pattern).to_vec(),
            TopicName::Topic(_) => Vec::new(),
        })
        .collect();
    format!("{instruments:?} {topics:?} {:?}", catalog.sources())
}

trait ParseName {
    fn parse_name(&self) -> TopicName;
}

impl ParseName for &str {
    fn parse_name(&self) -> TopicName {
        TopicName::parse(self).expect("valid pattern")
    }
}

#[tokio::test]
async fn records_alone_rebuild_the_log() {
    let batches = published(eventful_day()).await;
    let kinds: HashSet<String> = batches
        .iter()
        .flat_map(|batch| &batch.items)
        .map(|item| {
            format!("{item:?}")
                .chars()
                .take_while(char::is_ascii_alphabetic)
                .collect()
        })
        .collect();
    assert_eq!(kinds.len(), 9, "the day has every kind of item: {kinds:?}");
    let mut packer = Packer::new(0);
    let mut unpacker = Unpacker::default();
    for batch in &batches {
        let mut items = Vec::new();
        for body in packer.pack(batch) {
            items.extend(unpacker.unpack(&body).expect("a body of this server"));
        }
        assert_eq!(format!("{items:?}"), format!("{:?}", batch.items));
        assert_eq!(listing(unpacker.catalog()), listing(&batch.catalog));
    }
    assert_eq!(unpacker.skipped, 0);
}

/// Checks the chain of the records of a day; returns their events by topic, and the final listing.
fn read_day(records: &[Bytes]) -> (BTreeMap<u32, u64>, String) {
    let (mut position, mut unpacker) = (Position::default(), Unpacker::default());
    let mut events = BTreeMap::new();
    for bytes in records {
        let record = Record::read(bytes).expect("a record of this form");
        assert_eq!(position.check(&record), Ok(()));
        position = Position::behind(&record);
        let items = unpacker.unpack(&record.body).expect("a known body");
        for item in items {
            if let LogItem::Event(event) = item {
                *events.entry(event.topic.0).or_default() += 1;
            }
        }
    }
    assert_eq!(unpacker.skipped, 0, "items of a form that is not known");
    (events, listing(unpacker.catalog()))
}

/// Records of the golden file: each behind its length, little-endian in four bytes.
fn golden_records() -> Vec<Bytes> {
    let mut rest = &include_bytes!("tests/golden.tcl")[..];
    let mut records = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (record, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        records.push(Bytes::copy_from_slice(record));
        rest = behind;
    }
    records
}

#[tokio::test]
async fn the_form_of_the_log_is_stable() {
    let author = Author { term: 1, node: 2 };
    let (mut packer, mut position) = (Packer::new(0), Position::default());
    let mut records = Vec::new();
    for batch in published(eventful_day()).await {
        for body in packer.pack(&batch) {
            let (record, behind) = author.write(Kind::Items, position, &body);
            position = behind;
            records.push(record);
        }
    }
    if std::env::var("TICKCAST_GOLDEN").is_ok_and(|mode| mode == "write") {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/tests/golden.tcl");
        let framed = |record: &Bytes| {
            let length = u32::try_from(record.len()).expect("a short record");
            [&length.to_le_bytes(), &record[..]].concat()
        };
        let bytes: Vec<u8> = records.iter().flat_map(framed).collect();
        std::fs::write(file, bytes).expect("room");
    }
    // Only the times of publication differ.
    assert_eq!(read_day(&golden_records()), read_day(&records));
}

#[tokio::test]
async fn bodies_of_another_log_are_refused() {
    let batches = published(eventful_day()).await;
    let mut packer = Packer::new(0);
    let bodies: Vec<_> = batches
        .iter()
        .flat_map(|batch| packer.pack(batch))
        .collect();
    for body in bodies.iter().skip(2) {
        let unpacked = Unpacker::default().unpack(body);
        assert!(unpacked.is_err(), "the body refers to unknown topics");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _refused = Unpacker::default().unpack(&body);
    }
}
