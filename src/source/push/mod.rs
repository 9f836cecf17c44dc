//! Push source: validation of published events, and watermarks for a source fed over HTTP.

#![deny(clippy::arithmetic_side_effects)]

mod fault;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::rules::Screen;
use super::{Output, Source, SourceError, SourceFuture};
use crate::bus::{EMITTED_MAX, Emit, Emitter, QueueFull};
use crate::clock::Clock;
use crate::market::{
    Aggressor, Instrument, Level, Price, PriceRules, Qty, Quote, Symbol, TimeUnit, Trade, TradeId,
    UnixNanos, excerpt, parse_decimal,
};

pub use fault::{PushFault, Refused};

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
    pub const EVENT_BYTES: usize =
        size_of::<Emit>() + size_of::<u32>() + size_of::<(u32, Refused)>();

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
    /// Rejected events: the index of each, and the reason.
    pub refused: Vec<(u32, Refused)>,
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
    /// Locked because publishers connect to any shard. `None` once the source has stopped.
    order: Mutex<Option<Order>>,
}

/// State that judges an event by the events before it.
#[derive(Debug)]
struct Order {
    /// Latest times by instrument.
    newest: Vec<Newest>,
    /// Rules of the source, if any apply.
    screen: Option<Screen>,
}

impl PushInlet {
    /// Creates the entry point of a source with these instruments.
    pub fn new(
        instruments: &[Instrument],
        rules: PushRules,
        emitter: Emitter,
        screen: Option<Screen>,
    ) -> Self {
        let numbers = instruments
            .iter()
            .enumerate()
            .map(|(at, instrument)| (instrument.symbol.clone(), at as u32))
            .collect();
        Self {
            rules,
            emitter,
            numbers,
            order: Mutex::new(Some(Order {
                newest: vec![Newest::default(); instruments.len()],
                screen,
            })),
        }
    }

    /// Stops accepting events: later ones may belong to another source or to none.
    pub fn close(&self) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Number of the batch of the bus behind all events published before; `None` once the bus has
    /// stopped.
    pub async fn position(&self) -> Option<u64> {
        self.emitter.position().await
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

    /// Emits a batch, all or nothing, except for events that are out of order or violate a rule.
    /// `now` is the time of receipt.
    pub fn publish(&self, batch: PushBatch, now: UnixNanos) -> Result<Published, BatchRefused> {
        let mut open = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let PushBatch { mut pieces, places } = batch;
        let Some(Order { newest, screen }) = open.as_mut() else {
            return Err(BatchRefused(places.concat()));
        };
        let mut after = newest.clone();
        let mut refused = Vec::new();
        let events: usize = pieces.iter().map(Vec::len).sum();
        if let Some(screen) = screen {
            screen.begin();
            screen.set_present(now);
        }
        for (piece, places) in pieces.iter_mut().zip(&places) {
            let mut places = places.iter().copied();
            let mut admitted = Vec::with_capacity(piece.len());
            for emit in piece.drain(..) {
                let place = places.next().unwrap_or_default();
                let admitting = self.admit(emit, &mut after, screen.as_mut(), &mut admitted);
                refused.extend(admitting.err().map(|why| (place, why)));
            }
            *piece = admitted;
        }
        let accepted = events.saturating_sub(refused.len());
        let emitted = self.emitter.try_emit_pieces(queue_pieces(pieces));
        match (&emitted, screen) {
            (Ok(()), Some(screen)) => screen.commit(),
            (Err(QueueFull), Some(screen)) => screen.roll_back(),
            (_, None) => {}
        }
        emitted.map_err(|_full| BatchRefused(places.concat()))?;
        *newest = after;
        Ok(Published { accepted, refused })
    }

    /// Appends an event unless it is older than the latest one or violates a rule.
    fn admit(
        &self,
        emit: Emit,
        newest: &mut [Newest],
        screen: Option<&mut Screen>,
        admitted: &mut Vec<Emit>,
    ) -> Result<(), Refused> {
        let (ts, newest) = match &emit {
            Emit::Trade(number, trade) => (trade.ts, &mut newest[*number as usize].trade),
            Emit::Quote(number, quote) => (quote.ts, &mut newest[*number as usize].quote),
            _ => return Ok(()),
        };
        if ts < *newest && !self.rules.late {
            return Err(Refused::Late(*newest));
        }
        match screen {
            None => admitted.push(emit),
            Some(screen) => match screen.judge(emit, admitted) {
                None => {}
                Some(rule) => return Err(Refused::Rule(rule)),
            },
        }
        *newest = ts.max(*newest);
        Ok(())
    }
}

/// Pieces that fit into the queue of the bus, although rules have added values.
fn queue_pieces(pieces: Vec<Vec<Emit>>) -> Vec<Vec<Emit>> {
    let mut fitting = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        while piece.len() > EMITTED_MAX {
            let rest = piece.split_off(EMITTED_MAX);
            fitting.push(std::mem::replace(&mut piece, rest));
        }
        if !piece.is_empty() {
            fitting.push(piece);
        }
    }
    fitting
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
