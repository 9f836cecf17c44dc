//! A publisher that stands by derives what the leader derives, and goes on at any item of the log
//! as if the leader had gone on.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::IntCounter;

use super::super::items::{Packer, Unpacker};
use super::{START, begin, eventful_day, instruments, mark, quote, trade};
use crate::bus::derive::SessionSoFar;
use crate::bus::{
    Bus, Emit, Emitter, InputQueue, Leading, RestoredState, SourceTail, WriterState, input_queue,
};
use crate::clock::Clock;
use crate::log::{Batch, Catalog, InstrumentId, Log, LogItem, Next, Pace, SourceId, SourceInput};
use crate::market::{Bar, Body, Interval, Price, Qty, TradingState, UnixNanos};
use crate::metrics::Metrics;
use crate::protocol::{Epoch, Seq, SourceState};

const SOURCE: SourceId = SourceId(0);

/// Publisher whose bus runs when it is told to.
pub(super) struct Publisher {
    bus: Bus,
    queue: InputQueue,
    emitter: Emitter,
    pub(super) log: Arc<Log>,
    mismatches: IntCounter,
}

impl Publisher {
    fn new() -> Self {
        let clock = Clock::start();
        let (emitter, queue) = input_queue(1 << 30, clock);
        let log = Log::new(1 << 30, 0);
        let mismatches = IntCounter::new("mismatches", "Mismatches.").expect("valid name");
        let bus = Bus::new(
            clock,
            Arc::clone(&log),
            Arc::new(Metrics::new()),
            Vec::new(),
            Epoch {
                origin: 7,
                generation: 0,
            },
            RestoredState::default(),
        )
        .stand_by(mismatches.clone());
        Self {
            bus,
            queue,
            emitter,
            log,
            mismatches,
        }
    }

    async fn lead(&mut self) -> Leading {
        let pace = Arc::new(Pace::new(1 << 30, 1 << 20));
        let emitter = self.emitter.clone();
        let steps = async { while self.bus.step(&mut self.queue) {} };
        let (leading, ()) = tokio::join!(emitter.lead(pace), steps);
        leading.expect("the bus runs")
    }

    pub(super) async fn begin_origin(&mut self, origin: u64) -> WriterState {
        let emitter = self.emitter.clone();
        let steps = async { while self.bus.step(&mut self.queue) {} };
        let (begun, ()) = tokio::join!(emitter.begin_origin(origin), steps);
        begun.expect("the bus runs")
    }

    async fn emit(&mut self, source: SourceId, mut emitted: Vec<Emit>) {
        assert!(self.emitter.of(source).emit(&mut emitted).await);
        while self.bus.step(&mut self.queue) {}
    }

    async fn follow(&mut self, items: Vec<LogItem>, catalog: Arc<Catalog>) {
        let emitter = self.emitter.clone();
        let steps = async { while self.bus.step(&mut self.queue) {} };
        let (is_continuous, ()) = tokio::join!(emitter.follow(items, catalog), steps);
        assert_eq!(is_continuous, Some(true));
    }

    fn batches(&self) -> Vec<Arc<Batch>> {
        let batch = |number| match self.log.read(number) {
            Next::Batch(batch) => batch,
            Next::Empty | Next::Overrun => unreachable!("the log keeps everything"),
        };
        (0..self.log.head()).map(batch).collect()
    }

    /// Events of each topic, with their epochs and sequence numbers.
    fn events(&self) -> BTreeMap<String, Vec<(u32, Seq, Body)>> {
        let mut generations = BTreeMap::new();
        let mut events: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for batch in self.batches() {
            for item in &batch.items {
                match item {
                    LogItem::Epoch { topic, epoch } => {
                        generations.insert(topic.0, epoch.generation);
                    }
                    LogItem::Event(event) => {
                        let generation = generations.get(&event.topic.0).copied();
                        let name = batch.catalog.topic(event.topic).text.to_string();
                        let of_topic = events.entry(name).or_default();
                        of_topic.push((
                            generation.unwrap_or_default(),
                            event.seq,
                            event.body.clone(),
                        ));
                    }
                    _ => {}
                }
            }
        }
        events
    }
}

