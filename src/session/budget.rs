use std::collections::VecDeque;
use std::time::Duration;

use crate::market::UnixNanos;

/// Seconds of requests that may come at once.
const BURST_SECONDS: u64 = 5;
/// More tokens than any burst has.
const TOKENS_MAX: u32 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A token bucket: so many requests a second, and a burst of [`BURST_SECONDS`] of them.
#[derive(Debug)]
pub(super) struct TokenBucket {
    /// Time at which the bucket would be full again.
    full_at: UnixNanos,
    /// At most a second.
    a_token_ns: u32,
}

impl TokenBucket {
    pub(super) fn full(per_second: u64, now: UnixNanos) -> Self {
        Self {
            full_at: now,
            a_token_ns: (NANOS_PER_SECOND / per_second.max(1)) as u32,
        }
    }

    /// Takes so many tokens more for a request that was let in, whether they are there or not: a heavy request makes the
    /// next ones wait, at most for half of what a burst takes.
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

    /// Takes a token, or says how long until there is one.
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
    /// One more; returns how many there were within `span`.
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
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut now = UnixNanos(1_000_000_000_000);
        let mut bucket = TokenBucket::full(10, now);
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 50);
        assert_eq!(bucket.take(now), Err(Duration::from_millis(100)));
        now = now.plus(Duration::from_secs(1));
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 10);
    }

    #[test]
    fn a_heavy_request_makes_the_next_ones_wait_but_never_for_long() {
        let now = UnixNanos(1_000_000_000_000);
        let mut bucket = TokenBucket::full(10, now);
        assert_eq!(bucket.take(now), Ok(()));
        bucket.charge(39, now);
        assert_eq!((0..60).filter(|_| bucket.take(now).is_ok()).count(), 10);
        bucket.charge(1_000_000, now);
        assert_eq!(bucket.take(now), Err(Duration::from_millis(2_600)));
    }

    #[test]
    fn old_strikes_are_forgiven() {
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
