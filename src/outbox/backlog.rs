//! Backlogs: numbers of subscriptions that are not up to date, or that have merged or lost events.
//! Most subscriptions have none, so they are beside the slots.

use slab::Slab;

use super::slot_id::SlotId;
use crate::market::UnixNanos;
use crate::protocol::Seq;

/// Numbers that an up-to-date raw subscription does not need.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Number of queued entries.
    pub queued: u32,
    /// While entries are queued: generation of the epoch of the entry queued last.
    pub generation: u32,
    /// During a catch-up: queue position of the entry that reads the history.
    pub resume_at: u32,
    /// The shard was overrun during the catch-up: missing events are reported with cause `bus`.
    pub overran: bool,
    /// While entries are queued: newest event in the queue or before it, in the epoch of the entry
    /// queued last.
    pub tail: Seq,
    /// Number of events replaced by a newer one.
    pub merged: u64,
    /// Number of events reported in gaps.
    pub lost: u64,
    /// Earliest time of the next send in mode `interval`.
    pub next_due: UnixNanos,
}

const _: () = assert!(size_of::<Backlog>() == 48, "a backlog takes 48 bytes");

impl Backlog {
    /// True if it holds only default values.
    pub(super) fn says_nothing(&self) -> bool {
        let Self {
            queued,
            merged,
            lost,
            next_due,
            ..
        } = self;
        (*queued, *merged, *lost, *next_due) == (0, 0, 0, UnixNanos::default())
    }
}

/// Place of a slot without a backlog.
const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Table {
    /// By slot: its place in `backlogs`, or [`NONE`]. Ends with the last slot that has had one.
    places: Vec<u32>,
    backlogs: Slab<Backlog>,
}

/// Backlogs of a connection by slot. Without any, they take no memory.
#[derive(Debug, Default)]
pub(super) struct Backlogs(Option<Box<Table>>);

impl Backlogs {
    pub(super) const EMPTY: Self = Self(None);

    pub(super) fn get(&self, slot: SlotId) -> Option<&Backlog> {
        let table = self.0.as_deref()?;
        table
            .backlogs
            .get(*table.places.get(slot.index())? as usize)
    }

    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Backlog> {
        let Table { places, backlogs } = self.0.as_deref_mut()?;
        backlogs.get_mut(*places.get(slot.index())? as usize)
    }

    /// Backlog of a slot, which it gets if it has none.
    pub(super) fn of(&mut self, slot: SlotId) -> &mut Backlog {
        let Table { places, backlogs } = &mut **self.0.get_or_insert_default();
        if places.len() <= slot.index() {
            places.resize(slot.index() + 1, NONE);
        }
        let place = &mut places[slot.index()];
        if *place == NONE {
            *place = backlogs.insert(Backlog::default()) as u32;
        }
        &mut backlogs[*place as usize]
    }

    /// Releases the backlog of a slot, and with the last one all memory.
    pub(super) fn remove(&mut self, slot: SlotId) {
        let Some(Table { places, backlogs }) = self.0.as_deref_mut() else {
            return;
        };
        let place = places.get_mut(slot.index());
        if let Some(place) = place.map(|place| std::mem::replace(place, NONE)) {
            backlogs.try_remove(place as usize);
        }
        if backlogs.is_empty() {
            self.0 = None;
        }
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        if let Some(table) = &mut self.0 {
            table.places.shrink_to_fit();
            table.backlogs.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_backlog_takes_the_memory_with_it() {
        let mut backlogs = Backlogs::EMPTY;
        assert!(backlogs.get(SlotId(7)).is_none());
        backlogs.remove(SlotId(7));
        assert!(backlogs.0.is_none(), "looking takes no memory");
        for slot in [7, 3, 5] {
            backlogs.of(SlotId(slot)).merged += u64::from(slot);
        }
        backlogs.remove(SlotId(3));
        backlogs.remove(SlotId(3));
        backlogs.of(SlotId(9)).lost = 1;
        let merged = |slot| backlogs.get(SlotId(slot)).map(|backlog| backlog.merged);
        assert_eq!(
            [3, 4, 5, 7, 9, 11].map(merged),
            [None, None, Some(5), Some(7), Some(0), None]
        );
        for slot in [5, 7, 9] {
            assert!(backlogs.0.is_some());
            backlogs.remove(SlotId(slot));
        }
        assert!(backlogs.0.is_none());
    }
}
