//! Trading hours and their time zone.

use std::time::Duration;

use jiff::tz::{Offset, TimeZone};

use crate::config::reader::Section;
use crate::market::excerpt;
use crate::source::sim::Hours;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

pub(super) fn read_hours(section: &Section<'_>) -> Option<Hours> {
    let of_day = |key: &str| {
        let text = section.required(key);
        let minutes = clock_minutes(&text);
        if minutes.is_none() && !text.is_empty() {
            section.problem(
                key,
                format!(
                    "invalid time of day \"{}\": expected HH:MM, e.g. 09:30",
                    text.escape_debug()
                ),
            );
        }
        minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60))
    };
    let (open, close) = (of_day("open"), of_day("close"));
    let zone = zone(section);
    let text = section.text("days");
    let days = days(&text);
    if days.is_none() {
        section.problem(
            "days",
            format!(
                "invalid value \"{}\": expected days, e.g. mon-fri or mon,wed,sun",
                text.escape_debug()
            ),
        );
    }
    section.finish();
    Some(Hours {
        open: open?,
        close: close?,
        zone: zone?,
        days: days?,
    })
}

fn zone(section: &Section<'_>) -> Option<TimeZone> {
    let (name, offset) = (section.text("timezone"), section.text("utc_offset"));
    if !name.is_empty() {
        if section.has("utc_offset") {
            section.problem(
                "utc_offset",
                "conflicts with timezone, which defines the offset; remove one of the two",
            );
        }
        let zone = Hours::zone(&name);
        if zone.is_none() {
            section.problem(
                "timezone",
                format!(
                    "unknown time zone \"{}\": expected an IANA name, e.g. America/New_York or Europe/Berlin",
                    excerpt(&name)
                ),
            );
        }
        return zone;
    }
    let zone = fixed_offset(&offset);
    if zone.is_none() {
        section.problem(
            "utc_offset",
            format!(
                "invalid UTC offset \"{}\": expected e.g. -05:00, or a zone: timezone: America/New_York",
                excerpt(&offset)
            ),
        );
    }
    zone
}

/// Time zone for an offset such as -05:00.
pub(super) fn fixed_offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = text.split_at_checked(1)?;
    let seconds = i32::try_from(clock_minutes(rest)?.checked_mul(60)?).ok()?;
    let seconds = match sign {
        "+" => seconds,
        "-" => seconds.checked_neg()?,
        _ => return None,
    };
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

/// Minutes after midnight, up to 24:00.
fn clock_minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

fn days(text: &str) -> Option<[bool; 7]> {
    let place = |name: &str| DAYS.iter().position(|day| *day == name.trim());
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (place(from)?, place(to)?);
        if to < from {
            return None;
        }
        days[from..=to].fill(true);
    }
    Some(days)
}
