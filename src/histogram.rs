//! Histograms that one thread fills without atomics. Pure: [`metrics`](crate::metrics) exports
//! them.

use std::time::Duration;

/// Upper bucket bounds in the unit of the recorded values, and the number of recorded units per
/// exported unit.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    pub(crate) bounds: &'static [u64],
    pub(crate) per_shown: f64,
}

/// Times from 10 µs to 10 s, recorded in nanoseconds and exported in seconds.
pub const TIMES: Scale = Scale {
    bounds: &[
        10_000,
        20_000,
        50_000,
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
        200_000_000,
        500_000_000,
        1_000_000_000,
        2_000_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    per_shown: 1e9,
};
/// Sizes from 64 B to 1 MiB.
pub const SIZES: Scale = Scale {
    bounds: &[64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576],
    per_shown: 1.0,
};
/// Numbers from 1 to 4,096.
pub const NUMBERS: Scale = Scale {
    bounds: &[1, 4, 16, 64, 256, 1024, 4096],
    per_shown: 1.0,
};

/// Max number of buckets: the bounds of a scale and one for all larger values.
pub(crate) const BUCKETS: usize = TIMES.bounds.len() + 1;

/// Values that one thread recorded and has not yet exported.
#[derive(Debug)]
pub struct Tally {
    bounds: &'static [u64],
    /// Not cumulative; unused buckets of a short scale stay at zero.
    counts: [u64; BUCKETS],
    sum: u64,
    is_empty: bool,
}

impl Tally {
    /// Creates an empty tally.
    pub const fn new(scale: Scale) -> Self {
        Self {
            bounds: scale.bounds,
            counts: [0; BUCKETS],
            sum: 0,
            is_empty: true,
        }
    }

    /// Records a value `times` times.
    pub fn record(&mut self, value: u64, times: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += times;
        self.sum = self.sum.wrapping_add(value.wrapping_mul(times));
        self.is_empty = false;
    }

    /// Records a time.
    pub fn time(&mut self, time: Duration) {
        self.record(time.as_nanos() as u64, 1);
    }

    /// True if no values were recorded since the last `take`.
    pub const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Removes and returns the values: counts by bucket, and their sum. `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<([u64; BUCKETS], u64)> {
        if std::mem::replace(&mut self.is_empty, true) {
            return None;
        }
        let counts = std::mem::replace(&mut self.counts, [0; BUCKETS]);
        Some((counts, std::mem::take(&mut self.sum)))
    }
}
