use super::{Price, Qty, UnixNanos};

/// A price and what rests there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The level's price.
    pub px: Price,
    /// The quantity that rests.
    pub qty: Qty,
}

/// The best bid and offer (L1); a side may be empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// When the source says it was so.
    pub ts: UnixNanos,
    /// The best price that somebody pays.
    pub bid: Option<Level>,
    /// The best price that somebody asks.
    pub ask: Option<Level>,
}

impl Quote {
    /// True if the bid is above the ask.
    pub fn is_crossed(&self) -> bool {
        matches!((self.bid, self.ask), (Some(bid), Some(ask)) if bid.px > ask.px)
    }
}
