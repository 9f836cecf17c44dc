use std::ops::{Deref, DerefMut};

use super::State;
use super::backlog::{Backlog, Backlogs};
use super::slot_id::SlotId;
use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Mode, OnSlow, PackedSettings, Seq, Settings};
use crate::topic::Kind;

/// One topic that a connection holds: its settings and its account. Small, because there are very
/// many; the numbers that only some have are in [`Backlogs`].
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
}

// Very many of them: ten fill a block of the allocator.
const _: () = assert!(size_of::<Slot>() == 32, "a subscription takes 32 bytes");

/// Entries left of a subscription after one of them has left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Some are still queued.
    Entries,
    /// None is queued: conflated events may follow.
    Nothing,
    /// None is queued, and the subscription has ended: the slot is free.
    Freed,
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

    /// Number of events that the account covers.
    pub fn accounted(&self) -> u64 {
        self.head.since(self.start)
    }

    /// Accounts for the delivery of consecutive events that directly follow the head.
    pub fn deliver_run(&mut self, first: Seq, last: Seq) {
        debug_assert_eq!(
            first,
            self.head.next(),
            "a raw subscription that is up to date misses nothing"
        );
        debug_assert!(!self.state.has_entries(), "queued events are sent first");
        self.head = last;
    }
}

/// Subscription with its backlog.
#[derive(Debug, Clone, Copy)]
pub struct SlotRef<'a> {
    pub(super) slot: &'a Slot,
    pub(super) backlog: Option<&'a Backlog>,
}

impl Deref for SlotRef<'_> {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        self.slot
    }
}

impl SlotRef<'_> {
    fn queue(&self) -> Option<&Backlog> {
        self.backlog.filter(|backlog| backlog.queued > 0)
    }

    /// Number of its entries in the queue.
    pub fn queued(&self) -> u32 {
        self.backlog.map_or(0, |backlog| backlog.queued)
    }

    /// Newest event in the queue or before it, in the epoch of the entry queued last.
    pub fn tail(&self) -> Seq {
        self.queue().map_or(self.head, |backlog| backlog.tail)
    }

    /// Generation of the epoch of the entry queued last.
    pub fn queued_generation(&self) -> u32 {
        self.queue()
            .map_or(self.generation, |backlog| backlog.generation)
    }

    /// Queue position of the entry that reads the history, during a catch-up.
    pub fn catch_up_place(&self) -> Option<u32> {
        let backlog = self.backlog?;
        (self.state == State::CatchingUp).then_some(backlog.resume_at)
    }

    /// True if the shard was overrun during the catch-up.
    pub fn overran(&self) -> bool {
        self.backlog.is_some_and(|backlog| backlog.overran)
    }

    /// Number of events sent in data arrays.
    pub fn delivered(&self) -> u64 {
        self.accounted() - self.merged() - self.lost()
    }

    /// Number of events replaced by a newer event or a snapshot.
    pub fn merged(&self) -> u64 {
        self.backlog.map_or(0, |backlog| backlog.merged)
    }

    /// Number of events reported in gaps.
    pub fn lost(&self) -> u64 {
        self.backlog.map_or(0, |backlog| backlog.lost)
    }

    /// Earliest time of the next send in mode `interval`.
    pub fn next_due(&self) -> UnixNanos {
        self.backlog
            .map_or(UnixNanos::default(), |backlog| backlog.next_due)
    }
}

/// Subscription with its backlog, to change both.
#[derive(Debug)]
pub(super) struct SlotMut<'a> {
    pub slot: &'a mut Slot,
    pub id: SlotId,
    pub backlogs: &'a mut Backlogs,
}

impl Deref for SlotMut<'_> {
    type Target = Slot;
    fn deref(&self) -> &Slot {
        self.slot
    }
}

impl DerefMut for SlotMut<'_> {
    fn deref_mut(&mut self) -> &mut Slot {
        self.slot
    }
}

