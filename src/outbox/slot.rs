use super::State;
use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Mode, OnSlow, PackedSettings, Seq, Settings};
use crate::topic::Kind;

/// Number of a subscription within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

impl SlotId {
    /// Index into the slots of the connection.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One topic that a connection holds: its settings and its account. Small, because there are very
/// many; what only some have stands apart.
///
/// Invariant: `head` − `start` = `delivered` + `merged` + `lost`, after every change; so
/// `delivered` isn't kept.
#[derive(Debug)]
pub struct Slot {
    /// Subscribed topic.
    pub topic: TopicId,
    /// Index in the registry's list of the topic. Set by the registry.
    pub place: u32,
    /// Generation of the account's epoch.
    pub generation: u32,
    settings: PackedSettings,
    /// Relation between the topic's events.
    pub kind: Kind,
    /// Changed only by the transitions below, together with the number of queued entries.
    state: State,
    /// Start of the account.
    pub start: Seq,
    /// Newest accounted event.
    pub head: Seq,
    /// Numbers that an up-to-date raw subscription does not need.
    backlog: Option<Box<Backlog>>,
}

// Very many of them: the state is a byte here, so that its numbers take memory only while there are
// some.
const _: () = assert!(size_of::<Slot>() == 40, "a subscription takes 40 bytes");

/// Entries left of a subscription after one of them has left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Some are still queued.
    Entries,
    /// None is queued: conflated events may follow.
    Nothing,
    /// None is queued, and the subscription has ended: the slot is free.
    Freed,
}

#[derive(Debug, Default)]
struct Backlog {
    /// Number of queued entries.
    queued: u32,
    /// Generation of the epoch of the entry queued last.
    generation: u32,
    /// During a catch-up: queue position of the entry that reads the history.
    resume_at: u32,
    /// The shard was overrun during the catch-up: missing events are reported with cause `bus`.
    overran: bool,
    /// Newest event in the queue or before it, in the epoch of the entry queued last.
    tail: Seq,
    /// Number of events replaced by a newer one.
    merged: u64,
    /// Number of events reported in gaps.
    lost: u64,
    /// Earliest time of the next send in mode `interval`.
    next_due: UnixNanos,
}

impl Slot {
    /// Subscription whose account begins at `start`.
    pub fn new(topic: TopicId, kind: Kind, settings: Settings, epoch: Epoch, start: Seq) -> Self {
        Self {
            topic,
            place: 0,
            generation: epoch.generation,
            settings: settings.into(),
            kind,
            state: State::Live,
            start,
            head: start,
            backlog: None,
        }
    }

    /// Delivery settings in force.
    pub fn settings(&self) -> Settings {
        self.settings.into()
    }

