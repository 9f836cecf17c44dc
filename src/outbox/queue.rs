//! Send queue of a blocked connection, in wire order: events as bytes, and the entries between
//! them.

use super::SlotId;
use super::blocks::{BlockDeque, ByteQueue};
use crate::log::{Event, SourceGap};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, GapCause, Id, Seq};

/// Memory of an entry in bytes, counted against `fanout.outbox` in addition to the event's bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();

#[derive(Debug)]
pub(super) struct EventEntry {
    pub slot: SlotId,
    /// No newer event may replace it.
    pub must_keep: bool,
    pub len: u32,
    pub seq: Seq,
    /// Time from which its age counts.
    pub released: UnixNanos,
}

#[derive(Debug)]
pub(super) struct SnapshotEntry {
    pub slot: SlotId,
    /// Position of the snapshot.
    pub seq: Seq,
    /// Event at that position, in case the history drops it.
    pub last: Option<Event>,
    pub events: usize,
    /// Time of the request.
    pub since: UnixNanos,
    /// The client did not request it: a new topic matches one of its patterns.
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
    /// Number of trades or quotes that the source missed; only with cause `source`.
    pub missing: Option<u64>,
}

impl GapEntry {
    /// Gap of the source: no event of this server is missing.
    pub(super) const fn of_source(slot: SlotId, gap: SourceGap) -> Self {
        Self {
            slot,
            from: gap.after.next(),
            to: gap.after,
            cause: GapCause::Source,
            missing: gap.missing,
        }
    }

    /// The gap of the source, if it is one.
    pub(super) fn source_gap(&self) -> Option<SourceGap> {
        (self.cause == GapCause::Source).then_some(SourceGap {
            after: self.to,
            missing: self.missing,
        })
    }
}

#[derive(Debug)]
pub(super) struct ResumeEntry {
    pub slot: SlotId,
    /// Last event to send, or [`ResumeEntry::OPEN`] until the subscription has caught up.
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
    /// Events of the history.
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

    /// True if the client requested it. Requested data does not count against the client, but
    /// pauses the reading of its requests.
    pub(super) fn is_asked(&self) -> bool {
        match self {
            Self::Event(_) => false,
            Self::Gap(gap) => gap.cause == GapCause::Expired,
            Self::Snapshot(snapshot) => snapshot.epoch.is_none(),
            Self::Resume(_) | Self::Ledger(_) => true,
        }
    }

    /// Memory of the first snapshot of a new topic of a pattern; 0 for other entries.
    fn offered(&self) -> usize {
        match self {
            Self::Snapshot(snapshot) if snapshot.offered => self.cost(),
            _ => 0,
        }
    }

    /// True if an epoch begins with this entry.
    pub(super) fn begins_epoch(&self) -> bool {
        matches!(self, Self::Snapshot(snapshot) if snapshot.epoch.is_some())
    }

    /// Memory in bytes, including the bytes of an event.
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
    entries: BlockDeque<Entry>,
    /// Position of the first entry. Positions are not reused when entries are removed.
    first: u32,
    /// Bytes of the queued events.
    bytes: ByteQueue,
    events: usize,
    /// Memory of requested entries.
    asked: usize,
    unasked: usize,
    /// Share of the requested memory that belongs to snapshots of new topics.
    offered: usize,
    /// Number of entries that begin an epoch.
    epochs: usize,
}

impl SendQueue {
    pub(super) const EMPTY: Self = Self {
        entries: BlockDeque::new(),
        first: 0,
        bytes: ByteQueue::EMPTY,
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

    /// Memory of requested entries in bytes.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Memory of the snapshots of new topics in bytes; it does not pause reading.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    /// Number of entries that begin an epoch.
    pub(super) fn epochs(&self) -> usize {
        self.epochs
    }

    /// Memory of unrequested entries in bytes.
    pub(super) fn cost(&self) -> usize {
        self.bytes.len() + self.events * ENTRY_BYTES + self.unasked
    }

    /// Publication time of the oldest queued event; if `asked_excuses`, only of events before the
    /// first requested entry.
    pub(super) fn oldest(&self, asked_excuses: bool) -> Option<UnixNanos> {
        self.entries
            .iter()
            .take_while(|entry| !(asked_excuses && entry.is_asked()))
            .find_map(|entry| match entry {
                Entry::Event(event) => Some(event.released),
                _ => None,
            })
    }

    /// Queues an event; its age counts from `released`.
    pub(super) fn push_event(
        &mut self,
        slot: SlotId,
        event: &Event,
        released: UnixNanos,
        bytes: &[u8],
    ) {
        self.bytes.push(bytes);
        self.events += 1;
        self.entries.push_back(Entry::Event(EventEntry {
            slot,
            must_keep: event.must_keep(),
            len: bytes.len() as u32,
            seq: event.seq,
            released,
        }));
    }

    /// Appends an entry; returns its position.
    pub(super) fn push(&mut self, entry: Entry) -> u32 {
        debug_assert!(
            !matches!(entry, Entry::Event(_)),
            "an event comes with its bytes"
        );
        self.count(&entry);
        self.entries.push_back(entry);
        self.first.wrapping_add(self.entries.len() as u32 - 1)
    }

    /// Puts back the entry that was removed last; returns its position.
    pub(super) fn push_front(&mut self, entry: Entry) -> u32 {
        self.count(&entry);
        self.entries.push_front(entry);
        self.first = self.first.wrapping_sub(1);
        self.first
    }

    /// Limits the entry at `place`, which reads the history, to events up to `to`.
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

    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
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

    /// Bytes of the event that was removed last; must be called once per event.
    pub(super) fn take_bytes(&mut self, len: u32) -> &[u8] {
        self.bytes.take(len as usize)
    }

    /// Rebuilds the queue: `decide` keeps or drops each entry, in order. Positions restart at 0.
    pub(super) fn rebuild(
        &mut self,
        mut decide: impl FnMut(Entry, &mut BlockDeque<Entry>) -> Verdict,
    ) {
        let mut old = std::mem::replace(self, Self::EMPTY);
        for entry in old.entries {
            let len = match &entry {
                Entry::Event(event) => event.len as usize,
                _ => 0,
            };
            let bytes = old.bytes.take(len);
            // The decider may put other entries first, but they are no events: bytes and events
            // stay in one order.
            if decide(entry, &mut self.entries) == Verdict::Kept && len > 0 {
                self.bytes.push(bytes);
                self.events += 1;
            }
        }
        let kept = std::mem::replace(&mut self.entries, BlockDeque::new());
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
