//! Instruments and sources.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::market::SourceKind;
use crate::protocol::Id;

/// Answers `instruments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instruments {
    /// The request's.
    pub id: Option<Id>,
    /// Instruments visible to the client.
    pub instruments: Vec<InstrumentEntry>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// One instrument.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstrumentEntry {
    /// Its symbol.
    pub symbol: String,
    /// Its channels, with their params: `trade`, `bar:1m`.
    pub channels: Vec<Cow<'static, str>>,
    /// Usual decimals of a price.
    pub price_scale: u32,
    /// Usual decimals of a quantity.
    pub qty_scale: u32,
    /// Kind of source of its prices.
    pub src: SourceKind,
    /// For people.
    pub description: String,
    /// The venue's own spelling of the symbol, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venue_symbol: Option<String>,
}

/// A source's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It emits.
    Live,
    /// It is silent.
    Stale,
    /// It failed and is being started again.
    Reconnecting,
    /// It has come to its end.
    Ended,
}

impl SourceState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Live, Self::Stale, Self::Reconnecting, Self::Ended];

    /// As it stands on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Reconnecting => "reconnecting",
            Self::Ended => "ended",
        }
    }
}

/// A source of a held topic changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceChange {
    /// Its name in the config.
    pub name: String,
    /// Its state now.
    pub state: SourceState,
    /// Since when, Unix nanoseconds.
    pub since: u64,
    /// Why it ended before its end; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
