//! Simulated instrument: schedule and content of its events.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::hours::Hours;
use super::model::{ArrivalState, Arrivals, Factor, Model};
use super::stream::{Role, Stream, StreamPlace};
use crate::market::{
    Aggressor, Instrument, Level, Price, PriceRules, Qty, Quote, Symbol, Trade, TradeId,
    TradingState, UnixNanos, VALUE_MAX,
};

/// Maximum absolute price, in ticks.
const TICKS_MAX: i64 = 1_000_000_000_000_000;
/// Fraction of crossed quotes, if the rules allow them.
const CROSSED_SHARE: f64 = 0.01;

/// Configuration of a simulated instrument.
#[derive(Debug, Clone, PartialEq)]
pub struct SimInstrument {
    /// Symbol of the instrument.
    pub symbol: Symbol,
    /// Human-readable description.
    pub description: String,
    /// Rules for negative, zero and crossed prices.
    pub prices: PriceRules,
    /// Price at the start time.
    pub start: Price,
    /// Price increment.
    pub tick_size: Decimal,
    /// Quantity increment.
    pub lot_size: Decimal,
    /// Typical trade quantity, in lots.
    pub size_lots: f64,
    /// Typical spread, in ticks; at least 1.
    pub spread_ticks: f64,
    /// Rate of trades and quotes, in events per second.
    pub rate: f64,
    /// Fraction of trades among the events.
    pub trades: f64,
    /// Price model.
    pub model: Model,
    /// Arrival process.
    pub arrivals: Arrivals,
    /// Index of the common factor that the price follows, and the correlation with it (0 to 1).
    pub factor: Option<(usize, f64)>,
    /// Start of the trading session, as time after 00:00 UTC.
    pub session_start: Duration,
    /// Trading hours; always open if `None`.
    pub hours: Option<Hours>,
    /// Silence after which the instrument is stale; `None` selects the default of the source.
    pub stale_after: Option<Duration>,
}

impl SimInstrument {
    /// Description for subscribers.
    pub fn instrument(&self) -> Instrument {
        Instrument {
            symbol: self.symbol.clone(),
            description: self.description.clone(),
            price_scale: self.tick_size.scale(),
            qty_scale: self.lot_size.scale(),
            src: crate::market::SourceKind::Sim,
            has_trades: true,
            has_quotes: true,
            stale_after: self.stale_after,
            session_start: self.session_start,
            venue_symbol: None,
        }
    }

    /// Lowest price that the rules allow, in ticks.
    const fn ticks_min(&self) -> i64 {
        match (self.prices.negative, self.prices.zero) {
            (true, _) => -TICKS_MAX,
            (false, true) => 0,
            (false, false) => 1,
        }
    }

    pub(super) fn px(&self, ticks: i64) -> Price {
        Price(
            self.tick_size
                .checked_mul(Decimal::from(ticks.max(self.ticks_min())))
                .unwrap_or(self.start.0),
        )
    }

    pub(super) fn start_ticks(&self) -> f64 {
        decimal_to_f64(
            self.start
                .0
                .checked_div(self.tick_size)
                .unwrap_or(Decimal::ONE),
        )
    }

    /// Quantity of this number of lots, at least one lot.
    pub(super) fn qty(&self, lots: f64) -> Qty {
        let lots = Decimal::from(libm::round(lots).clamp(1.0, 1e15) as i64);
        let qty = self.lot_size.checked_mul(lots).unwrap_or(VALUE_MAX);
        Qty(qty.min(VALUE_MAX))
    }

    /// Fraction of the variance that follows the factor, and the idiosyncratic fraction.
    pub(super) fn shares(&self) -> (f64, f64) {
        let common = self.factor.map_or(0.0, |(_, closeness)| closeness);
        (common, libm::sqrt(1.0 - common * common))
    }
}

