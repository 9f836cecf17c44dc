use rust_decimal::Decimal;

use super::{Price, Qty, UnixNanos};

/// Session summary of one instrument, derived from its trades.
#[derive(Debug, Clone, PartialEq)]
pub struct Ticker {
    /// Event time of the newest trade.
    pub ts: UnixNanos,
    /// Price of the newest trade.
    pub last: Price,
    /// First price of the session.
    pub open: Price,
    /// Highest price of the session.
    pub high: Price,
    /// Lowest price of the session.
    pub low: Price,
    /// Traded quantity, in units of the base.
    pub vol: Qty,
    /// Volume-weighted average price, Σ price·quantity / Σ quantity, rounded half to even: at least
    /// 8 decimals, those of the prices, and 6 significant digits.
    pub vwap: Decimal,
    /// Number of trades.
    pub n: u64,
    /// Relative change, last / open − 1, rounded half to even: at least 8 decimals and 6
    /// significant digits; `None` if the open is zero or the ratio exceeds 28 digits.
    pub chg: Option<Decimal>,
}
