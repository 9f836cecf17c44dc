//! Prices from outside: what may be published, and the time marks of a source that others feed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::{Output, Source, SourceError, SourceFuture};
use crate::bus::{Emit, Emitter, QueueFull};
use crate::clock::Clock;
use crate::market::{
    Aggressor, Instrument, Level, Price, PriceFault, PriceRules, Qty, Quote, Symbol, Trade,
    TradeId, UnixNanos, parse_decimal,
};

/// How often the source tells its time.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// How far ahead of the server's clock an event's time may be.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// What a push source lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushRules {
    /// Negative, zero and crossed prices.
    pub prices: PriceRules,
    /// Events older than the one before of the same symbol and channel.
    pub late: bool,
}

/// One event as a publisher writes it.
#[derive(Debug, Clone, Deserialize)]
pub struct PublishedEvent {
    ch: String,
    sym: String,
    ts: Option<u64>,
    px: Option<String>,
    qty: Option<String>,
    side: Option<String>,
    id: Option<String>,
    bid: Option<String>,
    bidq: Option<String>,
    ask: Option<String>,
    askq: Option<String>,
}

/// Why a published event is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushFault {
    /// Not an event at all, or a field that isn't right.
    #[error("{0}")]
    Malformed(String),
    /// Only trades and quotes can be published; the rest is made from them.
    #[error(
        "channel \"{0}\" can't be published; trade and quote can, and the rest is made from them"
    )]
    Channel(String),
    /// The source has no such instrument.
    #[error("no instrument \"{0}\" of a push source that this token publishes to")]
    Symbol(String),
    /// See [`PriceFault`].
    #[error(transparent)]
    Price(#[from] PriceFault),
    /// The time lies before that of the event before.
    #[error("`ts` runs backwards: the event before was at {0}")]
    Late(u64),
    /// The bus' queue has no room for this part of the request.
    #[error("the bus' queue is full (bus.queue); send this line again")]
    Full,
    /// The time lies too far ahead.
    #[error("`ts` is more than 60 s ahead of the server's clock; it is nanoseconds since 1970")]
    Ahead,
}

impl PushFault {
    /// The label of the metric that counts it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Channel(_) => "channel",
            Self::Symbol(_) => "symbol",
            Self::Price(fault) => fault.reason(),
            Self::Late(_) => "late",
            Self::Ahead => "ahead",
            Self::Full => "full",
        }
    }
}

/// The newest times of an instrument's trades and quotes.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    trade: UnixNanos,
    quote: UnixNanos,
}

/// Where published events go: the rules, and the way to the bus.
#[derive(Debug)]
pub struct PushInlet {
    rules: PushRules,
    emitter: Emitter,
    numbers: HashMap<Symbol, u32>,
    /// By instrument; behind a lock because publishers come in on any shard. `None` once the source has stopped.
    newest: Mutex<Option<Vec<Newest>>>,
}

impl PushInlet {
    /// The inlet of a source with these instruments.
    pub fn new(instruments: &[Instrument], rules: PushRules, emitter: Emitter) -> Self {
        let numbers = instruments
            .iter()
            .enumerate()
            .map(|(at, instrument)| (instrument.symbol.clone(), at as u32))
            .collect();
        Self {
            rules,
            emitter,
            numbers,
            newest: Mutex::new(Some(vec![Newest::default(); instruments.len()])),
        }
    }

    /// Takes nothing more: what comes after this could be meant for another source, or for none.
    pub fn close(&self) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether an event's symbol is one of this source's.
    pub fn knows(&self, event: &PublishedEvent) -> bool {
        Symbol::new(&event.sym).is_ok_and(|symbol| self.numbers.contains_key(&symbol))
    }

    /// Checks events in order and emits the good ones, all or none. Returns what was wrong with each of the others.
    pub fn publish(
        &self,
        events: &[&PublishedEvent],
        now: UnixNanos,
    ) -> Result<Vec<Result<(), PushFault>>, QueueFull> {
        let mut open = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = open.as_mut() else {
            return Err(QueueFull);
        };
        let mut after = newest.clone();
        let mut emitted = Vec::with_capacity(events.len());
        let results = events.iter().map(|event| {
            self.check(event, now, &mut after)
                .map(|emit| emitted.push(emit))
        });
        let results = results.collect();
        self.emitter.try_emit(emitted)?;
        *newest = after;
        Ok(results)
    }

