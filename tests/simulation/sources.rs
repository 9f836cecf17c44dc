//! Sources of a simulation: they emit trades, quotes and watermarks, fail, start over, grow and
//! shrink.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use tickcast::bus::{Emit, Emitter, MissedData, MissedKind, SourceSpec};
use tickcast::log::SourceId;
use tickcast::market::{
    Aggressor, Instrument, Level, Price, Qty, Quote, SourceKind, Symbol, Trade, TradeId, UnixNanos,
};
use tickcast::protocol::SourceState;

use crate::Violation;
use crate::rng::Rng;

/// A source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) symbols: Vec<Symbol>,
    /// Number of instruments that it has announced to the bus since it began.
    announced: usize,
    /// Number of trades so far, from which prices and ids are made.
    count: u64,
    pub(crate) is_down: bool,
    /// A reload has removed it; its number is not used again.
    pub(crate) is_retired: bool,
}

fn symbol(text: &str) -> Result<Symbol, Violation> {
    Symbol::new(text).map_err(|error| Violation::new(error.to_string()))
}

/// Symbols that sources are made of.
pub(crate) const SYMBOLS: [&str; 8] = ["A1", "A2", "A10", "B1", "B2", "C1", "A3", "B10"];

impl Source {
    pub(crate) fn new(number: usize, symbols: &[&str]) -> Result<Self, Violation> {
        Ok(Self {
            name: format!("s{number}").into(),
            symbols: symbols
                .iter()
                .map(|text| symbol(text))
                .collect::<Result<_, _>>()?,
            announced: 0,
            count: 0,
            is_down: false,
            is_retired: false,
        })
    }

    pub(crate) fn spec(&self) -> SourceSpec {
        SourceSpec {
            name: Arc::clone(&self.name),
            stale_after: Duration::from_secs(20),
            is_present: true,
            config: bytes::Bytes::new(),
        }
    }

    /// Announces the instruments that the bus does not know yet.
    pub(crate) fn announce(&mut self) -> Vec<Emit> {
        let new = &self.symbols[self.announced..];
        let instruments: Vec<_> = new
            .iter()
            .map(|symbol| Instrument::new(symbol.clone(), SourceKind::Sim))
            .collect();
        self.announced = self.symbols.len();
        vec![
            Emit::Instruments(instruments),
            Emit::State(SourceState::Live),
        ]
    }

    /// Announces all of them again: to another bus, or after a change of its config.
    pub(crate) fn announce_again(&mut self) -> Vec<Emit> {
        self.announced = 0;
        self.announce()
    }

    pub(crate) fn add(&mut self, text: &str) -> Result<(), Violation> {
        self.symbols.push(symbol(text)?);
        Ok(())
    }

    /// Values at a time, all of one instrument or of several.
    pub(crate) fn values(&mut self, rng: &mut Rng, events: usize, now: UnixNanos) -> Vec<Emit> {
        let mut emits = Vec::with_capacity(events + 1);
        if self.announced == 0 {
            return emits;
        }
        let one = rng.below(self.announced);
        let is_mixed = rng.chance(50);
        for _ in 0..events {
            let local = if is_mixed {
                rng.below(self.announced)
            } else {
                one
            } as u32;
            emits.push(if rng.chance(45) {
                Emit::Trade(local, self.trade(rng, now))
            } else {
                Emit::Quote(local, Self::quote(rng, now))
            });
        }
        if rng.chance(50) {
            emits.push(Emit::Watermark(now));
        }
        emits
    }

    /// A hole in the numbering of its own input.
    pub(crate) fn missed(&self, rng: &mut Rng) -> Vec<Emit> {
        let missed = |rng: &mut Rng| {
            let local = rng.below(self.announced) as u32;
            let kind = *rng.pick(&[MissedKind::Trades, MissedKind::Quotes]);
            let count = rng.chance(80).then(|| 1 + rng.below(9) as u64);
            Emit::Missed(local, MissedData { kind, count })
        };
        Vec::from_iter((self.announced > 0).then(|| missed(rng)))
    }

    /// One quote of one instrument.
    pub(crate) fn one_quote(&self, rng: &mut Rng, now: UnixNanos) -> Vec<Emit> {
        let quote = |rng: &mut Rng| {
            let local = rng.below(self.announced) as u32;
            Emit::Quote(local, Self::quote(rng, now))
        };
        Vec::from_iter((self.announced > 0).then(|| quote(rng)))
    }

    fn trade(&mut self, rng: &mut Rng, now: UnixNanos) -> Trade {
        self.count += 1;
        let ids = [
            TradeId::None,
            TradeId::Number(self.count),
            TradeId::Text(format!("t\"{}", self.count).into()),
        ];
        Trade {
            ts: now,
            px: Price(Decimal::new(1 + rng.below(100_000) as i64, 2)),
            qty: Qty(Decimal::from(1 + rng.below(9))),
            side: *rng.pick(&[Aggressor::Buy, Aggressor::Sell, Aggressor::None]),
            id: rng.pick(&ids).clone(),
        }
    }

    fn quote(rng: &mut Rng, now: UnixNanos) -> Quote {
        let level = |rng: &mut Rng, px: i64| {
            let qty = rng.chance(80).then(|| Qty(Decimal::from(rng.below(100))));
            (!rng.chance(5)).then(|| Level {
                px: Price(Decimal::new(px, 2)),
                qty,
            })
        };
        let px = 1 + rng.below(100_000) as i64;
        Quote {
            ts: now,
            bid: level(rng, px),
            ask: level(rng, px + 1),
        }
    }
}

/// Emits values of a source; false if the queue of the bus is full.
pub(crate) fn emit(bus: &Emitter, source: usize, values: Vec<Emit>) -> bool {
    bus.of(SourceId(source as u16))
        .try_emit_pieces(vec![values])
        .is_ok()
}

/// Symbols that all sources of a config list.
pub(crate) fn expected(sources: &[Source]) -> Emit {
    let listed = sources.iter().filter(|source| !source.is_retired);
    let symbols: HashSet<Symbol> = listed.flat_map(|source| source.symbols.clone()).collect();
    Emit::Expect(Arc::new(symbols))
}
