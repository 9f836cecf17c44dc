//! Simulated market: seeded, model-driven prices, reproducible on every platform.
//!
//! Invariant: the same seed and start time produce the same events, whichever other instruments
//! exist. The `ts` of an event is its due time, so a generator that runs late is visible as
//! latency.

mod history;
mod hours;
mod instrument;
mod model;
mod place;
mod stream;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

pub use hours::Hours;
pub use instrument::SimInstrument;
pub use model::{Arrivals, Model};

use super::{Output, Source, SourceError, SourceFuture};
use crate::bus::Emit;
use crate::clock::Alarm;
use crate::files::decode_saved;
use crate::market::UnixNanos;
use instrument::{Generator, Happening};
use model::Factor;
use place::Place;

/// Interval between watermarks, in the simulated time of the source.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// Minimum interval between wake-ups of the generator.
const WAKE_EVERY: Duration = Duration::from_micros(250);
/// Largest jump of the clock that the generator catches up with. A larger jump means that the clock
/// was set or the process was suspended.
const CATCH_UP_MAX: Duration = Duration::from_secs(2 * 3600);
/// Maximum number of events emitted at once, so that a late generator still feeds the bus evenly.
const EMIT_AT: usize = 4096;

/// Configuration of a simulated market.
#[derive(Debug, Clone, PartialEq)]
pub struct SimConfig {
    /// Seed of all random numbers.
    pub seed: u64,
    /// Simulated start time; `None` selects the current time.
    pub start: Option<UnixNanos>,
    /// Length of the generated history.
    pub history: Duration,
    /// Alignment interval of event times; zero disables alignment.
    pub every: Duration,
    /// Names of the common factors.
    pub factors: Vec<String>,
    /// Simulated instruments.
    pub instruments: Vec<SimInstrument>,
}

/// Generator of all events of a simulated market, in time order. Pure.
#[derive(Debug)]
pub struct Market {
    start: UnixNanos,
    factors: Vec<Factor>,
    generators: Vec<Generator>,
    due: BinaryHeap<Reverse<(UnixNanos, u32)>>,
    next_mark: UnixNanos,
}

impl Market {
    /// Creates a market that begins at `start`.
    pub fn new(config: &SimConfig, start: UnixNanos) -> Self {
        let generators: Vec<_> = config
            .instruments
            .iter()
            .map(|spec| Generator::new(spec.clone(), config.seed, start, config.every))
            .collect();
        let factors = config
            .factors
            .iter()
            .map(|name| Factor::new(config.seed, name))
            .collect();
        let mut market = Self {
            start,
            factors,
            generators,
            due: BinaryHeap::new(),
            next_mark: start,
        };
        market.schedule_all();
        market
    }

    fn schedule_all(&mut self) {
        self.due = self
            .generators
            .iter()
            .enumerate()
            .map(|(at, generator)| Reverse((generator.due, at as u32)))
            .collect();
    }

    /// Due time of the next event or time mark.
    pub fn next_due(&self) -> UnixNanos {
        self.due.peek().map_or(self.next_mark, |Reverse((due, _))| {
            (*due).min(self.next_mark)
        })
    }

    /// Appends the events due by `now`, in order, up to a length of `most`.
    pub fn advance(&mut self, now: UnixNanos, out: &mut Vec<Emit>, most: usize) {
        while out.len() < most {
            let next = self.due.peek().map(|Reverse((due, at))| (*due, *at));
            match next {
                Some((due, at)) if due < self.next_mark => {
                    if due > now {
                        return;
                    }
                    self.happen(due, at, out);
                }
                _ => {
                    if self.next_mark > now {
                        return;
                    }
                    out.push(Emit::Watermark(self.next_mark));
                    self.next_mark = self.next_mark.plus(MARK_EVERY);
                }
            }
        }
    }

    fn happen(&mut self, due: UnixNanos, at: u32, out: &mut Vec<Emit>) {
        let generator = &mut self.generators[at as usize];
        out.push(match generator.next(self.start, &mut self.factors) {
            Happening::Trade(trade) => Emit::Trade(at, trade),
            Happening::Quote(quote) => Emit::Quote(at, quote),
            Happening::Trading(state) => Emit::Trading(at, state, due),
        });
        if let Some(mut top) = self.due.peek_mut() {
            *top = Reverse((generator.due, at));
        }
    }

