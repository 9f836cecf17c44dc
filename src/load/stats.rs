//! Counts and latencies of a running test.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest recorded latency in nanoseconds; longer ones are recorded as this value.
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Significant digits of the tester's lateness, which is compared with a tenth of the latency.
const LATENESS_DIGITS: u8 = 2;

/// Counts; sums of those of all connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events in data arrays; messages, where another dialect is spoken.
    pub delivered: u64,
    /// Messages of the server.
    pub messages: u64,
    /// Bytes read from sockets.
    pub bytes: u64,
    /// Events reported in gaps.
    pub lost: u64,
    /// Gap messages.
    pub gaps: u64,
    /// Changes of a connection's lag level to `degraded`.
    pub degraded: u64,
    /// Topics resumed without loss after a reconnect.
    pub recovered: u64,
    /// Topics whose history was too short to resume after a reconnect.
    pub expired: u64,
    /// Topics and patterns that the server rejected.
    pub refused: u64,
    /// Connections opened, including reconnects.
    pub opened: u64,
    /// Latencies below zero, which are not in the histograms: the clocks disagree by more.
    pub negative: u64,
    /// Connections that ended before the test did, by close code; 1006: without a close frame.
    pub closed: BTreeMap<u16, u64>,
}

impl Tally {
    /// Adds other counts.
    pub fn add(&mut self, other: &Self) {
        let Self {
            delivered,
            messages,
            bytes,
            lost,
            gaps,
            degraded,
            recovered,
            expired,
            refused,
            opened,
            negative,
            closed,
        } = other;
        self.delivered += delivered;
        self.messages += messages;
        self.bytes += bytes;
        self.lost += lost;
        self.gaps += gaps;
        self.degraded += degraded;
        self.recovered += recovered;
        self.expired += expired;
        self.refused += refused;
        self.opened += opened;
        self.negative += negative;
        for (code, count) in closed {
            *self.closed.entry(*code).or_default() += count;
        }
    }
}

/// Latencies in nanoseconds, measured by the probes.
#[derive(Debug, Clone)]
pub struct Latency {
    /// From the time an event was due at its source (`ts`, of simulated trades and quotes) to its
    /// receipt.
    pub due: Histogram<u64>,
    /// From the time it was published (`tx`) to its receipt.
    pub published: Histogram<u64>,
    /// From the time it was due to the time it was published: how late the generator was.
    pub lag: Histogram<u64>,
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits)
        .expect("the bounds are in order, and so few digits are allowed")
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            due: histogram(LATENCY_DIGITS),
            published: histogram(LATENCY_DIGITS),
            lag: histogram(LATENCY_DIGITS),
        }
    }
}

impl Latency {
    /// Adds other latencies.
    pub fn add(&mut self, other: &Self) {
        for (into, from) in [
            (&mut self.due, &other.due),
            (&mut self.published, &other.published),
            (&mut self.lag, &other.lag),
        ] {
            into.add(from).expect("all have the same bounds");
        }
    }

    /// Clears all values.
    pub fn clear(&mut self) {
        self.due.reset();
        self.published.reset();
        self.lag.reset();
    }

    /// End-to-end latency as seen by a user: from the due time if known, else from publication.
    pub fn end_to_end(&self) -> &Histogram<u64> {
        if self.due.is_empty() {
            &self.published
        } else {
            &self.due
        }
    }
}

/// Results of one span of time.
#[derive(Debug, Clone)]
pub struct Span {
    /// The counts.
    pub tally: Tally,
    /// The latencies.
    pub latency: Latency,
    /// Lateness of the tester's own wake-ups, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// Seconds of processor time that reading and counting took, over all threads.
    pub busy_s: f64,
    /// Connections open at its end.
    pub open: usize,
    /// True if the span is part of the measurement.
    pub is_measured: bool,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            tally: Tally::default(),
            latency: Latency::default(),
            lateness: histogram(LATENESS_DIGITS),
            busy_s: 0.0,
            open: 0,
            is_measured: false,
        }
    }
}

impl Span {
    /// Adds another of the same time.
    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.latency.add(&other.latency);
        let added = self.lateness.add(&other.lateness);
        added.expect("all have the same bounds");
        self.busy_s += other.busy_s;
        self.open += other.open;
        self.is_measured |= other.is_measured;
    }
}

/// Sums over the server's ledgers at the end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSums {
    /// Connections that received their ledger.
    pub connections: u64,
    /// Topics over all of them.
    pub topics: u64,
    /// Events in data arrays.
    pub delivered: u64,
    /// Events that a newer one replaced.
    pub merged: u64,
    /// Events reported in gaps.
    pub lost: u64,
}

impl LedgerSums {
    pub(super) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.topics += other.topics;
        self.delivered += other.delivered;
        self.merged += other.merged;
        self.lost += other.lost;
    }
}
