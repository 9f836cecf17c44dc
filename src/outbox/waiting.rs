use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use super::SlotId;
use super::control::{ControlEntry, Reason};
use super::queue::SendQueue;
use crate::market::UnixNanos;

/// Entries that wait for the socket.
#[derive(Debug)]
pub(super) struct Waiting {
    pub control: VecDeque<ControlEntry>,
    pub response_bytes: usize,
    pub notification_bytes: usize,
    /// Messages about what the client holds.
    pub change_bytes: usize,
    pub heartbeat_waits: bool,
    pub queue: SendQueue,
    /// Subscriptions that have something newer and may send it now, each with since when.
    pub pending: VecDeque<(SlotId, UnixNanos)>,
    /// Bytes that the socket had taken when it was looked at last.
    pub taken: u64,
    /// Until when the client counts as one that reads.
    pub reads_until: UnixNanos,
    /// With what the client asked for on the wire: how many bytes the socket will have taken at its
    /// end.
    pub asked_ends_at: Option<u64>,
    /// Time at which the socket had taken all that the client asked for.
    pub asked_until: UnixNanos,
    /// Size of the queue after the last reduction, or less since.
    pub left_after_reduction: usize,
    /// Time of the last reduction, because one walks over all queued entries.
    pub reduced_at: UnixNanos,
}

impl Waiting {
    const NOTHING: Self = Self {
        control: VecDeque::new(),
        response_bytes: 0,
        notification_bytes: 0,
        change_bytes: 0,
        heartbeat_waits: false,
        queue: SendQueue::EMPTY,
        pending: VecDeque::new(),
        taken: 0,
        reads_until: UnixNanos(0),
        asked_ends_at: None,
        asked_until: UnixNanos(0),
        left_after_reduction: 0,
        reduced_at: UnixNanos(0),
    };

    /// Memory of the messages that wait for this reason.
    pub(super) fn bytes_of(&mut self, reason: Reason) -> &mut usize {
        match reason {
            Reason::Response => &mut self.response_bytes,
            Reason::Notification => &mut self.notification_bytes,
            Reason::Change => &mut self.change_bytes,
        }
    }
}

static NOTHING: Waiting = Waiting::NOTHING;

/// [`Waiting`] that takes memory only once there is some: most connections have nothing that waits,
/// most of the time.
#[derive(Debug)]
pub(super) struct Queues(Option<Box<Waiting>>);

impl Queues {
    pub(super) const EMPTY: Self = Self(None);

    /// True if nothing was queued since memory was last released.
    pub(super) const fn are_unused(&self) -> bool {
        self.0.is_none()
    }

    /// Gives memory back, where nothing waits. Those who merge will need it again, so they keep it
    /// `unless_merging`.
    pub(super) fn shrink(&mut self, unless_merging: bool) {
        let Some(waiting) = &mut self.0 else { return };
        // The largest of it goes at once, whatever else waits.
        if waiting.queue.is_empty() {
            waiting.queue = SendQueue::EMPTY;
        }
        let is_empty =
            waiting.control.is_empty() && waiting.queue.is_empty() && waiting.pending.is_empty();
        if is_empty && !(unless_merging && waiting.pending.capacity() > 0) {
            self.0 = None;
        }
    }
}

impl Deref for Queues {
    type Target = Waiting;
    fn deref(&self) -> &Waiting {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Queues {
    fn deref_mut(&mut self) -> &mut Waiting {
        self.0.get_or_insert_with(|| Box::new(Waiting::NOTHING))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::queue::Entry;

    #[test]
    fn memory_is_given_back_once_nothing_waits() {
        let mut queues = Queues::EMPTY;
        queues.shrink(false);
        assert!(
            queues.are_unused() && queues.queue.is_empty(),
            "looking takes no memory"
        );
        queues.pending.push_back((SlotId(0), UnixNanos(1)));
        (0..1000).for_each(|_| _ = queues.queue.push(Entry::Ledger(Box::new(None))));
        queues.shrink(false);
        assert!(!queues.queue.is_empty(), "what waits is kept");
        while queues.queue.pop().is_some() {}
        queues.pending.clear();
        queues.control.push_back(ControlEntry::Heartbeat);
        queues.shrink(true);
        assert_eq!(
            queues.queue.capacity(),
            0,
            "a queue is given back though a heartbeat waits"
        );
        queues.control.clear();
        queues.shrink(true);
        assert!(!queues.are_unused(), "who merges will need it again");
        queues.shrink(false);
        assert!(queues.are_unused());
    }
}
