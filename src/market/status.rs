use super::UnixNanos;

/// Trading state of a symbol, which determines whether its prices are reliable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradingState {
    /// Prices are current.
    Live,
    /// No event for longer than `stale_after`; the last value may be outdated.
    Stale,
    /// The venue halted trading.
    Halted,
    /// Outside the trading hours.
    Closed,
}

impl TradingState {
    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Halted => "halted",
            Self::Closed => "closed",
        }
    }

    /// Parses the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Live, Self::Stale, Self::Halted, Self::Closed]
            .into_iter()
            .find(|state| state.name() == text)
    }
}

/// Status of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Source time at which the state was determined.
    pub ts: UnixNanos,
    /// Trading state.
    pub state: TradingState,
    /// Time since which the state has applied.
    pub since: UnixNanos,
    /// Kind of source of the symbol's prices.
    pub src: super::SourceKind,
}
