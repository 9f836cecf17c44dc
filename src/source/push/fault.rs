//! Reasons for rejecting published events.

use std::time::Duration;

use crate::market::{PriceFault, TimeUnit, UnixNanos};
use crate::source::rules::Rule;

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
    /// The publisher has no right to the symbol.
    #[error("not entitled: role \"{role}\" may not publish symbol \"{symbol}\"")]
    NotEntitled {
        /// Role of the publisher.
        role: String,
        /// Symbol as received.
        symbol: String,
    },
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
    /// The event violates a rule of the source.
    #[error("rejected by the rule `{}` of the source (`rules`)", .0.name())]
    Rule(Rule),
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

    /// Metric label of records without the right to their symbol.
    pub const NOT_ENTITLED: &str = "not_entitled";

    /// Metric label of the fault.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => Self::MALFORMED,
            Self::Channel(_) => "channel",
            Self::Symbol(_) => "symbol",
            Self::NotEntitled { .. } => Self::NOT_ENTITLED,
            Self::Price(fault) => fault.reason(),
            Self::Late(_) => "late",
            Self::Unit { .. } => "unit",
            Self::Ahead(_) => "ahead",
            Self::Behind(_) => "behind",
            Self::Rule(_) => "rule",
            Self::Full => "full",
        }
    }
}

/// Reason for rejecting an event that is valid by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The event is older than the previous one, which has this time.
    Late(UnixNanos),
    /// The event violates a rule of the source.
    Rule(Rule),
}

impl From<Refused> for PushFault {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Late(newest) => Self::Late(newest.0),
            Refused::Rule(rule) => Self::Rule(rule),
        }
    }
}
