//! Times in recordings: numbers since 1970, dates with a time of day, and formats named in the
//! config.

#![deny(clippy::arithmetic_side_effects)]

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use crate::market::UnixNanos;
use crate::source::account::{RowFault, Skip, shown};

/// Rules for the times of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeRules {
    /// Time zone of times that are written without an offset.
    pub zone: Option<TimeZone>,
    /// Format of the times (`strptime` directives) if it is not detected.
    pub format: Option<String>,
    /// Earliest accepted time.
    pub earliest: UnixNanos,
    /// Bound of times ahead of the server's clock.
    pub ahead: Duration,
    /// Step ahead of the newest earlier time from which a row must be confirmed by later rows.
    pub max_step: Duration,
}

/// Reason why a text is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeFault {
    Unknown,
    NoZone,
    Skipped,
    OutOfRange,
}

impl TimeRules {
    /// 1990-01-01T00:00:00Z.
    const EARLIEST: UnixNanos = UnixNanos(631_152_000_000_000_000);
    const DAY: Duration = Duration::from_secs(86_400);
    /// Default rules of a source.
    pub const DEFAULT: Self = Self {
        zone: None,
        format: None,
        earliest: Self::EARLIEST,
        ahead: Self::DAY,
        max_step: Self::DAY,
    };

    /// True if a `strptime` format is complete: a time is formatted and parsed once.
    pub fn is_format(format: &str) -> bool {
        let sample = DateTime::constant(2021, 12, 31, 22, 58, 59, 0);
        let Ok(zoned) = sample.to_zoned_datetime(TimeZone::UTC) else {
            return false;
        };
        let written = jiff::fmt::strtime::format(format, &zoned);
        let read = written.map_err(|_wrong| TimeFault::Unknown);
        let read = read.and_then(|text| formatted(format, &text, Some(&TimeZone::UTC)));
        // A format without seconds, or of a date alone, is complete too.
        read.is_ok_and(|at| at.floor(Self::DAY) == UnixNanos(1_640_908_800_000_000_000))
    }

    /// Parses the cell of a time.
    pub(super) fn read(&self, text: &str) -> Result<UnixNanos, RowFault> {
        self.parse(text)
            .map_err(|fault| self.row_fault(fault, text))
    }

    /// True if a cell contains a time, accepted or not, rather than a header.
    pub(super) fn is_time(&self, text: &str) -> bool {
        self.parse(text) != Err(TimeFault::Unknown)
    }

    fn parse(&self, text: &str) -> Result<UnixNanos, TimeFault> {
        if let Some(format) = &self.format {
            return formatted(format, text, self.zone.as_ref());
        }
        if let Some(time) = number(text) {
            return time;
        }
        let (local, sub_second, offset) = calendar(text).ok_or(TimeFault::Unknown)?;
        instant(local, offset, self.zone.as_ref())
            .and_then(|at| bounded(at.as_nanosecond().checked_add(sub_second)))
    }

    fn row_fault(&self, fault: TimeFault, text: &str) -> RowFault {
        let shown = shown(text);
        let (skip, why) = match fault {
            TimeFault::Unknown => (
                Skip::Time,
                match &self.format {
                    Some(format) => {
                        format!(
                            "invalid time \"{shown}\"; expected the format {format} (`time_format`)"
                        )
                    }
                    None => format!(
                        "invalid time \"{shown}\"; expected Unix time, or a date and time, e.g. \
                         2026-01-31T09:30:00Z; set `time_format` for other formats"
                    ),
                },
            ),
            TimeFault::NoZone => (
                Skip::Time,
                format!(
                    "the time \"{shown}\" has no UTC offset; set the time zone of the file, e.g. `timezone: UTC` \
                     or `timezone: America/New_York`"
                ),
            ),
            TimeFault::Skipped => (
                Skip::Time,
                format!("the local time \"{shown}\" does not exist: daylight saving time skips it"),
            ),
            TimeFault::OutOfRange => (
                Skip::TimeBand,
                format!("the time \"{shown}\" is outside the years 1970 to 2499"),
            ),
        };
        RowFault::new(skip, why)
    }
}

/// Number since 1970 in a unit given by its magnitude, or seconds with decimals; `None` if the text
/// is no number.
fn number(text: &str) -> Option<Result<UnixNanos, TimeFault>> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let time = if fraction.bytes().all(|b| b == b'0') {
        whole.parse().ok().and_then(UnixNanos::of_any_unit)
    } else {
        UnixNanos::of_seconds(whole, fraction)
    };
    match time {
        None if fraction.len() > 9 => None,
        time => Some(time.ok_or(TimeFault::OutOfRange)),
    }
}

