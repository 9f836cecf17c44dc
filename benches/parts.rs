//! Stages of the hot path in isolation: `cargo bench --bench parts`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rust_decimal::Decimal;
use tickcast::bus::derive::{Derive, Publish};
use tickcast::bus::{Bus, RestoredState, SourceSpec, input_queue};
use tickcast::client::Accounts;
use tickcast::clock::Clock;
use tickcast::codec::{decode_server_message, encode_event, visit_events};
use tickcast::limits::{HistoryLimits, OutboxLimits};
use tickcast::load::scan::{Found, Scanner, Want};
use tickcast::log::{
    Batch, Catalog, DemandSignal, Event, InstrumentId, Log, LogItem, Replica, SourceId, TopicId,
};
use tickcast::market::{
    Aggressor, Body, Instrument, Level, Price, Qty, Quote, SourceKind, Symbol, Trade, TradeId,
    UnixNanos,
};
use tickcast::metrics::Metrics;
use tickcast::outbox::{Counts, LastValueCache, Outbox, SlotId, View};
use tickcast::protocol::{
    Control, Encoding, Entry, Epoch, Mode, OnSlow, Seq, ServerMessage, Settings, Subscribed,
};
use tickcast::replay::{Replay, ReplayConfig, Speed};
use tickcast::session::Join;
use tickcast::shard::ConnectionKey;
use tickcast::shard::registry::{Registry, Subscriber};
use tickcast::shard::turn_events::TurnEvents;
use tickcast::source::{SourceTask, supervise};
use tickcast::topic::{Channel, TopicName, TopicPattern};

const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
const LIMITS: OutboxLimits = OutboxLimits {
    outbox_bytes: 1 << 20,
    control_bytes: 1 << 16,
    frame_bytes: 256 << 10,
    behind_max: Duration::from_secs(10),
};

fn instrument(number: usize) -> Instrument {
    Instrument::new(
        Symbol::new(&format!("SIM{number:04}")).expect("valid symbol"),
        SourceKind::Sim,
    )
}

fn catalog(instruments: usize) -> Arc<Catalog> {
    let mut catalog = Catalog::new(vec!["sim".into()]);
    catalog.add(SourceId(0), (0..instruments).map(instrument).collect());
    Arc::new(catalog)
}

fn quotes_of(catalog: &Catalog) -> Vec<TopicId> {
    catalog
        .matching(&TopicPattern {
            channel: Channel::Quote,
            prefix: "".into(),
        })
        .to_vec()
}

fn quote(seq: u64) -> Body {
    let level = |cents: i64| Level {
        px: Price(Decimal::new(10_000 + cents, 2)),
        qty: Some(Qty(Decimal::from(seq % 50 + 1))),
    };
    Body::Quote(Quote {
        ts: NOW,
        bid: Some(level(0)),
        ask: Some(level(2)),
    })
}

fn trade(seq: u64) -> Trade {
    let (px, qty) = (
        Price(Decimal::new(10_000 + (seq % 7) as i64, 2)),
        Qty(Decimal::from(seq % 50 + 1)),
    );
    Trade {
        ts: UnixNanos(NOW.0 + seq * 1_000_000),
        px,
        qty,
        side: Aggressor::Buy,
        id: TradeId::Number(seq),
    }
}

/// Batch with `each` quotes of each topic, numbered from 1.
fn batch(catalog: &Arc<Catalog>, topics: &[TopicId], each: u64) -> Arc<Batch> {
    let event = |seq, topic| {
        LogItem::Event(Event {
            topic,
            seq: Seq(seq),
            tx: NOW,
            body: quote(seq),
        })
    };
    let items = (1..=each).flat_map(|seq| topics.iter().map(move |topic| event(seq, *topic)));
    Arc::new(Batch::new(items.collect(), Arc::clone(catalog)))
}

fn encoding(criterion: &mut Criterion) {
    let catalog = catalog(1);
    let head = &catalog.topic(quotes_of(&catalog)[0]).head;
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for encoding in Encoding::ALL {
        let mut out = Vec::new();
        group.bench_function(encoding.name(), |bencher| {
            bencher.iter(|| {
                out.clear();
                let seq = Seq(black_box(123_456));
                encode_event(&mut out, encoding, head, seq, NOW, &quote(7));
            });
        });
    }
    group.finish();
}

/// Message of `events` quotes, and the same in a server frame.
fn message(events: u64) -> (Vec<u8>, Vec<u8>) {
    let catalog = catalog(1);
    let batch = batch(&catalog, &quotes_of(&catalog), events);
    let encoded = batch.encode(Encoding::Msgpack).0;
    let mut payload = Vec::new();
    rmp::encode::write_array_len(&mut payload, events as u32)
        .expect("writing to a Vec cannot fail");
    (0..batch.items.len()).for_each(|at| payload.extend_from_slice(encoded.item(at)));
    let mut frame = vec![0x82, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&payload);
    (payload, frame)
}

