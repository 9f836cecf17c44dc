//! Plausibility rules for prices and quantities, common to all sources.

#![deny(clippy::arithmetic_side_effects)]

use rust_decimal::Decimal;

use super::{Level, Quote, Trade};

/// Maximum absolute price and maximum quantity: 10^15.
pub const VALUE_MAX: Decimal = Decimal::from_parts(0xa4c6_8000, 0x0003_8d7e, 0, false, 0);
/// Maximum of price × quantity: 10^24; a session's sum can hold 79,000 such trades.
const NOTIONAL_MAX: Decimal = Decimal::from_parts(0xa100_0000, 0x1bce_cced, 0x0000_d3c2, false, 0);

/// Price rules of a source. Negative, zero and crossed prices are rejected by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of the config, independent of the others"
)]
pub struct PriceRules {
    /// Accept negative prices, and zero.
    pub negative: bool,
    /// Accept prices of zero.
    pub zero: bool,
    /// Accept crossed quotes (bid above ask).
    pub crossed: bool,
    /// Treat a side of a quote with size zero as an empty side.
    pub zero_size_is_empty: bool,
}

/// Reason for which a trade or a quote cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PriceFault {
    /// The quantity of a trade is not positive, or that of a quote is negative.
    #[error("the quantity must be greater than zero in a trade, and not negative in a quote")]
    Quantity,
    /// A negative price.
    #[error("the price is negative; allow it with `negative_prices: true` in the source")]
    NegativePrice,
    /// A price of zero.
    #[error("the price is zero; allow it with `zero_prices: true` in the source")]
    ZeroPrice,
    /// The bid is above the ask.
    #[error("the quote is crossed (bid above ask); allow it with `crossed: true` in the source")]
    Crossed,
    /// The value exceeds [`VALUE_MAX`], or price × quantity exceeds 10^24.
    #[error(
        "the price or quantity is too large; expected at most 10^15 each, and 10^24 for price × quantity"
    )]
    TooLarge,
    /// A sum of the session would overflow.
    #[error("the session's volume would exceed what 28 digits can hold")]
    Overflow,
}

impl PriceFault {
    /// Metric label of the fault.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Quantity => "quantity",
            Self::NegativePrice => "negative_price",
            Self::ZeroPrice => "zero_price",
            Self::Crossed => "crossed",
            Self::TooLarge => "too_large",
            Self::Overflow => "overflow",
        }
    }
}

impl PriceRules {
    /// Checks a trade.
    pub fn check_trade(self, trade: &Trade) -> Result<(), PriceFault> {
        if trade.qty.0 <= Decimal::ZERO {
            return Err(PriceFault::Quantity);
        }
        self.check_level(&Level {
            px: trade.px,
            qty: Some(trade.qty),
        })
    }

    /// Applies these rules to a quote: returns the quote to publish.
    pub fn admit_quote(self, quote: Quote) -> Result<Quote, PriceFault> {
        let quote = if self.zero_size_is_empty {
            quote.with_zero_sizes_empty()
        } else {
            quote
        };
        self.check_quote(&quote).map(|()| quote)
    }

    /// Checks a quote. A locked quote (bid = ask) is valid, because venues send them.
    pub fn check_quote(self, quote: &Quote) -> Result<(), PriceFault> {
        for level in [quote.bid, quote.ask].iter().flatten() {
            self.check_level(level)?;
        }
        if quote.is_crossed() && !self.crossed {
            return Err(PriceFault::Crossed);
        }
        Ok(())
    }

