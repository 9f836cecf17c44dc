//! Requests in progress.

use super::change::{Listing, Modifying, Resyncing, Unsubscribing};
use super::slice::{Budget, Slice};
use super::subscribe::Subscribing;
use super::{Session, View};

/// Remainder of a request.
#[expect(clippy::large_enum_variant, reason = "it is boxed as a whole")]
#[derive(Debug)]
pub(super) enum Work {
    Subscribe(Subscribing),
    Unsubscribe(Unsubscribing),
    Modify(Modifying),
    Resync(Resyncing),
    List(Listing),
}

/// Request that is handled in slices.
#[derive(Debug)]
pub(super) struct Job {
    work: Work,
    has_begun: bool,
}

impl Job {
    pub(super) const fn new(work: Work) -> Self {
        Self {
            work,
            has_begun: false,
        }
    }

    /// True from the first slice on.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        self.has_begun = true;
        self.work.step(session, view, budget)
    }
}

impl Work {
    fn step(&mut self, session: &mut Session, view: View<'_>, budget: &mut Budget) -> Slice {
        match self {
            Self::Subscribe(work) => work.step(session, view, budget),
            Self::Unsubscribe(work) => work.step(session, view, budget),
            Self::Modify(work) => work.step(session, view, budget),
            Self::Resync(work) => work.step(session, view, budget),
            Self::List(work) => work.step(session, view, budget),
        }
    }
}
