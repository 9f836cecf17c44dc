//! Items of a record for the inputs of sources, from which a publisher that stands by derives what
//! the leader derives.

use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::forms::value;
use crate::files::decode_saved;
use crate::log::{Catalog, ForeignFault, InstrumentId, SourceId, SourceInput};
use crate::market::{Bar, Interval, TradingState, UnixNanos};

#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    source: u16,
    config: Bytes,
    /// Milliseconds.
    stale_after: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StartOver {
    source: u16,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    source: u16,
    now: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trading {
    source: u16,
    instrument: u32,
    state: TradingState,
    ts: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct History {
    source: u16,
    instrument: u32,
    interval: String,
    /// Number of closed bars.
    closed: u32,
    open: Option<Bar>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    source: u16,
    instrument: u32,
    bar: Bar,
    notional: Decimal,
}

#[derive(Debug, Serialize, Deserialize)]
struct Position {
    source: u16,
    position: Bytes,
}

/// Name and value of an item.
pub(super) fn input_item(source: SourceId, input: &SourceInput) -> (&'static str, Bytes) {
    let source = source.0;
    match input {
        SourceInput::Begin {
            config,
            stale_after,
        } => {
            let item = Begin {
                source,
                config: config.clone(),
                stale_after: u64::try_from(stale_after.as_millis()).unwrap_or(u64::MAX),
            };
            ("begin", value(&item))
        }
        SourceInput::StartOver => ("start_over", value(&StartOver { source })),
        SourceInput::Mark(now) => ("mark", value(&Mark { source, now: now.0 })),
        SourceInput::Trading(id, state, ts) => {
            let item = Trading {
                source,
                instrument: id.0,
                state: *state,
                ts: ts.0,
            };
            ("trading", value(&item))
        }
        SourceInput::History(id, interval, closed, open) => {
            let item = History {
                source,
                instrument: id.0,
                interval: interval.name().to_owned(),
                closed: *closed,
                open: open.clone(),
            };
            ("history", value(&item))
        }
        SourceInput::Session(id, bar, notional) => {
            let item = Session {
                source,
                instrument: id.0,
                bar: bar.clone(),
                notional: *notional,
            };
            ("session", value(&item))
        }
        SourceInput::Position(position) => {
            let position = position.clone();
            ("position", value(&Position { source, position }))
        }
    }
}

/// Reason for which an item is not an input.
pub(super) enum InputFault {
    /// An item with another name.
    Other,
    /// An item of this name that cannot be read.
    Malformed(&'static str),
    /// An item about an unknown source or instrument.
    Unknown(&'static str, ForeignFault),
}

/// Reads the item with a name.
pub(super) fn read_input(
    name: &str,
    bytes: &[u8],
    catalog: &Catalog,
) -> Result<(SourceId, SourceInput), InputFault> {
    let (name, source, input) = match name {
        "begin" => {
            let item: Begin = read("begin", bytes)?;
            let input = SourceInput::Begin {
                config: item.config,
                stale_after: Duration::from_millis(item.stale_after),
            };
            ("begin", item.source, input)
        }
        "start_over" => {
            let item: StartOver = read("start_over", bytes)?;
            ("start_over", item.source, SourceInput::StartOver)
        }
        "mark" => {
            let item: Mark = read("mark", bytes)?;
            ("mark", item.source, SourceInput::Mark(UnixNanos(item.now)))
        }
        "trading" => {
            let item: Trading = read("trading", bytes)?;
            let id = instrument("trading", item.instrument, catalog)?;
            let input = SourceInput::Trading(id, item.state, UnixNanos(item.ts));
            ("trading", item.source, input)
        }
        "history" => {
            let item: History = read("history", bytes)?;
            let id = instrument("history", item.instrument, catalog)?;
            let interval = Interval::parse(&item.interval);
            let interval = interval.ok_or(InputFault::Malformed("history"))?;
            let input = SourceInput::History(id, interval, item.closed, item.open);
            ("history", item.source, input)
        }
        "session" => {
            let item: Session = read("session", bytes)?;
            let id = instrument("session", item.instrument, catalog)?;
            let input = SourceInput::Session(id, item.bar, item.notional);
            ("session", item.source, input)
        }
        "position" => {
            let item: Position = read("position", bytes)?;
            (
                "position",
                item.source,
                SourceInput::Position(item.position),
            )
        }
        _ => return Err(InputFault::Other),
    };
    let source = SourceId(source);
    let known = catalog.check_source(source);
    known.map_err(|fault| InputFault::Unknown(name, fault))?;
    Ok((source, input))
}

fn read<T: for<'de> Deserialize<'de>>(name: &'static str, bytes: &[u8]) -> Result<T, InputFault> {
    decode_saved(bytes).map_err(|_malformed| InputFault::Malformed(name))
}

fn instrument(
    name: &'static str,
    number: u32,
    catalog: &Catalog,
) -> Result<InstrumentId, InputFault> {
    let id = InstrumentId(number);
    let known = catalog.check_instrument(id).map(|()| id);
    known.map_err(|fault| InputFault::Unknown(name, fault))
}
