use std::collections::VecDeque;
use std::time::Duration;

use crate::market::UnixNanos;

/// Max burst, in seconds of the request rate.
const BURST_SECONDS: u64 = 5;
/// Upper bound of tokens in any burst.
const TOKENS_MAX: u32 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Token bucket: a rate in requests per second, with a burst of [`BURST_SECONDS`].
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Time at which the bucket is full again.
    full_at: UnixNanos,
    /// Time per token, in nanoseconds; at most a second.
    a_token_ns: u32,
}

impl TokenBucket {
    pub(super) fn full(per_second: u64, now: UnixNanos) -> Self {
        Self {
            full_at: now,
            a_token_ns: (NANOS_PER_SECOND / per_second.max(1)) as u32,
        }
    }

    /// Charges further tokens for an admitted request, even if they are not available: an expensive
    /// request delays the next ones, at most for the time of half a burst.
    pub(super) fn charge(&mut self, tokens: usize, now: UnixNanos) {
        let cost = self.a_token() * u32::try_from(tokens).unwrap_or(u32::MAX).min(TOKENS_MAX);
        let most = now.plus(self.burst() * 3 / 2);
        self.full_at = self.full_at.max(now).plus(cost).min(most.max(self.full_at));
    }

    const fn a_token(&self) -> Duration {
        Duration::from_nanos(self.a_token_ns as u64)
    }

    fn burst(&self) -> Duration {
        let per_second = NANOS_PER_SECOND / u64::from(self.a_token_ns.max(1));
        self.a_token() * (per_second * BURST_SECONDS) as u32
    }

    /// Consumes a token; returns the time until the next one if there is none.
    pub(super) fn take(&mut self, now: UnixNanos) -> Result<(), Duration> {
        let burst = self.burst();
        let full_at = self.full_at.max(now).plus(self.a_token());
        let debt = full_at.since(now);
        if let Some(wait) = debt.checked_sub(burst).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.full_at = full_at;
        Ok(())
    }
}

/// Times of recent faults.
#[derive(Debug, Default)]
pub(super) struct AbuseCounter(VecDeque<UnixNanos>);

impl AbuseCounter {
    /// Records a fault; returns the number within `span`.
    pub(super) fn strike(&mut self, now: UnixNanos, span: Duration) -> usize {
        while self.0.front().is_some_and(|at| now.since(*at) > span) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_accepted_and_then_the_rate_applies() {
        let mut now = UnixNanos(1_000_000_000_000);
        let mut bucket = TokenBucket::full(10, now);
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 50);
        assert_eq!(bucket.take(now), Err(Duration::from_millis(100)));
        now = now.plus(Duration::from_secs(1));
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 10);
    }

    #[test]
    fn a_heavy_request_delays_the_next_ones_by_a_bounded_time() {
        let now = UnixNanos(1_000_000_000_000);
        let mut bucket = TokenBucket::full(10, now);
        assert_eq!(bucket.take(now), Ok(()));
        bucket.charge(39, now);
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 10);
        bucket.charge(1_000_000, now);
        assert_eq!(bucket.take(now), Err(Duration::from_millis(2_600)));
    }

    #[test]
    fn old_errors_no_longer_count() {
        let (mut strikes, span) = (AbuseCounter::default(), Duration::from_secs(10));
        let at = |seconds| UnixNanos(0).plus(Duration::from_secs(seconds));
        assert_eq!(
            (
                strikes.strike(at(1), span),
                strikes.strike(at(11), span),
                strikes.strike(at(22), span)
            ),
            (1, 2, 1)
        );
    }
}
