//! Requests that name many topics are answered in slices, so that no request holds a shard for long: each slice goes
//! through at most [`SLICE`] names and topics, and gives one part of the answer.

use std::collections::HashSet;

use super::change::{Listing, Modifying, Resyncing, Unsubscribing};
use super::subscribe::Subscribing;
use super::subscription_set::Name;
use super::{Action, Session, View};
use crate::log::TopicId;

/// Names and topics of one slice: about a quarter of a millisecond.
pub(super) const SLICE: usize = 256;

/// The rest of a request.
#[expect(clippy::large_enum_variant, reason = "it is boxed as a whole")]
#[derive(Debug)]
pub(super) enum Work {
    Subscribe(Subscribing),
    Unsubscribe(Unsubscribing),
    Modify(Modifying),
    Resync(Resyncing),
    List(Listing),
}

/// The outcome of a slice.
pub(super) struct Slice {
    pub(super) actions: Vec<Action>,
    pub(super) is_last: bool,
}

/// Names and topics left in a slice.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) const fn of_a_slice() -> Self {
        Self(SLICE)
    }

    pub(super) const fn spend(&mut self, steps: usize) {
        self.0 = self.0.saturating_sub(steps);
    }

    pub(super) const fn left(&self) -> usize {
        self.0
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.0 == 0
    }
}

impl Work {
    pub(super) fn step(
        &mut self,
        session: &mut Session,
        view: View<'_>,
        budget: &mut Budget,
    ) -> Slice {
        match self {
            Self::Subscribe(work) => work.step(session, view, budget),
            Self::Unsubscribe(work) => work.step(session, view, budget),
            Self::Modify(work) => work.step(session, view, budget),
            Self::Resync(work) => work.step(session, view, budget),
            Self::List(work) => work.step(session, view, budget),
        }
    }
}

/// The names of a request, each once and in order.
#[derive(Debug)]
pub(super) struct Distinct {
    texts: std::vec::IntoIter<String>,
    seen: HashSet<String>,
}

impl Distinct {
    pub(super) fn new(texts: Vec<String>) -> Self {
        Self {
            texts: texts.into_iter(),
            seen: HashSet::new(),
        }
    }

    /// The next one. A repeated name costs as much as another.
    pub(super) fn next(&mut self, budget: &mut Budget) -> Option<String> {
        while !budget.is_spent() {
            let text = self.texts.next()?;
            budget.spend(1);
            if !self.seen.contains(&text) {
                self.seen.insert(text.clone());
                return Some(text);
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.len() == 0
    }

    /// True if the request had this one, as far as it has been read.
    pub(super) fn had(&self, text: &str) -> bool {
        self.seen.contains(text)
    }
}

/// Names with the topics that each means, taken in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    names: std::vec::IntoIter<Name>,
    /// A pattern whose topics don't fit into one piece, with those that are left.
    open: Option<(Name, std::vec::IntoIter<TopicId>)>,
}

impl Pieces {
    pub(super) fn new(names: Vec<Name>) -> Self {
        Self {
            names: names.into_iter(),
            open: None,
        }
    }

    /// The next name with as many of its topics as the budget has room for; `topics_of` resolves a name.
    pub(super) fn next(
        &mut self,
        budget: &mut Budget,
        topics_of: impl Fn(&Name) -> Vec<TopicId>,
    ) -> Option<(Name, Vec<TopicId>)> {
        if budget.is_spent() {
            return None;
        }
        let (name, mut topics) = match self.open.take() {
            Some(open) => open,
            None => {
                let name = self.names.next()?;
                budget.spend(1);
                let topics = topics_of(&name);
                (name, topics.into_iter())
            }
        };
        let piece: Vec<TopicId> = topics.by_ref().take(budget.left().max(1)).collect();
        budget.spend(piece.len());
        if topics.len() > 0 {
            self.open = Some((name.clone(), topics));
        }
        Some((name, piece))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.len() == 0 && self.open.is_none()
    }
}
