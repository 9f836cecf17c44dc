//! Progress of the shared log on the server that writes it: a publisher gets its answer once the
//! log contains its events.

use tokio::sync::watch;

/// Batches of a term that the log contains.
#[derive(Debug, Clone, Copy)]
struct Progress {
    term: u64,
    /// Number of the batch behind them.
    next: u64,
}

/// Progress of the shared log; empty unless this server writes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Commits(watch::Sender<Option<Progress>>);

impl Commits {
    /// Begins a term of this server, whose first batch has this number.
    pub(super) fn begin(&self, term: u64, first: u64) -> CommitWriter {
        let progress = Progress { term, next: first };
        self.0.send_replace(Some(progress));
        CommitWriter {
            commits: self.clone(),
            term,
        }
    }

    /// Present term of this server.
    pub(super) fn leadership(&self) -> Option<Leadership> {
        let progress = self.0.subscribe();
        let term = progress.borrow().as_ref()?.term;
        Some(Leadership { term, progress })
    }
}

/// Writer of the progress; the term ends with it.
#[derive(Debug)]
pub(super) struct CommitWriter {
    commits: Commits,
    term: u64,
}

impl CommitWriter {
    /// Reports that the log contains all batches before number `next`.
    pub(super) fn accept(&self, next: u64) {
        let term = self.term;
        self.commits.0.send_replace(Some(Progress { term, next }));
    }
}

impl Drop for CommitWriter {
    fn drop(&mut self) {
        self.commits.0.send_replace(None);
    }
}

/// Term in which this server writes the shared log.
#[derive(Debug, Clone)]
pub struct Leadership {
    term: u64,
    progress: watch::Receiver<Option<Progress>>,
}

impl Leadership {
    /// Waits until the log contains all batches before number `next`; returns false if the term
    /// has ended before.
    pub async fn committed(&mut self, next: u64) -> bool {
        let term = self.term;
        let is_decided = |progress: &Option<Progress>| {
            progress.is_none_or(|progress| progress.term != term || progress.next >= next)
        };
        let decided = self.progress.wait_for(is_decided).await;
        decided.is_ok_and(|progress| progress.is_some_and(|progress| progress.term == term))
    }

    /// Waits for the end of the term.
    pub async fn ended(&mut self) {
        let term = self.term;
        let has_ended =
            |progress: &Option<Progress>| progress.is_none_or(|progress| progress.term != term);
        // Without a sender the server has stopped.
        let _ended = self.progress.wait_for(has_ended).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_batch_is_committed_once_the_log_contains_it() {
        let commits = Commits::default();
        assert!(commits.leadership().is_none());
        let writer = commits.begin(3, 10);
        let mut term = commits.leadership().expect("the term has begun");
        assert_eq!(term.committed(10).now_or_never(), Some(true));
        assert_eq!(term.committed(12).now_or_never(), None);
        writer.accept(11);
        assert_eq!(term.committed(12).now_or_never(), None);
        writer.accept(12);
        assert_eq!(term.committed(12).now_or_never(), Some(true));
        assert_eq!(term.ended().now_or_never(), None);
    }

    #[test]
    fn nothing_is_committed_by_another_term() {
        let commits = Commits::default();
        let writer = commits.begin(3, 10);
        let mut term = commits.leadership().expect("the term has begun");
        drop(writer);
        assert_eq!(term.committed(12).now_or_never(), Some(false));
        let _next = commits.begin(5, 20);
        assert_eq!(term.committed(12).now_or_never(), Some(false));
        assert_eq!(term.ended().now_or_never(), Some(()));
    }
}
