use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Mode, OnSlow, Seq, Settings};
use crate::topic::Kind;

/// A subscription's number within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

impl SlotId {
    /// As an index of the connection's slots.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One topic that a connection holds: its settings and its account. Small, because there are very many; what only some
/// have stands apart.
///
/// Invariant: `head` − `start` = `delivered` + `merged` + `lost`, after every change; so `delivered` isn't kept.
#[derive(Debug)]
pub struct Slot {
    /// Which topic.
    pub topic: TopicId,
    /// Index in the registry's list of its topic. Written by the registry.
    pub place: u32,
    /// The turn of the account's epoch.
    pub generation: u32,
    /// The settings in force.
    pub settings: Settings,
    /// Relation between the topic's events.
    pub kind: Kind,
    /// Something newer than `head` waits to be merged into one event.
    pub is_pending: bool,
    /// The history is being read; live events wait there.
    pub catching_up: bool,
    /// No longer held; freed once none of its entries is in the queue.
    pub dead: bool,
    /// Start of the account.
    pub start: Seq,
    /// The newest event that is accounted for.
    pub head: Seq,
    /// State that a raw subscription that is up to date does not need.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    /// Entries in the queue.
    queued: u32,
    /// The turn of the epoch of what was queued last.
    generation: u32,
    /// While it is catching up: the place in the queue of the entry that reads the history.
    resume_at: u32,
    /// The shard was overrun while the history was being read: what is missing of it is missing because of the bus.
    overran: bool,
    /// The newest event that is in the queue or before it, in the epoch of what was queued last.
    tail: Seq,
    /// Events replaced by a newer one.
    merged: u64,
    /// Events named in gaps.
    lost: u64,
    /// An interval's next send isn't before.
    next_due: UnixNanos,
}

impl Slot {
    /// A subscription whose account begins at `start`.
    pub fn new(topic: TopicId, kind: Kind, settings: Settings, epoch: Epoch, start: Seq) -> Self {
        Self {
            topic,
            place: 0,
            generation: epoch.generation,
            settings,
            kind,
            is_pending: false,
            catching_up: false,
            dead: false,
            start,
            head: start,
            more: None,
        }
    }

    /// True if it sends only the newest event: by its mode, or because its client is behind.
    pub fn merges(&self, degraded: bool) -> bool {
        self.settings.mode != Mode::Raw || (degraded && self.settings.on_slow == OnSlow::Conflate)
    }

    fn more(&mut self) -> &mut More {
        let (tail, generation) = (self.head, self.generation);
        self.more.get_or_insert_with(|| {
            Box::new(More {
                generation,
                tail,
                ..More::default()
            })
        })
    }

    /// Entries in the queue.
    pub fn queued(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.queued)
    }

    /// One entry more in the queue; with it the newest event there has this number, where it has another than before.
    pub fn enqueue(&mut self, tail: Option<Seq>) {
        let more = self.more();
        more.queued += 1;
        more.tail = tail.unwrap_or(more.tail);
    }

    /// One entry less in the queue; how many are left.
    pub fn dequeue(&mut self) -> u32 {
        let more = self.more();
        more.queued -= 1;
        more.queued
    }

    /// The newest event that is in the queue or before it, in the epoch of what was queued last.
    pub fn tail(&self) -> Seq {
        self.more.as_ref().map_or(self.head, |more| more.tail)
    }

    /// Everything up to here is in the queue or before it.
    pub fn set_tail(&mut self, tail: Seq) {
        if tail != self.tail() {
            self.more().tail = tail;
        }
    }

    /// The turn of the epoch of what was queued last.
    pub fn queued_generation(&self) -> u32 {
        self.more
            .as_ref()
            .map_or(self.generation, |more| more.generation)
    }

