use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use super::board::{FaultBoard, FaultCommand, Record};
use super::random::Random;
use super::{FaultKind, FaultSpec};
use crate::bus::{Emit, MissedData, MissedKind};
use crate::market::{Level, Price, Quote, Symbol, UnixNanos, VALUE_MAX};

/// Instrument, and kind of its events.
type Stream = (u32, MissedKind);

/// A scheduled or active fault.
#[derive(Debug)]
struct Running {
    record: Arc<Record>,
    /// Begins, or began, at this time of the source; unknown before the source's first event.
    from: Option<UnixNanos>,
    is_active: bool,
    /// Number of events left to affect.
    left: u64,
}

/// Applies faults to the values that a source emits.
#[derive(Debug)]
pub(crate) struct Injector {
    board: Arc<FaultBoard>,
    random: Random,
    /// Symbols by local number.
    symbols: Vec<Symbol>,
    faults: Vec<Running>,
    /// Newest time of the source.
    now: UnixNanos,
    /// Dropped events by stream, to be reported before its next event.
    missed: BTreeMap<Stream, u64>,
    /// Events to be emitted after the next one of their stream.
    held: BTreeMap<Stream, Emit>,
    /// Kinds of the faults that have begun since they were taken.
    begun: Vec<FaultKind>,
}

impl Injector {
    pub(crate) fn new(schedule: &[FaultSpec], seed: u64, board: Arc<FaultBoard>) -> Self {
        let faults = schedule.iter().cloned().map(|spec| Running {
            record: board.schedule(spec),
            from: None,
            is_active: false,
            left: 0,
        });
        Self {
            faults: faults.collect(),
            board,
            random: Random::new(seed),
            symbols: Vec::new(),
            now: UnixNanos::default(),
            missed: BTreeMap::new(),
            held: BTreeMap::new(),
            begun: Vec::new(),
        }
    }

    /// Adds the next announced instrument.
    pub(crate) fn announce(&mut self, symbol: Symbol) {
        self.board.add_symbol(symbol.clone());
        self.symbols.push(symbol);
    }

    /// Kinds of the faults that have begun since the last call.
    pub(crate) fn take_begun(&mut self) -> Vec<FaultKind> {
        std::mem::take(&mut self.begun)
    }

    /// True if nothing is held back and no dropped event remains to be reported.
    pub(crate) fn is_settled(&self) -> bool {
        self.held.is_empty() && self.missed.is_empty()
    }

    /// Emits held events and reports dropped ones, because the source stops.
    pub(crate) fn finish(&mut self) -> Vec<Emit> {
        let mut out = Vec::new();
        self.release(None, &mut out);
        out
    }

    /// Applies the faults to emitted values. Cheap while there are none.
    pub(crate) fn inject(&mut self, emitted: &mut Vec<Emit>) {
        if self.faults.is_empty() && !self.board.has_commands() {
            return;
        }
        let mut out = Vec::with_capacity(emitted.len());
        if self.board.has_commands() {
            self.obey(&mut out);
        }
        for emit in emitted.drain(..) {
            if let Some(time) = time_of(&emit) {
                self.advance(time, &mut out);
            }
            self.apply(emit, &mut out);
        }
        *emitted = out;
    }

    fn obey(&mut self, out: &mut Vec<Emit>) {
        for command in self.board.take_commands() {
            match command {
                FaultCommand::Begin(record) => self.faults.push(Running {
                    record,
                    from: None,
                    is_active: false,
                    left: 0,
                }),
                FaultCommand::End(id) => {
                    let known = self.faults.iter().position(|fault| fault.record.id == id);
                    if let Some(at) = known {
                        self.remove(at, out);
                    }
                }
            }
        }
    }

    /// Begins and ends faults at a time of the source.
    fn advance(&mut self, time: UnixNanos, out: &mut Vec<Emit>) {
        self.now = self.now.max(time);
        let mut at = 0;
        while at < self.faults.len() {
            let (now, fault) = (self.now, &mut self.faults[at]);
            let spec = &fault.record.spec;
            let from = *fault.from.get_or_insert(now.plus(spec.after));
            let is_over = fault.is_active && (fault.left == 0 || now >= from.plus(spec.lasting));
            if is_over {
                if !self.end(at, out) {
                    continue;
                }
            } else if !fault.is_active && now >= from {
                self.begin(at, out);
                continue;
            }
            at += 1;
        }
    }

    fn begin(&mut self, at: usize, out: &mut Vec<Emit>) {
        let fault = &mut self.faults[at];
        let record = &fault.record;
        record.begin(self.now);
        (fault.is_active, fault.left) = (true, record.spec.count.unwrap_or(u64::MAX));
        self.begun.push(record.spec.kind);
        if record.spec.kind == FaultKind::Restart {
            record.count_event();
            fault.left = 0;
            self.release(None, out);
            out.push(Emit::StartOver);
        }
    }

    /// Ends a fault; false if it is removed, because it is not repeated.
    fn end(&mut self, at: usize, out: &mut Vec<Emit>) -> bool {
        let fault = &mut self.faults[at];
        let Some(repeat) = fault.record.spec.repeat else {
            self.remove(at, out);
            return false;
        };
        let earliest = repeat.every.saturating_sub(repeat.jitter);
        let wait = earliest + self.random.up_to(2 * repeat.jitter);
        // Beginnings that the source's time has passed already are left out.
        let from = fault.from.unwrap_or(self.now).plus(wait).max(self.now);
        (fault.is_active, fault.from) = (false, Some(from));
        fault.record.end();
        self.settle(at, out);
        true
    }

    fn remove(&mut self, at: usize, out: &mut Vec<Emit>) {
        self.settle(at, out);
        let fault = self.faults.remove(at);
        self.board.remove(fault.record.id);
        fault.record.end();
    }