fn bounded(nanos: Option<i128>) -> Result<UnixNanos, TimeFault> {
    nanos
        .and_then(|nanos| u64::try_from(nanos).ok())
        .and_then(UnixNanos::bounded)
        .ok_or(TimeFault::OutOfRange)
}

/// Instant of a local time; the first one in the hour that occurs twice at the end of summer time.
fn instant(
    local: DateTime,
    offset: Option<Offset>,
    zone: Option<&TimeZone>,
) -> Result<jiff::Timestamp, TimeFault> {
    let offset = match (offset, zone) {
        (Some(offset), _) => offset,
        (None, None) => return Err(TimeFault::NoZone),
        (None, Some(zone)) => match zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset,
            AmbiguousOffset::Fold { before, .. } => before,
            AmbiguousOffset::Gap { .. } => return Err(TimeFault::Skipped),
        },
    };
    let at = offset.to_timestamp(local);
    at.map_err(|_wrong| TimeFault::OutOfRange)
}

fn formatted(format: &str, text: &str, zone: Option<&TimeZone>) -> Result<UnixNanos, TimeFault> {
    let unknown = |_wrong: jiff::Error| TimeFault::Unknown;
    let parsed = BrokenDownTime::parse(format, text).map_err(unknown)?;
    if let Some(at) = parsed.timestamp() {
        return bounded(Some(at.as_nanosecond()));
    }
    let date = parsed.to_date().map_err(unknown)?;
    let time = if parsed.hour().is_some() {
        parsed.to_time().map_err(unknown)?
    } else {
        Time::midnight()
    };
    let at = instant(date.to_datetime(time), parsed.offset(), zone)?;
    bounded(Some(at.as_nanosecond()))
}

/// Remaining text while its parts are parsed.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn take(&mut self, one_of: &[char]) -> Option<char> {
        let first = self.0.chars().next().filter(|c| one_of.contains(c))?;
        self.0 = self.0.strip_prefix(first)?;
        Some(first)
    }

    /// Number with an exact count of digits.
    fn digits(&mut self, count: usize) -> Option<i16> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        digits.parse().ok()
    }

    fn two(&mut self) -> Option<i8> {
        self.digits(2).and_then(|number| i8::try_from(number).ok())
    }

    /// Up to nine digits of a second, as nanoseconds.
    fn nanos(&mut self) -> Option<i128> {
        let end = self.0.find(|c: char| !c.is_ascii_digit());
        let (digits, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        if digits.len() > 9 {
            return None;
        }
        format!("{digits:0<9}").parse().ok()
    }

    /// An offset from UTC, up to the end of the text.
    fn offset(&mut self) -> Option<Offset> {
        if ["Z", "z", "UTC", "GMT"].contains(&self.0) {
            return Some(Offset::UTC);
        }
        let sign = self.take(&['+', '-'])?;
        let hours = self.two()?;
        let has_minutes = self.take(&[':']).is_some() || !self.0.is_empty();
        let minutes = if has_minutes { self.two()? } else { 0 };
        if !self.0.is_empty() || hours > 23 || minutes > 59 {
            return None;
        }
        let seconds = i32::from(hours)
            .checked_mul(3600)?
            .checked_add(i32::from(minutes).checked_mul(60)?)?;
        let seconds = if sign == '-' {
            seconds.checked_neg()?
        } else {
            seconds
        };
        Offset::from_seconds(seconds).ok()
    }
}

