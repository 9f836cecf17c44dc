use super::{Price, Qty, UnixNanos};

/// Price level and the quantity resting at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Price of the level.
    pub px: Price,
    /// Resting quantity; `None` if the source gives no sizes, which differs from zero.
    pub qty: Option<Qty>,
}

/// Best bid and offer (L1); a side may be empty, and a source may give no sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// Event time at the source.
    pub ts: UnixNanos,
    /// Best bid; `None` if there is no bid.
    pub bid: Option<Level>,
    /// Best offer; `None` if there is no offer.
    pub ask: Option<Level>,
}

impl Quote {
    /// True if the bid is above the ask.
    pub fn is_crossed(&self) -> bool {
        matches!((self.bid, self.ask), (Some(bid), Some(ask)) if bid.px > ask.px)
    }

    /// Returns the quote with sides of size zero replaced by empty sides.
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
