use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Event;
use prometheus::IntCounter;

use super::append_fault::AppendFault;
use super::commits::{CommitWriter, Commits, Leadership};
use super::record::Position;
use crate::market::UnixNanos;
use crate::metrics::{ClusterMetrics, FAILED_APPENDS, LocalHistogram};

/// State of a server in its cluster, as readiness and metrics show it.
#[derive(Debug)]
pub struct ClusterStatus {
    metrics: ClusterMetrics,
    commits: Commits,
    /// Behind the newest record that this server has applied or appended.
    position: Mutex<Position>,
    /// True if another server has reported a record behind it.
    others_are_ahead: AtomicBool,
    /// True if NATS delivers the reports of this server, also to itself.
    is_heard: AtomicBool,
    /// True while this server cannot go on without a checkpoint.
    lacks_checkpoint: AtomicBool,
}

impl ClusterStatus {
    /// State of a server that has neither read nor written a record.
    pub fn new(metrics: ClusterMetrics) -> Self {
        Self {
            metrics,
            commits: Commits::default(),
            position: Mutex::default(),
            others_are_ahead: AtomicBool::new(false),
            is_heard: AtomicBool::new(true),
            lacks_checkpoint: AtomicBool::new(false),
        }
    }

    /// Begins a term of this server, whose first batch has this number.
    pub(super) fn begin_term(&self, term: u64, first: u64) -> CommitWriter {
        self.commits.begin(term, first)
    }

    /// Term of this server; `None` unless it writes the log.
    pub fn leadership(&self) -> Option<Leadership> {
        self.commits.leadership()
    }

    /// True while a gateway receives no records.
    pub fn is_silent(&self) -> bool {
        self.metrics.silent.get() == 1
    }

    /// Reason for which a gateway is not ready: it has received no record for `unready_after`.
    /// While no other server has a newer one, nobody receives records, and clients would find no
    /// other gateway.
    pub fn is_cut_off(&self, now: UnixNanos, unready_after: Duration) -> bool {
        let is_alone = self.metrics.connected.get() == 0
            || !self.is_heard.load(Ordering::Relaxed)
            || self.others_are_ahead.load(Ordering::Relaxed);
        self.is_silent() && self.silence(now) >= unready_after && is_alone
    }

    /// Time since this server received, or appended, a record.
    pub(super) fn silence(&self, now: UnixNanos) -> Duration {
        let heard = Duration::from_secs_f64(self.metrics.record_time.get().max(0.0));
        Duration::from_nanos(now.0).saturating_sub(heard)
    }

    /// Behind the newest record that this server has applied or appended.
    pub(super) fn position(&self) -> Position {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether NATS delivers the reports of this server, and whether another server has a newer
    /// record.
    pub(super) fn note_reports(&self, is_heard: bool, others_are_ahead: bool) {
        self.is_heard.store(is_heard, Ordering::Relaxed);
        self.others_are_ahead
            .store(others_are_ahead, Ordering::Relaxed);
    }

    /// True while this server writes the log.
    pub fn is_leading(&self) -> bool {
        self.metrics.leading.get() == 1
    }

    /// Counter of the events that this server has derived in another way than the leader.
    pub fn derive_mismatches(&self) -> IntCounter {
        self.metrics.derive_mismatches.clone()
    }

    pub(super) fn set_silent(&self, is_silent: bool) {
        self.metrics.silent.set(is_silent.into());
    }

    /// Marks this server as the writer of the log, which buffers at most this many bytes.
    pub fn set_leading(&self, buffer_max: usize) {
        self.metrics.leading.set(1);
        self.metrics.appends.buffer_limit.set(as_gauge(buffer_max));
    }

    pub(super) fn set_term(&self, term: u64) {
        self.metrics.term.set(term.cast_signed());
    }

    pub(super) fn advance(&self, position: Position, now: UnixNanos) {
        *self.lock() = position;
        self.metrics.record.set(position.number.cast_signed());
        self.metrics.record_time.set(now.0 as f64 / 1e9);
    }

    /// Marks this server as one that no longer writes the log.
    pub(super) fn set_following(&self) {
        self.metrics.leading.set(0);
    }

    /// Notes the time from which on the next checkpoint is due.
    pub(super) fn note_checkpoint(&self, now: UnixNanos) {
        self.metrics.checkpoint_time.set(now.0 as f64 / 1e9);
    }

    /// Recorder of the latency of appends.
    pub(super) fn append_times(&self) -> LocalHistogram {
        self.metrics.appends.time.local()
    }

    /// Reports what the log does not contain yet.
    pub(super) fn report_unsent(&self, records: usize, bytes: usize) {
        self.metrics.appends.unacknowledged.set(as_gauge(records));
        self.metrics.appends.buffered_bytes.set(as_gauge(bytes));
    }

    pub(super) fn count_failed_append(&self, fault: AppendFault) {
        let [refused, unknown] = FAILED_APPENDS;
        let outcome = match fault {
            AppendFault::Refused => refused,
            AppendFault::Unknown => unknown,
        };
        let counter = self.metrics.appends.failed.with_label_values(&[outcome]);
        counter.inc();
    }

    pub(super) fn count_hole(&self) {
        self.metrics.holes.inc();
    }

    pub(super) fn count_fetched(&self) {
        self.metrics.fetched.inc();
    }

    /// True while the server cannot go on without a checkpoint, which it can neither read nor store.
    #[cfg(feature = "internals")]
    pub fn lacks_checkpoint(&self) -> bool {
        self.lacks_checkpoint.load(Ordering::Relaxed)
    }

    pub(super) fn note_checkpoint_lack(&self, lacks: bool) {
        self.lacks_checkpoint.store(lacks, Ordering::Relaxed);
    }

    pub(super) fn count_rebuild(&self) {
        self.metrics.rebuilds.inc();
    }

    pub(super) fn count_diverged(&self) {
        self.metrics.diverged.inc();
    }

    pub(super) fn count_repaired(&self, records: usize) {
        self.metrics.repaired.inc_by(records as u64);
    }

    /// Notes a change of the connection to NATS.
    pub(super) fn note(&self, event: &Event, is_first: bool) {
        match event {
            Event::Connected => {
                self.metrics.connected.set(1);
                if !is_first {
                    self.metrics.reconnects.inc();
                }
            }
            Event::Disconnected | Event::Closed => self.metrics.connected.set(0),
            Event::LameDuckMode
            | Event::Draining
            | Event::SlowConsumer(_)
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
    }
}

fn as_gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_gateway_is_cut_off_if_it_alone_receives_no_records() {
        let status = ClusterStatus::new(Metrics::new().add_cluster("gateway"));
        let second = |second: u64| UnixNanos(second * 1_000_000_000);
        let is_cut_off = |at| status.is_cut_off(second(at), Duration::from_secs(10));
        status.note(&Event::Connected, true);
        status.advance(Position { number: 7, sum: 1 }, second(100));
        status.note_reports(true, true);
        assert!(!is_cut_off(111), "it has not noticed the silence");
        status.set_silent(true);
        assert!(!is_cut_off(109));
        assert!(is_cut_off(110));
        status.note_reports(true, false);
        assert!(!is_cut_off(110), "nobody receives records");
        status.note_reports(false, false);
        assert!(is_cut_off(110), "NATS does not deliver its reports");
        status.note_reports(true, false);
        status.note(&Event::Disconnected, false);
        assert!(is_cut_off(110));
        status.set_silent(false);
        assert!(!is_cut_off(110));
    }
}
