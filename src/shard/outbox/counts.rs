use std::time::Duration;

use crate::market::UnixNanos;
use crate::metrics::{Histogram, LocalHistogram, Metrics};
use crate::protocol::Mode;

/// What a shard's connections did, until the metrics are told: once a turn, not once a client.
#[derive(Debug)]
pub struct Counts {
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Bytes that sockets took.
    pub written: u64,
    /// The time, read once for several connections.
    now: UnixNanos,
    /// When the events were published that were delivered last, in which mode, and how many of them are not recorded yet:
    /// what comes in one turn is mostly of one batch.
    latest: (UnixNanos, usize, u64),
    /// By the mode's index.
    fanout: [LocalHistogram; 3],
    queue_age: LocalHistogram,
    flush_bytes: LocalHistogram,
    snapshot: LocalHistogram,
}

impl Counts {
    /// Nothing yet.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            delivered: 0,
            merged: 0,
            written: 0,
            now: UnixNanos::default(),
            latest: (UnixNanos::default(), 0, 0),
            fanout: metrics.fanout_time.each_ref().map(Histogram::local),
            queue_age: metrics.queue_age.local(),
            flush_bytes: metrics.flush_bytes.local(),
            snapshot: metrics.snapshot_time.local(),
        }
    }

    /// What was delivered so far was so by this time.
    pub fn settle(&mut self, now: UnixNanos) {
        self.now = now;
        let (published, mode, events) = std::mem::take(&mut self.latest);
        if events > 0 {
            self.fanout[mode].record(now.since(published).as_nanos() as u64, events);
        }
    }

    /// Events went onto the wire that were published at this time.
    pub fn deliver(&mut self, events: u64, published: UnixNanos, mode: Mode) {
        self.delivered += events;
        let mode = mode.index();
        if (self.latest.0, self.latest.1) != (published, mode) {
            self.settle(self.now);
            (self.latest.0, self.latest.1) = (published, mode);
        }
        self.latest.2 += events;
    }

    /// A socket took so many bytes in one turn.
    pub fn flushed(&mut self, bytes: usize) {
        if bytes > 0 {
            self.written += bytes as u64;
            self.flush_bytes.record(bytes as u64, 1);
        }
    }

    /// A blocked client's oldest event has this age.
    pub fn waits(&mut self, age: Duration) {
        self.queue_age.time(age);
    }

    /// A snapshot went onto the wire that was asked for at `since`.
    pub fn snapshot_sent(&mut self, since: UnixNanos, now: UnixNanos) {
        self.snapshot.time(now.since(since));
    }

    /// Tells the metrics.
    pub fn tell(&mut self, metrics: &Metrics) {
        let counters =
            [(&metrics.delivered, &mut self.delivered), (&metrics.merged, &mut self.merged), (&metrics.written_bytes, &mut self.written)];
        for (counter, count) in counters {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
        let others = [&mut self.queue_age, &mut self.flush_bytes, &mut self.snapshot];
        for histogram in self.fanout.iter_mut().chain(others) {
            histogram.hand_over();
        }
    }
}
