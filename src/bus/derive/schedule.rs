//! Schedule of due times by instrument, so that a watermark visits only the instruments that are
//! due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::log::InstrumentId;
use crate::market::UnixNanos;

/// Due times, earliest first. Entries are never canceled: the owner decides whether an entry is
/// still valid when it is due.
#[derive(Debug, Default)]
pub(super) struct Schedule(BinaryHeap<Reverse<(UnixNanos, u32)>>);

impl Schedule {
    pub(super) fn push(&mut self, at: UnixNanos, id: InstrumentId) {
        self.0.push(Reverse((at, id.0)));
    }

    /// Earliest due time.
    pub(super) fn next(&self) -> Option<UnixNanos> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes and returns the due entries, in instrument order.
    pub(super) fn take_due(&mut self, now: UnixNanos) -> Vec<(InstrumentId, UnixNanos)> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now)
            && let Some(Reverse((at, id))) = self.0.pop()
        {
            due.push((id, at));
        }
        due.sort_unstable();
        due.into_iter()
            .map(|(id, at)| (InstrumentId(id), at))
            .collect()
    }
}
