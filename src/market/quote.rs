use super::{Price, Qty, UnixNanos};

/// A price and what rests there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// The level's price.
    pub px: Price,
    /// The quantity that rests; `None` where the source gives no sizes, which differs from zero.
    pub qty: Option<Qty>,
}

/// The best bid and offer (L1); a side may be empty, and a source may give no sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// Time at the source.
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

    /// The quote with every side of size zero as an empty side.
    #[must_use]
    pub fn with_zero_sizes_empty(self) -> Self {
        let has_size = |level: &Level| level.qty.is_none_or(|qty| !qty.0.is_zero());
        Self {
            ts: self.ts,
            bid: self.bid.filter(has_size),
            ask: self.ask.filter(has_size),
        }
    }
}
