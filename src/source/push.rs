//! Push source: validation of published events, and watermarks for a source fed over HTTP.

#![deny(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Output, Source, SourceError, SourceFuture};
use crate::bus::{EMITTED_MAX, Emit, Emitter, QueueFull};
use crate::clock::Clock;
use crate::market::{
    Aggressor, Instrument, Level, Price, PriceFault, PriceRules, Qty, Quote, Symbol, TimeUnit,
    Trade, TradeId, UnixNanos, excerpt, parse_decimal,
};

/// Interval between watermarks of the source.
const MARK_EVERY: Duration = Duration::from_millis(100);
/// Rules for published events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushRules {
    /// Rules for negative, zero and crossed prices.
    pub prices: PriceRules,
    /// True if events older than the previous one of the same symbol and channel are accepted.
    pub late: bool,
    /// Maximum time by which an event may be ahead of the server's clock.
    pub ahead_max: Duration,
    /// Maximum time by which an event may be behind the server's clock.
    pub behind_max: Duration,
}

/// One event in the form in which a publisher sends it.
#[derive(Debug, Clone, Default)]
pub struct PublishedEvent<'a> {
    /// Channel of the event.
    pub ch: Option<Field<'a>>,
    /// Symbol of the event.
    pub sym: Option<Field<'a>>,
    /// Event time.
    pub ts: Option<Field<'a>>,
    /// Trade price.
    pub px: Option<Field<'a>>,
    /// Trade quantity.
    pub qty: Option<Field<'a>>,
    /// Aggressor side of a trade.
    pub side: Option<Field<'a>>,
    /// Trade id.
    pub id: Option<Field<'a>>,
    /// Best bid price.
    pub bid: Option<Field<'a>>,
    /// Best bid quantity.
    pub bidq: Option<Field<'a>>,
    /// Best ask price.
    pub ask: Option<Field<'a>>,
    /// Best ask quantity.
    pub askq: Option<Field<'a>>,
}

/// Field value in the form in which a publisher sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// A number, in its original digits.
    Number(Cow<'a, str>),
    /// A binary float, which cannot represent decimals exactly.
    Float,
    /// Any other type.
    Other,
}

/// Reason for rejecting a published event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushFault {
    /// The record is not an event, or a field is invalid.
    #[error("{0}")]
    Malformed(String),
    /// The channel is derived: only trades and quotes can be published.
    #[error(
        "channel \"{0}\" cannot be published: expected trade or quote; other channels are derived from them"
    )]
    Channel(String),
    /// The source does not list the instrument.
    #[error("unknown symbol \"{0}\": no push source of this token lists it")]
    Symbol(String),
    /// The event violates a price rule.
    #[error(transparent)]
    Price(#[from] PriceFault),
    /// The event is older than the previous one.
    #[error(
        "`ts` is older than the previous event at {0}; allow it with `late: true` in the source"
    )]
    Late(u64),
    /// The time is not in nanoseconds.
    #[error("`ts` {ts} is in {}: expected nanoseconds since 1970, e.g. {nanos}", unit.name())]
    Unit {
        /// Time as received.
        ts: u64,
        /// Detected unit.
        unit: TimeUnit,
        /// The same time in nanoseconds.
        nanos: u64,
    },
    /// The queue of the bus has no room for this part of the request.
    #[error("bus queue full (bus.queue); resend this line")]
    Full,
    /// The time is too far ahead of the server's clock.
    #[error(
        "`ts` is more than {0:?} ahead of the server's clock (`ahead` of the source): expected nanoseconds since 1970"
    )]
    Ahead(Duration),
    /// The time is too far behind the server's clock.
    #[error(
        "`ts` is more than {0:?} behind the server's clock (`behind` of the source): expected nanoseconds since 1970"
    )]
    Behind(Duration),
}

impl PushFault {
    /// Metric label of records that are not events.
    pub const MALFORMED: &str = "malformed";

    /// Metric label of the fault.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => Self::MALFORMED,
            Self::Channel(_) => "channel",
            Self::Symbol(_) => "symbol",
            Self::Price(fault) => fault.reason(),
            Self::Late(_) => "late",
            Self::Unit { .. } => "unit",
            Self::Ahead(_) => "ahead",
            Self::Behind(_) => "behind",
            Self::Full => "full",
        }
    }
}

/// Validated events of one request for one source, in order, split into pieces that fit into the
/// queue of the bus.
#[derive(Debug, Default)]
pub struct PushBatch {
    pieces: Vec<Vec<Emit>>,
    /// Index of each event in the request, by piece.
    places: Vec<Vec<u32>>,
}

