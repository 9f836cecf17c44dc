//! Session ticker and its quotients.

use rust_decimal::{Decimal, RoundingStrategy};

use crate::market::{Bar, Price, Ticker, UnixNanos};

/// Minimum number of decimals of a quotient.
const DIVIDED_SCALE_MIN: u32 = 8;
/// Minimum number of significant digits of a quotient.
const DIVIDED_DIGITS_MIN: i64 = 6;
/// Number of digits that every decimal can represent.
const DIGITS_MAX: i64 = 28;

/// Sums of the current session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) day: UnixNanos,
    pub(super) sum: Bar,
    pub(super) notional: Decimal,
}

pub(super) fn ticker(session: &Session) -> Ticker {
    let Session { sum, notional, .. } = session;
    Ticker {
        ts: sum.ts,
        last: sum.close,
        open: sum.open,
        high: sum.high,
        low: sum.low,
        vol: sum.vol,
        vwap: divided(
            notional.checked_div(sum.vol.0).unwrap_or(sum.close.0),
            [sum.open, sum.high, sum.low, sum.close]
                .map(|px| px.0.scale())
                .into_iter()
                .max(),
        ),
        n: sum.n,
        chg: change(sum.close, sum.open),
    }
}

fn change(last: Price, open: Price) -> Option<Decimal> {
    last.0
        .checked_div(open.0)
        .and_then(|ratio| ratio.checked_sub(Decimal::ONE))
        .map(|change| divided(change, None))
}

/// Rounds a quotient half to even, to at least 8 decimals, `scale` decimals and 6 significant
/// digits, as far as 28 digits allow; trailing zeros are kept.
fn divided(value: Decimal, scale: Option<u32>) -> Decimal {
    let digits = i64::from(
        value
            .mantissa()
            .unsigned_abs()
            .checked_ilog10()
            .map_or(0, |log| log + 1),
    );
    // Digits before the decimal point; negative for leading zeros after it.
    let whole = digits - i64::from(value.scale());
    let significant = if digits == 0 {
        0
    } else {
        DIVIDED_DIGITS_MIN - whole
    };
    let least = i64::from(scale.unwrap_or(0).max(DIVIDED_SCALE_MIN));
    let scale = least.max(significant).min(DIGITS_MAX - whole.max(0)).max(0) as u32;
    let mut rounded = value.round_dp_with_strategy(scale, RoundingStrategy::MidpointNearestEven);
    rounded.rescale(scale);
    if rounded.is_zero() {
        rounded.abs()
    } else {
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        crate::market::parse_decimal(text).expect("valid decimal")
    }

    #[test]
    fn quotients_keep_enough_digits_for_their_magnitude() {
        for (value, scale, written) in [
            ("64250.123456789", 2, "64250.12345679"),
            ("0.00000123456789", 8, "0.00000123457"),
            ("0.00000123456789", 14, "0.00000123456789"),
            (
                "0.000000000000000000012345678",
                8,
                "0.0000000000000000000123457",
            ),
            ("-0.00000001", 0, "-0.0000000100000"),
            ("0", 0, "0.00000000"),
            ("0.000000005", 8, "0.00000000500000"),
            (
                "100000000000000000000000",
                2,
                "100000000000000000000000.0000",
            ),
            (
                "79228162514264337593543950335",
                2,
                "79228162514264337593543950335",
            ),
        ] {
            let value = decimal(value);
            assert_eq!(divided(value, Some(scale)).to_string(), written);
        }
    }
}
