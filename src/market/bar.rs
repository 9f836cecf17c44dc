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
    /// All of them, the shortest first.
    pub const ALL: [Self; 5] = [Self::S1, Self::M1, Self::M5, Self::H1, Self::D1];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::M1 => "1m",
            Self::M5 => "5m",
            Self::H1 => "1h",
            Self::D1 => "1d",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|interval| interval.name() == text)
    }

    /// Its length.
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
    /// The event time of the newest trade in it; of a closed bar its end.
    pub ts: UnixNanos,
    /// Start of the interval.
    pub start: UnixNanos,
    /// The first trade's price.
    pub open: Price,
    /// The highest price.
    pub high: Price,
    /// The lowest price.
    pub low: Price,
    /// The newest trade's price.
    pub close: Price,
    /// Traded quantity, in the base.
    pub vol: Qty,
    /// Number of trades.
    pub n: u64,
    /// True for the bar's last event.
    pub done: bool,
}

impl Bar {
    /// A bar of one trade.
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

    /// Takes one more trade in; where the volume has no room for it, nothing changes.
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

    /// Takes the bar that follows within the same longer interval in; where the volume has no room for it, nothing changes.
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

    /// The volume with so much more of it.
    pub fn vol_with(&self, qty: Qty) -> Result<Qty, PriceFault> {
        self.vol
            .0
            .checked_add(qty.0)
            .map(Qty)
            .ok_or(PriceFault::Overflow)
    }
}
