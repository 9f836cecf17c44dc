//! Subscribers of each topic, as flat lists of (connection, slot).

use super::connection::ConnectionKey;
use crate::log::TopicId;
use crate::outbox::SlotId;

/// One subscription of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber {
    /// Connection of the subscription.
    pub connection: ConnectionKey,
    /// Slot of the subscription.
    pub slot: SlotId,
}

/// Subscribers by topic.
#[derive(Debug, Default)]
pub struct Registry {
    topics: Vec<Vec<Subscriber>>,
}

impl Registry {
    /// The subscribers of a topic, in no particular order.
    pub fn of(&self, topic: TopicId) -> &[Subscriber] {
        self.topics.get(topic.index()).map_or(&[], Vec::as_slice)
    }

    /// Adds a subscriber; returns its index, which its slot must store.
    pub fn add(&mut self, topic: TopicId, subscriber: Subscriber) -> u32 {
        if self.topics.len() <= topic.index() {
            self.topics.resize_with(topic.index() + 1, Vec::new);
        }
        let list = &mut self.topics[topic.index()];
        list.push(subscriber);
        (list.len() - 1) as u32
    }

    /// Removes the subscriber at `place`; returns the one that was moved there and must be updated.
    pub fn remove(&mut self, topic: TopicId, place: u32) -> Option<Subscriber> {
        let list = &mut self.topics[topic.index()];
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        if list.is_empty() {
            *list = Vec::new();
        }
        moved
    }
}
