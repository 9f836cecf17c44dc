//! Subscriptions of a connection: by slot, and by topic.

use std::ops::{Deref, Index, IndexMut};

use super::backlog::Backlogs;
use super::slot::{Slot, SlotMut, SlotRef};
use super::slot_id::SlotId;
use crate::log::TopicId;

/// Largest number of slots that are searched without an index.
const UNINDEXED_MAX: usize = 16;

/// List of slots that most connections do not need: while it is empty, it takes a pointer.
#[derive(Debug)]
pub(super) struct SlotList(
    #[expect(clippy::box_collection, reason = "a vector takes three pointers")]
    Option<Box<Vec<SlotId>>>,
);

impl SlotList {
    pub(super) const EMPTY: Self = Self(None);

    pub(super) fn push(&mut self, slot: SlotId) {
        self.0.get_or_insert_default().push(slot);
    }

    pub(super) fn pop(&mut self) -> Option<SlotId> {
        self.0.as_mut()?.pop()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.0.take_if(|list| list.is_empty());
        if let Some(list) = &mut self.0 {
            list.shrink_to_fit();
        }
    }
}

impl Deref for SlotList {
    type Target = [SlotId];
    fn deref(&self) -> &[SlotId] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }
}

/// Subscriptions of a connection, with the backlogs that some of them have.
#[derive(Debug)]
pub(super) struct Slots {
    list: Vec<Slot>,
    backlogs: Backlogs,
    /// Slots of the subscribed topics, in the order of the topics; empty for few slots.
    index: SlotList,
}

impl Slots {
    pub(super) const EMPTY: Self = Self {
        list: Vec::new(),
        backlogs: Backlogs::EMPTY,
        index: SlotList::EMPTY,
    };

    /// Number of slots, including those of ended subscriptions.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// All slots, including those of ended subscriptions.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.list.iter()
    }

    /// Subscription with its backlog.
    pub(super) fn get(&self, id: SlotId) -> SlotRef<'_> {
        SlotRef {
            slot: &self.list[id.index()],
            backlog: self.backlogs.get(id),
        }
    }

    /// Subscription with its backlog, to change both.
    pub(super) fn get_mut(&mut self, id: SlotId) -> SlotMut<'_> {
        SlotMut {
            slot: &mut self.list[id.index()],
            id,
            backlogs: &mut self.backlogs,
        }
    }

    /// Reserves room for exactly this number of further slots.
    pub(super) fn reserve_exact(&mut self, slots: usize) {
        self.list.reserve_exact(slots);
    }

    /// Adds a subscription, in a free slot if there is one.
    pub(super) fn add(&mut self, free: Option<SlotId>, slot: Slot) -> SlotId {
        let topic = slot.topic;
        let id = match free {
            Some(id) => {
                self.list[id.index()] = slot;
                id
            }
            None => {
                self.list.push(slot);
                SlotId((self.list.len() - 1) as u32)
            }
        };
        if self.list.len() > UNINDEXED_MAX {
            if free.is_none() && self.list.len() == UNINDEXED_MAX + 1 {
                self.build_index();
            } else {
                let place = self.index.partition_point(|held| self[*held].topic < topic);
                let index = self.index.0.get_or_insert_default();
                index.insert(place, id);
            }
        }
        id
    }

    fn build_index(&mut self) {
        let mut index: Vec<SlotId> = self.held().map(|(_, slot)| slot).collect();
        index.sort_unstable_by_key(|slot| self[*slot].topic);
        self.index.0 = Some(Box::new(index));
    }

    /// Ends the subscription in a slot. Returns true if the slot is free.
    pub(super) fn release(&mut self, id: SlotId) -> bool {
        let topic = self[id].topic;
        let place = self.index.partition_point(|held| self[*held].topic < topic);
        if let Some(index) = self
            .index
            .0
            .as_mut()
            .filter(|_| self.list.len() > UNINDEXED_MAX)
        {
            index.remove(place);
        }
        self.get_mut(id).release()
    }

    /// Subscribed topics in the order of the slots.
    fn held(&self) -> impl Iterator<Item = (TopicId, SlotId)> {
        let held = self.list.iter().enumerate();
        held.filter(|(_, slot)| !slot.is_released())
            .map(|(at, slot)| (slot.topic, SlotId(at as u32)))
    }

    /// Subscribed topics in order, each with its slot.
    pub(super) fn subscribed_topics(&self) -> impl ExactSizeIterator<Item = (TopicId, SlotId)> {
        let (mut few, mut found) = ([(TopicId(0), SlotId(0)); UNINDEXED_MAX], 0);
        if self.list.len() <= UNINDEXED_MAX {
            for (place, held) in few.iter_mut().zip(self.held()) {
                *place = held;
                found += 1;
            }
            few[..found].sort_unstable();
        }
        (0..found.max(self.index.len())).map(move |at| match self.index.get(at) {
            Some(slot) => (self[*slot].topic, *slot),
            None => few[at],
        })
    }

    /// Slot of a subscribed topic.
    pub(super) fn slot_of(&self, topic: TopicId) -> Option<SlotId> {
        if self.list.len() <= UNINDEXED_MAX {
            return self.held().find(|held| held.0 == topic).map(|held| held.1);
        }
        let place = self
            .index
            .binary_search_by_key(&topic, |slot| self[*slot].topic);
        Some(self.index[place.ok()?])
    }

    /// Number of events that the accounts of all subscriptions cover.
    pub(super) fn accounted(&self) -> u64 {
        let held = self.list.iter().filter(|slot| !slot.is_released());
        held.map(Slot::accounted).sum()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.list.shrink_to_fit();
        self.backlogs.shrink();
        self.index.shrink();
    }
}

impl Index<SlotId> for Slots {
    type Output = Slot;
    fn index(&self, id: SlotId) -> &Slot {
        &self.list[id.index()]
    }
}

impl IndexMut<SlotId> for Slots {
    fn index_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.list[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Epoch, Mode, OnSlow, Seq, Settings};
    use crate::topic::Kind;

    fn slot(topic: TopicId) -> Slot {
        let settings = Settings {
            mode: Mode::Raw,
            on_slow: OnSlow::Gap,
        };
        let epoch = Epoch {
            origin: 1,
            generation: 0,
        };
        Slot::new(topic, Kind::State, settings, epoch, Seq::START)
    }

    proptest! {
        #[test]
        fn topics_are_found_with_and_without_an_index(
            steps in proptest::collection::vec((0u32..40, any::<bool>(), any::<bool>()), 0..120),
        ) {
            let (mut slots, mut free, mut model) = (Slots::EMPTY, SlotList::EMPTY, BTreeMap::new());
            for (topic, adds, shrinks) in steps.into_iter().map(|(topic, a, b)| (TopicId(topic), a, b)) {
                match slots.slot_of(topic) {
                    None if adds => {
                        let id = slots.add(free.pop(), slot(topic));
                        prop_assert!(model.insert(topic, id).is_none());
                    }
                    Some(id) if !adds => {
                        prop_assert_eq!(model.remove(&topic), Some(id));
                        if slots.release(id) {
                            free.push(id);
                        }
                    }
                    found => prop_assert_eq!(found, model.get(&topic).copied()),
                }
                if shrinks {
                    slots.shrink();
                    free.shrink();
                }
                let listed = slots.subscribed_topics();
                prop_assert_eq!(listed.len(), model.len());
                prop_assert!(listed.eq(model.iter().map(|(topic, slot)| (*topic, *slot))));
            }
        }
    }
}
