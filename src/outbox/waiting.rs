use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use super::lane::Lane;
use super::{Control, SlotId};
use crate::market::UnixNanos;

/// What waits for the socket.
#[derive(Debug)]
pub(super) struct Waiting {
    pub control: VecDeque<Control>,
    pub answer_bytes: usize,
    pub notice_bytes: usize,
    pub heartbeat_waits: bool,
    pub lane: Lane,
    /// Subscriptions that have something newer and may send it now, each with since when.
    pub marks: VecDeque<(SlotId, UnixNanos)>,
    /// Bytes that the socket had taken when it was looked at last.
    pub taken: u64,
    /// Until when the client counts as one that reads.
    pub reads_until: UnixNanos,
    /// With what the client asked for on the wire: how many bytes the socket will have taken at its end.
    pub asked_ends_at: Option<u64>,
    /// Time at which the socket had taken all that the client asked for.
    pub asked_until: UnixNanos,
    /// What the lane came to when it was shed last, or less since.
    pub shed_left: usize,
    /// When it was shed last, because that costs a walk over all that waits.
    pub shed_at: UnixNanos,
}

impl Waiting {
    const NOTHING: Self = Self {
        control: VecDeque::new(),
        answer_bytes: 0,
        notice_bytes: 0,
        heartbeat_waits: false,
        lane: Lane::EMPTY,
        marks: VecDeque::new(),
        taken: 0,
        reads_until: UnixNanos(0),
        asked_ends_at: None,
        asked_until: UnixNanos(0),
        shed_left: 0,
        shed_at: UnixNanos(0),
    };
}

static NOTHING: Waiting = Waiting::NOTHING;

/// [`Waiting`] that takes memory only once there is some: most connections have nothing that waits, most of the time.
#[derive(Debug)]
pub(super) struct Queues(Option<Box<Waiting>>);

impl Queues {
    pub(super) const EMPTY: Self = Self(None);

    /// Whether nothing has waited since the last rest.
    pub(super) const fn are_unused(&self) -> bool {
        self.0.is_none()
    }

    /// Gives memory back, where nothing waits. Those who merge will need it again, so they keep it `unless_merging`.
    pub(super) fn rest(&mut self, unless_merging: bool) {
        let Some(waiting) = &mut self.0 else { return };
        // The largest of it goes at once, whatever else waits.
        if waiting.lane.is_empty() {
            waiting.lane = Lane::EMPTY;
        }
        let is_empty =
            waiting.control.is_empty() && waiting.lane.is_empty() && waiting.marks.is_empty();
        if is_empty && !(unless_merging && waiting.marks.capacity() > 0) {
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
    use crate::outbox::lane::Entry;

    #[test]
    fn memory_is_given_back_once_nothing_waits() {
        let mut queues = Queues::EMPTY;
        queues.rest(false);
        assert!(
            queues.are_unused() && queues.lane.is_empty(),
            "looking takes no memory"
        );
        queues.marks.push_back((SlotId(0), UnixNanos(1)));
        (0..1000).for_each(|_| _ = queues.lane.push(Entry::Ledger(Box::new(None))));
        queues.rest(false);
        assert!(!queues.lane.is_empty(), "what waits is kept");
        while queues.lane.pop().is_some() {}
        queues.marks.clear();
        queues.control.push_back(Control::Heartbeat);
        queues.rest(true);
        assert_eq!(
            queues.lane.capacity(),
            0,
            "a lane is given back though a heartbeat waits"
        );
        queues.control.clear();
        queues.rest(true);
        assert!(!queues.are_unused(), "who merges will need it again");
        queues.rest(false);
        assert!(queues.are_unused());
    }
}
