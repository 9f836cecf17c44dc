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

/// What is wrong or remarkable in a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum QuoteFault {
    /// The bid is above the ask.
    #[error("the quote is crossed: its bid is above its ask")]
    Crossed,
    /// A price is negative where the source doesn't allow it.
    #[error("the price is negative, and this source allows none")]
    NegativePrice,
    /// A quantity is negative.
    #[error("a quantity can't be negative")]
    Quantity,
}

impl Quote {
    /// The rule for every source. A locked quote (bid = ask) is legal: venues send it.
    pub fn check(&self, negative_prices: bool) -> Result<(), QuoteFault> {
        let sides = [self.bid, self.ask];
        if sides
            .iter()
            .flatten()
            .any(|level| level.qty.0.is_sign_negative() && !level.qty.0.is_zero())
        {
            return Err(QuoteFault::Quantity);
        }
        if !negative_prices
            && sides
                .iter()
                .flatten()
                .any(|level| level.px.0.is_sign_negative())
        {
            return Err(QuoteFault::NegativePrice);
        }
        match sides {
            [Some(bid), Some(ask)] if bid.px > ask.px => Err(QuoteFault::Crossed),
            _ => Ok(()),
        }
    }
}
