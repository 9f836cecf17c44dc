//! Slices of long requests. A request with many topics is handled in slices, so that it does not
//! occupy a shard for long: each slice processes at most [`SLICE`] names and topics and produces
//! one part of the response.

use std::hash::{BuildHasher as _, RandomState};

use compact_str::CompactString;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Action;
use crate::access::Name;
use crate::log::TopicId;

/// Names and topics per slice: about 125 µs of work.
pub(super) const SLICE: usize = 128;
/// Topics examined for a pattern that cost as much as a name.
pub(super) const TOPICS_A_STEP: usize = 8;

/// Outcome of a slice.
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

/// Index of texts that are stored elsewhere. Allocated once for all of them: it never grows and is
/// freed at once.
#[derive(Debug)]
pub(super) struct TextIndex {
    /// Keyed by a secret, so that clients cannot construct hash collisions.
    state: RandomState,
    places: HashTable<usize>,
}

impl TextIndex {
    pub(super) fn with_capacity(texts: usize) -> Self {
        Self {
            state: RandomState::new(),
            places: HashTable::with_capacity(texts),
        }
    }

    /// Adds the text at an index; returns false if an equal text is already present.
    pub(super) fn add<'a>(&mut self, place: usize, text_at: impl Fn(usize) -> &'a str) -> bool {
        let hash = |place: &usize| self.state.hash_one(text_at(*place));
        let text = text_at(place);
        let entry = self
            .places
            .entry(hash(&place), |known| text_at(*known) == text, hash);
        match entry {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(place);
                true
            }
        }
    }

    /// Index of a text.
    pub(super) fn find<'a>(&self, text: &str, text_at: impl Fn(usize) -> &'a str) -> Option<usize> {
        let hash = self.state.hash_one(text);
        let found = self.places.find(hash, |known| text_at(*known) == text);
        found.copied()
    }
}

/// Distinct names of a request, in order.
#[derive(Debug)]
pub(super) struct Distinct {
    texts: Vec<CompactString>,
    next: usize,
    seen: TextIndex,
}

impl Distinct {
    pub(super) fn new(texts: Vec<CompactString>) -> Self {
        Self {
            seen: TextIndex::with_capacity(texts.len()),
            next: 0,
            texts,
        }
    }

    /// Next distinct name. A repeated name costs as much as any other.
    pub(super) fn next(&mut self, budget: &mut Budget) -> Option<CompactString> {
        while !budget.is_spent() {
            let text = self.texts.get(self.next)?;
            budget.spend(1);
            let is_new = self.seen.add(self.next, |at| &self.texts[at]);
            self.next += 1;
            if is_new {
                return Some(text.clone());
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next == self.texts.len()
    }

    /// True if the part of the request read so far contains this name.
    pub(super) fn had(&self, text: &str) -> bool {
        self.seen.find(text, |at| &self.texts[at]).is_some()
    }
}

/// Names with their matching topics, in pieces.
#[derive(Debug)]
pub(super) struct Pieces {
    names: std::vec::IntoIter<Name>,
    /// Pattern whose topics do not fit into one piece, with the remaining topics.
    open: Option<(Name, std::vec::IntoIter<TopicId>)>,
}

impl Pieces {
    pub(super) fn new(names: Vec<Name>) -> Self {
        Self {
            names: names.into_iter(),
            open: None,
        }
    }

    /// Next name with as many of its topics as the budget allows; `topics_of` resolves a name.
    pub(super) fn next(
        &mut self,
        budget: &mut Budget,
        topics_of: impl Fn(&Name, &mut Budget) -> Vec<TopicId>,
    ) -> Option<(Name, Vec<TopicId>)> {
        if budget.is_spent() {
            return None;
        }
        let (name, mut topics) = match self.open.take() {
            Some(open) => open,
            None => {
                let name = self.names.next()?;
                budget.spend(1);
                let topics = topics_of(&name, budget);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_names_of_a_request_count_once() {
        let texts = ["b", "a", "b", "c", "a"].map(CompactString::from).to_vec();
        let mut names = Distinct::new(texts);
        let mut budget = Budget::of_a_slice();
        let read: Vec<CompactString> = std::iter::from_fn(|| names.next(&mut budget)).collect();
        assert_eq!(read, ["b", "a", "c"]);
        assert!(names.is_empty() && names.had("c") && !names.had("d"));
        assert_eq!(budget.left(), SLICE - 5);
    }
}
