//! Recovery of an overrun shard: it requests a checkpoint from the bus and continues from there.

use std::sync::Arc;

use super::Shard;
use super::feed::Restoring;
use crate::log::{Checkpoint, SourceId, TopicId};
use crate::outbox::{Outbox, SlotId, View};
use crate::protocol::Epoch;

impl Shard {
    pub(super) fn on_overrun(&mut self) {
        self.feed.metrics.overruns.inc();
        tracing::warn!(
            shard = self.number,
            "log overrun; requesting a checkpoint from the bus"
        );
        let (bus, next) = (self.feed.bus.clone(), self.feed.next);
        let request = async move { bus.checkpoint_instead_of(next).await };
        self.feed.restoring = Some(Restoring::new(request));
    }

    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) {
        let known = self.feed.replica.sources().to_vec();
        self.each_slot(|outbox, slot, view| {
            let topic = outbox.slot(slot).topic;
            let known = view.replica.epoch(topic);
            if checkpoint.epoch(topic) != known {
                let ended_at = checkpoint.ended_at(topic, known);
                outbox.before_overrun_epoch(slot, ended_at, view);
            }
        });
        let topics = (0..self.feed.replica.len() as u32).map(TopicId);
        let replica = &self.feed.replica;
        let source_gaps: Vec<(Epoch, u64)> = topics
            .map(|topic| (replica.epoch(topic), replica.source_gaps(topic)))
            .collect();
        self.feed.replica.restore(checkpoint);
        self.feed.next = checkpoint.next;
        self.each_slot(|outbox, slot, view| {
            outbox.on_overrun(slot, view);
            let topic = outbox.slot(slot).topic;
            let (epoch, known) = source_gaps[topic.index()];
            if view.replica.epoch(topic) == epoch {
                outbox.on_source_gaps(slot, view.replica.source_gaps_since(topic, known));
            }
        });
        let topics = (0..self.feed.replica.len() as u32).map(TopicId);
        let catalog = self.feed.replica.catalog();
        let (listed, gone): (Vec<_>, Vec<_>) = topics.partition(|topic| catalog.is_listed(*topic));
        self.end_topics(&gone);
        self.offer_topics(&listed);
        let catalog = Arc::clone(self.feed.replica.catalog());
        let states = self.feed.replica.sources().to_vec();
        for (at, state) in states.into_iter().enumerate() {
            let before = known.get(at).and_then(Option::as_ref);
            if let Some(condition) = state.filter(|now| before != Some(now)) {
                self.notify_of_source(&catalog, SourceId(at as u16), &condition);
            }
        }
    }

    /// Applies a change to every subscription of every connection.
    fn each_slot(&mut self, mut change: impl FnMut(&mut Outbox, SlotId, &mut View<'_>)) {
        for key in self.connections.keys() {
            let Self {
                connections, feed, ..
            } = self;
            let Some(connection) = connections.get_mut(key) else {
                continue;
            };
            let mut view = feed.view();
            let slots: Vec<SlotId> = connection
                .outbox
                .subscribed_topics()
                .map(|(_, slot)| slot)
                .collect();
            for slot in slots {
                change(&mut connection.outbox, slot, &mut view);
            }
            self.arm_intervals(key);
            self.connections.mark_dirty(key);
        }
    }
}
