//! Times in nanoseconds, and the formats used by sources.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use super::symbol::excerpt;

/// Nanoseconds since 1970-01-01T00:00:00Z, excluding leap seconds.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct UnixNanos(pub u64);

/// Error for a text that is not a valid time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid time \"{0}\": expected UTC, e.g. 2026-01-31T09:30:00Z, with up to nine fractional digits"
)]
pub struct TimeError(pub String);

/// Unit of a number that counts from 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
}

impl TimeUnit {
    /// Unit indicated by the size of a number (below 10^11 seconds, 10^14 milliseconds, 10^17
    /// microseconds); `None` for nanoseconds.
    pub const fn of(number: u64) -> Option<Self> {
        match number {
            100_000_000_000_000_000.. => None,
            100_000_000_000_000.. => Some(Self::Micros),
            100_000_000_000.. => Some(Self::Millis),
            _ => Some(Self::Seconds),
        }
    }

    /// Name of the unit, in the plural.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
        }
    }

    /// Converts a number in this unit to a time before [`UnixNanos::END`].
    pub fn nanos(self, number: u64) -> Option<UnixNanos> {
        let scale = match self {
            Self::Seconds => NANOS_PER_SECOND,
            Self::Millis => 1_000_000,
            Self::Micros => 1_000,
        };
        number.checked_mul(scale).and_then(UnixNanos::bounded)
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

impl UnixNanos {
    /// The year 2500: no event is later, so a larger external number is an error.
    pub const END: Self = Self(16_725_225_600_000_000_000);

    /// Converts an external number of nanoseconds, if it is before [`Self::END`].
    pub fn bounded(nanos: u64) -> Option<Self> {
        Some(Self(nanos)).filter(|time| *time < Self::END)
    }

    /// Converts an external number since 1970, in the unit that its size indicates.
    pub fn of_any_unit(number: u64) -> Option<Self> {
        TimeUnit::of(number).map_or_else(|| Self::bounded(number), |unit| unit.nanos(number))
    }

    /// Converts seconds and a fraction of up to nine digits.
    pub fn of_seconds(whole: &str, fraction: &str) -> Option<Self> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
            return None;
        }
        let sub = format!("{fraction:0<9}").parse::<u64>().ok()?;
        let whole = whole.parse::<u64>().ok()?.checked_mul(NANOS_PER_SECOND)?;
        whole.checked_add(sub).and_then(Self::bounded)
    }

    /// Time later by `span`; saturates at the end of 64 bits (the year 2554).
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Time earlier by `span`; saturates at the epoch.
    pub const fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// Duration since `earlier`; zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Last multiple of `step` not after this time.
    pub const fn floor(self, step: Duration) -> Self {
        match self.0.checked_rem(nanos(step)) {
            Some(past) => Self(self.0.saturating_sub(past)),
            None => self,
        }
    }

    /// First multiple of `step` not before this time; saturates at the end of 64 bits.
    pub const fn ceil(self, step: Duration) -> Self {
        match self.0.checked_next_multiple_of(nanos(step)) {
            Some(next) => Self(next),
            None => Self(u64::MAX),
        }
    }

    /// Parses `2026-01-31T09:30:00[.fraction](Z|+00:00)`; a space may replace the `T`.
    pub fn parse_utc(text: &str) -> Result<Self, TimeError> {
        parse_iso(text).ok_or_else(|| TimeError(excerpt(text)))
    }
}

const fn nanos(span: Duration) -> u64 {
    let all = span.as_nanos();
    if all > u64::MAX as u128 {
        u64::MAX
    } else {
        all as u64
    }
}

#[expect(
    clippy::arithmetic_side_effects,
    reason = "a year has four digits, and each part of the time its bound"
)]
fn parse_iso(text: &str) -> Option<UnixNanos> {
    let rest = text
        .strip_suffix('Z')
        .or_else(|| text.strip_suffix("+00:00"))?;
    let (date, clock) = rest.split_once(['T', ' '])?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if year.len() != 4 || month.len() != 2 || day.len() != 2 || parts.next().is_some() {
        return None;
    }
    let days = days_from_civil(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let (hour, minute, second): (u64, u64, u64) = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    if hour > 23 || minute > 59 || second > 60 || parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let sub: u64 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    seconds
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(sub)
        .and_then(UnixNanos::bounded)
}

#[expect(clippy::arithmetic_side_effects, reason = "a year has four digits")]
/// Number of days from 1970-01-01 to a Gregorian date (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > longest || year < 1970 {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + day_of_year;
    (y / 400 * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;

    #[test]
    fn iso_times_are_parsed_to_the_nanosecond() {
        assert_eq!(
            UnixNanos::parse_utc("1970-01-01T00:00:00Z"),
            Ok(UnixNanos(0))
        );
        assert_eq!(
            UnixNanos::parse_utc("2024-08-08T23:54:15.342Z"),
            Ok(UnixNanos(1_723_161_255_342_000_000))
        );
        assert_eq!(
            UnixNanos::parse_utc("2000-02-29 12:00:00.000000001+00:00"),
            Ok(UnixNanos(951_825_600_000_000_001))
        );
    }

    #[test]
    fn all_time_formats_have_the_same_upper_bound() {
        let end = UnixNanos::END.0;
        for (last, unit) in [
            (end - 1, 1),
            (end / 1_000 - 1, 1_000),
            (end / 1_000_000 - 1, 1_000_000),
            (end / 1_000_000_000 - 1, 1_000_000_000),
        ] {
            assert_eq!(UnixNanos::of_any_unit(last), Some(UnixNanos(last * unit)));
            assert_eq!(UnixNanos::of_any_unit(last + 1), None, "{}", last + 1);
        }
        assert!(UnixNanos::of_seconds("16725225599", "999999999").is_some());
        for (whole, fraction) in [
            ("16725225600", "0"),
            ("18446744073", "999999999"),
            ("18446744073709551615", "0"),
            ("1", ""),
            ("-1", "0"),
            ("+1", "0"),
            ("1", "0123456789"),
        ] {
            assert_eq!(
                UnixNanos::of_seconds(whole, fraction),
                None,
                "{whole}.{fraction}"
            );
        }
        assert!(UnixNanos::parse_utc("2499-12-31T23:59:59.999999999Z").is_ok());
        for late in [
            "2500-01-01T00:00:00Z",
            "2554-07-21T23:34:33.999999999Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert!(UnixNanos::parse_utc(late).is_err(), "{late}");
        }
    }

    #[test]
    fn time_arithmetic_saturates_at_64_bits() {
        let step = Duration::from_millis(100);
        let last = UnixNanos(u64::MAX);
        assert_eq!((last.ceil(step), last.plus(step)), (last, last));
        assert_eq!(
            (
                last.floor(Duration::ZERO),
                UnixNanos(7).ceil(Duration::ZERO)
            ),
            (last, last)
        );
    }

    #[test]
    fn invalid_times_are_rejected_with_their_text() {
        for bad in [
            "",
            "2026-01-31",
            "2026-02-29T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T00:00:00",
            "x",
        ] {
            assert_eq!(UnixNanos::parse_utc(bad), Err(TimeError(bad.to_owned())));
        }
        let long = format!("\u{1b}[2J{}", "9".repeat(1000));
        let error = UnixNanos::parse_utc(&long)
            .expect_err("not a time")
            .to_string();
        assert!(
            error.contains("\\u{1b}[2J9") && error.len() < 200,
            "{error}"
        );
    }
}
