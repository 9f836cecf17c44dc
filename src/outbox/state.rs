//! State of a subscription's delivery, and the transitions between states.
//!
//! ```text
//!                     mark_pending                       release
//!           Live ◀────────────────────▶ Pending     (any) ───────▶ Released, or Free
//!          │    ▲     take_pending      │                             │ last entry left
//!  enqueue │    │ last entry left       │ enqueue                     ▼
//!          ▼    │                       ▼                            Free ──▶ Live (a new slot)
//!         Queued ◀───────────────▶ QueuedPending
//!          ▲          mark_pending, take_pending
//!          │ caught_up, interrupt_catch_up
//!       CatchingUp ◀── begin_catch_up ── Live
//! ```
//!
//! A state is one byte in the [`Slot`](super::Slot); its numbers (entries, tail, place of the
//! catch-up) are in the slot's `Backlog`, which a subscription that is up to date does not have.
//! Only the methods of `Slot` and `SlotMut` change the state, together with the number of entries.

/// Place of the events that a client has not received, and the way of the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing waits: the next raw event goes to the frame buffer.
    Live,
    /// Nothing is queued, but the topic has events after the account's head. The last value is sent
    /// when the socket accepts it and its interval has passed.
    Pending,
    /// Entries are queued: the next raw event goes behind them.
    Queued,
    /// Entries are queued, and the topic has events after them, of which the last value is sent.
    QueuedPending,
    /// An entry of the queue reads the history, and with it all events that follow: neither raw nor
    /// conflated events are queued.
    CatchingUp,
    /// The subscription has ended; its entries are dropped when their turn comes.
    Released,
    /// The subscription has ended, and none of its entries is queued: the slot may be used again.
    Free,
}

impl State {
    /// True if entries of the subscription are in the queue.
    pub(super) const fn has_entries(self) -> bool {
        match self {
            Self::Queued | Self::QueuedPending | Self::CatchingUp | Self::Released => true,
            Self::Live | Self::Pending | Self::Free => false,
        }
    }

    /// State after an entry was queued.
    pub(super) fn enqueued(self) -> Self {
        match self {
            Self::Live => Self::Queued,
            // The entry is a snapshot with all that is pending. The mark is kept: it is cheap, and
            // the account decides at the end.
            Self::Pending => Self::QueuedPending,
            // A catch-up goes on: the entry before it stands for a snapshot, which the history
            // follows.
            Self::Queued | Self::QueuedPending | Self::CatchingUp => self,
            Self::Released | Self::Free => self.illegal("queue an entry"),
        }
    }

    /// State after the last entry has left the queue.
    pub(super) fn emptied(self) -> Self {
        match self {
            // Whether something is pending still is for the caller to see: what was sent last may
            // have been the newest.
            Self::Queued | Self::QueuedPending => Self::Live,
            Self::Released => Self::Free,
            // The entry that reads the history ends the catch-up before it leaves.
            Self::CatchingUp | Self::Live | Self::Pending | Self::Free => {
                self.illegal("lose its last entry")
            }
        }
    }

    /// State after a newer event was published that is to be conflated.
    pub(super) fn marked(self) -> Self {
        match self {
            Self::Live => Self::Pending,
            Self::Queued => Self::QueuedPending,
            // The catch-up reads it in the history.
            Self::Pending | Self::QueuedPending | Self::CatchingUp => self,
            Self::Released | Self::Free => self.illegal("become pending"),
        }
    }

    /// State after the pending events were sent, or queued.
    pub(super) const fn unmarked(self) -> Self {
        match self {
            Self::Pending => Self::Live,
            Self::QueuedPending => Self::Queued,
            other => other,
        }
    }

    /// State after an entry was queued that reads the history.
    pub(super) fn catching_up(self) -> Self {
        match self {
            // Behind a snapshot the catch-up goes on with another entry.
            Self::Live | Self::CatchingUp => Self::CatchingUp,
            _ => self.illegal("begin a catch-up"),
        }
    }

    /// State after the entry that reads the history was given an end.
    pub(super) fn not_catching_up(self) -> Self {
        match self {
            Self::CatchingUp => Self::Queued,
            _ => self.illegal("end a catch-up"),
        }
    }

    /// State after the subscription has ended.
    pub(super) fn released(self) -> Self {
        match self {
            Self::Live | Self::Pending => Self::Free,
            Self::Queued | Self::QueuedPending | Self::CatchingUp => Self::Released,
            Self::Released | Self::Free => self.illegal("end twice"),
        }
    }

    fn illegal(self, transition: &str) -> Self {
        debug_assert!(
            false,
            "a subscription that is {self:?} does not {transition}"
        );
        self
    }
}
