//! Memory of the process compared with its limit: what is refused when it becomes scarce.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Share of the limit above which generated responses and publishing are refused, in percent.
const SCARCE_PERCENT: u64 = 80;
/// Share of the limit above which new connections are refused too, in percent.
const EXHAUSTED_PERCENT: u64 = 90;
/// Percent by which the memory must fall before a level ends.
const HYSTERESIS_PERCENT: u64 = 5;

/// Degree to which memory is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryLevel {
    /// Nothing is refused.
    Enough,
    /// Generated responses and publishing are refused.
    Scarce,
    /// New connections are refused too.
    Exhausted,
}

impl MemoryLevel {
    /// Level for used and available bytes, after a level before. A limit of 0 is unknown.
    fn of(used: u64, limit: u64, before: Self) -> Self {
        if limit == 0 {
            return Self::Enough;
        }
        let percent = used.saturating_mul(100) / limit;
        let holds = |level: Self, from: u64| {
            let relief = if before >= level {
                HYSTERESIS_PERCENT
            } else {
                0
            };
            percent >= from - relief
        };
        if holds(Self::Exhausted, EXHAUSTED_PERCENT) {
            Self::Exhausted
        } else if holds(Self::Scarce, SCARCE_PERCENT) {
            Self::Scarce
        } else {
            Self::Enough
        }
    }

    const fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Enough,
            1 => Self::Scarce,
            _ => Self::Exhausted,
        }
    }
}

/// Memory of the process and its limit, updated periodically.
#[derive(Debug, Default)]
pub struct MemoryPressure {
    limit: AtomicU64,
    level: AtomicU8,
}

impl MemoryPressure {
    /// Sets the limit in bytes; 0: unknown.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Sets the memory of the process; returns the new level if it has changed.
    pub fn update(&self, used: u64) -> Option<MemoryLevel> {
        let before = self.level();
        let level = MemoryLevel::of(used, self.limit.load(Ordering::Relaxed), before);
        self.level.store(level as u8, Ordering::Relaxed);
        (level != before).then_some(level)
    }

    /// The current level.
    pub fn level(&self) -> MemoryLevel {
        MemoryLevel::of_number(self.level.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_refused_before_connections_and_levels_do_not_flap() {
        let pressure = MemoryPressure::default();
        assert_eq!(pressure.update(u64::MAX), None, "no limit is known");
        pressure.set_limit(1000);
        for (used, level) in [
            (799, None),
            (800, Some(MemoryLevel::Scarce)),
            (899, None),
            (900, Some(MemoryLevel::Exhausted)),
            (850, None),
            (849, Some(MemoryLevel::Scarce)),
            (750, None),
            (749, Some(MemoryLevel::Enough)),
            (5000, Some(MemoryLevel::Exhausted)),
            (0, Some(MemoryLevel::Enough)),
        ] {
            assert_eq!(pressure.update(used), level, "{used}");
        }
    }
}
