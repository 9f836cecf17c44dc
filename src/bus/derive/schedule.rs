//! Times at which something of an instrument is due, so that a watermark looks at those instruments only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::log::InstrumentId;
use crate::market::UnixNanos;

/// Due times, the earliest first. An entry is not taken back: the owner decides whether it still holds when it is due.
#[derive(Debug, Default)]
pub(super) struct Schedule(BinaryHeap<Reverse<(UnixNanos, u32)>>);

impl Schedule {
    pub(super) fn push(&mut self, at: UnixNanos, id: InstrumentId) {
        self.0.push(Reverse((at, id.0)));
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<UnixNanos> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes what is due, in the order of the instruments.
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
