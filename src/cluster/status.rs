use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::market::UnixNanos;

/// State of a server in its cluster, as readiness and metrics show it.
#[derive(Debug, Default)]
pub struct ClusterStatus {
    is_leading: AtomicBool,
    is_silent: AtomicBool,
    term: AtomicU64,
    record: AtomicU64,
    heard: AtomicU64,
}

impl ClusterStatus {
    /// True while a gateway receives no records.
    pub fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    /// True while this server writes the log.
    pub fn is_leading(&self) -> bool {
        self.is_leading.load(Ordering::Relaxed)
    }

    pub(super) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Marks this server as the writer of the log.
    pub fn set_leading(&self) {
        self.is_leading.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_term(&self, term: u64) {
        self.term.store(term, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, record: u64, now: UnixNanos) {
        self.record.store(record, Ordering::Relaxed);
        self.heard.store(now.0, Ordering::Relaxed);
    }
}