impl PushBatch {
    /// Memory footprint of one event, in bytes.
    pub const EVENT_BYTES: usize = size_of::<Emit>() + size_of::<u32>() + size_of::<(u32, u64)>();

    /// Appends an event with its index in the request.
    pub fn push(&mut self, place: u32, emit: Emit) {
        if self
            .pieces
            .last()
            .is_none_or(|piece| piece.len() == EMITTED_MAX)
        {
            self.pieces.push(Vec::new());
            self.places.push(Vec::new());
        }
        if let (Some(piece), Some(places)) = (self.pieces.last_mut(), self.places.last_mut()) {
            piece.push(emit);
            places.push(place);
        }
    }

    /// True if the batch contains no events.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Result of an accepted batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Number of events emitted.
    pub accepted: usize,
    /// Late events: the index of each, and the time of the previous event.
    pub late: Vec<(u32, u64)>,
}

/// Rejection of a batch because the queue is full, with the indices of its events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bus queue full (bus.queue)")]
pub struct BatchRefused(pub Vec<u32>);

/// Latest event times of an instrument's trades and quotes.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    trade: UnixNanos,
    quote: UnixNanos,
}

/// Entry point for published events: validation rules and the connection to the bus.
#[derive(Debug)]
pub struct PushInlet {
    rules: PushRules,
    emitter: Emitter,
    numbers: HashMap<Symbol, u32>,
    /// Latest times by instrument; locked because publishers connect to any shard. `None` once the
    /// source has stopped.
    newest: Mutex<Option<Vec<Newest>>>,
}

impl PushInlet {
    /// Creates the entry point of a source with these instruments.
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

    /// Stops accepting events: later ones may belong to another source or to none.
    pub fn close(&self) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// True if an event's symbol belongs to this source.
    pub fn knows(&self, event: &PublishedEvent<'_>) -> bool {
        matches!(&event.sym, Some(Field::Text(text)) if self.numbers.contains_key(&**text))
    }

    /// Validates a single event; [`Self::publish`] checks its order relative to other events.
    pub fn check(&self, event: &PublishedEvent<'_>, now: UnixNanos) -> Result<Emit, PushFault> {
        let symbol = text("sym", event.sym.as_ref(), "BTC-USD")?;
        let number = *self
            .numbers
            .get(symbol)
            .ok_or_else(|| PushFault::Symbol(excerpt(symbol)))?;
        let channel = text("ch", event.ch.as_ref(), "trade")?;
        let ts = self.time(event.ts.as_ref(), now)?;
        match channel {
            "trade" => {
                let trade = event.trade(ts)?;
                self.rules.prices.check_trade(&trade)?;
                Ok(Emit::Trade(number, trade))
            }
            "quote" => {
                let quote = self.rules.prices.admit_quote(event.quote(ts)?)?;
                Ok(Emit::Quote(number, quote))
            }
            other => Err(PushFault::Channel(excerpt(other))),
        }
    }

    fn time(&self, ts: Option<&Field<'_>>, now: UnixNanos) -> Result<UnixNanos, PushFault> {
        let ts = match ts {
            None => return Ok(now),
            Some(Field::Number(digits)) => digits.parse().ok(),
            Some(_) => None,
        };
        let ts: u64 = ts.ok_or_else(|| {
            PushFault::Malformed(format!(
                "invalid `ts`: expected integer nanoseconds since 1970, e.g. \"ts\": {}, or no `ts` for the current time",
                now.0
            ))
        })?;
        let (ahead_max, behind_max) = (self.rules.ahead_max, self.rules.behind_max);
        if (now.minus(behind_max)..=now.plus(ahead_max)).contains(&UnixNanos(ts)) {
            return Ok(UnixNanos(ts));
        }
        if let Some((unit, nanos)) = TimeUnit::of(ts).and_then(|unit| Some((unit, unit.nanos(ts)?)))
        {
            return Err(PushFault::Unit {
                ts,
                unit,
                nanos: nanos.0,
            });
        }
        Err(if UnixNanos(ts) > now {
            PushFault::Ahead(ahead_max)
        } else {
            PushFault::Behind(behind_max)
        })
    }

    /// Emits a batch, all or nothing, except for events that are out of order.
    pub fn publish(&self, mut batch: PushBatch) -> Result<Published, BatchRefused> {
        let mut open = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let places = std::mem::take(&mut batch.places);
        let Some(newest) = open.as_mut() else {
            return Err(BatchRefused(places.concat()));
        };
        let mut after = newest.clone();
        let mut late = Vec::new();
        for (piece, places) in batch.pieces.iter_mut().zip(&places) {
            let mut places = places.iter();
            piece.retain(|emit| {
                let place = places.next().copied().unwrap_or_default();
                let in_order = self.in_order(emit, &mut after);
                late.extend(in_order.err().map(|newest| (place, newest.0)));
                in_order.is_ok()
            });
        }
        batch.pieces.retain(|piece| !piece.is_empty());
        let accepted = batch.pieces.iter().map(Vec::len).sum();
        match self.emitter.try_emit_pieces(batch.pieces) {
            Ok(()) => {
                *newest = after;
                Ok(Published { accepted, late })
            }
            Err(QueueFull) => Err(BatchRefused(places.concat())),
        }
    }

