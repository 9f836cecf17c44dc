//! Messages about instruments and sources.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::market::SourceKind;
use crate::protocol::Id;

/// Response to `instruments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instruments {
    /// Id of the request.
    pub id: Option<Id>,
    /// Instruments visible to the client.
    pub instruments: Vec<InstrumentEntry>,
    /// True if another part of the response follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Description of one instrument.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstrumentEntry {
    /// Symbol of the instrument.
    pub symbol: String,
    /// Channels with their parameters, e.g. `trade`, `bar:1m`.
    pub channels: Vec<Cow<'static, str>>,
    /// Usual number of decimals of prices.
    pub price_scale: u32,
    /// Usual number of decimals of quantities.
    pub qty_scale: u32,
    /// Kind of source of the prices.
    pub src: SourceKind,
    /// Human-readable description.
    pub description: String,
    /// Venue spelling of the symbol, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venue_symbol: Option<String>,
}

/// State of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// The source emits events.
    Live,
    /// The source is silent.
    Stale,
    /// The source failed and is being restarted.
    Reconnecting,
    /// The source has ended.
    Ended,
}

impl SourceState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Live, Self::Stale, Self::Reconnecting, Self::Ended];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Reconnecting => "reconnecting",
            Self::Ended => "ended",
        }
    }
}

/// State change of a source of a subscribed topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceChange {
    /// Name of the source in the config.
    pub name: String,
    /// Current state of the source.
    pub state: SourceState,
    /// Time of the change, in Unix nanoseconds.
    pub since: u64,
    /// Failure that ended the source; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
