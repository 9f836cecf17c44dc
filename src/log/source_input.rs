use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;

use super::InstrumentId;
use crate::market::{Bar, Interval, TradingState, UnixNanos};

/// Input of a source that is not an event. With it, a server that follows the log derives the same
/// events as the server that writes it. Only the log of a cluster contains inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceInput {
    /// The source begins with this config, anew or continuing its topics.
    Begin {
        /// Checksum of the config.
        config: Bytes,
        /// Silence after which an instrument without its own setting is stale.
        stale_after: Duration,
    },
    /// The instruments of the source are as new.
    StartOver,
    /// Watermark: the current time of the source.
    Mark(UnixNanos),
    /// The venue, or a rule, opened, halted or closed an instrument.
    Trading(InstrumentId, TradingState, UnixNanos),
    /// Bars from before the source started: this number of closed ones, whose events follow, and
    /// the open one, whose event follows too.
    History(InstrumentId, Interval, u32, Option<Bar>),
    /// Session as of the start of the source: its summary and Σ price·quantity.
    Session(InstrumentId, Bar, Decimal),
    /// Position from which the source repeats what follows it in the log.
    Position(Bytes),
}
