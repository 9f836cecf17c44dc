//! Queue of what waits for the socket, in order: events as bytes, and the messages between them.

use std::collections::VecDeque;

use super::SlotId;
use crate::log::Event;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, GapCause, Id, Seq};

/// Memory of an entry, counted against `fanout.outbox` beside the event's bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();
/// Bytes already sent are given back once there are so many, and more than what still waits.
const COMPACT_AT: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct EventEntry {
    pub slot: SlotId,
    /// No newer event may replace it.
    pub must_keep: bool,
    pub len: u32,
    pub seq: Seq,
    pub tx: UnixNanos,
}

#[derive(Debug)]
pub(super) struct SnapshotEntry {
    pub slot: SlotId,
    /// As of where.
    pub seq: Seq,
    /// The event of that number, should the history have moved on.
    pub last: Option<Event>,
    pub events: usize,
    /// Time of the request.
    pub since: UnixNanos,
    /// The client didn't ask for it: a pattern of it has come to mean the topic.
    pub offered: bool,
    /// A new account begins with this snapshot.
    pub epoch: Option<Epoch>,
}

#[derive(Debug)]
pub(super) struct GapEntry {
    pub slot: SlotId,
    pub from: Seq,
    pub to: Seq,
    pub cause: GapCause,
}

#[derive(Debug)]
pub(super) struct ResumeEntry {
    pub slot: SlotId,
    /// The last event; [`ResumeEntry::OPEN`]: until the subscription has caught up.
    pub to: Seq,
}

impl ResumeEntry {
    pub(super) const OPEN: Seq = Seq::MAX;
}

#[derive(Debug)]
pub(super) enum Entry {
    Event(EventEntry),
    Gap(Box<GapEntry>),
    Snapshot(Box<SnapshotEntry>),
    /// Events out of the history.
    Resume(ResumeEntry),
    Ledger(Box<Option<Id>>),
}

impl Entry {
    pub(super) const fn slot(&self) -> Option<SlotId> {
        match self {
            Self::Event(event) => Some(event.slot),
            Self::Gap(gap) => Some(gap.slot),
            Self::Snapshot(snapshot) => Some(snapshot.slot),
            Self::Resume(resume) => Some(resume.slot),
            Self::Ledger(_) => None,
        }
    }

    /// True if the client asked for it: then it doesn't count against the client, and bounds what
    /// is read of it.
    pub(super) fn is_asked(&self) -> bool {
        match self {
            Self::Event(_) => false,
            Self::Gap(gap) => gap.cause == GapCause::Expired,
            Self::Snapshot(snapshot) => snapshot.epoch.is_none(),
            Self::Resume(_) | Self::Ledger(_) => true,
        }
    }

    /// Memory of a snapshot that a pattern's new topic begins with.
    fn offered(&self) -> usize {
        match self {
            Self::Snapshot(snapshot) if snapshot.offered => self.cost(),
            _ => 0,
        }
    }

    /// True if an epoch begins with it.
    pub(super) fn begins_epoch(&self) -> bool {
        matches!(self, Self::Snapshot(snapshot) if snapshot.epoch.is_some())
    }

    /// Memory that it takes, an event's bytes included.
    pub(super) fn cost(&self) -> usize {
        let own = match self {
            Self::Event(event) => event.len as usize,
            Self::Gap(_) => size_of::<GapEntry>(),
            Self::Snapshot(_) => size_of::<SnapshotEntry>(),
            Self::Resume(_) => 0,
            Self::Ledger(_) => size_of::<Option<Id>>(),
        };
        ENTRY_BYTES + own
    }
}

#[derive(Debug)]
pub(super) struct SendQueue {
    entries: VecDeque<Entry>,
    /// The place of the first entry; places count on, whatever was popped.
    first: u32,
    bytes: Vec<u8>,
    read: usize,
    events: usize,
    /// Memory of what isn't an event: asked for by the client, and not.
    asked: usize,
    unasked: usize,
    /// Of what counts as asked for, the snapshots of topics that have appeared.
    offered: usize,
    /// Entries with which an epoch begins.
    epochs: usize,
}

