//! Status of a source, shared with readiness checks and operators.

use std::sync::{Arc, Mutex, PoisonError};

use super::account::FileAccount;
use super::faults::FaultBoard;
use crate::metrics::RuleCounters;

/// Written by the source and its supervisor, read over HTTP. It never delays an event.
#[derive(Debug, Default)]
pub struct SourceStatus {
    condition: Mutex<Condition>,
    files: Mutex<Vec<Arc<FileAccount>>>,
    /// Injected faults.
    pub faults: Arc<FaultBoard>,
    /// Violations of the rules for bad market data.
    pub rules: Option<RuleCounters>,
}

#[derive(Debug, Clone, Default)]
enum Condition {
    #[default]
    Starting,
    Started,
    /// The source failed or is late to start; it may still recover.
    Troubled(Arc<str>),
    /// The source failed permanently.
    Failed(Arc<str>),
}

impl SourceStatus {
    /// Creates the status of a source that has not started; `takes_faults` allows faults on
    /// command.
    pub fn new(takes_faults: bool, rules: RuleCounters) -> Self {
        Self {
            rules: Some(rules),
            faults: Arc::new(FaultBoard::new(takes_faults)),
            ..Self::default()
        }
    }

    /// Sets the accounts of the files being played.
    pub fn set_files(&self, files: Vec<Arc<FileAccount>>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }

    /// Accounts of the files being played; empty for other sources.
    pub fn files(&self) -> Vec<Arc<FileAccount>> {
        self.files
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, change: impl FnOnce(&Condition) -> Option<Condition>) {
        let mut condition = self
            .condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = change(&condition) {
            *condition = next;
        }
    }

    fn get(&self) -> Condition {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Records that the source has announced its instruments.
    pub fn start(&self) {
        self.set(|_| Some(Condition::Started));
    }

    /// Records that the source has failed and will be restarted.
    pub fn retry(&self, error: &str) {
        self.set(|_| Some(Condition::Troubled(error.into())));
    }

    /// Records that the source is late to start, unless it has started or failed.
    pub fn overdue(&self, error: &str) {
        self.set(|condition| {
            matches!(condition, Condition::Starting).then(|| Condition::Troubled(error.into()))
        });
    }

    /// Records that the source has failed permanently and will not be restarted.
    pub fn fail(&self, error: Arc<str>) {
        self.set(|_| Some(Condition::Failed(error)));
    }

    /// True if the source has announced its instruments and has not failed since.
    pub fn has_started(&self) -> bool {
        matches!(self.get(), Condition::Started)
    }

    /// True if the source has neither started nor failed yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.get(), Condition::Starting)
    }

    /// Reason of a permanent failure, if any.
    pub fn failure(&self) -> Option<Arc<str>> {
        match self.get() {
            Condition::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Reason for which the source has failed, permanently or not, or is late to start.
    pub fn trouble(&self) -> Option<Arc<str>> {
        match self.get() {
            Condition::Failed(error) | Condition::Troubled(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_source_never_counts_as_starting() {
        let status = SourceStatus::default();
        assert!(status.is_starting() && status.trouble().is_none());
        status.overdue("late");
        assert_eq!(status.trouble().as_deref(), Some("late"));
        assert!(!status.is_starting() && !status.has_started());
        status.start();
        status.overdue("late");
        assert!(status.has_started() && status.trouble().is_none());
        status.retry("torn");
        assert!(!status.has_started() && !status.is_starting());
        assert_eq!(
            (status.trouble().as_deref(), status.failure()),
            (Some("torn"), None)
        );
        status.fail("for good".into());
        assert_eq!(status.failure().as_deref(), Some("for good"));
    }
}
