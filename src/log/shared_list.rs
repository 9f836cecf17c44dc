//! Sorted, shared lists of the catalog that are cheap to copy and to extend.

use std::cmp::Ordering;
use std::sync::Arc;

/// Number of entries per piece of a [`Shared`] list.
const PIECE: usize = 1024;

/// Append-only list stored in pieces: a copy shares all pieces, and a change copies one.
#[derive(Debug)]
pub(super) struct Shared<T> {
    pieces: Vec<Arc<Vec<Arc<T>>>>,
    pub(super) len: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            pieces: self.pieces.clone(),
            len: self.len,
        }
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Shared<T> {
    pub(super) fn push(&mut self, entry: T) {
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push(Arc::default());
        }
        if let Some(last) = self.pieces.last_mut() {
            Arc::make_mut(last).push(Arc::new(entry));
        }
        self.len += 1;
    }

    pub(super) fn get(&self, at: usize) -> &Arc<T> {
        &self.pieces[at / PIECE][at % PIECE]
    }

    pub(super) fn set(&mut self, at: usize, entry: T) {
        Arc::make_mut(&mut self.pieces[at / PIECE])[at % PIECE] = Arc::new(entry);
    }
}

/// Merges sorted entries into a sorted list: one search per entry and one pass over the list.
pub(super) fn merge<T: Copy>(list: &mut Vec<T>, new: &[T], order: impl Fn(&T, &T) -> Ordering) {
    let mut end = list.len();
    list.extend_from_slice(new);
    for (before, entry) in new.iter().enumerate().rev() {
        let at = list[..end].partition_point(|known| order(known, entry).is_lt());
        list.copy_within(at..end, at + before + 1);
        list[at + before] = *entry;
        end = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_equals_sorting(mut list in proptest::collection::vec(0u32..100, 0..40), mut new in proptest::collection::vec(0u32..100, 0..40)) {
            list.sort_unstable();
            new.sort_unstable();
            let mut expected = [list.clone(), new.clone()].concat();
            expected.sort_unstable();
            merge(&mut list, &new, Ord::cmp);
            prop_assert_eq!(list, expected);
        }
    }
}