    /// One entry more in the queue: a new epoch's beginning, at `seq`.
    pub fn enqueue_epoch(&mut self, epoch: Epoch, seq: Seq) {
        self.enqueue(Some(seq));
        self.more().generation = epoch.generation;
        (self.is_pending, self.catching_up) = (false, false);
    }

    /// True if the shard was overrun while the history was being read.
    pub fn overran(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.overran)
    }

    /// Sets whether the shard was overrun while the history was being read.
    pub fn set_overran(&mut self, overran: bool) {
        self.more().overran = overran;
    }

    /// The place in the queue of the entry that reads the history.
    pub fn resume_at(&self) -> u32 {
        self.more.as_ref().map_or(0, |more| more.resume_at)
    }

    /// Sets the place in the queue of the entry that reads the history.
    pub fn set_resume_at(&mut self, place: u32) {
        self.more().resume_at = place;
    }

    /// Events that the account has come to.
    pub fn accounted(&self) -> u64 {
        self.head.since(self.start)
    }

    /// Events in data arrays.
    pub fn delivered(&self) -> u64 {
        self.head.since(self.start) - self.merged() - self.lost()
    }

    /// Events replaced by a newer one, or by a snapshot.
    pub fn merged(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.merged)
    }

    /// Events named in gaps.
    pub fn lost(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.lost)
    }

    /// An interval's next send isn't before.
    pub fn next_due(&self) -> UnixNanos {
        self.more
            .as_ref()
            .map_or(UnixNanos::default(), |more| more.next_due)
    }

    /// Sets when an interval may send next.
    pub fn set_next_due(&mut self, at: UnixNanos) {
        self.more().next_due = at;
    }

    /// Accounts for the delivery of consecutive events, of which the account has had all before.
    pub fn deliver_run(&mut self, first: Seq, last: Seq) {
        debug_assert_eq!(
            first,
            self.head.next(),
            "a raw subscription that is up to date misses nothing"
        );
        self.head = last;
        if let Some(more) = &mut self.more {
            more.tail = last;
        }
    }

    /// Accounts for the delivery of event `seq`, and for those that it replaces; returns how many.
    pub fn deliver(&mut self, seq: Seq) -> u64 {
        debug_assert!(seq > self.head, "events are delivered in order");
        let merged = self.merge_to(seq.previous());
        self.advance(seq);
        merged
    }

    /// Accounts for events up to `seq` that a snapshot or a newer event replaces; returns how many.
    pub fn merge_to(&mut self, seq: Seq) -> u64 {
        let merged = seq.since(self.head);
        if merged > 0 {
            self.more().merged += merged;
            self.advance(seq);
        }
        merged
    }

    /// Accounts for events after `head`, up to `to`, that a gap names.
    pub fn lose_to(&mut self, to: Seq) {
        debug_assert!(
            to >= self.head,
            "a gap names events that are not accounted for"
        );
        let lost = to.since(self.head);
        self.more().lost += lost;
        self.advance(to);
    }

    fn advance(&mut self, head: Seq) {
        self.head = head;
        // What is accounted for is behind the queue's beginning; its end may be further on.
        if let Some(more) = self.more.as_mut().filter(|more| more.queued == 0) {
            more.tail = head;
        }
    }

    /// Begins a new account.
    pub fn begin_epoch(&mut self, epoch: Epoch, start: Seq) {
        self.generation = epoch.generation;
        (self.start, self.head) = (start, start);
        if let Some(more) = &mut self.more {
            (more.merged, more.lost, more.overran) = (0, 0, false);
        }
    }

    /// Gives memory back that says nothing any more.
    pub fn shrink(&mut self) {
        let says_nothing = |more: &More| {
            (more.queued, more.merged, more.lost, more.next_due) == (0, 0, 0, UnixNanos::default())
        };
        if self.more.as_deref().is_some_and(says_nothing) {
            debug_assert_eq!(
                self.tail(),
                self.head,
                "where nothing waits, all is accounted for"
            );
            self.more = None;
        }
    }
}
