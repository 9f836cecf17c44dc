//! The condition of a source, shared with readiness checks and operators.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Written by the source and its supervisor, read by HTTP. No event waits for it.
#[derive(Debug, Default)]
pub struct SourceStatus {
    started: AtomicBool,
    failure: Mutex<Option<Arc<str>>>,
}

impl SourceStatus {
    /// Records whether the source has announced its instruments.
    pub fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::Relaxed);
    }

    /// Whether the source has announced its instruments.
    pub fn has_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Records that the source has failed for good. It is not started again.
    pub fn fail(&self, error: Arc<str>) {
        self.set_started(false);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The reason, if the source has failed for good.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
