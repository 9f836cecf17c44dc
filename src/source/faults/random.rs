use std::time::Duration;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// Reproducible random numbers (`SplitMix64`): few are needed, and their quality does not matter.
#[derive(Debug)]
pub(super) struct Random(u64);

const SHARE_SCALE: u64 = 1_000_000;

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with probability `share`.
    pub(super) fn happens(&mut self, share: Decimal) -> bool {
        if share >= Decimal::ONE {
            return true;
        }
        let scaled = share * Decimal::from(SHARE_SCALE);
        self.next() % SHARE_SCALE < scaled.to_u64().unwrap_or(SHARE_SCALE)
    }

    /// Duration from zero to `most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.next() % most.saturating_add(1))
    }
}
