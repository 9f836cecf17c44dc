use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::topic::Channel;

/// The name of an instrument on the wire: `[A-Za-z0-9._/-]`, one to 32 characters, case-sensitive.
///
/// Where one symbol comes from several venues, the venue stands in front (`binance.BTCUSDT`), within the 32.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Symbol(Arc<str>);

/// Why a text is no [`Symbol`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no symbol; use 1 to 32 of A-Z a-z 0-9 . _ / -")]
pub struct SymbolError(pub String);

impl Symbol {
    /// The most characters of a symbol.
    pub const LEN_MAX: usize = 32;

    /// Checks and takes a symbol's text.
    pub fn new(text: &str) -> Result<Self, SymbolError> {
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(Self::allows);
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(SymbolError(text.chars().take(40).collect()))
        }
    }

    /// Whether `byte` may stand in a symbol.
    pub const fn allows(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'-')
    }

    /// The text as it stands in topics.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Symbol> for String {
    fn from(symbol: Symbol) -> Self {
        symbol.0.as_ref().into()
    }
}

impl TryFrom<String> for Symbol {
    type Error = SymbolError;

    fn try_from(text: String) -> Result<Self, SymbolError> {
        Self::new(&text)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an instrument's prices come from; always visible, so that made prices can't pass for live ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Made by the simulator.
    Sim,
    /// Recorded, played again.
    Replay,
    /// A venue's live feed.
    Live,
    /// Pushed over HTTP.
    Push,
}

impl SourceKind {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sim => "sim",
            Self::Replay => "replay",
            Self::Live => "live",
            Self::Push => "push",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sim, Self::Replay, Self::Live, Self::Push]
            .into_iter()
            .find(|src| src.name() == text)
    }
}

/// What can be subscribed to under one symbol.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Instrument {
    /// Its name on the wire.
    pub symbol: Symbol,
    /// For people; may be empty.
    pub description: String,
    /// The usual number of decimals of its prices.
    pub price_scale: u32,
    /// The usual number of decimals of its quantities.
    pub qty_scale: u32,
    /// Where its prices come from.
    pub src: SourceKind,
    /// Whether trades come, and so `trade`, `ticker` and `bar`.
    pub has_trades: bool,
    /// Whether quotes come.
    pub has_quotes: bool,
    /// After how long a silence it is stale; `None`: as its source says.
    pub stale_after: Option<Duration>,
    /// When its session's day begins, after 00:00 UTC.
    pub session_start: Duration,
}

impl Instrument {
    /// The channels that this instrument has, in the order of the protocol page.
    pub fn channels(&self) -> Vec<Channel> {
        let is_there = |channel: &Channel| match channel {
            Channel::Quote => self.has_quotes,
            Channel::Status => true,
            Channel::Trade | Channel::Ticker | Channel::Bar(_) => self.has_trades,
        };
        Channel::ALL.into_iter().filter(is_there).collect()
    }
}
