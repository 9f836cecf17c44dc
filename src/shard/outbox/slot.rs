use crate::bus::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Mode, OnSlow, Settings};
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

/// One topic that a connection holds: its settings and its account.
///
/// Invariant: `head` − `start` = `delivered` + `merged` + `lost`, after every change.
#[derive(Debug)]
pub struct Slot {
    /// Which topic.
    pub topic: TopicId,
    /// The settings in force.
    pub settings: Settings,
    /// How the topic's events relate.
    pub kind: Kind,
    /// Something newer than `head` waits to be merged into one event.
    pub marked: bool,
    /// The history is being read; live events wait there.
    pub catching_up: bool,
    /// No longer held; freed once none of its entries is in the lane.
    pub dead: bool,
    /// Entries in the lane.
    pub queued: u32,
    /// Where it stands in the registry's list of its topic. Written by the registry.
    pub place: u32,
    /// The epoch of the account.
    pub epoch: Epoch,
    /// Where the account began.
    pub start: u64,
    /// The newest event that is accounted for.
    pub head: u64,
    /// The newest event that is in the lane or before it, in the epoch of what was queued last.
    pub tail: u64,
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by a newer one.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
    /// An interval's next send isn't before.
    pub next_due: UnixNanos,
}

impl Slot {
    /// A subscription whose account begins at `start`.
    pub fn new(topic: TopicId, kind: Kind, settings: Settings, epoch: Epoch, start: u64) -> Self {
        Self {
            topic,
            settings,
            kind,
            marked: false,
            catching_up: false,
            dead: false,
            queued: 0,
            place: 0,
            epoch,
            start,
            head: start,
            tail: start,
            delivered: 0,
            merged: 0,
            lost: 0,
            next_due: UnixNanos::default(),
        }
    }

    /// Whether it sends the newest instead of all: by its mode, or because its client is behind.
    pub fn merges(&self, degraded: bool) -> bool {
        self.settings.mode != Mode::Raw || (degraded && self.settings.on_slow == OnSlow::Conflate)
    }

    /// Accounts for the delivery of event `seq`, and for those that it replaces.
    pub fn deliver(&mut self, seq: u64) -> u64 {
        debug_assert!(seq > self.head, "events are delivered in order");
        let merged = seq - self.head - 1;
        self.merged += merged;
        self.delivered += 1;
        self.head = seq;
        merged
    }

    /// Accounts for events up to `seq` that a snapshot replaces.
    pub fn merge_to(&mut self, seq: u64) -> u64 {
        let merged = seq.saturating_sub(self.head);
        self.merged += merged;
        self.head += merged;
        merged
    }

    /// Begins a new account.
    pub fn begin_epoch(&mut self, epoch: Epoch, start: u64) {
        self.epoch = epoch;
        (self.start, self.head) = (start, start);
        (self.delivered, self.merged, self.lost) = (0, 0, 0);
    }
}