/// Bodies of the records that a leader writes for these inputs.
pub(super) async fn led(inputs: Vec<(u16, Vec<Emit>)>) -> (Publisher, Vec<bytes::Bytes>) {
    let mut leader = Publisher::new();
    leader.lead().await;
    for (source, emitted) in inputs {
        leader.emit(SourceId(source), emitted).await;
    }
    let mut packer = Packer::new(0);
    let batches = leader.batches();
    let bodies = batches.iter().flat_map(|batch| packer.pack(batch));
    let bodies = bodies.collect();
    (leader, bodies)
}

fn bar(minute: u64, done: bool) -> Bar {
    let start = UnixNanos(START + minute * 60_000_000_000);
    let mut bar = Bar::first(start, start, Price(9.into()), Qty(2.into()));
    bar.done = done;
    bar
}

/// Output of a source behind its beginning, with everything from which events are derived. Each
/// position is the number of the value behind it.
fn output() -> Vec<Emit> {
    let mut all = vec![
        instruments(&["A", "B"]),
        Emit::History(
            0,
            Interval::M1,
            vec![bar(0, true), bar(1, true), bar(2, false)],
        ),
        Emit::Session(
            0,
            SessionSoFar {
                bar: bar(0, false),
                notional: 18.into(),
            },
        ),
    ];
    let halt = |local, second: u64, state| {
        Emit::Trading(local, state, UnixNanos(START + second * 1_000_000_000))
    };
    for round in 0..3 {
        let at = 130 + 40 * round;
        let position = Emit::Position(vec![all.len() as u8 + 1].into());
        all.extend([
            position,
            mark(at),
            trade(0, at, "10.00"),
            trade(1, at + 1, "5"),
            quote(0, at + 1),
            mark(at + 2),
            trade(0, at + 2, "10.5"),
            halt(1, at + 3, TradingState::Halted),
            mark(at + 9),
            trade(1, at + 10, "6"),
            trade(0, at + 20, "10.123"),
            quote(1, at + 20),
            quote(1, at + 21),
            mark(at + 30),
            halt(0, at + 31, TradingState::Closed),
        ]);
        if round == 1 {
            all.push(Emit::StartOver);
        }
    }
    all
}

#[tokio::test]
async fn a_standby_derives_what_the_leader_derived() {
    for inputs in [eventful_day(), parts(output())] {
        let (leader, bodies) = led(inputs).await;
        let mut standby = Publisher::new();
        let mut unpacker = Unpacker::default();
        for body in bodies {
            let items = unpacker.unpack(&body).expect("a body of this server");
            standby.follow(items, Arc::clone(unpacker.catalog())).await;
        }
        let followed = standby.events();
        assert_eq!(followed, leader.events());
        let first = standby.log.head();
        assert_eq!(standby.lead().await.first, first);
        assert_eq!(standby.log.head(), first, "every derived event was logged");
        assert_eq!(standby.mismatches.get(), 0);
    }
}

/// The beginning of a source, and its output in parts of three values.
fn parts(output: Vec<Emit>) -> Vec<(u16, Vec<Emit>)> {
    let parts = output.chunks(3).map(|part| (SOURCE.0, part.to_vec()));
    std::iter::once((SOURCE.0, vec![begin("first")]))
        .chain(parts)
        .collect()
}

#[tokio::test]
async fn a_difference_from_the_leader_is_counted() {
    let (_, bodies) = led(parts(output())).await;
    let mut standby = Publisher::new();
    let mut unpacker = Unpacker::default();
    for body in bodies {
        let mut items = unpacker.unpack(&body).expect("a body of this server");
        for item in &mut items {
            if let LogItem::Event(event) = item
                && let Body::Ticker(ticker) = &mut event.body
            {
                ticker.vol = Qty(1_000.into());
            }
        }
        standby.follow(items, Arc::clone(unpacker.catalog())).await;
    }
    assert!(standby.mismatches.get() > 0);
}

/// A standby that has followed `count` items of the log in all.
async fn followed(bodies: &[bytes::Bytes], count: usize) -> Option<Publisher> {
    let mut standby = Publisher::new();
    let mut unpacker = Unpacker::default();
    let mut left = count;
    for body in bodies {
        let mut items = unpacker.unpack(body).expect("a body of this server");
        if left < items.len() {
            // A record is cut only where its catalog stays the same.
            let changes =
                |item: &LogItem| matches!(item, LogItem::Topics { .. } | LogItem::Instruments(_));
            if items.iter().any(changes) {
                return None;
            }
            items.truncate(left);
        }
        left -= items.len();
        standby.follow(items, Arc::clone(unpacker.catalog())).await;
        if left == 0 {
            break;
        }
    }
    Some(standby)
}

