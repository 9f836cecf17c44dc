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
        let Some(waiting) = &self.0 else { return };
        let is_empty = waiting.control.is_empty() && waiting.lane.is_empty() && waiting.marks.is_empty();
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
