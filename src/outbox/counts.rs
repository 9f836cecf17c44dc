use std::time::Duration;

use crate::market::UnixNanos;
use crate::metrics::{Histogram, LocalHistogram, Metrics};
use crate::protocol::Mode;

/// Interval of histogram reports.
pub const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Bytes made for one client alone, out of a history or a catalog, before others are served: about half a millisecond.
const WORK_A_FLUSH: usize = 128 * 1024;

const MODES: usize = Mode::NAMES.len();

/// Counts of a shard's connections, reported to the metrics once per turn instead of once per client.
#[derive(Debug)]
pub struct Counts {
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Bytes that sockets took.
    pub written: u64,
    /// Work done for one client alone since its flush began.
    worked: usize,
    /// The time, read once for several connections.
    now: UnixNanos,
    /// Time of the last histogram report.
    told: UnixNanos,
    /// Publication time of the events delivered last, their histogram, and the number not recorded yet:
    /// what comes in one turn is mostly of one batch.
    latest: (UnixNanos, usize, u64),
    /// By the mode's index, for clients that keep up and then for those that lag.
    fanout: [LocalHistogram; 2 * MODES],
    /// First histogram of the client being served.
    client: usize,
    outbox_age: LocalHistogram,
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
            worked: 0,
            now: UnixNanos::default(),
            told: UnixNanos::default(),
            latest: (UnixNanos::default(), 0, 0),
            client: 0,
            fanout: metrics.fanout_time.each_ref().map(Histogram::local),
            outbox_age: metrics.outbox_age.local(),
            flush_bytes: metrics.flush_bytes.local(),
            snapshot: metrics.snapshot_time.local(),
        }
    }

    /// The flush of a connection begins.
    pub fn begin_flush(&mut self) {
        self.worked = 0;
    }

    /// So many bytes were made for one client alone, or something that takes as long.
    pub fn work(&mut self, bytes: usize) {
        self.worked += bytes;
    }

    /// True if others are to be served before more is made for this client.
    pub fn has_worked_enough(&self) -> bool {
        self.worked >= WORK_A_FLUSH
    }

    /// Time of the next histogram report, if values are pending.
    pub fn report_at(&self) -> Option<UnixNanos> {
        let all = self
            .fanout
            .iter()
            .chain([&self.outbox_age, &self.flush_bytes, &self.snapshot]);
        all.into_iter()
            .any(|histogram| !histogram.is_empty())
            .then(|| self.told.plus(REPORT_EVERY))
    }

    /// Records the deliveries so far with this time.
    pub fn settle(&mut self, now: UnixNanos) {
        self.now = now;
        let (published, mode, events) = std::mem::take(&mut self.latest);
        if events > 0 {
            self.fanout[mode].record(now.since(published).as_nanos() as u64, events);
        }
    }

    /// Time of the latest [`Self::settle`]: within a turn closer to the present than the turn's own time.
    pub fn now(&self) -> UnixNanos {
        self.now
    }

    /// Selects the histograms of a client that keeps up, or of one that lags.
    pub fn serve(&mut self, lags: bool) {
        self.client = usize::from(lags) * MODES;
    }

    /// Events went onto the wire alone that were published at this time.
    pub fn deliver(&mut self, events: u64, published: UnixNanos, mode: Mode) {
        self.delivered += events;
        self.add(events, published, mode.index());
    }

    /// Raw events went onto the wire that are counted as delivered already, the oldest of them published at this time.
    pub fn delivered_raw(&mut self, events: u64, published: UnixNanos) {
        self.add(events, published, Mode::Raw.index());
    }

    fn add(&mut self, events: u64, published: UnixNanos, mode: usize) {
        let mode = self.client + mode;
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
        self.outbox_age.time(age);
    }

    /// A snapshot went onto the wire that was asked for at `since`.
    pub fn snapshot_sent(&mut self, since: UnixNanos, now: UnixNanos) {
        self.snapshot.time(now.since(since));
    }

    /// Tells the metrics; what takes longer to tell, once in [`REPORT_EVERY`].
    pub fn report(&mut self, metrics: &Metrics) {
        let counters = [
            (&metrics.delivered, &mut self.delivered),
            (&metrics.merged, &mut self.merged),
            (&metrics.written_bytes, &mut self.written),
        ];
        for (counter, count) in counters {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
        if self.now.since(self.told) < REPORT_EVERY {
            return;
        }
        self.told = self.now;
        let others = [
            &mut self.outbox_age,
            &mut self.flush_bytes,
            &mut self.snapshot,
        ];
        for histogram in self.fanout.iter_mut().chain(others) {
            histogram.hand_over();
        }
    }
}
