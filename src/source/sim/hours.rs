//! Trading hours of an instrument.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::market::UnixNanos;

/// Search horizon for a change, in days: one week, plus one day at each end for the time zone.
const DAYS_AHEAD: i64 = 8;

/// Weekly trading hours in the venue's local time; the time zone determines daylight saving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    /// Opening time after local midnight.
    pub open: Duration,
    /// Closing time after local midnight; on the next day if it is not later than `open`.
    pub close: Duration,
    /// Time zone of the venue, or a fixed offset.
    pub zone: TimeZone,
    /// Trading days, starting with Monday.
    pub days: [bool; 7],
}

impl Hours {
    /// Time zone for an IANA name, from the bundled data, so the result is the same on every
    /// machine.
    pub fn zone(name: &str) -> Option<TimeZone> {
        TimeZone::get(name)
            .ok()
            .filter(|zone| zone.iana_name().is_some())
    }

    /// Local date and time, capped at the last one that the calendar supports.
    fn local(&self, at: UnixNanos) -> DateTime {
        Timestamp::from_nanosecond(i128::from(at.0))
            .map_or(DateTime::MAX, |at| self.zone.to_datetime(at))
    }

    fn trades_on(&self, date: Date) -> bool {
        self.days[date.weekday().to_monday_zero_offset() as usize]
    }

    /// True during trading hours.
    pub fn is_open(&self, at: UnixNanos) -> bool {
        let local = self.local(at);
        let date = local.date();
        let time = local.time().duration_since(Time::midnight()).unsigned_abs();
        if self.open < self.close {
            return self.trades_on(date) && (self.open..self.close).contains(&time);
        }
        let since_yesterday =
            time < self.close && date.yesterday().is_ok_and(|date| self.trades_on(date));
        since_yesterday || (self.trades_on(date) && time >= self.open)
    }

    /// Time of the next opening after `at` if the market is closed, or of the next close if it is
    /// open.
    pub fn next_change(&self, at: UnixNanos) -> UnixNanos {
        let was_open = self.is_open(at);
        let today = self.local(at).date();
        // Yesterday's close may still be ahead if the clock was set back at midnight.
        let mut later: Vec<UnixNanos> = (-1..=DAYS_AHEAD)
            .flat_map(|day| [(day, self.open), (day, self.close)])
            .flat_map(|(day, edge)| self.instants(today, day, edge))
            .chain(self.clock_change(at))
            .filter(|edge| *edge > at)
            .collect();
        later.sort_unstable();
        later
            .into_iter()
            .find(|time| self.is_open(*time) != was_open)
            .unwrap_or(UnixNanos(u64::MAX))
    }

    /// Instants at which local time is `edge` after midnight, `days` after `date`: two if the clock
    /// is set back at that time.
    fn instants(&self, date: Date, days: i64, edge: Duration) -> Vec<UnixNanos> {
        let local = || {
            let midnight = date
                .checked_add(SignedDuration::from_hours(days.saturating_mul(24)))
                .ok()?;
            let edge = SignedDuration::try_from(edge).ok()?;
            midnight
                .to_datetime(Time::midnight())
                .checked_add(edge)
                .ok()
        };
        let Some(local) = local() else {
            return Vec::new();
        };
        let ambiguous = self.zone.to_ambiguous_timestamp(local);
        [ambiguous.earlier(), ambiguous.later()]
            .into_iter()
            .filter_map(Result::ok)
            .filter_map(unix_nanos)
            .collect()
    }

    /// Time of the next clock change, which may skip an opening or repeat a close.
    fn clock_change(&self, at: UnixNanos) -> Option<UnixNanos> {
        let at = Timestamp::from_nanosecond(i128::from(at.0)).ok()?;
        self.zone
            .following(at)
            .next()
            .and_then(|change| unix_nanos(change.timestamp()))
    }
}

