//! Lateness of a worker's own wake-ups: the delay that the tester adds to the latencies it
//! measures.
//!
//! A worker is due to wake up at a fixed interval. The time from then until its poll returns is the
//! time that an event which arrived at that moment would have waited for the tester: for the
//! processor, or for the worker to finish the events before it. Wake-ups missed in a pause are
//! recorded as well, each with its own lateness, so a single pause weighs as much as it does in the
//! latencies.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::figures::time;
use super::stats::Latency;
use crate::market::UnixNanos;

/// Interval of the wake-ups; no multiple of the usual intervals of servers.
const INTERVAL: Duration = Duration::from_millis(7);
/// Maximum number of missed wake-ups recorded at once: ten minutes.
const MISSED_MAX: u64 = 90_000;
/// A tester whose lateness exceeds this share of the latency, at the median or the 99th percentile,
/// was starved …
const LATENESS_SHARE_MAX: f64 = 0.1;
/// … unless it is no later than an idle thread that wakes up.
const LATENESS_ALLOWED: Duration = Duration::from_micros(100);

/// Schedule of the wake-ups of a worker.
#[derive(Debug)]
pub(super) struct WakeUps {
    due: UnixNanos,
}

impl WakeUps {
    pub(super) fn new(now: UnixNanos) -> Self {
        Self {
            due: now.plus(INTERVAL),
        }
    }

    /// Time until the next wake-up is due.
    pub(super) fn left(&self, now: UnixNanos) -> Duration {
        self.due.since(now)
    }

    /// Records the lateness of each wake-up that was due by `now`, unless `into` is `None`.
    pub(super) fn on_wake(&mut self, now: UnixNanos, into: Option<&mut Histogram<u64>>) {
        if now < self.due {
            return;
        }
        let late = now.since(self.due).as_nanos() as u64;
        let interval = INTERVAL.as_nanos() as u64;
        let missed = late / interval;
        if let Some(into) = into {
            for missed in 0..=missed.min(MISSED_MAX) {
                into.saturating_record((late - missed * interval).max(1));
            }
        }
        self.due = UnixNanos(self.due.0 + (missed + 1) * interval);
    }
}

/// Reason why the latencies describe the tester rather than the server.
pub(super) fn starved(lateness: &Histogram<u64>, latency: &Latency) -> Option<String> {
    let latency = latency.end_to_end();
    if lateness.is_empty() || latency.is_empty() {
        return None;
    }
    let at = |(name, percentile)| {
        let (late, measured) = (
            lateness.value_at_percentile(percentile),
            latency.value_at_percentile(percentile),
        );
        let is_late = late as f64 > measured as f64 * LATENESS_SHARE_MAX
            && u128::from(late) > LATENESS_ALLOWED.as_nanos();
        is_late.then_some((name, late, measured))
    };
    let (name, late, measured) = [("p99", 99.0), ("p50", 50.0)].into_iter().find_map(at)?;
    Some(format!(
        "the tester was starved: its threads woke up {} late ({name}; max {}), against a measured {name} of {}; the latencies describe \
         the tester rather than the server; give it a core of its own, more --workers or fewer --probes",
        time(late),
        time(lateness.max()),
        time(measured),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::stats::Span;

    const BEGUN: UnixNanos = UnixNanos(1_700_000_000_000_000_000);
    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> UnixNanos {
        BEGUN.plus(Duration::from_millis(ms))
    }

    #[test]
    fn a_pause_is_recorded_as_seen_by_the_events_in_it() {
        let mut wake_ups = WakeUps::new(BEGUN);
        let mut late = Span::default().lateness;
        wake_ups.on_wake(at(6), Some(&mut late));
        assert!(late.is_empty());
        // On time, then a pause of 100 ms: due at 14, 21, …, 105 ms.
        wake_ups.on_wake(at(7), Some(&mut late));
        assert_eq!(wake_ups.left(at(7)), INTERVAL);
        wake_ups.on_wake(at(107), Some(&mut late));
        assert_eq!(wake_ups.left(at(107)), Duration::from_millis(5));
        assert_eq!(late.len(), 1 + 14);
        let is = |measured: u64, wanted: u64| measured.abs_diff(wanted) <= wanted / 50 + 1;
        assert!(is(late.max(), 93 * MS) && is(late.min(), 1), "{late:?}");
        assert!(is(late.value_at_percentile(50.0), 44 * MS), "{late:?}");
        // Before the measurement nothing is recorded, but the schedule goes on.
        wake_ups.on_wake(at(200), None);
        assert_eq!((late.len(), wake_ups.left(at(200)).as_millis()), (15, 3));
        // A clock that jumps by a year costs no more than a pause of minutes.
        wake_ups.on_wake(at(31_536_000_000), Some(&mut late));
        assert!(wake_ups.left(at(31_536_000_000)) <= INTERVAL && late.len() < 100_000);
    }

    #[test]
    fn a_tester_is_starved_if_its_lateness_is_a_tenth_of_the_latency() {
        let reason = |late: u64, share_late: u64, latency_ns: u64| {
            let mut span = Span::default();
            span.lateness.record_n(late, share_late).expect("in range");
            span.lateness
                .record_n(20_000, 100 - share_late)
                .expect("in range");
            let published = &mut span.latency.published;
            published.record_n(latency_ns, 1_000).expect("in range");
            starved(&span.lateness, &span.latency)
        };
        let why = reason(5 * MS, 3, 20 * MS).expect("a quarter at the 99th percentile");
        assert!(
            why.contains("starved")
                && why.contains("p99")
                && why.contains("rather than the server"),
            "{why}"
        );
        assert_eq!(reason(5 * MS, 3, 100 * MS), None, "a twentieth");
        assert_eq!(
            reason(5 * MS, 1, 20 * MS),
            None,
            "beyond the 99th percentile"
        );
        assert_eq!(reason(90_000, 100, 200_000), None, "an ordinary wake-up");
        assert!(reason(110_000, 100, 200_000).is_some());
        let nothing = Span::default();
        assert_eq!(starved(&nothing.lateness, &nothing.latency), None);
    }
}