    /// Emits what a fault holds back, and reports what it has dropped.
    fn settle(&mut self, at: usize, out: &mut Vec<Emit>) {
        let record = Arc::clone(&self.faults[at].record);
        self.release(Some(&record.spec), out);
    }

    /// Emits held events, and reports dropped ones, of the instruments that a fault covers.
    fn release(&mut self, covered: Option<&FaultSpec>, out: &mut Vec<Emit>) {
        let Self {
            symbols,
            held,
            missed,
            ..
        } = self;
        let is_covered = |(local, _): &Stream| {
            let symbol = symbols.get(*local as usize);
            covered.is_none_or(|spec| symbol.is_some_and(|symbol| spec.symbols.covers(symbol)))
        };
        held.retain(|stream, emit| {
            let stays = !is_covered(stream);
            if !stays {
                out.push(emit.clone());
            }
            stays
        });
        missed.retain(|stream, count| {
            let stays = !is_covered(stream);
            if !stays {
                out.push(missed_data(*stream, *count));
            }
            stays
        });
    }

    fn apply(&mut self, emit: Emit, out: &mut Vec<Emit>) {
        let stream = match &emit {
            Emit::Trade(local, _) => (*local, MissedKind::Trades),
            Emit::Quote(local, _) => (*local, MissedKind::Quotes),
            Emit::Watermark(_) if self.is_frozen() => return,
            _ => return out.push(emit),
        };
        let mut emit = emit;
        let mut copies = 1;
        for at in 0..self.faults.len() {
            if !self.affects(at, &emit, stream) {
                continue;
            }
            let fault = &mut self.faults[at];
            fault.left -= 1;
            fault.record.count_event();
            let spec = &fault.record.spec;
            match spec.kind {
                FaultKind::Drop | FaultKind::Freeze => {
                    *self.missed.entry(stream).or_default() += 1;
                    return;
                }
                FaultKind::Reorder => {
                    self.held.insert(stream, emit);
                    return;
                }
                FaultKind::Duplicate => copies += 1,
                FaultKind::Cross => cross(&mut emit),
                FaultKind::Spike => spike(&mut emit, spec.size),
                FaultKind::Clock => shift(&mut emit, spec.step_ns),
                FaultKind::Restart => {}
            }
        }
        if let Some(count) = self.missed.remove(&stream) {
            out.push(missed_data(stream, count));
        }
        let held = self.held.remove(&stream);
        for _ in 1..copies {
            out.push(emit.clone());
        }
        out.push(emit);
        out.extend(held);
    }

    /// True if the fault affects this event.
    fn affects(&mut self, at: usize, emit: &Emit, stream: Stream) -> bool {
        let fault = &self.faults[at];
        let spec = &fault.record.spec;
        let is_concerned = match spec.kind {
            FaultKind::Restart => false,
            FaultKind::Cross => matches!(emit, Emit::Quote(..)),
            FaultKind::Reorder => !self.held.contains_key(&stream),
            _ => true,
        };
        let symbol = self.symbols.get(stream.0 as usize);
        fault.is_active
            && fault.left > 0
            && is_concerned
            && symbol.is_some_and(|symbol| spec.symbols.covers(symbol))
            && (spec.kind == FaultKind::Freeze || self.random.happens(spec.share))
    }

    /// True while all instruments are frozen: the source is silent as a whole.
    fn is_frozen(&self) -> bool {
        self.faults.iter().any(|fault| {
            let spec = &fault.record.spec;
            fault.is_active && spec.kind == FaultKind::Freeze && spec.symbols.as_str() == "*"
        })
    }
}

const fn missed_data((local, kind): Stream, count: u64) -> Emit {
    Emit::Missed(
        local,
        MissedData {
            kind,
            count: Some(count),
        },
    )
}

fn time_of(emit: &Emit) -> Option<UnixNanos> {
    match emit {
        Emit::Trade(_, trade) => Some(trade.ts),
        Emit::Quote(_, quote) => Some(quote.ts),
        Emit::Watermark(now) | Emit::Trading(_, _, now) => Some(*now),
        _ => None,
    }
}

/// Exchanges the prices of the two sides.
const fn cross(emit: &mut Emit) {
    if let Emit::Quote(
        _,
        Quote {
            bid: Some(bid),
            ask: Some(ask),
            ..
        },
    ) = emit
    {
        std::mem::swap(&mut bid.px, &mut ask.px);
    }
}

fn spike(emit: &mut Emit, size: Decimal) {
    let far = |px: &mut Price| {
        let moved = px.0.checked_mul(Decimal::ONE + size);
        let moved = moved.map(|moved| moved.round_dp(px.0.scale()));
        // A price that no source could publish would not reach the clients.
        let is_price = |moved: &Decimal| !moved.is_zero() && moved.abs() <= VALUE_MAX;
        px.0 = moved.filter(is_price).unwrap_or(px.0);
    };
    match emit {
        Emit::Trade(_, trade) => far(&mut trade.px),
        Emit::Quote(_, quote) => {
            let sides = [&mut quote.bid, &mut quote.ask].into_iter().flatten();
            sides.for_each(|Level { px, .. }| far(px));
        }
        _ => {}
    }
}

fn shift(emit: &mut Emit, step_ns: i64) {
    let shifted = |ts: UnixNanos| {
        let step = Duration::from_nanos(step_ns.unsigned_abs());
        if step_ns < 0 {
            ts.minus(step)
        } else {
            ts.plus(step)
        }
    };
    match emit {
        Emit::Trade(_, trade) => trade.ts = shifted(trade.ts),
        Emit::Quote(_, quote) => quote.ts = shifted(quote.ts),
        _ => {}
    }
}
