//! From the log to the outboxes: the way of every event.

use std::ops::Range;

use super::connection::ConnectionKey;
use super::outbox::{Admitted, Outbox, View};
use super::turn::Shard;
use crate::bus::{Batch, Catalog, Event, LogItem, SourceId, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{Control, Encoding, Epoch, SourceChange, SourceState, encode_control};

impl Shard {
    /// Takes a batch into the replica and to everyone who listens.
    pub(super) fn route(&mut self, batch: &Batch) {
        for (at, item) in batch.items.iter().enumerate() {
            match item {
                LogItem::Event(event) => {
                    self.replica.apply(item, &batch.catalog);
                    if !self.registry.of(event.topic).is_empty() {
                        self.route_event(batch, at, event);
                    }
                }
                LogItem::Topics(new) => {
                    self.replica.apply(item, &batch.catalog);
                    self.offer_topics(new.clone());
                }
                LogItem::Epoch { topic, epoch } => self.route_epoch(batch, item, *topic, *epoch),
                LogItem::Source { source, state, since } => {
                    self.replica.apply(item, &batch.catalog);
                    self.tell_source(&batch.catalog, *source, *state, *since);
                }
            }
        }
    }

    fn route_event(&mut self, batch: &Batch, at: usize, event: &Event) {
        let Self { registry, connections, newest, replica, dirty, pool, pool_bytes, intervals, timers, metrics, config, .. } = self;
        let mut bytes: [Option<&[u8]>; 2] = [None, None];
        let mut marked = [false; 2];
        let wire_max = 2 * config.outbox.frame;
        for subscriber in registry.of(event.topic) {
            let key = subscriber.connection;
            let connection = &mut connections[key.0 as usize];
            let outbox: &mut Outbox = &mut connection.outbox;
            let encoding = outbox.wire.encoding();
            let bytes = *bytes[encoding.index()].get_or_insert_with(|| batch.encoded(encoding, metrics).item(at));
            Self::lend_buffer(&mut outbox.wire, pool, pool_bytes);
            if outbox.admit(subscriber.slot, event, bytes, self.now, wire_max, intervals) == Admitted::Marked {
                marked[encoding.index()] = true;
            }
            // What waits for its interval needs no flush yet, and no buffer.
            if !outbox.is_due() {
                Self::keep_buffer(&mut outbox.wire, pool, pool_bytes);
            } else if !std::mem::replace(&mut connection.dirty, true) {
                dirty.push(key);
            }
            for (at, slot) in intervals.drain(..) {
                let generation = connection.generation;
                timers.push(super::timers::Timer { at, connection: key, generation, due: super::timers::Due::Interval(slot) });
            }
        }
        let turn = replica.epoch(event.topic).turn;
        for encoding in Encoding::ALL {
            if let (true, Some(bytes)) = (marked[encoding.index()], bytes[encoding.index()]) {
                newest.keep(event, turn, encoding, bytes);
            }
        }
    }

    /// A topic begins again: what waits of the old epoch first, then the snapshot of the new one.
    fn route_epoch(&mut self, batch: &Batch, item: &LogItem, topic: TopicId, epoch: Epoch) {
        let subscribers = self.registry.of(topic).to_vec();
        for subscriber in &subscribers {
            let Self { connections, replica, newest, config, metrics, intervals, .. } = self;
            let mut view = View { replica, newest, limits: &config.outbox, metrics, now: self.now, timers: intervals };
            connections[subscriber.connection.0 as usize].outbox.before_epoch(subscriber.slot, &mut view);
        }
        self.replica.apply(item, &batch.catalog);
        for subscriber in subscribers {
            let connection = &mut self.connections[subscriber.connection.0 as usize];
            connection.outbox.begin_epoch(subscriber.slot, epoch, 0, None);
            self.mark_dirty(subscriber.connection);
        }
    }

    /// Topics have appeared: clients whose patterns mean them hold them now.
    pub(super) fn offer_topics(&mut self, new: Range<u32>) {
        let waiting: Vec<ConnectionKey> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.session.has_patterns() && connection.closing.is_none())
            .map(|(key, _)| ConnectionKey(key as u32))
            .collect();
        for key in waiting {
            let connection = &mut self.connections[key.0 as usize];
            let view = crate::session::View { replica: &self.replica, held: &connection.outbox, now: self.now };
            let held = &connection.outbox;
            let new = new.clone().map(TopicId).filter(|topic| held.slot_of(*topic).is_none());
            let actions = connection.session.on_topics(new, view);
            self.act(key, actions);
        }
    }

    pub(super) fn tell_source(&mut self, catalog: &Catalog, source: SourceId, state: SourceState, since: UnixNanos) {
        let change = SourceChange { name: catalog.source(source).to_string(), state, since: since.0 };
        let concerned: Vec<ConnectionKey> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.outbox.held().iter().any(|(topic, _)| catalog.topic(*topic).source == source))
            .map(|(key, _)| ConnectionKey(key as u32))
            .collect();
        for key in concerned {
            self.notice(key, |encoding| encode_control(&Control::Source(change.clone()), encoding));
        }
    }
}