/// A date, year first, with a time of day: `2021-12-01T10:00:00.123+08:00`, `2021.12.01 10:00`,
/// `20211201 100000123`. Returns the local time to the second, nanoseconds beyond it, and the
/// offset.
fn calendar(text: &str) -> Option<(DateTime, i128, Option<Offset>)> {
    const SEPARATORS: &[char] = &['-', '.', '/'];
    let mut rest = Rest(text);
    let year = rest.digits(4)?;
    let separator = rest.take(SEPARATORS);
    let month = rest.two()?;
    if rest.take(SEPARATORS) != separator {
        return None;
    }
    let date = Date::new(year, month, rest.two()?).ok()?;
    if rest.0.is_empty() && separator.is_some() {
        return Some((date.to_datetime(Time::midnight()), 0, None));
    }
    rest.take(&['T', 't', ' '])?;
    let hour = rest.two()?;
    let is_compact = rest.take(&[':']).is_none();
    let minute = rest.two()?;
    let has_seconds = is_compact || rest.take(&[':']).is_some();
    let second = if has_seconds { rest.two()? } else { 0 };
    let has_fraction = has_seconds && rest.take(&['.', ',']).is_some();
    let starts_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let nanos = if has_fraction || (is_compact && starts_digit(rest.0)) {
        rest.nanos()?
    } else {
        0
    };
    // A leap second is one second after the last second.
    let (second, leap) = if second == 60 {
        (59, 1_000_000_000)
    } else {
        (second, 0)
    };
    let time = Time::new(hour, minute, second, 0).ok()?;
    rest.0 = rest.0.trim_start_matches(' ');
    let offset = if rest.0.is_empty() {
        None
    } else {
        Some(rest.offset()?)
    };
    Some((date.to_datetime(time), nanos.checked_add(leap)?, offset))
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(zone: &str, format: &str) -> TimeRules {
        TimeRules {
            zone: TimeZone::get(zone).ok(),
            format: Some(format.to_owned()).filter(|format| !format.is_empty()),
            ..TimeRules::DEFAULT
        }
    }

    fn utc(text: &str) -> UnixNanos {
        UnixNanos::parse_utc(text).expect("valid UTC time")
    }

    #[test]
    fn all_formats_of_one_instant_agree() {
        let instant = utc("2024-08-08T23:54:15.342Z");
        for text in [
            "1723161255342000000",
            "1723161255342000",
            "1723161255342",
            "1723161255342.0",
            "1723161255.342",
            "2024-08-08T23:54:15.342Z",
            "2024-08-08t23:54:15.342z",
            "2024-08-08 23:54:15.342000+00:00",
            "2024-08-08 23:54:15.342 UTC",
            "2024-08-09T07:54:15.342+08:00",
            "2024-08-09T07:54:15,342+0800",
            "2024-08-08T18:54:15.342-05",
            "20240808 235415342Z",
            "20240808 235415.342Z",
            "20240808T235415.342Z",
            "20240808 23:54:15.342Z",
            "2024.08.08T23:54:15.342Z",
            "2024/08/08 23:54:15.342 +00:00",
        ] {
            assert_eq!(TimeRules::DEFAULT.read(text), Ok(instant), "{text}");
        }
    }

    #[test]
    fn times_without_an_offset_require_a_time_zone() {
        let new_york = rules("America/New_York", "");
        for (text, instant) in [
            ("20211201 100000123", "2021-12-01T15:00:00.123Z"),
            ("2021.12.01 10:00:00", "2021-12-01T15:00:00Z"),
            ("2021.07.01T10:00", "2021-07-01T14:00:00Z"),
            ("2021-07-01", "2021-07-01T04:00:00Z"),
            ("2021-07-01T10:00:00Z", "2021-07-01T10:00:00Z"),
            ("2016-12-31T18:59:60", "2017-01-01T00:00:00Z"),
            // 01:30 occurs twice on that day; the first is in summer time.
            ("2021-11-07 01:30:00", "2021-11-07T05:30:00Z"),
        ] {
            assert_eq!(new_york.read(text), Ok(utc(instant)), "{text}");
            if !text.ends_with('Z') {
                let fault = TimeRules::DEFAULT.read(text).expect_err("no time zone");
                assert_eq!(fault.skip, Skip::Time);
                assert!(fault.text.contains("`timezone: UTC`"), "{}", fault.text);
            }
        }
        let skipped = new_york
            .read("2021-03-14 02:30:00")
            .expect_err("skipped local time");
        assert!(skipped.text.contains("does not exist"), "{}", skipped.text);
        // HistData: Eastern Standard Time all year.
        let fixed = TimeRules {
            zone: Some(TimeZone::fixed(jiff::tz::offset(-5))),
            ..TimeRules::DEFAULT
        };
        assert_eq!(
            fixed.read("20210701 100000123"),
            Ok(utc("2021-07-01T15:00:00.123Z"))
        );
    }

    #[test]
    fn custom_time_formats_are_parsed() {
        for (format, zone, text, instant) in [
            (
                "%d.%m.%Y %H:%M:%S%.f",
                "UTC",
                "01.12.2021 10:00:00.123",
                "2021-12-01T10:00:00.123Z",
            ),
            (
                "%m/%d/%Y %I:%M:%S %p",
                "Europe/Berlin",
                "07/01/2021 03:30:00 PM",
                "2021-07-01T13:30:00Z",
            ),
            (
                "%d.%m.%Y %H:%M:%S GMT%z",
                "",
                "01.12.2021 10:00:00 GMT+0800",
                "2021-12-01T02:00:00Z",
            ),
            (
                "%Y%m%d%H%M%S",
                "UTC",
                "20211201100000",
                "2021-12-01T10:00:00Z",
            ),
            ("%d.%m.%Y", "UTC", "01.12.2021", "2021-12-01T00:00:00Z"),
            ("%s", "", "1638352800", "2021-12-01T10:00:00Z"),
        ] {
            assert!(TimeRules::is_format(format), "{format}");
            assert_eq!(rules(zone, format).read(text), Ok(utc(instant)), "{text}");
        }
        let fault = rules("UTC", "%d.%m.%Y %H:%M:%S").read("2021-12-01 10:00:00");
        assert!(fault.is_err_and(|fault| fault.text.contains("%d.%m.%Y")));
        for wrong in ["", "%H:%M:%S", "soon", "%Q", "%"] {
            assert!(!TimeRules::is_format(wrong), "{wrong}");
        }
    }

    #[test]
    fn invalid_times_are_rejected_by_reason() {
        let zoned = rules("UTC", "");
        for text in [
            "",
            "soon",
            "1723161255.",
            ".5",
            "-5",
            "1e9",
            "01.12.2021 10:00:00",
            "2021-12.01 10:00:00",
            "2021-13-01 10:00:00",
            "2021-02-29 10:00:00",
            "2021-12-01 24:00:00",
            "2021-12-01 10:00:00.0123456789",
            "2021-12-01 10:00:00+8",
            "2021-12-01 10:00:00+24:00",
            "2021-12-01T",
            "20211201 1000",
        ] {
            let fault = zoned.read(text).expect_err(text);
            assert_eq!(fault.skip, Skip::Time, "{text}");
            assert!(!zoned.is_time(text), "{text}");
        }
        for text in [
            "1969-12-31T23:59:59Z",
            "2500-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "18446744073.999999999",
            "18446744073709551615",
            "99999999999999999999999",
            "1723161255342.5",
        ] {
            let fault = zoned.read(text).expect_err(text);
            assert_eq!(fault.skip, Skip::TimeBand, "{text}");
            assert!(zoned.is_time(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn formatted_times_round_trip(
            nanos in 0..UnixNanos::END.0,
            format in 0..3usize,
            zone in 0..4usize,
        ) {
            let zones = ["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];
            let zone = TimeZone::get(zones[zone]).expect("IANA time zone");
            let at = jiff::Timestamp::from_nanosecond(i128::from(nanos)).expect("time before 2500");
            let formats = ["%Y-%m-%dT%H:%M:%S.%9f%:z", "%Y%m%d %H%M%S%9f%z", "%Y.%m.%d %H:%M:%S.%9f %:z"];
            let text = jiff::fmt::strtime::format(formats[format], &at.to_zoned_datetime(zone)).expect("valid format");
            prop_assert_eq!(TimeRules::DEFAULT.read(&text), Ok(UnixNanos(nanos)), "{}", text);
        }

        #[test]
        fn local_times_round_trip_except_in_the_repeated_hour(seconds in 631_152_000u64..4_000_000_000) {
            let zone = TimeZone::get("Europe/Berlin").expect("IANA time zone");
            let at = jiff::Timestamp::from_second(seconds as i64).expect("valid time");
            let text = jiff::fmt::strtime::format("%Y-%m-%d %H:%M:%S", &at.to_zoned_datetime(zone)).expect("valid format");
            let read = rules("Europe/Berlin", "").read(&text).expect("existing local time");
            let wanted = UnixNanos(seconds * 1_000_000_000);
            prop_assert!(read == wanted || read.plus(Duration::from_secs(3600)) == wanted);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9 TZ:.+/-]{0,40}", other in "\\PC{0,40}") {
            for text in [text, other] {
                let _read_or_refused = rules("America/New_York", "").read(&text);
                let _read_or_refused = rules("UTC", "%d.%m.%Y %H:%M:%S%.f").read(&text);
                let _good_or_wrong = TimeRules::is_format(&text);
            }
        }
    }
}