impl SendQueue {
    pub(super) const EMPTY: Self = Self {
        entries: VecDeque::new(),
        first: 0,
        bytes: Vec::new(),
        read: 0,
        events: 0,
        asked: 0,
        unasked: 0,
        offered: 0,
        epochs: 0,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity() + self.bytes.capacity()
    }

    /// Memory of what the client asked for.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Memory of the snapshots of topics that have appeared, which doesn't pause reading.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    /// Entries with which an epoch begins.
    pub(super) fn epochs(&self) -> usize {
        self.epochs
    }

    /// Memory of what waits and was not asked for.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() - self.read + self.events * ENTRY_BYTES + self.unasked
    }

    /// Publication time of the oldest queued event; only of those before the first entry that the
    /// client asked for, where that one excuses what stands behind it.
    pub(super) fn oldest(&self, asked_excuses: bool) -> Option<UnixNanos> {
        self.entries
            .iter()
            .take_while(|entry| !(asked_excuses && entry.is_asked()))
            .find_map(|entry| match entry {
                Entry::Event(event) => Some(event.tx),
                _ => None,
            })
    }

    pub(super) fn push_event(&mut self, slot: SlotId, event: &Event, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.events += 1;
        self.entries.push_back(Entry::Event(EventEntry {
            slot,
            must_keep: event.must_keep(),
            len: bytes.len() as u32,
            seq: event.seq,
            tx: event.tx,
        }));
    }

    /// Puts an entry behind all others; returns its place.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        debug_assert!(
            !matches!(entry, Entry::Event(_)),
            "an event comes with its bytes"
        );
        self.count(&entry);
        self.entries.push_back(entry);
        self.first.wrapping_add(self.entries.len() as u32 - 1)
    }

    /// Puts back what was popped last; returns its place.
    pub(super) fn push_front(&mut self, entry: Entry) -> u32 {
        self.count(&entry);
        self.entries.push_front(entry);
        self.first = self.first.wrapping_sub(1);
        self.first
    }

    /// Ends the reading of the history, by the entry at that place, at event `to`.
    pub(super) fn end_resume(&mut self, place: u32, to: Seq) {
        let at = place.wrapping_sub(self.first) as usize;
        match self.entries.get_mut(at) {
            Some(Entry::Resume(resume)) => resume.to = to,
            other => debug_assert!(false, "a place of a resume holds {other:?}"),
        }
    }

    fn count(&mut self, entry: &Entry) {
        let kind = if entry.is_asked() {
            &mut self.asked
        } else {
            &mut self.unasked
        };
        *kind += entry.cost();
        self.offered += entry.offered();
        self.epochs += usize::from(entry.begins_epoch());
    }

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.first = self.first.wrapping_add(1);
        self.offered -= entry.offered();
        match &entry {
            Entry::Event(_) => self.events -= 1,
            other if other.is_asked() => self.asked -= other.cost(),
            other => {
                self.unasked -= other.cost();
                self.epochs -= usize::from(other.begins_epoch());
            }
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

    /// Rebuilds the queue: `decide` sees each entry in order and says what becomes of it. Places
    /// count from 0 again.
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
            // The decider may put other entries first, but they are no events: bytes and events
            // stay in one order.
            if decide(entry, &mut self.entries) == Verdict::Kept && len > 0 {
                self.bytes.extend_from_slice(bytes);
                self.events += 1;
            }
        }
        let kept = std::mem::take(&mut self.entries);
        for entry in kept
            .iter()
            .filter(|entry| !matches!(entry, Entry::Event(_)))
        {
            self.count(entry);
        }
        self.entries = kept;
    }
}

/// Decision on an entry: kept entries were pushed by the decider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Dropped,
}
