//! Sources of a publisher while it leads: one that emits the same events again from any position,
//! and one whose clients push trades and wait until the log contains them.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use tickcast::bus::{Emit, Emitter, SourceSpec, SourceTail};
use tickcast::log::SourceId;
use tickcast::market::{
    Aggressor, Instrument, Level, Price, Qty, Quote, SourceKind, Symbol, Trade, TradeId, UnixNanos,
};
use tickcast::protocol::SourceState;

use super::server::Shared;
use super::world::BEGINNING;
use crate::rng::Rng;

/// Symbol of the pushed trades.
pub(crate) const PUSHED: &str = "PUSHED";
/// Symbols of the source that numbers its trades.
const NUMBERED: [&str; 2] = ["N1", "N2"];
/// Sources, in order of their numbers.
const SOURCES: [&str; 2] = ["numbered", "push"];
/// Bytes that the log may be behind before the numbered source waits.
const AHEAD_MAX: usize = 20_000;

fn spec(source: usize) -> SourceSpec {
    SourceSpec {
        name: SOURCES[source].into(),
        stale_after: Duration::from_secs(5),
        is_present: false,
        config: Bytes::from_static(SOURCES[source].as_bytes()),
    }
}

/// Symbols of a source. These are all valid.
fn symbols(source: usize) -> Vec<Symbol> {
    let names = if source == 0 {
        &NUMBERED[..]
    } else {
        &[PUSHED]
    };
    names
        .iter()
        .filter_map(|name| Symbol::new(name).ok())
        .collect()
}

fn instruments(source: usize) -> Vec<Emit> {
    let symbols = symbols(source).into_iter();
    let instruments = symbols.map(|symbol| Instrument::new(symbol, SourceKind::Sim));
    vec![
        Emit::Instruments(instruments.collect()),
        Emit::State(SourceState::Live),
    ]
}

fn trade(id: u64, ts: UnixNanos) -> Trade {
    Trade {
        ts,
        px: Price(Decimal::new(1000 + (id * id % 97) as i64, 2)),
        qty: Qty(Decimal::ONE),
        side: Aggressor::Sell,
        id: TradeId::Number(id),
    }
}

/// Output number `at` of the numbered source.
fn output(at: u64) -> Vec<Emit> {
    let ts = BEGINNING.plus(Duration::from_millis(700 * at));
    let local = (at % 2) as u32;
    let mut emitted = vec![Emit::Trade(local, trade(at / 2 + 1, ts))];
    if at.is_multiple_of(3) {
        emitted.push(Emit::Watermark(ts));
    }
    if at.is_multiple_of(5) {
        let (px, qty) = (Price(Decimal::new(at as i64, 1)), None);
        let (bid, ask) = (Some(Level { px, qty }), None);
        emitted.push(Emit::Quote(local, Quote { ts, bid, ask }));
    }
    emitted
}

/// Starts the sources of a publisher that leads from here on; returns the next output of the
/// numbered one.
pub(crate) async fn start(bus: &Emitter, tails: &[SourceTail]) -> u64 {
    let mut next = 0;
    let mut begin = Vec::new();
    for source in 0..SOURCES.len() {
        let emitter = bus.of(SourceId(source as u16));
        let tail = tails.get(source);
        let tail = tail.filter(|tail| tail.config == spec(source).config);
        match (tail, tail.and_then(|tail| tail.position.as_deref())) {
            (Some(_), position) if position.is_some() || source == 1 => {
                let position = position.and_then(|position| position.try_into().ok());
                if source == 0 {
                    next = position.map_or(0, u64::from_le_bytes);
                }
                emitter.emit(&mut vec![Emit::GoOn(spec(source))]).await;
                emitter.emit(&mut instruments(source)).await;
            }
            _ => begin.push((source, emitter)),
        }
    }
    let all: HashSet<Symbol> = (0..SOURCES.len()).flat_map(symbols).collect();
    bus.emit(&mut vec![Emit::Expect(Arc::new(all))]).await;
    for (source, emitter) in begin {
        emitter.emit(&mut vec![Emit::Begin(spec(source))]).await;
        let mut emitted = instruments(source);
        if source == 0 {
            emitted.push(position(0));
        }
        emitter.emit(&mut emitted).await;
    }
    next
}

fn position(next: u64) -> Emit {
    Emit::Position(Bytes::copy_from_slice(&next.to_le_bytes()))
}

/// Runs the numbered source.
pub(crate) async fn run_numbered(server: Rc<Shared>, bus: Emitter, mut next: u64, mut rng: Rng) {
    let emitter = bus.of(SourceId(0));
    while server
        .sleep(Duration::from_millis(20 + rng.below(400) as u64))
        .await
    {
        if server.pace.bytes() > AHEAD_MAX {
            continue;
        }
        let mut emitted = Vec::new();
        if rng.chance(40) {
            emitted.push(position(next));
        }
        for _ in 0..=rng.below(3) {
            emitted.extend(output(next));
            next += 1;
        }
        emitter.emit(&mut emitted).await;
    }
}

/// Pushes trades, one after the other, and waits for the confirmation of each.
pub(crate) async fn run_push(server: Rc<Shared>, bus: Emitter, mut rng: Rng) {
    let emitter = bus.of(SourceId(1));
    while server
        .sleep(Duration::from_millis(50 + rng.below(500) as u64))
        .await
    {
        let Some(mut term) = server.status.leadership() else {
            return;
        };
        let id = server.next_push();
        let pushed = Emit::Trade(0, trade(id, server.clock.now()));
        emitter.emit(&mut vec![pushed]).await;
        let Some(next) = bus.position().await else {
            return;
        };
        if term.committed(next).await {
            let mut log = server.log.lock();
            let told = log.truth.tell(id);
            log.break_promise(told);
        }
    }
}