    /// Emits the history before the start.
    fn past(&self, config: &SimConfig, out: &mut Vec<Emit>) {
        if config.history.is_zero() {
            return;
        }
        for (at, spec) in config.instruments.iter().enumerate() {
            let past = history::past(spec, config, self.start);
            out.extend(
                past.bars
                    .into_iter()
                    .map(|(interval, bars)| Emit::History(at as u32, interval, bars)),
            );
            out.extend(
                past.session
                    .map(|session| Emit::Session(at as u32, session)),
            );
        }
    }
}

/// Simulator source: a market paced by the clock.
#[derive(Debug)]
pub struct Sim {
    config: SimConfig,
    /// Checkpoint to resume from when the source runs; checkpoint of the last stop once it has
    /// stopped.
    place: Option<Vec<u8>>,
}

impl Sim {
    /// Creates a simulated market, which resumes from the checkpoint if there is one.
    pub const fn new(config: SimConfig, place: Option<Vec<u8>>) -> Self {
        Self { config, place }
    }

    async fn play(&mut self, out: &mut Output) -> Result<(), SourceError> {
        let alarm = Alarm::new(out.clock)
            .map_err(|error| SourceError::Failed(format!("cannot create a timer: {error}")))?;
        let bytes = self.place.take();
        let kept: Option<Place> = bytes.as_ref().and_then(|bytes| decode_saved(bytes).ok());
        if bytes.is_some() && kept.is_none() {
            out.emit(&mut vec![Emit::StartOver]).await?;
        }
        let begun = kept
            .as_ref()
            .map_or_else(|| out.clock.now(), |place| place.begun);
        let start = kept
            .as_ref()
            .map_or(self.config.start.unwrap_or(begun), |place| place.start);
        out.announce(
            self.config
                .instruments
                .iter()
                .map(SimInstrument::instrument)
                .collect(),
        )
        .await?;
        let mut market = Market::new(&self.config, start);
        let mut emitted = Vec::new();
        match kept {
            // Events that fell due while the server was down are due now.
            Some(place) => market.go_on(place),
            None => market.past(&self.config, &mut emitted),
        }
        out.emit(&mut emitted).await?;
        loop {
            if out.is_stopping() {
                self.place = rmp_serde::to_vec(&market.place(begun)).ok();
                return Err(SourceError::Stopped);
            }
            if out.position_is_due() {
                let position = rmp_serde::to_vec(&market.place(begun));
                emitted.extend(
                    position
                        .ok()
                        .map(|position| Emit::Position(position.into())),
                );
            }
            let now = start.plus(out.clock.now().since(begun));
            if now.since(market.next_due()) > CATCH_UP_MAX {
                let message =
                    "clock jumped more than two hours; restarting the market in a new epoch";
                return Err(SourceError::Failed(message.to_owned()));
            }
            market.advance(now, &mut emitted, EMIT_AT);
            let is_late = emitted.len() >= EMIT_AT;
            out.emit(&mut emitted).await?;
            if !is_late {
                let wake = market.next_due().max(now.plus(WAKE_EVERY));
                tokio::select! {
                    slept = alarm.until(begun.plus(wake.since(start))) => {
                        slept.map_err(|error| SourceError::Failed(format!("timer failed: {error}")))?;
                    }
                    () = out.stopping() => {}
                }
            }
        }
    }
}

impl Source for Sim {
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a> {
        Box::pin(self.play(out))
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        self.place.take()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::market::{Price, PriceRules, Symbol};
    use rust_decimal::Decimal;

    pub(crate) fn instrument(symbol: &str, rate: f64) -> SimInstrument {
        SimInstrument {
            symbol: Symbol::new(symbol).expect("a symbol"),
            prices: PriceRules::default(),
            description: String::new(),
            start: Price(Decimal::new(6_400_000, 2)),
            tick_size: Decimal::new(1, 2),
            lot_size: Decimal::new(1, 4),
            size_lots: 100.0,
            spread_ticks: 3.0,
            rate,
            trades: 0.5,
            model: Model::Gbm { volatility: 0.6 },
            arrivals: Arrivals::Poisson,
            factor: Some((0, 0.7)),
            session_start: Duration::ZERO,
            hours: None,
            stale_after: None,
        }
    }
}
