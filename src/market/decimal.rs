use std::fmt;

use rust_decimal::Decimal;

use super::symbol::excerpt;

/// Price per unit: an exact decimal with the scale of its source; may be negative.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Price(pub Decimal);

/// Quantity in units of the base: an exact decimal with the scale of its source.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Qty(pub Decimal);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Qty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Error for a text that is not a decimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid number \"{0}\": expected a decimal of at most 28 digits")]
pub struct DecimalError(pub String);

/// Parses an exact decimal and keeps its scale (`"64250.10"` has two decimals); also accepts
/// exponents such as `6.4e4`, which occur in some files.
pub fn parse_decimal(text: &str) -> Result<Decimal, DecimalError> {
    let parsed = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    match parsed {
        Ok(value) if value.is_zero() => Ok(value.abs()),
        Ok(value) if text.len() <= 64 => Ok(value),
        _ => Err(DecimalError(excerpt(text))),
    }
}

/// Appends the value in plain notation with all its decimals, never with an exponent.
pub fn write_decimal(out: &mut Vec<u8>, value: Decimal) {
    let mantissa = value.mantissa();
    let Ok(mut rest) = u64::try_from(mantissa.unsigned_abs()) else {
        out.extend_from_slice(value.to_string().as_bytes());
        return;
    };
    let scale = value.scale() as usize;
    let mut digits = [b'0'; 64];
    let mut at = digits.len();
    let mut written = 0;
    while rest > 0 || written <= scale {
        if written == scale && scale > 0 {
            at -= 1;
            digits[at] = b'.';
        }
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        written += 1;
    }
    if mantissa < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: Decimal) -> String {
        let mut out = Vec::new();
        write_decimal(&mut out, value);
        String::from_utf8(out).expect("digits are ASCII")
    }

    #[test]
    fn parsing_keeps_the_scale() {
        for exact in [
            "64250.10",
            "0",
            "0.00",
            "-1.5",
            "0.00000001",
            "79228162514264337593543950335",
            "100",
        ] {
            assert_eq!(parse_decimal(exact).map(text), Ok(exact.to_owned()));
        }
        assert_eq!(parse_decimal("6.4e4").map(text), Ok("64000".to_owned()));
        assert_eq!(parse_decimal("-0.00").map(text), Ok("0.00".to_owned()));
    }

    #[test]
    fn invalid_decimals_are_rejected() {
        for bad in [
            "",
            "NaN",
            "inf",
            "1e308",
            "1.2.3",
            "0x10",
            "1,5",
            "792281625142643375935439503350",
        ] {
            assert!(parse_decimal(bad).is_err(), "{bad}");
        }
        let error = parse_decimal("1\u{1b}[2J\n").expect_err("not a number");
        assert!(error.to_string().contains(r"1\u{1b}[2J\n"), "{error}");
    }

    proptest! {
        #[test]
        fn decimal_text_round_trips(mantissa in -(1i128 << 95)..(1i128 << 95), scale in 0u32..=28) {
            let value = Decimal::from_i128_with_scale(mantissa, scale);
            prop_assert_eq!(text(value), value.to_string());
            let back = parse_decimal(&text(value)).expect("formatted decimals parse");
            prop_assert_eq!((back, back.scale()), (value, value.scale()));
        }
    }
}