    /// Records the time of an event as the latest, or returns the latest time if the event is
    /// older.
    fn in_order(&self, emit: &Emit, newest: &mut [Newest]) -> Result<(), UnixNanos> {
        let (ts, newest) = match emit {
            Emit::Trade(number, trade) => (trade.ts, &mut newest[*number as usize].trade),
            Emit::Quote(number, quote) => (quote.ts, &mut newest[*number as usize].quote),
            _ => return Ok(()),
        };
        if ts < *newest && !self.rules.late {
            return Err(*newest);
        }
        *newest = ts.max(*newest);
        Ok(())
    }
}

/// Parses an exact decimal, given as a string or as a number in decimal notation.
fn decimal(
    name: &'static str,
    field: Option<&Field<'_>>,
) -> Result<rust_decimal::Decimal, PushFault> {
    let refused = |what: &str| {
        PushFault::Malformed(format!(
            "`{name}` {what}: expected a string, e.g. \"{name}\": \"10.50\""
        ))
    };
    match field {
        None => Err(refused("is missing")),
        Some(Field::Number(digits)) if digits.contains(['e', 'E']) => {
            Err(refused("has an exponent"))
        }
        Some(Field::Text(text) | Field::Number(text)) => parse_decimal(text).map_err(|_invalid| {
            refused(&format!(
                "\"{}\" is not a decimal of at most 28 digits",
                excerpt(text)
            ))
        }),
        Some(Field::Float) => Err(refused("is a float, which is not exact")),
        Some(Field::Other) => Err(refused("is not a decimal")),
    }
}

fn text<'f>(
    name: &'static str,
    field: Option<&'f Field<'_>>,
    example: &str,
) -> Result<&'f str, PushFault> {
    match field {
        Some(Field::Text(text)) => Ok(text),
        Some(_) => Err(PushFault::Malformed(format!(
            "`{name}` is not a string: expected e.g. \"{name}\": \"{example}\""
        ))),
        None => Err(PushFault::Malformed(format!(
            "`{name}` is missing: expected e.g. \"{name}\": \"{example}\""
        ))),
    }
}

impl PublishedEvent<'_> {
    fn trade(&self, ts: UnixNanos) -> Result<Trade, PushFault> {
        let malformed = |message: &str| PushFault::Malformed(message.to_owned());
        let side = match &self.side {
            None => Some(Aggressor::None),
            Some(Field::Text(side)) => Aggressor::parse(side),
            Some(_) => None,
        };
        let id = match &self.id {
            None => Some(TradeId::None),
            Some(Field::Text(id) | Field::Number(id)) => TradeId::parse(id),
            Some(_) => None,
        };
        Ok(Trade {
            ts,
            px: Price(decimal("px", self.px.as_ref())?),
            qty: Qty(decimal("qty", self.qty.as_ref())?),
            side: side.ok_or_else(|| {
                malformed("invalid `side`: expected \"buy\", \"sell\" or \"none\", or no `side`")
            })?,
            id: id.ok_or_else(|| {
                malformed(
                    "invalid `id`: expected up to 64 printable bytes, e.g. \"id\": \"42377944\"",
                )
            })?,
        })
    }

    fn quote(&self, ts: UnixNanos) -> Result<Quote, PushFault> {
        let bid = Level::from_fields(
            ["bid", "bidq"],
            self.bid.as_ref(),
            self.bidq.as_ref(),
            decimal,
        )?;
        let ask = Level::from_fields(
            ["ask", "askq"],
            self.ask.as_ref(),
            self.askq.as_ref(),
            decimal,
        )?;
        Ok(Quote { ts, bid, ask })
    }
}

/// Source task of a push source: announces the instruments and emits watermarks.
#[derive(Debug)]
pub struct Push {
    instruments: Vec<Instrument>,
}

impl Push {
    /// Creates a push source with these instruments.
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
                out.emit(&mut vec![Emit::Watermark(clock.now())]).await?;
                next = next.plus(MARK_EVERY).max(clock.now());
                tokio::select! {
                    () = clock.sleep_until(next) => {}
                    () = out.stopping() => return Err(SourceError::Stopped),
                }
            }
        })
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        // Publishers track their own position, so the checkpoint is empty.
        Some(Vec::new())
    }
}