#[tokio::test]
async fn a_standby_goes_on_at_any_item_as_if_the_leader_had_gone_on() {
    let output = output();
    let (leader, bodies) = led(parts(output.clone())).await;
    let expected = leader.events();
    let items: usize = leader.batches().iter().map(|batch| batch.items.len()).sum();
    let mut takeovers = 0;
    for count in 1..=items {
        let Some(mut standby) = followed(&bodies, count).await else {
            continue;
        };
        let tails = standby.lead().await.tails;
        let Some(SourceTail {
            position: Some(position),
            ..
        }) = tails.first()
        else {
            continue;
        };
        takeovers += 1;
        let Emit::Begin(spec) = begin("first") else {
            unreachable!()
        };
        let at = usize::from(position[0]);
        let again = vec![Emit::GoOn(spec), instruments(&["A", "B"])];
        standby.emit(SOURCE, again).await;
        for part in output[at..].chunks(2) {
            standby.emit(SOURCE, part.to_vec()).await;
        }
        let events = standby.events();
        for (topic, expected) in &expected {
            assert_eq!(&events[topic], expected, "{topic}, cut behind item {count}");
        }
        assert_eq!(standby.mismatches.get(), 0);
    }
    assert!(takeovers > 60, "{takeovers} of {items}");
}

#[tokio::test]
async fn a_source_that_emits_other_events_than_those_of_the_log_begins_new_epochs() {
    let output = output();
    let (_, bodies) = led(parts(output)).await;
    let mut standby = followed(&bodies, usize::MAX).await.expect("the whole log");
    standby.lead().await;
    let Emit::Begin(spec) = begin("first") else {
        unreachable!()
    };
    let last = |publisher: &Publisher| {
        let events = publisher.events();
        let (generation, seq, _) = events["trade:A"].last().expect("trades").clone();
        (generation, seq)
    };
    let before = last(&standby);
    let others = (0..20).map(|second| trade(0, 300 + second, "11"));
    let mut emitted = vec![Emit::GoOn(spec), instruments(&["A", "B"])];
    emitted.extend(others);
    emitted.push(Emit::State(SourceState::Live));
    standby.emit(SOURCE, emitted).await;
    let (generation, seq) = last(&standby);
    assert_eq!(generation, before.0 + 1, "{before:?}");
    assert!(
        seq > Seq(1) && seq < Seq(20),
        "the first of them were compared"
    );
}

#[tokio::test]
async fn a_record_that_announces_too_many_bars_takes_no_memory() {
    let (_, bodies) = led(parts(output())).await;
    let mut standby = followed(&bodies, usize::MAX).await.expect("the whole log");
    let mut unpacker = Unpacker::default();
    for body in &bodies {
        unpacker.unpack(body).expect("a body of this server");
    }
    let catalog = Arc::clone(unpacker.catalog());
    let input = SourceInput::History(InstrumentId(0), Interval::M1, u32::MAX, None);
    let item = LogItem::Input {
        source: SOURCE,
        input,
    };
    standby.follow(vec![item], catalog).await;
    assert_eq!(standby.mismatches.get(), 1);
}

#[tokio::test]
async fn a_source_without_a_position_goes_on_with_other_events() {
    let pushed = |seconds: std::ops::Range<u64>| seconds.map(|second| trade(0, second, "9"));
    let mut output = vec![instruments(&["A"])];
    output.extend(pushed(130..134));
    let (_, bodies) = led(parts(output)).await;
    let mut standby = followed(&bodies, usize::MAX).await.expect("the whole log");
    assert_eq!(standby.lead().await.tails[0].position, None);
    let Emit::Begin(spec) = begin("first") else {
        unreachable!()
    };
    let mut emitted = vec![Emit::GoOn(spec), instruments(&["A"])];
    emitted.extend(pushed(140..143));
    standby.emit(SOURCE, emitted).await;
    let trades: Vec<(u32, Seq)> = standby.events()["trade:A"]
        .iter()
        .map(|(generation, seq, _)| (*generation, *seq))
        .collect();
    let expected: Vec<(u32, Seq)> = (1..=7).map(|seq| (trades[0].0, Seq(seq))).collect();
    assert_eq!(trades, expected);
}