    fn check_level(self, level: &Level) -> Result<(), PriceFault> {
        let (px, qty) = (level.px.0, level.qty.map_or(Decimal::ZERO, |qty| qty.0));
        if qty.is_sign_negative() && !qty.is_zero() {
            return Err(PriceFault::Quantity);
        }
        if px.is_zero() && !self.zero && !self.negative {
            return Err(PriceFault::ZeroPrice);
        }
        if px.is_sign_negative() && !px.is_zero() && !self.negative {
            return Err(PriceFault::NegativePrice);
        }
        let notional = px.abs().checked_mul(qty);
        if px.abs() > VALUE_MAX
            || qty > VALUE_MAX
            || notional.is_none_or(|notional| notional > NOTIONAL_MAX)
        {
            return Err(PriceFault::TooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;
    use crate::market::{Aggressor, Price, Qty, TradeId, UnixNanos};

    fn decimal(text: &str) -> Decimal {
        crate::market::parse_decimal(text).expect("valid decimal")
    }

    fn trade(px: &str, qty: &str) -> Trade {
        Trade {
            ts: UnixNanos(1),
            px: Price(decimal(px)),
            qty: Qty(decimal(qty)),
            side: Aggressor::None,
            id: TradeId::None,
        }
    }

    fn quote(bid: &str, ask: &str) -> Quote {
        let level = |px| {
            Some(Level {
                px: Price(decimal(px)),
                qty: Some(Qty(Decimal::ZERO)),
            })
        };
        Quote {
            ts: UnixNanos(1),
            bid: level(bid),
            ask: level(ask),
        }
    }

    #[test]
    fn trades_and_quotes_have_the_same_price_rules() {
        let strict = PriceRules::default();
        let negative = PriceRules {
            negative: true,
            ..strict
        };
        let zero = PriceRules {
            zero: true,
            ..strict
        };
        let crossed = PriceRules {
            crossed: true,
            ..strict
        };
        for (px, fault, lets_pass) in [
            ("-1", PriceFault::NegativePrice, negative),
            ("0", PriceFault::ZeroPrice, zero),
            ("0.00", PriceFault::ZeroPrice, negative),
        ] {
            assert_eq!(strict.check_trade(&trade(px, "1")), Err(fault));
            assert_eq!(strict.check_quote(&quote(px, "5")), Err(fault));
            assert_eq!(lets_pass.check_trade(&trade(px, "1")), Ok(()));
            assert_eq!(lets_pass.check_quote(&quote(px, "5")), Ok(()));
        }
        assert_eq!(
            zero.check_trade(&trade("-1", "1")),
            Err(PriceFault::NegativePrice)
        );
        assert_eq!(
            strict.check_quote(&quote("5", "4")),
            Err(PriceFault::Crossed)
        );
        assert_eq!(crossed.check_quote(&quote("5", "4")), Ok(()));
        assert_eq!(strict.check_quote(&quote("5", "5")), Ok(()));
        assert_eq!(
            strict.check_trade(&trade("5", "0")),
            Err(PriceFault::Quantity)
        );
    }

    #[test]
    fn size_zero_means_an_empty_side_if_configured() {
        let rules = |zero_size_is_empty| PriceRules {
            zero_size_is_empty,
            ..PriceRules::default()
        };
        // Zero prices and crossed quotes stand for empty sides, too.
        for (bid, ask) in [("5", "6"), ("0", "6"), ("5", "4")] {
            let admitted = rules(true).admit_quote(quote(bid, ask));
            let admitted = admitted.map(|quote| (quote.bid, quote.ask));
            assert_eq!(admitted, Ok((None, None)), "{bid} {ask}");
        }
        assert_eq!(
            rules(false).admit_quote(quote("5", "6")),
            Ok(quote("5", "6"))
        );
        let without_size = |px| {
            Some(Level {
                px: Price(decimal(px)),
                qty: None,
            })
        };
        let without_sizes = Quote {
            ts: UnixNanos(1),
            bid: without_size("5"),
            ask: without_size("6"),
        };
        assert_eq!(
            rules(true).admit_quote(without_sizes.clone()),
            Ok(without_sizes)
        );
    }

    #[test]
    fn values_that_could_overflow_sums_are_rejected() {
        let rules = PriceRules {
            negative: true,
            ..PriceRules::default()
        };
        assert_eq!(
            (VALUE_MAX.to_string(), NOTIONAL_MAX.to_string()),
            (
                "1".to_owned() + &"0".repeat(15),
                "1".to_owned() + &"0".repeat(24)
            )
        );
        let largest = "79228162514264337593543950335";
        for (px, qty) in [
            (largest, largest),
            (largest, "1"),
            ("1", largest),
            ("1e15", "1e15"),
            ("-1e16", "1"),
        ] {
            assert_eq!(
                rules.check_trade(&trade(px, qty)),
                Err(PriceFault::TooLarge),
                "{px} {qty}"
            );
        }
        assert_eq!(rules.check_trade(&trade("1e15", "1e9")), Ok(()));
        assert_eq!(
            rules.check_trade(&trade("0.0000000000000000000000000001", "1e15")),
            Ok(())
        );
    }
}