impl SlotMut<'_> {
    fn backlog(&mut self) -> &mut Backlog {
        self.backlogs.of(self.id)
    }

    /// The subscription to read, with its backlog.
    pub(super) fn read(&self) -> SlotRef<'_> {
        SlotRef {
            slot: self.slot,
            backlog: self.backlogs.get(self.id),
        }
    }

    fn change_to(&mut self, state: State) {
        self.slot.state = state;
        debug_assert_eq!(
            state.has_entries(),
            self.read().queued() > 0,
            "the state and the number of entries agree"
        );
        if state == State::Free {
            self.backlogs.remove(self.id);
        }
    }

    fn count_entry(&mut self) -> &mut Backlog {
        let (head, generation) = (self.head, self.generation);
        let backlog = self.backlog();
        if backlog.queued == 0 {
            (backlog.tail, backlog.generation) = (head, generation);
        }
        backlog.queued += 1;
        backlog
    }

    /// Counts a queued entry. `tail` is the new newest event in the queue, if it changes.
    pub(super) fn enqueue(&mut self, tail: Option<Seq>) {
        let backlog = self.count_entry();
        backlog.tail = tail.unwrap_or(backlog.tail);
        self.change_to(self.state.enqueued());
    }

    /// Counts a queued entry that begins a new epoch at `seq`. All events of the previous epoch are
    /// queued or accounted for.
    pub(super) fn enqueue_epoch(&mut self, epoch: Epoch, seq: Seq) {
        debug_assert!(
            !self.is_pending() && self.state != State::CatchingUp,
            "events of an epoch are queued before it ends"
        );
        self.enqueue(Some(seq));
        self.backlog().generation = epoch.generation;
    }

    /// Counts the removal of a queued entry.
    pub(super) fn dequeue(&mut self) -> Left {
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

    /// Counts the queued entry at `place`, which reads the history.
    pub(super) fn begin_catch_up(&mut self, place: u32) {
        self.count_entry().resume_at = place;
        self.change_to(self.state.catching_up());
    }

    /// Sets the queue position of the entry that reads the history.
    pub(super) fn move_catch_up(&mut self, place: u32) {
        debug_assert_eq!(self.state, State::CatchingUp, "only a catch-up has a place");
        self.backlog().resume_at = place;
    }

    /// Ends a catch-up whose entry has read the whole history: further events are queued behind it.
    pub(super) fn caught_up(&mut self) {
        self.set_tail(self.head);
        self.set_overran(false);
        self.change_to(self.state.not_catching_up());
    }

    /// Ends a catch-up at event `to`, because entries follow that the history will not contain.
    pub(super) fn interrupt_catch_up(&mut self, to: Seq) {
        self.set_tail(to);
        self.change_to(self.state.not_catching_up());
    }

    /// Ends the subscription; its entries stay in the queue. Returns true if there are none, so
    /// that the slot is free.
    pub(super) fn release(&mut self) -> bool {
        self.change_to(self.state.released());
        self.state == State::Free
    }

    /// Sets the newest event that is in the queue or before it.
    pub(super) fn set_tail(&mut self, tail: Seq) {
        if self.state.has_entries() {
            self.backlog().tail = tail;
        }
        debug_assert_eq!(
            self.read().tail(),
            tail,
            "where nothing waits, all is accounted for"
        );
    }

    /// Sets whether the shard was overrun during the catch-up.
    pub(super) fn set_overran(&mut self, overran: bool) {
        self.backlog().overran = overran;
    }

    /// Sets the earliest time of the next send in mode `interval`.
    pub(super) fn set_next_due(&mut self, at: UnixNanos) {
        self.backlog().next_due = at;
    }

    /// Accounts for the delivery of event `seq` and for the events that it replaces; returns the
    /// number of replaced events.
    pub(super) fn deliver(&mut self, seq: Seq) -> u64 {
        debug_assert!(seq > self.head, "events are delivered in order");
        let merged = self.merge_to(seq.previous());
        self.head = seq;
        merged
    }

    /// Accounts for events up to `seq` that a snapshot or a newer event replaces; returns their
    /// number.
    pub(super) fn merge_to(&mut self, seq: Seq) -> u64 {
        let merged = seq.since(self.head);
        if merged > 0 {
            self.backlog().merged += merged;
            self.head = seq;
        }
        merged
    }

    /// Accounts for the events after `head` up to `to`, which a gap reports.
    pub(super) fn lose_to(&mut self, to: Seq) {
        debug_assert!(
            to >= self.head,
            "a gap names events that are not accounted for"
        );
        let lost = to.since(self.head);
        self.backlog().lost += lost;
        self.head = to;
    }

    /// Begins a new account.
    pub(super) fn begin_epoch(&mut self, epoch: Epoch, start: Seq) {
        self.generation = epoch.generation;
        (self.start, self.head) = (start, start);
        if let Some(backlog) = self.backlogs.get_mut(self.id) {
            (backlog.merged, backlog.lost, backlog.overran) = (0, 0, false);
        }
    }

    /// Releases the backlog if it holds only default values.
    pub(super) fn shrink(&mut self) {
        if self.read().backlog.is_some_and(Backlog::says_nothing) {
            self.backlogs.remove(self.id);
        }
    }
}
