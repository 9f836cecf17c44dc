use super::UnixNanos;

/// Trading state of a symbol: tells if its prices are reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradingState {
    /// Prices come.
    Live,
    /// Nothing came for longer than `stale_after`; the last value may be wrong.
    Stale,
    /// The venue halted trading.
    Halted,
    /// Outside the trading hours.
    Closed,
}

impl TradingState {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Halted => "halted",
            Self::Closed => "closed",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Stale, Self::Halted, Self::Closed]
            .into_iter()
            .find(|state| state.name() == text)
    }
}

/// A symbol's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The source's time at which it was noticed.
    pub ts: UnixNanos,
    /// The state.
    pub state: TradingState,
    /// Since when it holds.
    pub since: UnixNanos,
    /// Kind of source of the symbol's prices.
    pub src: super::SourceKind,
}
