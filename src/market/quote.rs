use rust_decimal::Decimal;

use super::{Price, Qty, UnixNanos};

/// Price level and the quantity resting at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Level {
    /// Price of the level.
    pub px: Price,
    /// Resting quantity; `None` if the source gives no sizes, which differs from zero.
    pub qty: Option<Qty>,
}

impl Level {
    /// Side of a quote from its optional fields: without both it is empty, without a size the
    /// size is unknown. `decimal` parses a field by name, and rejects a missing one.
    pub(crate) fn from_fields<T, E>(
        [px_name, qty_name]: [&'static str; 2],
        px: Option<T>,
        qty: Option<T>,
        decimal: impl Fn(&'static str, Option<T>) -> Result<Decimal, E>,
    ) -> Result<Option<Self>, E> {
        if px.is_none() && qty.is_none() {
            return Ok(None);
        }
        let px = Price(decimal(px_name, px)?);
        let qty = qty.map(|qty| decimal(qty_name, Some(qty)).map(Qty));
        Ok(Some(Self {
            px,
            qty: qty.transpose()?,
        }))
    }
}

/// Best bid and offer (L1); a side may be empty, and a source may give no sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