/// Nearest float; accurate enough for a model and identical on every platform.
pub(super) fn decimal_to_f64(value: Decimal) -> f64 {
    value.mantissa() as f64 / libm::pow(10.0, f64::from(value.scale()))
}

/// Next step of an instrument.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    Trade(Trade),
    Quote(Quote),
    Trading(TradingState),
}

/// Checkpoint of a generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GeneratorPlace {
    stream: StreamPlace,
    excited: f64,
    log: f64,
    moved_at: UnixNanos,
    common: f64,
    quote: Option<(i64, i64)>,
    trade_id: u64,
    due: UnixNanos,
    arrival: UnixNanos,
    turning: Option<TradingState>,
}

/// Event generator of one instrument.
#[derive(Debug)]
pub(super) struct Generator {
    pub spec: SimInstrument,
    stream: Stream,
    arrivals: ArrivalState,
    start_ticks: f64,
    /// Log-price relative to the start price, as of `moved_at`.
    log: f64,
    moved_at: UnixNanos,
    common: f64,
    /// Current quote in ticks; `None` before the first quote.
    quote: Option<(i64, i64)>,
    trade_id: u64,
    /// Due time of the next event.
    pub due: UnixNanos,
    /// Arrival time drawn from the model, before alignment.
    arrival: UnixNanos,
    /// Alignment interval of event times; zero disables alignment.
    every: Duration,
    /// Trading state that the due event announces; `None` for an ordinary event.
    turning: Option<TradingState>,
    /// Next opening or close, as a cached result: it applies to all times from the first value up
    /// to the second.
    change: Option<(UnixNanos, UnixNanos)>,
}

impl Generator {
    pub(super) fn new(spec: SimInstrument, seed: u64, start: UnixNanos, every: Duration) -> Self {
        let mut generator = Self {
            stream: Stream::new(seed, Role::Events, spec.symbol.as_str()),
            arrivals: ArrivalState::new(spec.arrivals, spec.rate),
            start_ticks: spec.start_ticks(),
            log: 0.0,
            moved_at: start,
            common: 0.0,
            quote: None,
            trade_id: 0,
            due: start,
            arrival: start,
            every,
            turning: None,
            change: None,
            spec,
        };
        if generator
            .spec
            .hours
            .as_ref()
            .is_some_and(|hours| !hours.is_open(start))
        {
            generator.turning = Some(TradingState::Closed);
        } else {
            generator.schedule(start);
        }
        generator
    }

    /// Current checkpoint of the generator.
    pub(super) fn place(&self) -> GeneratorPlace {
        GeneratorPlace {
            stream: self.stream.place(),
            excited: self.arrivals.excited(),
            log: self.log,
            moved_at: self.moved_at,
            common: self.common,
            quote: self.quote,
            trade_id: self.trade_id,
            due: self.due,
            arrival: self.arrival,
            turning: self.turning,
        }
    }

    /// Resumes from a checkpoint.
    pub(super) fn go_on(&mut self, place: GeneratorPlace) {
        self.stream.go_on(place.stream);
        self.arrivals.go_on(place.excited);
        (self.log, self.moved_at, self.common) = (place.log, place.moved_at, place.common);
        (self.quote, self.trade_id) = (place.quote, place.trade_id);
        (self.due, self.arrival, self.turning) = (place.due, place.arrival, place.turning);
    }

    /// Time of the next opening or close, if the instrument has trading hours; the calendar is
    /// consulted once per change.
    fn next_change(&mut self, after: UnixNanos) -> Option<UnixNanos> {
        let hours = self.spec.hours.as_ref()?;
        let known = self
            .change
            .filter(|(from, to)| (*from..*to).contains(&after));
        let (_, change) = *self
            .change
            .insert(known.unwrap_or_else(|| (after, hours.next_change(after))));
        Some(change)
    }