/// Accounts of a client that holds one topic.
fn accounts(topic: &str) -> Accounts {
    let settings = Settings {
        mode: Mode::Raw,
        on_slow: OnSlow::Conflate,
    };
    let entry = Entry {
        epoch: Some("1".to_owned()),
        seq: Some(Seq::START),
        ..Entry::new(topic.to_owned(), settings)
    };
    let subscribed = Control::Subscribed(Subscribed {
        id: None,
        ok: vec![entry],
        err: Vec::new(),
        count: 1,
        max_message: None,
        more: false,
    });
    let mut accounts = Accounts::default();
    accounts
        .take(&ServerMessage::Control(subscribed))
        .expect("valid first response");
    accounts
}

fn receiving(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("receive");
    let (payload, frame) = message(20);
    group.throughput(Throughput::Elements(20));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| decode_server_message(black_box(&payload), Encoding::Msgpack));
    });
    group.bench_function("visit", |bencher| {
        bencher.iter(|| {
            let mut last = Seq::START;
            let visited = visit_events(black_box(&payload), Encoding::Msgpack, |event| {
                last = event.seq;
            });
            (visited.is_ok(), last)
        });
    });
    group.bench_function("visit_and_account", |bencher| {
        let mut accounts = accounts("quote:SIM0000");
        bencher.iter(|| {
            // Each message begins with the same sequence number.
            accounts.resume("quote:SIM0000", Seq::START);
            let visited = visit_events(black_box(&payload), Encoding::Msgpack, |event| {
                accounts.take_event(&event).expect("consecutive event");
            });
            visited.is_ok()
        });
    });
    let frames = frame.repeat(140);
    group.throughput(Throughput::Elements(20 * 140));
    let mut scanner = Scanner::default();
    group.bench_function("count", |bencher| {
        bencher.iter(|| {
            let mut events = 0;
            let fed = scanner.feed(black_box(&frames), Want::Count, &mut |found| {
                if let Found::Counted(count) = found {
                    events += count;
                }
            });
            (fed.is_ok(), events)
        });
    });
    group.finish();
}

#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
fn outbox(criterion: &mut Criterion) {
    let catalog = catalog(10);
    let topics = quotes_of(&catalog);
    let mut replica = Replica::new(
        Epoch {
            origin: 1,
            generation: 0,
        },
        HistoryLimits {
            events: 100,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        },
    );
    replica.apply(
        &LogItem::Topics {
            new: 0..catalog.len() as u32,
            instruments: Vec::new(),
            restored: Vec::new(),
        },
        &catalog,
    );
    let batch = batch(&catalog, &topics, 20);
    let (mut last_values, mut counts, mut timers) =
        (LastValueCache::default(), Counts::default(), Vec::new());
    let settings = Settings {
        mode: Mode::Raw,
        on_slow: OnSlow::Conflate,
    };
    let fresh_outbox =
        |last_values: &mut LastValueCache, counts: &mut Counts, timers: &mut Vec<_>| {
            let mut outbox = Outbox::new(Encoding::Msgpack, LIMITS.frame_bytes);
            let mut view = View {
                replica: &replica,
                last_values,
                limits: &LIMITS,
                counts,
                now: NOW,
                timers,
            };
            for topic in &topics {
                outbox.subscribe(*topic, settings, Join::Live, &mut view);
            }
            outbox
        };
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(200));
    let mut turn_events = TurnEvents::default();
    for (at, item) in batch.items.iter().enumerate() {
        if let LogItem::Event(event) = item {
            turn_events.push(&batch, at, event);
        }
    }
    group.bench_function("admit_and_seal_200_of_10_topics", |bencher| {
        bencher.iter_batched_ref(
            || {
                fresh_outbox(
                    &mut LastValueCache::default(),
                    &mut Counts::default(),
                    &mut Vec::new(),
                )
            },
            |outbox| {
                for slot in 0..10 {
                    let run = turn_events.run(slot, Encoding::Msgpack);
                    outbox.admit(SlotId(slot), &run, NOW, &LIMITS, &mut counts, &mut timers);
                }
                outbox.frames.seal();
            },
            BatchSize::SmallInput,
        );
    });
    drop(fresh_outbox(&mut last_values, &mut counts, &mut timers));
    group.finish();
}

fn routing(criterion: &mut Criterion) {
    let catalog = catalog(100);
    let topics = quotes_of(&catalog);
    let mut registry = Registry::default();
    for connection in 0..1000u32 {
        for slot in 0..10 {
            let topic = topics[((connection * 7 + slot * 10) % 100) as usize];
            registry.add(
                topic,
                Subscriber {
                    connection: ConnectionKey(connection),
                    slot: SlotId(slot),
                },
            );
        }
    }
    let batch = batch(&catalog, &topics, 20);
    let (mut turn_events, mut order) = (TurnEvents::default(), Vec::new());
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(2_000 * 100));
    group.bench_function("2000_events_of_100_topics_to_1000_connections", |bencher| {
        bencher.iter(|| {
            for (at, item) in batch.items.iter().enumerate() {
                if let LogItem::Event(event) = item {
                    turn_events.push(&batch, at, event);
                }
            }
            turn_events.assign(&registry, &mut order, |len| len / 3);
            let assigned = order.drain(..).map(|key| {
                let first = turn_events.take_first(key);
                std::iter::successors(first, |assigned| turn_events.after(*assigned)).count()
            });
            let assigned: usize = assigned.sum();
            turn_events.clear();
            assigned
        });
    });
    group.finish();
}

