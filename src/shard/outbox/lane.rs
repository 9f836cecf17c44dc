//! What waits for the socket, in order: events as bytes, and what stands between them.

use std::collections::VecDeque;

use super::SlotId;
use crate::bus::Event;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, GapCause, Id};

/// Memory of an entry, counted against `fanout.outbox` beside the event's bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes already sent are given back once there are so many, and more than what still waits.
const COMPACT_AT: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct EventEntry {
    pub slot: SlotId,
    /// The last event of a bar, which no mode swallows.
    pub done: bool,
    pub len: u32,
    pub seq: u64,
    pub tx: UnixNanos,
}

#[derive(Debug)]
pub(super) struct SnapshotEntry {
    pub slot: SlotId,
    /// As of where; `None`: as of where the subscription has come to when it is sent.
    pub seq: Option<u64>,
    /// The event of that number, should the history have moved on.
    pub last: Option<Event>,
    pub events: usize,
    /// When it was asked for.
    pub since: UnixNanos,
    /// A new account begins with this snapshot.
    pub epoch: Option<Epoch>,
}

#[derive(Debug)]
pub(super) struct GapEntry {
    pub slot: SlotId,
    pub from: u64,
    pub to: u64,
    pub cause: GapCause,
}

#[derive(Debug)]
pub(super) enum Entry {
    Event(EventEntry),
    Gap(Box<GapEntry>),
    Snapshot(Box<SnapshotEntry>),
    /// Events out of the history until the subscription has caught up.
    Resume(SlotId),
    Ledger(Box<Option<Id>>),
}

impl Entry {
    pub(super) const fn slot(&self) -> Option<SlotId> {
        match self {
            Self::Event(event) => Some(event.slot),
            Self::Gap(gap) => Some(gap.slot),
            Self::Snapshot(snapshot) => Some(snapshot.slot),
            Self::Resume(slot) => Some(*slot),
            Self::Ledger(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
    read: usize,
    events: usize,
}

impl Lane {
    pub(super) const EMPTY: Self = Self {
        entries: VecDeque::new(),
        bytes: Vec::new(),
        read: 0,
        events: 0,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity() + self.bytes.capacity()
    }

    /// Entries that the client asked for.
    pub(super) fn asked(&self) -> usize {
        self.entries.len() - self.events
    }

    /// Memory of the events that wait; what a client asked for doesn't count.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() - self.read + self.events * ENTRY_BYTES
    }

    /// When the oldest event that waits was published.
    pub(super) fn oldest(&self) -> Option<UnixNanos> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Event(event) => Some(event.tx),
            _ => None,
        })
    }

    pub(super) fn push_event(&mut self, slot: SlotId, event: &Event, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.events += 1;
        self.entries.push_back(Entry::Event(EventEntry {
            slot,
            done: event.closes_bar(),
            len: bytes.len() as u32,
            seq: event.seq,
            tx: event.tx,
        }));
    }

    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(
            !matches!(entry, Entry::Event(_)),
            "an event comes with its bytes"
        );
        self.entries.push_back(entry);
    }

    pub(super) fn push_front(&mut self, entry: Entry) {
        self.entries.push_front(entry);
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        if let Entry::Event(_) = &entry {
            self.events -= 1;
        }
        Some(entry)
    }

    /// The bytes of the event that was popped last; each must be taken once.
    pub(super) fn take_bytes(&mut self, len: u32) -> &[u8] {
        if self.read > COMPACT_AT && self.read * 2 > self.bytes.len() {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        let from = self.read;
        self.read += len as usize;
        &self.bytes[from..self.read]
    }

    /// Rebuilds the lane: `decide` sees each entry in order and says what becomes of it.
    pub(super) fn rebuild(
        &mut self,
        mut decide: impl FnMut(Entry, &mut VecDeque<Entry>) -> Verdict,
    ) {
        let old = std::mem::replace(self, Self::EMPTY);
        let mut at = old.read;
        for entry in old.entries {
            let len = match &entry {
                Entry::Event(event) => event.len as usize,
                _ => 0,
            };
            let bytes = &old.bytes[at..at + len];
            at += len;
            if decide(entry, &mut self.entries) == Verdict::Kept && len > 0 {
                self.bytes.extend_from_slice(bytes);
                self.events += 1;
            }
        }
    }
}

/// What became of an entry: kept entries were pushed by the decider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Dropped,
}