    fn check(
        &self,
        event: &PublishedEvent,
        now: UnixNanos,
        newest: &mut [Newest],
    ) -> Result<Emit, PushFault> {
        let unknown = || {
            PushFault::Symbol(
                event
                    .sym
                    .chars()
                    .take(40)
                    .flat_map(char::escape_debug)
                    .collect(),
            )
        };
        let number = Symbol::new(&event.sym)
            .ok()
            .and_then(|symbol| self.numbers.get(&symbol).copied())
            .ok_or_else(unknown)?;
        let ts = event.ts.map_or(now, UnixNanos);
        if ts > now.plus(AHEAD_MAX) {
            return Err(PushFault::Ahead);
        }
        let newest = &mut newest[number as usize];
        match event.ch.as_str() {
            "trade" => {
                let trade = event.trade(ts)?;
                self.rules.prices.check_trade(&trade)?;
                self.in_order(ts, &mut newest.trade)?;
                Ok(Emit::Trade(number, trade))
            }
            "quote" => {
                let quote = event.quote(ts)?;
                self.rules.prices.check_quote(&quote)?;
                self.in_order(ts, &mut newest.quote)?;
                Ok(Emit::Quote(number, quote))
            }
            other => Err(PushFault::Channel(
                other
                    .chars()
                    .take(40)
                    .flat_map(char::escape_debug)
                    .collect(),
            )),
        }
    }

    fn in_order(&self, ts: UnixNanos, newest: &mut UnixNanos) -> Result<(), PushFault> {
        if ts < *newest && !self.rules.late {
            return Err(PushFault::Late(newest.0));
        }
        *newest = ts.max(*newest);
        Ok(())
    }
}

fn number(field: &'static str, text: Option<&str>) -> Result<rust_decimal::Decimal, PushFault> {
    let text = text.ok_or_else(|| {
        PushFault::Malformed(format!("`{field}` is missing; it is a decimal in quotes"))
    })?;
    parse_decimal(text).map_err(|error| PushFault::Malformed(format!("`{field}`: {error}")))
}

fn level(
    names: [&'static str; 2],
    px: Option<&str>,
    qty: Option<&str>,
) -> Result<Option<Level>, PushFault> {
    if px.is_none() && qty.is_none() {
        return Ok(None);
    }
    Ok(Some(Level {
        px: Price(number(names[0], px)?),
        qty: Qty(number(names[1], qty)?),
    }))
}

impl PublishedEvent {
    fn trade(&self, ts: UnixNanos) -> Result<Trade, PushFault> {
        let malformed = |message: &str| PushFault::Malformed(message.to_owned());
        Ok(Trade {
            ts,
            px: Price(number("px", self.px.as_deref())?),
            qty: Qty(number("qty", self.qty.as_deref())?),
            side: match self.side.as_deref() {
                None => Aggressor::None,
                Some(side) => Aggressor::parse(side)
                    .ok_or_else(|| malformed("`side` is buy, sell or none"))?,
            },
            id: TradeId::parse(self.id.as_deref().unwrap_or_default())
                .ok_or_else(|| malformed("`id` has up to 64 printable characters"))?,
        })
    }

    fn quote(&self, ts: UnixNanos) -> Result<Quote, PushFault> {
        let bid = level(["bid", "bidq"], self.bid.as_deref(), self.bidq.as_deref())?;
        let ask = level(["ask", "askq"], self.ask.as_deref(), self.askq.as_deref())?;
        Ok(Quote { ts, bid, ask })
    }
}

/// The source beside the inlet: announces the instruments and tells the time.
#[derive(Debug)]
pub struct Push {
    instruments: Vec<Instrument>,
}

impl Push {
    /// A push source of these instruments.
    pub const fn new(instruments: Vec<Instrument>) -> Self {
        Self { instruments }
    }
}

impl Source for Push {
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a> {
        Box::pin(async move {
            out.announce(self.instruments.clone()).await?;
            let clock: Clock = out.clock;
            let mut next = clock.now();
            loop {
                out.emit(&mut vec![Emit::Mark(clock.now())]).await?;
                next = next.plus(MARK_EVERY).max(clock.now());
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = out.stopping() => return Err(SourceError::Stopped),
                }
            }
        })
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        // Whoever publishes knows how far they got.
        Some(Vec::new())
    }
}
