//! The outcome of a load test.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::lateness::starved;
use super::preflight::ClockCheck;
use super::stats::Latency;
use super::{LedgerSums, Machine, Plan, Span, Tally, Totals};

/// Maximum mean lateness of the event source as a share of the mean latency; beyond it, the run is
/// invalid …
const LAG_SHARE_MAX: f64 = 0.1;
/// … unless the lateness is within the resolution of its timer.
const LAG_ALLOWED: Duration = Duration::from_micros(250);
/// Maximum share of negative latencies; beyond it, the run is invalid.
const NEGATIVE_SHARE_MAX: f64 = 0.01;
/// Maximum busy share of the tester's threads; beyond it, the tester was the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.9;

/// One histogram in numbers, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Events measured.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half of them were no slower.
    pub p50: u64,
    /// 90 % were no slower.
    pub p90: u64,
    /// 99 % were no slower.
    pub p99: u64,
    /// 99.9 % were no slower.
    pub p99_9: u64,
    /// 99.99 % were no slower.
    pub p99_99: u64,
    /// The slowest.
    pub max: u64,
}

impl LatencySummary {
    /// `None` where nothing was measured.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |percentile| histogram.value_at_percentile(percentile);
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: histogram.max(),
        })
    }
}

/// One second of a test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Its end, in seconds since measuring began.
    pub at_s: f64,
    /// Deliveries in it.
    pub delivered: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Lost in it.
    pub lost: u64,
    /// Connections open at its end.
    pub open: usize,
    /// The median latency, in nanoseconds; 0 where nothing was measured.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// Result of a test.
///
/// Written and read as JSON; two results can be compared:
///
/// ```no_run
/// use tickcast::load::{Difference, Machine, Outcome, Second, Tally, compare};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let read = |path: &str| -> Result<Outcome, Box<dyn std::error::Error>> {
///     Ok(serde_json::from_slice(&std::fs::read(path)?)?)
/// };
/// let (before, after) = (read("before.json")?, read("after.json")?);
/// assert_eq!(before.machine, Machine::read(), "figures of one machine");
/// for Difference { name, a, b } in compare(&before, &after) {
///     println!("{name}: {a} -> {b}");
/// }
/// let slowest = |outcome: &Outcome| outcome.seconds.iter().map(|second: &Second| second.max).max();
/// let lost = |tally: &Tally| tally.lost;
/// println!("{:?} ns, {} lost", slowest(&after), lost(&after.tally));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The tester's version.
    pub tester: String,
    /// Name of the server.
    pub server: String,
    /// Address of the server.
    pub address: String,
    /// Start of the test, Unix nanoseconds.
    pub begun_ns: u64,
    /// Measured time, in seconds.
    pub measured_s: f64,
    /// Time until all connections had subscribed, in seconds.
    pub joining_s: f64,
    /// Time after a storm until all connections had resubscribed, in seconds.
    pub storm_s: Option<f64>,
    /// Requested number of connections.
    pub connections: usize,
    /// Requested topics and patterns.
    pub topics: Vec<String>,
    /// Threads of the tester.
    pub workers: usize,
    /// Machine of the tester.
    pub machine: Machine,
    /// Clock offset; `None` for other dialects.
    pub clock: Option<ClockCheck>,
    /// Counts of the measured time; losses, reconnects and closes also before and after.
    pub tally: Tally,
    /// Sums over the server's ledgers at the end.
    pub ledger: Option<LedgerSums>,
    /// Latency from due time to receipt; simulated trades and quotes only.
    pub due: Option<LatencySummary>,
    /// Latency from publication to receipt.
    pub published: Option<LatencySummary>,
    /// Latency from due time to publication.
    pub generator_lag: Option<LatencySummary>,
    /// Connections that measured the latencies.
    #[serde(default)]
    pub probes: usize,
    /// Lateness of the tester's own wake-ups: the delay that it adds to an event.
    #[serde(default)]
    pub wake_up_lateness: Option<LatencySummary>,
    /// Mean busy share of the tester's threads.
    pub busy_share: f64,
    /// Reasons why the run is invalid.
    pub void: Option<String>,
    /// The test was interrupted before its time was over.
    #[serde(default)]
    pub interrupted: bool,
    /// Reasons why the figures describe the tester rather than the server.
    pub bottleneck: Option<String>,
    /// Starvation: the tester woke up too late for the latencies to be those of the server.
    #[serde(default)]
    pub starved: Option<String>,
    /// Broken guarantees and other failures.
    pub failures: Vec<String>,
    /// Second by second.
    pub seconds: Vec<Second>,
    /// All latencies; not in JSON.
    #[serde(skip)]
    pub latency: Latency,
    /// The spans that the seconds sum up; not in JSON.
    #[serde(skip)]
    pub spans: Vec<(Duration, Span)>,
}

