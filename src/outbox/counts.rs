use std::time::Duration;

use crate::histogram::{SIZES, TIMES, Tally};
use crate::market::UnixNanos;
use crate::protocol::{GapCause, LagLevel, Mode, PerEncoding};

/// Interval of histogram reports.
pub const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Bytes encoded for one client alone, from a history or a catalog, before other clients are
/// served: about half a millisecond.
const WORK_A_FLUSH: usize = 128 * 1024;

const MODES: usize = Mode::NAMES.len();

/// Counts of a shard's connections, which the shard reports once per turn instead of once per
/// client.
#[derive(Debug)]
pub struct Counts {
    /// Time between the publication of an event and its release to the clients of the shard.
    pub delay: Duration,
    /// Events sent in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Events reported in gaps, by index of the cause.
    pub lost: [u64; GapCause::ALL.len()],
    /// Changes of lag level, by index of the level.
    pub lag: [u64; LagLevel::ALL.len()],
    /// Events encoded for one client alone.
    pub encoded: PerEncoding<u64>,
    /// Bytes that sockets accepted.
    pub written: u64,
    /// Work for one client alone since the beginning of its flush, in bytes.
    worked: usize,
    /// Current time, read once for several connections.
    now: UnixNanos,
    /// Time of the last histogram report.
    reported: UnixNanos,
    /// Publication time of the events delivered last, their histogram, and the number not recorded
    /// yet: events of one turn are mostly of one batch.
    latest: (UnixNanos, usize, u64),
    /// First histogram of the client being served.
    client: usize,
    tallies: Tallies,
}

/// Distributions, reported every [`REPORT_EVERY`].
#[derive(Debug)]
pub struct Tallies {
    /// Latency from publication to write, by index of the mode: first for clients that keep up,
    /// then for those that lag.
    pub fanout: [Tally; 2 * MODES],
    /// Age of the oldest queued event of a blocked client.
    pub outbox_age: Tally,
    /// Bytes per write.
    pub flush_bytes: Tally,
    /// Latency of snapshots from request to write.
    pub snapshot: Tally,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            delivered: 0,
            merged: 0,
            lost: [0; GapCause::ALL.len()],
            lag: [0; LagLevel::ALL.len()],
            encoded: PerEncoding::default(),
            written: 0,
            worked: 0,
            now: UnixNanos::default(),
            reported: UnixNanos::default(),
            latest: (UnixNanos::default(), 0, 0),
            client: 0,
            tallies: Tallies {
                fanout: [const { Tally::new(TIMES) }; 2 * MODES],
                outbox_age: Tally::new(TIMES),
                flush_bytes: Tally::new(SIZES),
                snapshot: Tally::new(TIMES),
            },
        }
    }
}

impl Counts {
    /// Counts of a shard that releases events this long after their publication.
    pub fn delayed(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Begins the flush of a connection.
    pub fn begin_flush(&mut self) {
        self.worked = 0;
    }

    /// Adds work for one client alone, in bytes encoded or an equivalent.
    pub fn work(&mut self, bytes: usize) {
        self.worked += bytes;
    }

    /// True if other clients must be served before more is encoded for this one.
    pub fn has_worked_enough(&self) -> bool {
        self.worked >= WORK_A_FLUSH
    }

    /// Time of the next histogram report, if values are pending.
    pub fn report_at(&self) -> Option<UnixNanos> {
        let Tallies {
            fanout,
            outbox_age,
            flush_bytes,
            snapshot,
        } = &self.tallies;
        let mut all = fanout.iter().chain([outbox_age, flush_bytes, snapshot]);
        all.any(|tally| !tally.is_empty())
            .then(|| self.reported.plus(REPORT_EVERY))
    }

    /// Records the deliveries so far with this time.
    pub fn settle(&mut self, now: UnixNanos) {
        self.now = now;
        let (published, mode, events) = std::mem::take(&mut self.latest);
        if events > 0 {
            self.tallies.fanout[mode].record(now.since(published).as_nanos() as u64, events);
        }
    }

    /// Time of the latest [`Self::settle`]; within a turn, more recent than the time of the turn.
    pub fn now(&self) -> UnixNanos {
        self.now
    }

    /// Selects the histograms of a client that keeps up, or of one that lags.
    pub fn serve(&mut self, lags: bool) {
        self.client = usize::from(lags) * MODES;
    }

    /// Records events written alone, with their publication time.
    pub fn deliver(&mut self, events: u64, published: UnixNanos, mode: Mode) {
        self.delivered += events;
        self.add(events, published, mode.index());
    }

    /// Records written raw events that are already counted as delivered, with the publication time
    /// of the oldest.
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

    /// Records the bytes that a socket accepted in one turn.
    pub fn flushed(&mut self, bytes: usize) {
        if bytes > 0 {
            self.written += bytes as u64;
            self.tallies.flush_bytes.record(bytes as u64, 1);
        }
    }

    /// Records the age of a blocked client's oldest event.
    pub fn waits(&mut self, age: Duration) {
        self.tallies.outbox_age.time(age);
    }

    /// Records a written snapshot that was requested at `since`.
    pub fn snapshot_sent(&mut self, since: UnixNanos, now: UnixNanos) {
        self.tallies.snapshot.time(now.since(since));
    }

    /// Distributions, if their report is due.
    pub fn due_tallies(&mut self) -> Option<&mut Tallies> {
        if self.now.since(self.reported) < REPORT_EVERY {
            return None;
        }
        self.reported = self.now;
        Some(&mut self.tallies)
    }
}
