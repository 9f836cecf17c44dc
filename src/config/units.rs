//! Parsers for durations, sizes and rates in human-readable form.

#![deny(clippy::arithmetic_side_effects)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

const DURATIONS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Parses `250ms`, `1.5s`, `2d`; `0` needs no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    scaled(text, &DURATIONS).map(Duration::from_nanos)
}

/// Parses `1h`, `-90s` as a signed number of nanoseconds.
pub(crate) fn signed_nanos(text: &str) -> Option<i64> {
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let nanos = i64::try_from(duration(text)?.as_nanos()).ok()?;
    if is_negative {
        nanos.checked_neg()
    } else {
        Some(nanos)
    }
}

/// Parses `64KiB`, `1MiB`, `0.5GiB`; a number without a unit is rejected as ambiguous.
pub(super) fn size(text: &str) -> Option<usize> {
    scaled(text, &SIZES).and_then(|bytes| usize::try_from(bytes).ok())
}

/// Parses `20/s`, `30/m`, `5/h` as a rate per second.
pub(super) fn rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let per = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    number
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
        .map(|number| number / per)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let part_value: u64 = if part.is_empty() {
        0
    } else {
        part.parse().ok()?
    };
    let part_scale = 10u64.checked_pow(part.len() as u32)?;
    whole
        .checked_mul(*scale)?
        .checked_add(scale.checked_mul(part_value)?.checked_div(part_scale)?)
}

/// Parses `HOST:PORT` with a numeric address or a name; used for `listen` in a config and for
/// `--listen`.
pub fn parse_address(text: &str) -> Option<SocketAddr> {
    text.to_socket_addrs().ok()?.next()
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;

    #[test]
    fn common_notations_of_units_are_parsed() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("2d"), Some(Duration::from_secs(172_800)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("0.5MiB"), Some(524_288));
        assert_eq!(rate("30/m"), Some(0.5));
        for bad in ["", "5", "s", "5 parsecs", "-1s", "1.s.", "99999999999d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(
            (size("64"), size("64KB"), rate("20"), rate("inf/s")),
            (None, None, None, None)
        );
    }
}