    /// Changes the delivery settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings.into();
    }

    /// True if it is conflated: by its mode, or because the client is degraded.
    pub fn merges(&self, degraded: bool) -> bool {
        let settings = self.settings();
        settings.mode != Mode::Raw || (degraded && settings.on_slow == OnSlow::Conflate)
    }

    fn backlog(&mut self) -> &mut Backlog {
        let (tail, generation) = (self.head, self.generation);
        self.backlog.get_or_insert_with(|| {
            Box::new(Backlog {
                generation,
                tail,
                ..Backlog::default()
            })
        })
    }

    /// State of its delivery.
    pub const fn state(&self) -> State {
        self.state
    }

    /// True if the topic has events that are to be conflated, after all that is queued.
    pub const fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending | State::QueuedPending)
    }

    /// True if the subscription has ended.
    pub const fn is_released(&self) -> bool {
        matches!(self.state, State::Released | State::Free)
    }

    /// Number of its entries in the queue.
    pub fn queued(&self) -> u32 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.queued)
    }

    fn change_to(&mut self, state: State) {
        self.state = state;
        debug_assert_eq!(
            state.has_entries(),
            self.queued() > 0,
            "the state and the number of entries agree"
        );
    }

    /// Counts a queued entry. `tail` is the new newest event in the queue, if it changes.
    pub fn enqueue(&mut self, tail: Option<Seq>) {
        let backlog = self.backlog();
        backlog.queued += 1;
        backlog.tail = tail.unwrap_or(backlog.tail);
        self.change_to(self.state.enqueued());
    }

    /// Counts a queued entry that begins a new epoch at `seq`. All events of the previous epoch are
    /// queued or accounted for.
    pub fn enqueue_epoch(&mut self, epoch: Epoch, seq: Seq) {
        debug_assert!(
            !self.is_pending() && self.state != State::CatchingUp,
            "events of an epoch are queued before it ends"
        );
        self.enqueue(Some(seq));
        self.backlog().generation = epoch.generation;
    }

    /// Counts the removal of a queued entry.
    pub fn dequeue(&mut self) -> Left {
        let backlog = self.backlog();
        backlog.queued -= 1;
        if backlog.queued > 0 {
            return Left::Entries;
        }
        self.change_to(self.state.emptied());
        match self.state {
            State::Free => Left::Freed,
            _ => Left::Nothing,
        }
    }

    /// Marks the subscription as pending. Returns true if it was live, so that its last value must
    /// be scheduled.
    pub fn mark_pending(&mut self) -> bool {
        let was_live = self.state == State::Live;
        self.state = self.state.marked();
        was_live
    }

    /// Clears the pending mark, because the pending events are sent or queued now. Returns false if
    /// there are none.
    pub fn take_pending(&mut self) -> bool {
        let was_pending = self.is_pending();
        self.state = self.state.unmarked();
        was_pending
    }

    /// Counts the queued entry at `place`, which reads the history.
    pub fn begin_catch_up(&mut self, place: u32) {
        let backlog = self.backlog();
        backlog.queued += 1;
        backlog.resume_at = place;
        self.change_to(self.state.catching_up());
    }

    /// Queue position of the entry that reads the history, during a catch-up.
    pub fn catch_up_place(&self) -> Option<u32> {
        let backlog = self.backlog.as_ref()?;
        (self.state == State::CatchingUp).then_some(backlog.resume_at)
    }

    /// Sets the queue position of the entry that reads the history.
    pub fn move_catch_up(&mut self, place: u32) {
        debug_assert_eq!(self.state, State::CatchingUp, "only a catch-up has a place");
        self.backlog().resume_at = place;
    }

    /// Ends a catch-up whose entry has read the whole history: further events are queued behind it.
    pub fn caught_up(&mut self) {
        self.set_tail(self.head);
        self.set_overran(false);
        self.change_to(self.state.not_catching_up());
    }

    /// Ends a catch-up at event `to`, because entries follow that the history will not contain.
    pub fn interrupt_catch_up(&mut self, to: Seq) {
        self.set_tail(to);
        self.change_to(self.state.not_catching_up());
    }

    /// Ends the subscription; its entries stay in the queue. Returns true if there are none, so
    /// that the slot is free.
    pub fn release(&mut self) -> bool {
        self.change_to(self.state.released());
        self.state == State::Free
    }

    /// Newest event in the queue or before it, in the epoch of the entry queued last.
    pub fn tail(&self) -> Seq {
        self.backlog
            .as_ref()
            .map_or(self.head, |backlog| backlog.tail)
    }

    /// Sets the newest event that is in the queue or before it.
    pub fn set_tail(&mut self, tail: Seq) {
        if tail != self.tail() {
            self.backlog().tail = tail;
        }
    }

    /// Generation of the epoch of the entry queued last.
    pub fn queued_generation(&self) -> u32 {
        self.backlog
            .as_ref()
            .map_or(self.generation, |backlog| backlog.generation)
    }

    /// True if the shard was overrun during the catch-up.
    pub fn overran(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.overran)
    }

    /// Sets whether the shard was overrun during the catch-up.
    pub fn set_overran(&mut self, overran: bool) {
        self.backlog().overran = overran;
    }

    /// Number of events that the account covers.
    pub fn accounted(&self) -> u64 {
        self.head.since(self.start)
    }

    /// Number of events sent in data arrays.
    pub fn delivered(&self) -> u64 {
        self.head.since(self.start) - self.merged() - self.lost()
    }

    /// Number of events replaced by a newer event or a snapshot.
    pub fn merged(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.merged)
    }

    /// Number of events reported in gaps.
    pub fn lost(&self) -> u64 {
        self.backlog.as_ref().map_or(0, |backlog| backlog.lost)
    }

    /// Earliest time of the next send in mode `interval`.
    pub fn next_due(&self) -> UnixNanos {
        self.backlog
            .as_ref()
            .map_or(UnixNanos::default(), |backlog| backlog.next_due)
    }

    /// Sets the earliest time of the next send in mode `interval`.
    pub fn set_next_due(&mut self, at: UnixNanos) {
        self.backlog().next_due = at;
    }

    /// Accounts for the delivery of consecutive events that directly follow the head.
    pub fn deliver_run(&mut self, first: Seq, last: Seq) {
        debug_assert_eq!(
            first,
            self.head.next(),
            "a raw subscription that is up to date misses nothing"
        );
        self.head = last;
        if let Some(backlog) = &mut self.backlog {
            backlog.tail = last;
        }
    }

    /// Accounts for the delivery of event `seq` and for the events that it replaces; returns the
    /// number of replaced events.
    pub fn deliver(&mut self, seq: Seq) -> u64 {
        debug_assert!(seq > self.head, "events are delivered in order");
        let merged = self.merge_to(seq.previous());
        self.advance(seq);
        merged
    }

    /// Accounts for events up to `seq` that a snapshot or a newer event replaces; returns their
    /// number.
    pub fn merge_to(&mut self, seq: Seq) -> u64 {
        let merged = seq.since(self.head);
        if merged > 0 {
            self.backlog().merged += merged;
            self.advance(seq);
        }
        merged
    }

    /// Accounts for the events after `head` up to `to`, which a gap reports.
    pub fn lose_to(&mut self, to: Seq) {
        debug_assert!(
            to >= self.head,
            "a gap names events that are not accounted for"
        );
        let lost = to.since(self.head);
        self.backlog().lost += lost;
        self.advance(to);
    }

    fn advance(&mut self, head: Seq) {
        self.head = head;
        // What is accounted for is behind the queue's beginning; its end may be further on.
        if let Some(backlog) = self.backlog.as_mut().filter(|backlog| backlog.queued == 0) {
            backlog.tail = head;
        }
    }

    /// Begins a new account.
    pub fn begin_epoch(&mut self, epoch: Epoch, start: Seq) {
        self.generation = epoch.generation;
        (self.start, self.head) = (start, start);
        if let Some(backlog) = &mut self.backlog {
            (backlog.merged, backlog.lost, backlog.overran) = (0, 0, false);
        }
    }

    /// Releases the backlog if it holds only default values.
    pub fn shrink(&mut self) {
        let says_nothing = |backlog: &Backlog| {
            (
                backlog.queued,
                backlog.merged,
                backlog.lost,
                backlog.next_due,
            ) == (0, 0, 0, UnixNanos::default())
        };
        if self.backlog.as_deref().is_some_and(says_nothing) {
            debug_assert_eq!(
                self.tail(),
                self.head,
                "where nothing waits, all is accounted for"
            );
            self.backlog = None;
        }
    }
}