    /// Schedules the next ordinary event, or the close if it is earlier.
    fn schedule(&mut self, after: UnixNanos) {
        let seconds = self.arrivals.next(&mut self.stream);
        self.arrival = after.plus(Duration::from_nanos((seconds * 1e9) as u64));
        let due = if self.every.is_zero() {
            self.arrival
        } else {
            self.arrival.ceil(self.every)
        };
        let close = self.next_change(after).filter(|close| *close <= due);
        self.due = close.unwrap_or(due);
        self.turning = close.map(|_| TradingState::Closed);
    }

    /// Produces the event at `due` and schedules the next.
    pub(super) fn next(&mut self, start: UnixNanos, factors: &mut [Factor]) -> Happening {
        let now = self.due;
        match self.turning {
            Some(TradingState::Closed) => {
                self.due = self.next_change(now).unwrap_or(UnixNanos(u64::MAX));
                self.turning = Some(TradingState::Live);
                return Happening::Trading(TradingState::Closed);
            }
            Some(state) => {
                self.schedule(now);
                return Happening::Trading(state);
            }
            None => {}
        }
        self.move_price(now, start, factors);
        let happening = match self.quote {
            Some(quote) if self.stream.unit() < self.spec.trades => {
                Happening::Trade(self.trade(now, quote))
            }
            _ => Happening::Quote(self.requote(now)),
        };
        self.schedule(self.arrival);
        happening
    }

    fn move_price(&mut self, now: UnixNanos, start: UnixNanos, factors: &mut [Factor]) {
        let (closeness, own) = self.spec.shares();
        let common = self.spec.factor.map_or(0.0, |(factor, _)| {
            factors[factor].value(now.since(start).as_nanos() as u64)
        });
        let seconds = now.since(self.moved_at).as_nanos() as f64 / 1e9;
        let moved = closeness * (common - self.common);
        self.log = self
            .spec
            .model
            .step(self.log, seconds, moved, own, &mut self.stream);
        (self.moved_at, self.common) = (now, common);
    }

    fn requote(&mut self, now: UnixNanos) -> Quote {
        let mid = self.start_ticks * libm::exp(self.log);
        let wide =
            libm::floor((self.spec.spread_ticks - 1.0) * self.stream.exponential() + 0.5) as i64;
        let spread = 1 + wide.clamp(0, 1000);
        let bid = (libm::floor(mid - spread as f64 / 2.0 + 0.5) as i64)
            .clamp(self.spec.ticks_min(), TICKS_MAX);
        let is_crossed = self.spec.prices.crossed && self.stream.unit() < CROSSED_SHARE;
        let (bid, ask) = if is_crossed {
            (bid + spread, bid)
        } else {
            (bid, bid + spread)
        };
        self.quote = Some((bid, ask));
        let (bid_lots, ask_lots) = (self.lots() * 4.0, self.lots() * 4.0);
        Quote {
            ts: now,
            bid: Some(Level {
                px: self.spec.px(bid),
                qty: Some(self.spec.qty(bid_lots)),
            }),
            ask: Some(Level {
                px: self.spec.px(ask),
                qty: Some(self.spec.qty(ask_lots)),
            }),
        }
    }

    fn trade(&mut self, now: UnixNanos, (bid, ask): (i64, i64)) -> Trade {
        let draw = self.stream.unit();
        let (side, at) = match draw {
            draw if draw < 0.475 => (Aggressor::Buy, ask),
            draw if draw < 0.95 => (Aggressor::Sell, bid),
            // Inside the spread if it is wide enough: a hidden order.
            _ => (Aggressor::None, i64::midpoint(bid, ask)),
        };
        self.trade_id += 1;
        let lots = self.lots();
        Trade {
            ts: now,
            px: self.spec.px(at),
            qty: self.spec.qty(lots),
            side,
            id: TradeId::Number(self.trade_id),
        }
    }

    /// Log-normal trade quantity, as in real markets: many small, few large.
    fn lots(&mut self) -> f64 {
        self.spec.size_lots * libm::exp(1.1 * self.stream.normal() - 0.6)
    }
}
