use std::time::Duration;

use super::{Price, PriceFault, Qty, UnixNanos};

/// Interval of a bar; bars start at multiples of it since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// One second.
    S1,
    /// One minute.
    M1,
    /// Five minutes.
    M5,
    /// One hour.
    H1,
    /// One day, UTC.
    D1,
}

impl Interval {
    /// All intervals, shortest first.
    pub const ALL: [Self; 5] = [Self::S1, Self::M1, Self::M5, Self::H1, Self::D1];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::M1 => "1m",
            Self::M5 => "5m",
            Self::H1 => "1h",
            Self::D1 => "1d",
        }
    }

    /// Parses the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|interval| interval.name() == text)
    }

    /// Length of the interval.
    pub const fn span(self) -> Duration {
        Duration::from_secs(match self {
            Self::S1 => 1,
            Self::M1 => 60,
            Self::M5 => 300,
            Self::H1 => 3_600,
            Self::D1 => 86_400,
        })
    }
}

/// Open, high, low, close and volume of one interval (OHLCV).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Bar {
    /// Event time of the newest trade; for a closed bar, the end of the interval.
    pub ts: UnixNanos,
    /// Start of the interval.
    pub start: UnixNanos,
    /// Price of the first trade.
    pub open: Price,
    /// Highest trade price.
    pub high: Price,
    /// Lowest trade price.
    pub low: Price,
    /// Price of the newest trade.
    pub close: Price,
    /// Traded quantity, in units of the base.
    pub vol: Qty,
    /// Number of trades.
    pub n: u64,
    /// True for the last event of the bar.
    pub done: bool,
}

impl Bar {
    /// Creates a bar from its first trade.
    pub fn first(start: UnixNanos, ts: UnixNanos, px: Price, qty: Qty) -> Self {
        Self {
            ts,
            start,
            open: px,
            high: px,
            low: px,
            close: px,
            vol: qty,
            n: 1,
            done: false,
        }
    }

    /// Adds a trade; if the volume would overflow, the bar is unchanged.
    pub fn add(&mut self, ts: UnixNanos, px: Price, qty: Qty) -> Result<(), PriceFault> {
        let vol = self.vol_with(qty)?;
        self.ts = self.ts.max(ts);
        self.high = self.high.max(px);
        self.low = self.low.min(px);
        self.close = px;
        self.vol = vol;
        self.n += 1;
        Ok(())
    }

    /// Merges the following bar of the same longer interval; if the volume would overflow, the bar
    /// is unchanged.
    pub fn extend(&mut self, next: &Self) -> Result<(), PriceFault> {
        let vol = self.vol_with(next.vol)?;
        self.ts = self.ts.max(next.ts);
        self.high = self.high.max(next.high);
        self.low = self.low.min(next.low);
        self.close = next.close;
        self.vol = vol;
        self.n += next.n;
        Ok(())
    }

    /// Volume after adding `qty`.
    pub fn vol_with(&self, qty: Qty) -> Result<Qty, PriceFault> {
        self.vol
            .0
            .checked_add(qty.0)
            .map(Qty)
            .ok_or(PriceFault::Overflow)
    }
}