fn second((at, span): &(Duration, Span)) -> Second {
    let end_to_end = LatencySummary::of(span.latency.end_to_end());
    Second {
        at_s: at.as_secs_f64(),
        delivered: span.tally.delivered,
        bytes: span.tally.bytes,
        lost: span.tally.lost,
        open: span.open,
        p50: end_to_end.map_or(0, |end_to_end| end_to_end.p50),
        p99: end_to_end.map_or(0, |end_to_end| end_to_end.p99),
        max: end_to_end.map_or(0, |end_to_end| end_to_end.max),
    }
}

/// Latencies between clocks that disagree are invalid.
fn clocks_disagree(latency: &Latency, negative: u64) -> Option<String> {
    let measured = latency.published.len() + latency.due.len() + negative;
    (negative as f64 > measured as f64 * NEGATIVE_SHARE_MAX).then(|| {
        format!(
            "{negative} of {measured} latencies are negative: the server's clock is ahead of this machine's; synchronize the clocks"
        )
    })
}

/// A generator that stalls hides what the server does.
fn generator_stalled(latency: &Latency) -> Option<String> {
    let (lag, end_to_end) = (
        LatencySummary::of(&latency.lag)?,
        LatencySummary::of(&latency.due)?,
    );
    let is_late =
        lag.mean > end_to_end.mean * LAG_SHARE_MAX && lag.mean > LAG_ALLOWED.as_nanos() as f64;
    is_late.then(|| {
        format!(
            "the event source was late by {} on average, more than a tenth of the measured {}: the latencies describe the source rather than the server",
            super::figures::time(lag.mean as u64),
            super::figures::time(end_to_end.mean as u64),
        )
    })
}

/// Reason why nothing can be judged: no event was received, or no connection was left.
fn nothing_to_judge(total: &Span, last: Option<&Span>) -> Vec<String> {
    let mut found = Vec::new();
    if total.tally.delivered == 0 {
        found.push("no event was delivered during measurement".to_owned());
    }
    if last.is_some_and(|span| span.open == 0) {
        found.push("no connection was open at the end of measurement".to_owned());
    }
    found
}

/// Counts of the measurement. Events before and after it are not counted, but losses and
/// disconnects are reported.
fn with_losses(measured: Tally, outside: &Tally) -> Tally {
    let Tally {
        delivered,
        messages,
        bytes,
        negative,
        ..
    } = measured;
    let mut tally = measured;
    tally.add(outside);
    Tally {
        delivered,
        messages,
        bytes,
        negative,
        ..tally
    }
}

fn too_busy(share: f64) -> String {
    format!(
        "the tester was the bottleneck: its threads were busy {:.0} % of the time; use more --workers or fewer --probes",
        share * 100.0
    )
}

impl Outcome {
    pub(super) fn new(
        plan: &Plan,
        server: String,
        clock: Option<ClockCheck>,
        totals: Totals,
    ) -> Self {
        let Totals {
            begun,
            measured,
            seconds,
            total,
            outside,
            mut failures,
            ledger,
            joining,
            storm,
            workers,
            probes,
            interrupted,
        } = totals;
        let measured_s = measured.as_secs_f64();
        if !interrupted {
            failures.extend(nothing_to_judge(
                &total,
                seconds.last().map(|(_, span)| span),
            ));
        }
        let busy_share = total.busy_s / (measured_s * workers as f64).max(1e-9);
        let bottleneck = (busy_share > BUSY_SHARE_MAX).then(|| too_busy(busy_share));
        let negative = total.tally.negative;
        failures.sort();
        failures.dedup();
        Self {
            tester: concat!("tickcast/", env!("CARGO_PKG_VERSION")).to_owned(),
            server,
            address: plan.address.to_string(),
            begun_ns: begun.0,
            measured_s,
            joining_s: joining.as_secs_f64(),
            storm_s: storm.map(|took| took.as_secs_f64()),
            connections: plan.connections,
            topics: plan.topics.names().to_vec(),
            workers,
            machine: Machine::read(),
            clock,
            tally: with_losses(total.tally, &outside),
            ledger: (ledger.connections > 0).then_some(ledger),
            due: LatencySummary::of(&total.latency.due),
            published: LatencySummary::of(&total.latency.published),
            generator_lag: LatencySummary::of(&total.latency.lag),
            probes,
            wake_up_lateness: LatencySummary::of(&total.lateness),
            busy_share,
            void: clocks_disagree(&total.latency, negative)
                .or_else(|| generator_stalled(&total.latency)),
            interrupted,
            bottleneck,
            starved: starved(&total.lateness, &total.latency),
            failures,
            seconds: seconds.iter().map(second).collect(),
            latency: total.latency,
            spans: seconds,
        }
    }

    /// Deliveries per second.
    pub fn delivered_per_s(&self) -> f64 {
        self.tally.delivered as f64 / self.measured_s.max(1e-9)
    }

