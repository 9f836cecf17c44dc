//! Band around the last accepted price of an instrument.

use std::time::Duration;

use rust_decimal::Decimal;

use super::SourceRules;
use crate::market::{Quote, UnixNanos};

/// Prices of one event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prices {
    low: Decimal,
    high: Decimal,
}

impl Prices {
    pub(super) const fn of_trade(px: Decimal) -> Self {
        Self { low: px, high: px }
    }

    /// `None` if both sides are empty.
    pub(super) fn of_quote(quote: &Quote) -> Option<Self> {
        let (bid, ask) = (
            quote.bid.as_ref().map(|level| level.px.0),
            quote.ask.as_ref().map(|level| level.px.0),
        );
        let low = bid.or(ask)?;
        let high = ask.or(bid)?;
        Some(Self { low, high })
    }

    /// The middle, which represents the event.
    fn middle(self) -> Decimal {
        let sum = self.low.checked_add(self.high);
        let half = sum.and_then(|sum| sum.checked_div(Decimal::TWO));
        half.unwrap_or(self.low)
    }

    /// True if a price is more than a share of `anchor` away from it.
    fn are_far(self, anchor: Decimal, max_move: Decimal) -> bool {
        let far = |px: Decimal| {
            let moved = px.checked_sub(anchor).map(|moved| moved.abs());
            moved > anchor.abs().checked_mul(max_move)
        };
        far(self.low) || far(self.high)
    }
}

/// Last accepted price, and a candidate for the next one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PriceBand {
    accepted: Option<(Decimal, UnixNanos)>,
    /// Price of the latest off-market event.
    candidate: Decimal,
    /// Number of consecutive off-market events around the candidate.
    confirmed: u32,
}

impl PriceBand {
    /// True if the prices are off the market. After `move_confirm` consecutive events around
    /// another price, or `move_within` after the last accepted price, the market has moved.
    pub(super) fn is_off_market(
        &mut self,
        prices: Prices,
        ts: UnixNanos,
        rules: &SourceRules,
    ) -> bool {
        let recent = |(_, accepted_at): &(Decimal, UnixNanos)| {
            let age: Duration = ts.since(*accepted_at);
            age <= rules.move_within
        };
        let Some((anchor, _)) = self.accepted.filter(recent) else {
            self.accept(prices, ts);
            return false;
        };
        if !prices.are_far(anchor, rules.max_move) {
            self.accept(prices, ts);
            return false;
        }
        let agrees = self.confirmed > 0 && !prices.are_far(self.candidate, rules.max_move);
        self.confirmed = if agrees {
            self.confirmed.saturating_add(1)
        } else {
            1
        };
        self.candidate = prices.middle();
        if self.confirmed >= rules.move_confirm {
            self.accept(prices, ts);
            return false;
        }
        true
    }

    fn accept(&mut self, prices: Prices, ts: UnixNanos) {
        self.accepted = Some((prices.middle(), ts));
        self.confirmed = 0;
    }
}
