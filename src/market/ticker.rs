use rust_decimal::Decimal;

use super::{Price, Qty, UnixNanos};

/// A session's summary of one instrument, made from its trades.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticker {
    /// The event time of the newest trade in it.
    pub ts: UnixNanos,
    /// The newest trade's price.
    pub last: Price,
    /// The session's first price.
    pub open: Price,
    /// The session's highest price.
    pub high: Price,
    /// The session's lowest price.
    pub low: Price,
    /// Traded quantity, in the base.
    pub vol: Qty,
    /// Σ price·quantity / Σ quantity, half to even: at least 8 decimals, those of the prices, and 6 significant digits.
    pub vwap: Decimal,
    /// Number of trades.
    pub n: u64,
    /// last / open − 1, half to even, at least 8 decimals and 6 significant digits; `None` where the open is zero, or the ratio
    /// beyond 28 digits.
    pub chg: Option<Decimal>,
}