    /// End-to-end latency as seen by a user.
    pub fn end_to_end(&self) -> Option<LatencySummary> {
        self.due.or(self.published)
    }

    /// True if the server kept all guarantees.
    pub fn is_sound(&self) -> bool {
        self.failures.is_empty()
    }
}

/// One figure of two tests.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Name of the figure, with its unit.
    pub name: &'static str,
    /// In the first.
    pub a: f64,
    /// In the second.
    pub b: f64,
}

/// The figures of two tests side by side.
pub fn compare(a: &Outcome, b: &Outcome) -> Vec<Difference> {
    let mut rows = Vec::new();
    let mut row = |name, of: &dyn Fn(&Outcome) -> Option<f64>| {
        if let (Some(a), Some(b)) = (of(a), of(b)) {
            rows.push(Difference { name, a, b });
        }
    };
    row("connections", &|outcome| Some(outcome.connections as f64));
    row("deliveries/s", &|outcome| Some(outcome.delivered_per_s()));
    row("MB/s", &|outcome| {
        Some(outcome.tally.bytes as f64 / outcome.measured_s / 1e6)
    });
    row("lost", &|outcome| Some(outcome.tally.lost as f64));
    row("merged", &|outcome| {
        outcome.ledger.map(|ledger| ledger.merged as f64)
    });
    let us = |ns: u64| ns as f64 / 1e3;
    row("p50 µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.p50))
    });
    row("p90 µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.p90))
    });
    row("p99 µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.p99))
    });
    row("p99.9 µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.p99_9))
    });
    row("p99.99 µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.p99_99))
    });
    row("max µs", &|outcome| {
        outcome.end_to_end().map(|end_to_end| us(end_to_end.max))
    });
    row("tester p99 µs", &|outcome| {
        outcome.wake_up_lateness.map(|lateness| us(lateness.p99))
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(lag_us: u64, due_us: u64) -> Latency {
        let mut latency = Latency::default();
        for _ in 0..1000 {
            latency.lag.saturating_record(lag_us * 1000);
            latency.due.saturating_record(due_us * 1000);
        }
        latency
    }

    #[test]
    fn a_stalled_generator_invalidates_the_run() {
        assert!(
            generator_stalled(&latency(3_000, 20_000))
                .is_some_and(|why| why.contains("3.00 ms") && why.contains("20.0"))
        );
        assert!(
            generator_stalled(&latency(1_500, 20_000)).is_none(),
            "a lateness below a tenth of the latency is accepted"
        );
        assert!(
            generator_stalled(&latency(90, 200)).is_none(),
            "a lateness within the timer resolution is accepted"
        );
        assert!(
            generator_stalled(&Latency::default()).is_none(),
            "without due times there is no lateness"
        );
    }

    #[test]
    fn a_server_clock_ahead_of_the_tester_invalidates_the_run() {
        let good = latency(10, 200);
        assert!(
            clocks_disagree(&good, 9).is_none(),
            "a share below 1 % is accepted"
        );
        let ahead = clocks_disagree(&Latency::default(), 500);
        assert!(
            ahead.is_some_and(|why| why.contains("500 of 500")),
            "all latencies are negative"
        );
    }

    #[test]
    fn a_run_without_events_or_connections_is_a_failure() {
        let mut span = Span::default();
        assert_eq!(nothing_to_judge(&span, Some(&span)).len(), 2);
        span.tally.delivered = 1;
        span.open = 1;
        assert!(nothing_to_judge(&span, Some(&span)).is_empty());
    }

    #[test]
    fn two_outcomes_are_compared_figure_by_figure() {
        let text = r#"{"tester":"t","server":"s","address":"a","begun_ns":1,"measured_s":2.0,"joining_s":0.1,"storm_s":null,"connections":5,
            "topics":["quote:*"],"workers":1,"machine":{"processor":"","cores":2,"memory_bytes":1,"kernel":""},"clock":null,"tally":{"delivered":100,
            "messages":50,"bytes":4000,"lost":0,"gaps":0,"degraded":0,"recovered":0,"expired":0,"refused":0,"opened":5,"negative":0,
            "closed":{"1006":2}},"ledger":null,"due":null,"published":null,"generator_lag":null,"busy_share":0.1,"void":null,
            "bottleneck":null,"failures":[],"seconds":[]}"#;
        let a: Outcome = serde_json::from_str(text).expect("valid outcome");
        let b = Outcome {
            tally: Tally {
                delivered: 300,
                ..a.tally.clone()
            },
            ..a.clone()
        };
        let rows = compare(&a, &b);
        let rate = rows
            .iter()
            .find(|row| row.name == "deliveries/s")
            .expect("both outcomes have a rate");
        assert!((rate.b / rate.a - 3.0).abs() < 1e-9);
        assert!(
            rows.iter().all(|row| row.name != "p99 µs"),
            "neither outcome has latencies"
        );
    }
}