fn unix_nanos(time: Timestamp) -> Option<UnixNanos> {
    u64::try_from(time.as_nanosecond()).ok().map(UnixNanos)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;
    use jiff::tz::Offset;

    const WEEKDAYS: [bool; 7] = [true, true, true, true, true, false, false];

    fn at(text: &str) -> UnixNanos {
        UnixNanos::parse_utc(text).expect("a time")
    }

    fn hour(hours: u64, minutes: u64) -> Duration {
        Duration::from_secs(hours * 3600 + minutes * 60)
    }

    fn fixed(hours: i8) -> TimeZone {
        TimeZone::fixed(Offset::constant(hours))
    }

    #[test]
    fn new_york_trading_hours_open_and_close() {
        let hours = Hours {
            open: hour(9, 30),
            close: hour(16, 0),
            zone: fixed(-5),
            days: WEEKDAYS,
        };
        // 2026-01-16 is a Friday.
        assert!(hours.is_open(at("2026-01-16T14:30:00Z")));
        assert!(!hours.is_open(at("2026-01-16T14:29:59Z")));
        for (from, change) in [
            ("2026-01-16T15:00:00Z", "2026-01-16T21:00:00Z"),
            ("2026-01-16T21:00:00Z", "2026-01-19T14:30:00Z"),
            ("2026-01-16T03:00:00Z", "2026-01-16T14:30:00Z"),
        ] {
            assert_eq!(hours.next_change(at(from)), at(change));
        }
    }

    #[test]
    fn daylight_saving_time_shifts_trading_hours() {
        let new_york = Hours {
            open: hour(9, 30),
            close: hour(16, 0),
            zone: Hours::zone("America/New_York").expect("a zone"),
            days: WEEKDAYS,
        };
        for (from, change) in [
            // Winter: UTC−5; summer time begins on 2026-03-08 and ends on 2026-11-01.
            ("2026-03-06T12:00:00Z", "2026-03-06T14:30:00Z"),
            ("2026-03-06T21:00:00Z", "2026-03-09T13:30:00Z"),
            ("2026-03-09T13:30:00Z", "2026-03-09T20:00:00Z"),
            ("2026-10-30T20:00:00Z", "2026-11-02T14:30:00Z"),
        ] {
            assert_eq!(new_york.next_change(at(from)), at(change), "{from}");
        }
        assert!(Hours::zone("America/Gotham").is_none());
        // The clock skips from 02:00 to 03:00 in Berlin on 2026-03-29, a Sunday, so the market
        // opens at 03:00 instead of 02:30.
        let night = Hours {
            open: hour(2, 30),
            close: hour(5, 0),
            zone: Hours::zone("Europe/Berlin").expect("a zone"),
            days: [true; 7],
        };
        assert_eq!(
            night.next_change(at("2026-03-29T00:00:00Z")),
            at("2026-03-29T01:00:00Z")
        );
        assert_eq!(
            night.next_change(at("2026-03-29T01:30:00Z")),
            at("2026-03-29T03:00:00Z")
        );
    }

    #[test]
    fn an_overnight_session_belongs_to_its_opening_day() {
        // Sunday to Thursday, 17:00 to 17:00 the next day: a continuous currency trading week.
        let hours = Hours {
            open: hour(17, 0),
            close: hour(17, 0),
            zone: TimeZone::UTC,
            days: [true, true, true, true, false, false, true],
        };
        // 2026-01-16 is a Friday.
        assert!(
            hours.is_open(at("2026-01-16T16:59:59Z")) && !hours.is_open(at("2026-01-16T17:00:00Z"))
        );
        for (from, change) in [
            ("2026-01-16T17:00:00Z", "2026-01-18T17:00:00Z"),
            ("2026-01-18T17:00:00Z", "2026-01-23T17:00:00Z"),
        ] {
            assert_eq!(hours.next_change(at(from)), at(change));
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for zone in [fixed(-24), fixed(24), TimeZone::UTC] {
            let hours = Hours {
                open: Duration::ZERO,
                close: hour(24, 0),
                zone,
                days: WEEKDAYS,
            };
            for time in [0, 1, UnixNanos::END.0, u64::MAX - 1, u64::MAX] {
                let _change = (
                    hours.is_open(UnixNanos(time)),
                    hours.next_change(UnixNanos(time)),
                );
            }
        }
    }
}
