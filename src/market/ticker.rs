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
    /// Σ price·quantity / Σ quantity, 8 decimals, half to even.
    pub vwap: Decimal,
    /// How many trades.
    pub n: u64,
    /// last / open − 1, 8 decimals, half to even; `None` where the open is zero.
    pub chg: Option<Decimal>,
}
