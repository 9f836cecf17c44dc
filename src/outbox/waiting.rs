use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use super::control::{ControlEntry, Reason};
use super::queue::SendQueue;
use super::{Outbox, SlotId};
use crate::market::UnixNanos;

/// Queued data of a connection.
#[derive(Debug)]
pub(super) struct Waiting {
    pub control: VecDeque<ControlEntry>,
    pub response_bytes: usize,
    pub notification_bytes: usize,
    /// Memory in bytes of queued changes of the subscriptions.
    pub change_bytes: usize,
    pub heartbeat_waits: bool,
    pub queue: SendQueue,
    /// Pending subscriptions whose last value may be sent, each with the time since when.
    pub pending: VecDeque<(SlotId, UnixNanos)>,
    /// Bytes that the socket had accepted at the last check.
    pub taken: u64,
    /// Time until which the client counts as reading.
    pub reads_until: UnixNanos,
    /// While requested data is in the frame buffer: number of accepted bytes at its end.
    pub asked_ends_at: Option<u64>,
    /// Time at which the socket had accepted all requested data.
    pub asked_until: UnixNanos,
    /// Smallest size of the queue in bytes since the last reduction.
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

    /// Memory in bytes of the messages queued for a reason.
    pub(super) fn bytes_of(&mut self, reason: Reason) -> &mut usize {
        match reason {
            Reason::Response => &mut self.response_bytes,
            Reason::Notification => &mut self.notification_bytes,
            Reason::Change => &mut self.change_bytes,
        }
    }
}

static NOTHING: Waiting = Waiting::NOTHING;

/// [`Waiting`], allocated only when needed: most connections have nothing queued most of the time.
#[derive(Debug)]
pub(super) struct Queues(Option<Box<Waiting>>);

impl Queues {
    pub(super) const EMPTY: Self = Self(None);

    /// True if nothing has been queued since memory was released.
    pub(super) const fn are_unused(&self) -> bool {
        self.0.is_none()
    }

    /// Releases memory if nothing is queued. Connections with conflated subscriptions keep it
    /// `unless_merging`, because they need it again.
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

impl Outbox {
    /// Memory in bytes of queued requested data: responses, snapshots, missed events and ledgers.
    pub fn asked_bytes(&self) -> usize {
        self.waiting.response_bytes + self.waiting.queue.asked()
    }

    /// Memory in bytes queued by the client's own requests. Above a limit, no further request is
    /// executed.
    pub fn requested_bytes(&self) -> usize {
        self.asked_bytes() - self.waiting.queue.offered()
    }

    /// Memory in bytes of everything queued for the socket, including the frame buffer.
    pub fn queued_bytes(&self) -> usize {
        self.frames.len()
            + self.waiting.queue.cost()
            + self.waiting.notification_bytes
            + self.waiting.change_bytes
            + self.asked_bytes()
            + self.waiting.pending.len() * size_of::<(SlotId, UnixNanos)>()
    }

    /// True if something is queued that could be written now.
    pub fn has_more(&self) -> bool {
        !self.waiting.control.is_empty()
            || !self.waiting.queue.is_empty()
            || !self.waiting.pending.is_empty()
    }

    /// True if conflated values are due for the socket, and nothing else.
    pub fn has_only_last_values(&self) -> bool {
        self.frames.is_empty()
            && !self.waiting.pending.is_empty()
            && self.waiting.control.is_empty()
            && self.waiting.queue.is_empty()
    }

    /// True if a flush would have something to do.
    pub fn is_due(&self) -> bool {
        !self.frames.is_empty() || self.has_more()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::queue::Entry;

    #[test]
    fn memory_is_released_once_the_queue_is_empty() {
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