fn patterns(criterion: &mut Criterion) {
    let catalog = catalog(10_000);
    let pattern = |text: &str| match TopicName::parse(text) {
        Ok(TopicName::Pattern(pattern)) => pattern,
        _ => unreachable!("the text is a pattern"),
    };
    let (all, some) = (pattern("quote:*"), pattern("bar:SIM12*:1m"));
    let mut group = criterion.benchmark_group("patterns");
    group.bench_function("search_10000_for_100", |bencher| {
        bencher.iter(|| catalog.matching(black_box(&some)).len());
    });
    let topic = &catalog.topic(quotes_of(&catalog)[77]).topic;
    group.bench_function("match_one", |bencher| {
        bencher.iter(|| black_box(&all).matches(black_box(topic)));
    });
    group.finish();
}

struct Counted(u64);

impl Publish for Counted {
    fn publish(&mut self, _: TopicId, body: Body) {
        self.0 += u64::from(matches!(body, Body::Bar(_)));
    }
}

fn bars(criterion: &mut Criterion) {
    let catalog = catalog(1);
    let trades: Vec<Trade> = (0..10_000).map(trade).collect();
    let mut group = criterion.benchmark_group("bars");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("ticker_and_5_intervals_of_10000_trades", |bencher| {
        bencher.iter(|| {
            let (mut derive, mut out) = (Derive::new(1), Counted(0));
            derive.add(
                InstrumentId(0),
                catalog.instrument(InstrumentId(0)),
                Duration::from_secs(5),
            );
            for (at, trade) in trades.iter().enumerate() {
                derive
                    .on_trade(0, InstrumentId(0), trade, &mut out)
                    .expect("the session volume does not overflow");
                if at.is_multiple_of(100) {
                    derive.on_mark(0, trade.ts, &mut out);
                }
            }
            out.0
        });
    });
    group.finish();
}

/// Replays a file through the bus at full speed; returns the published trades.
fn replay(file: &std::path::Path, runtime: &tokio::runtime::Runtime) -> u64 {
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let log = Log::new(1 << 20, 0);
    let (emitter, queue) = input_queue(16 << 20, clock);
    let spec = SourceSpec {
        name: "tape".into(),
        stale_after: Duration::from_secs(3600),
        is_present: true,
        config: bytes::Bytes::new(),
    };
    let bus = Bus::new(
        clock,
        Arc::clone(&log),
        Arc::clone(&metrics),
        vec![spec],
        Epoch {
            origin: 1,
            generation: 0,
        },
        RestoredState::default(),
    );
    let published = std::thread::spawn(move || bus.run(queue));
    let demand = Arc::new(DemandSignal::default());
    demand.raise();
    let config = ReplayConfig {
        speed: Speed::Max,
        max_bad: 0,
        ..ReplayConfig::of(vec![file.to_owned()])
    };
    let task = SourceTask {
        name: "tape".into(),
        clock,
        metrics: Arc::clone(&metrics),
        emitter,
        demand,
        stale_after: Duration::from_secs(3600),
        status: Arc::default(),
        stop: tokio::sync::watch::channel(false).1,
        screen: None,
        faults: Vec::new(),
        seed: 1,
        emits_positions: false,
    };
    runtime.block_on(supervise(task, Box::new(Replay::new(config, None))));
    published.join().expect("the bus ends after its sources");
    metrics.published[Channel::Trade.index()].get()
}

fn csv(criterion: &mut Criterion) {
    const ROWS: u64 = 100_000;
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("AUSDT-trades-2024-08-08.csv");
    let row = |id: u64| {
        format!(
            "{id},55000.{:02},0.00{},1,{},{},True\n",
            id % 100,
            id % 9 + 1,
            1_723_075_200_000 + id,
            id.is_multiple_of(3)
        )
    };
    std::fs::write(&file, (0..ROWS).map(row).collect::<String>()).expect("writable file");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("tokio runtime");
    assert_eq!(replay(&file, &runtime), ROWS, "every row is published");
    let mut group = criterion.benchmark_group("csv");
    group.throughput(Throughput::Elements(ROWS)).sample_size(10);
    group.bench_function("read_and_publish_100000_trades", |bencher| {
        bencher.iter(|| replay(&file, &runtime));
    });
    group.finish();
}

criterion_group!(
    benches, encoding, receiving, outbox, routing, patterns, bars, csv
);
criterion_main!(benches);
