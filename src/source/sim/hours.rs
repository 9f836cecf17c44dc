//! When an instrument trades.

use std::time::Duration;

use crate::market::UnixNanos;

const DAY: u64 = 86_400_000_000_000;

/// Trading hours of every week, in the venue's local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// After local midnight.
    pub open: Duration,
    /// After local midnight; where it isn't later than `open`, of the next day.
    pub close: Duration,
    /// Seconds that local time is ahead of UTC.
    pub utc_offset_s: i32,
    /// Whether it trades on Monday, Tuesday, …
    pub days: [bool; 7],
}

impl Hours {
    /// Nanoseconds of local time, counted from a Monday (1969-12-29).
    fn local(&self, at: UnixNanos) -> u64 {
        let since_monday = at.0 + 3 * DAY;
        since_monday.saturating_add_signed(i64::from(self.utc_offset_s) * 1_000_000_000)
    }

    /// Whether it trades at that time.
    pub fn is_open(&self, at: UnixNanos) -> bool {
        let local = self.local(at);
        let (day, time) = (
            ((local / DAY) % 7) as usize,
            Duration::from_nanos(local % DAY),
        );
        if self.open < self.close {
            return self.days[day] && (self.open..self.close).contains(&time);
        }
        let since_yesterday = self.days[(day + 6) % 7] && time < self.close;
        since_yesterday || (self.days[day] && time >= self.open)
    }

    /// The next opening after `at` if it is closed then, or the next close if it is open.
    pub fn next_change(&self, at: UnixNanos) -> UnixNanos {
        let local = self.local(at);
        let was_open = self.is_open(at);
        let today = local - local % DAY;
        let edges = (0..=8).flat_map(|day| {
            [self.open, self.close].map(|edge| today + day * DAY + edge.as_nanos() as u64)
        });
        let mut later: Vec<_> = edges
            .filter(|edge| *edge > local)
            .map(|edge| UnixNanos(at.0 + (edge - local)))
            .collect();
        later.sort_unstable();
        later
            .into_iter()
            .find(|time| self.is_open(*time) != was_open)
            .unwrap_or(UnixNanos(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_york_opens_and_closes() {
        let hour = |hours: u64, minutes: u64| Duration::from_secs(hours * 3600 + minutes * 60);
        let days = [true, true, true, true, true, false, false];
        let hours = Hours {
            open: hour(9, 30),
            close: hour(16, 0),
            utc_offset_s: -5 * 3600,
            days,
        };
        let at = |text| UnixNanos::parse_utc(text).expect("a time");
        // 2026-01-16 is a Friday.
        assert!(hours.is_open(at("2026-01-16T14:30:00Z")));
        assert!(!hours.is_open(at("2026-01-16T14:29:59Z")));
        assert_eq!(
            hours.next_change(at("2026-01-16T15:00:00Z")),
            at("2026-01-16T21:00:00Z")
        );
        assert_eq!(
            hours.next_change(at("2026-01-16T21:00:00Z")),
            at("2026-01-19T14:30:00Z")
        );
        assert_eq!(
            hours.next_change(at("2026-01-16T03:00:00Z")),
            at("2026-01-16T14:30:00Z")
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_before() {
        let hour = |hours: u64| Duration::from_secs(hours * 3600);
        // Sunday to Thursday, 17:00 to 17:00 the next day: a currency's week without a break.
        let days = [true, true, true, true, false, false, true];
        let hours = Hours {
            open: hour(17),
            close: hour(17),
            utc_offset_s: 0,
            days,
        };
        let at = |text| UnixNanos::parse_utc(text).expect("a time");
        // 2026-01-16 is a Friday.
        assert!(
            hours.is_open(at("2026-01-16T16:59:59Z")) && !hours.is_open(at("2026-01-16T17:00:00Z"))
        );
        assert_eq!(
            hours.next_change(at("2026-01-16T17:00:00Z")),
            at("2026-01-18T17:00:00Z")
        );
        assert_eq!(
            hours.next_change(at("2026-01-18T17:00:00Z")),
            at("2026-01-23T17:00:00Z")
        );
    }
}
