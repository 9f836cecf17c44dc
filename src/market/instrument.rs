use std::time::Duration;

use super::Symbol;
use crate::topic::Channel;

/// Kind of source of an instrument's prices; always visible, so that simulated prices cannot pass for live ones.
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

/// The channels and properties of one symbol.
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
    /// Kind of source of the prices.
    pub src: SourceKind,
    /// True if it has trades, and so `trade`, `ticker` and `bar`.
    pub has_trades: bool,
    /// True if it has quotes.
    pub has_quotes: bool,
    /// After how long a silence it is stale; `None`: as its source says.
    pub stale_after: Option<Duration>,
    /// Start of the trading session, after 00:00 UTC.
    pub session_start: Duration,
    /// The venue's own spelling of the symbol, where that differs.
    #[serde(default)]
    pub venue_symbol: Option<Box<str>>,
}

impl Instrument {
    /// An instrument with trades and quotes, two decimals of price and whole quantities.
    pub fn new(symbol: Symbol, src: SourceKind) -> Self {
        Self {
            symbol,
            venue_symbol: None,
            description: String::new(),
            price_scale: 2,
            qty_scale: 0,
            src,
            has_trades: true,
            has_quotes: true,
            stale_after: None,
            session_start: Duration::ZERO,
        }
    }

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
