//! Routing: the path of every event from the log to the outboxes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shard;
use super::connection::ConnectionKey;
use super::feed::Feed;
use super::turn_events::last_values_of;
use crate::access::{ChannelSet, Offer, Visible};
use crate::log::{Batch, Catalog, InstrumentId, LogItem, SourceCondition, SourceId, TopicId};
use crate::outbox::{Admitted, Outbox, instrument_entry};
use crate::protocol::{Control, Epoch, LagLevel, Seq, SourceChange, SourceState};

/// Number of connections whose memory is prefetched together.
const FETCHED_AT_ONCE: usize = 16;

/// The topics of instruments.
fn topics_of(catalog: &Catalog, ids: &[InstrumentId]) -> Vec<TopicId> {
    ids.iter()
        .flat_map(|id| catalog.instrument(*id).topics)
        .flatten()
        .collect()
}

impl Shard {
    /// Applies a batch to the replica and gathers its events by topic.
    pub(super) fn route(&mut self, batch: &Arc<Batch>) {
        for (at, item) in batch.items.iter().enumerate() {
            match item {
                LogItem::Event(event) => {
                    self.feed.replica.apply(item, &batch.catalog);
                    if !self.fan_out.registry.of(event.topic).is_empty() {
                        self.fan_out.events.push(batch, at, event);
                    }
                    continue;
                }
                LogItem::Input { .. } => continue,
                // Earlier events are assigned by the subscriptions before this change.
                _ => self.deliver(false),
            }
            match item {
                LogItem::Event(_) | LogItem::Input { .. } => {}
                LogItem::Topics { new, .. } => {
                    self.feed.replica.apply(item, &batch.catalog);
                    let new: Vec<TopicId> = new.clone().map(TopicId).collect();
                    self.offer_topics(&new);
                }
                LogItem::Removed(ids) => {
                    self.feed.replica.apply(item, &batch.catalog);
                    self.end_topics(&topics_of(&batch.catalog, ids));
                }
                LogItem::Returned(ids) => {
                    self.feed.replica.apply(item, &batch.catalog);
                    self.offer_topics(&topics_of(&batch.catalog, ids));
                }
                LogItem::Instruments(ids) => {
                    self.feed.replica.apply(item, &batch.catalog);
                    self.notify_of_instruments(&batch.catalog, ids);
                }
                LogItem::Moved { .. } => self.feed.replica.apply(item, &batch.catalog),
                LogItem::Epoch { topic, epoch } => self.route_epoch(batch, item, *topic, *epoch),
                LogItem::Missed { topic, .. } => self.route_source_gap(batch, item, *topic),
                LogItem::Source { source, condition } => {
                    self.feed.replica.apply(item, &batch.catalog);
                    self.notify_of_source(&batch.catalog, *source, condition);
                }
            }
        }
    }

    /// Delivers the events of the turn to their subscribers, connection by connection. If
    /// `flushes`, each connection is flushed immediately, while its bytes are in the cache.
    pub(super) fn deliver(&mut self, flushes: bool) {
        if self.fan_out.events.is_empty() {
            return;
        }
        let mut order = std::mem::take(&mut self.fan_out.order);
        let rotation = self.fan_out.rotation.next();
        self.fan_out
            .events
            .assign(&self.fan_out.registry, &mut order, |len| {
                rotation.first_of(len)
            });
        for some in order.chunks(FETCHED_AT_ONCE) {
            for key in some {
                self.fetch(*key);
            }
            for key in some {
                self.deliver_one(*key, flushes);
            }
            self.feed.counts.settle(self.feed.config.clock.now());
        }
        order.clear();
        self.fan_out.order = order;
        for (encoding, events) in self.fan_out.events.take_encoded().iter() {
            self.feed.counts.encoded[encoding] += *events;
        }
        self.fan_out.events.clear();
    }

    /// Prefetches the memory that a delivery needs. With thousands of connections it is not in the
    /// cache; fetching several at once waits once instead of once per connection.
    fn fetch(&self, key: ConnectionKey) {
        let (Some(connection), Some(assigned)) =
            (self.connections.get(key), self.fan_out.events.first(key))
        else {
            return;
        };
        let outbox = &connection.outbox;
        std::hint::black_box((
            connection.queued_reported,
            connection.dirty,
            outbox.frames.len(),
            outbox.totals(),
            outbox.slot(assigned.slot).head,
        ));
    }

    fn deliver_one(&mut self, key: ConnectionKey, flushes: bool) {
        let Self {
            fan_out,
            connections,
            feed,
            ..
        } = self;
        let Some(connection) = connections.lend_buffer(key) else {
            return;
        };
        let events = &mut fan_out.events;
        let Feed {
            counts,
            intervals,
            last_values,
            replica,
            config,
            now,
            ..
        } = feed;
        let outbox: &mut Outbox = &mut connection.outbox;
        let encoding = outbox.frames.encoding();
        let mut next = events.take_first(key);
        let (before, oldest) = (
            counts.delivered,
            next.map(|assigned| events.published(assigned.run)),
        );
        while let Some(assigned) = next {
            next = events.after(assigned);
            let run = events.run(assigned.run, encoding);
            if outbox.admit(
                assigned.slot,
                &run,
                *now,
                &config.limits.outbox,
                counts,
                intervals,
            ) == Admitted::Marked
                && events.must_keep(assigned.run, encoding)
            {
                for (event, bytes) in last_values_of(&events.run(assigned.run, encoding)) {
                    last_values.keep(
                        event,
                        replica.epoch(event.topic).generation,
                        encoding,
                        bytes,
                    );
                }
            }
        }
        // The oldest event represents all events of the connection in this turn, mostly of one
        // batch.
        if let Some(oldest) = oldest {
            counts.serve(connection.waited || outbox.level() != LagLevel::Ok);
            counts.delivered_raw(counts.delivered - before, oldest.plus(counts.delay));
        }
        // Subscriptions that wait for their interval need no flush and no buffer yet.
        let is_due = outbox.is_due();
        let is_paced = outbox.has_only_last_values();
        if !is_due || is_paced {
            connections.keep_buffer(key);
        }
        self.arm_intervals(key);
        match (is_due, flushes) {
            (true, true) if is_paced => self.send_in_round(key),
            (true, true) => self.flush_one(key),
            (true, false) => self.connections.mark_dirty(key),
            (false, _) => {}
        }
    }

    /// Begins a new epoch of a topic: pending data of the old epoch first, then the snapshot of the
    /// new one.
    fn route_epoch(&mut self, batch: &Batch, item: &LogItem, topic: TopicId, epoch: Epoch) {
        let subscribers = self.fan_out.registry.of(topic).to_vec();
        for subscriber in &subscribers {
            let Self {
                connections, feed, ..
            } = self;
            let mut view = feed.view();
            connections[subscriber.connection]
                .outbox
                .before_epoch(subscriber.slot, &mut view);
        }
        self.feed.replica.apply(item, &batch.catalog);
        for subscriber in subscribers {
            let connection = &mut self.connections[subscriber.connection];
            connection
                .outbox
                .begin_epoch(subscriber.slot, epoch, Seq::START, None, self.feed.now);
            self.connections.mark_dirty(subscriber.connection);
        }
    }

    /// Reports a gap of the source to the subscribers of a topic, behind the events before it.
    fn route_source_gap(&mut self, batch: &Batch, item: &LogItem, topic: TopicId) {
        let replica = &mut self.feed.replica;
        let known = replica.source_gaps(topic);
        replica.apply(item, &batch.catalog);
        let gaps = replica.source_gaps_since(topic, known);
        for subscriber in self.fan_out.registry.of(topic) {
            let connection = &mut self.connections[subscriber.connection];
            connection.outbox.on_source_gaps(subscriber.slot, gaps);
            self.connections.mark_dirty(subscriber.connection);
        }
    }

    /// Subscribes the clients whose patterns match new topics.
    pub(super) fn offer_topics(&mut self, new: &[TopicId]) {
        let catalog = Arc::clone(self.feed.replica.catalog());
        let mut offer = Offer::new(&catalog, new);
        let waiting: Vec<ConnectionKey> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let peer = &connection.peer;
                peer.session.has_patterns()
                    && connection.closing.is_none()
                    && !offer.to(&peer.principal).is_empty()
            })
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            let connection = &mut self.connections[key];
            let view = crate::session::View {
                replica: &self.feed.replica,
                principal: &connection.peer.principal,
                held: &connection.outbox,
                now: self.feed.now,
            };
            let held = &connection.outbox;
            let new = offer.to(&connection.peer.principal).iter().copied();
            let new = new.filter(|topic| held.slot_of(*topic).is_none());
            let actions = connection.peer.session.on_topics(new, view);
            self.act(key, actions);
        }
    }

    /// Ends topics: notifies their subscribers and removes the subscriptions.
    pub(super) fn end_topics(&mut self, gone: &[TopicId]) {
        let mut concerned: BTreeMap<ConnectionKey, Vec<TopicId>> = BTreeMap::new();
        for topic in gone {
            for subscriber in self.fan_out.registry.of(*topic) {
                let topics = concerned.entry(subscriber.connection).or_default();
                topics.push(*topic);
            }
        }
        for (key, topics) in concerned {
            // Queued events are sent first if the socket accepts them, because the client did not
            // unsubscribe itself.
            self.with_outbox(key, Outbox::fill_frame);
            let connection = &mut self.connections[key];
            let view = crate::session::View {
                replica: &self.feed.replica,
                principal: &connection.peer.principal,
                held: &connection.outbox,
                now: self.feed.now,
            };
            let actions = connection.peer.session.on_removed(&topics, view);
            self.act(key, actions);
        }
    }

    /// Sends changed instruments to the subscribers of their topics.
    fn notify_of_instruments(&mut self, catalog: &Catalog, ids: &[InstrumentId]) {
        for id in ids {
            let info = catalog.instrument(*id);
            let mut concerned: Vec<ConnectionKey> = info
                .topics
                .iter()
                .flatten()
                .flat_map(|topic| self.fan_out.registry.of(*topic))
                .map(|subscriber| subscriber.connection)
                .collect();
            concerned.sort_unstable_by_key(|key| key.0);
            concerned.dedup();
            // Clients that see the same channels share a message.
            let mut changes: BTreeMap<ChannelSet, Arc<Control>> = BTreeMap::new();
            for key in concerned {
                let visible = Visible::new(catalog, &self.connections[key].peer.principal);
                let listed = visible.listed(info);
                let change = changes
                    .entry(listed.channels)
                    .or_insert_with(|| Arc::new(Control::Instrument(instrument_entry(listed))));
                let change = Arc::clone(change);
                self.notify(key, change);
            }
        }
    }

    pub(super) fn notify_of_source(
        &mut self,
        catalog: &Catalog,
        source: SourceId,
        condition: &SourceCondition,
    ) {
        let concerned: Vec<ConnectionKey> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let visible = Visible::new(catalog, &connection.peer.principal);
                connection
                    .outbox
                    .subscribed_topics()
                    .any(|(topic, _)| visible.topic(topic).source == source)
            })
            .map(|(key, _)| key)
            .collect();
        for key in concerned {
            self.notify_source(key, catalog, source, condition);
        }
    }

    /// Notifies a client that subscribes to a topic of a source that is not live, once for each
    /// change of the source.
    pub(super) fn notify_source_at_subscribe(&mut self, key: ConnectionKey, source: SourceId) {
        let conditions = self.feed.replica.sources();
        let condition = conditions.get(source.0 as usize).and_then(Option::as_ref);
        let Some(condition) = condition.filter(|now| now.state != SourceState::Live) else {
            return;
        };
        let known = &self.connections[key].peer.known_sources;
        let known = known
            .iter()
            .any(|known| known.contains(&(source, condition.since)));
        if known {
            return;
        }
        let condition = condition.clone();
        let catalog = Arc::clone(self.feed.replica.catalog());
        self.notify_source(key, &catalog, source, &condition);
    }

    fn notify_source(
        &mut self,
        key: ConnectionKey,
        catalog: &Catalog,
        source: SourceId,
        condition: &SourceCondition,
    ) {
        let peer = &mut self.connections[key].peer;
        let others = peer.known_sources.take();
        let is_down = condition.state != SourceState::Live;
        let known: Vec<_> = others
            .into_iter()
            .flat_map(|others| *others)
            .filter(|(known, _)| *known != source)
            .chain(is_down.then_some((source, condition.since)))
            .collect();
        peer.known_sources = (!known.is_empty()).then(|| Box::new(known));
        let visible = Visible::new(catalog, &peer.principal);
        let change = Control::Source(SourceChange {
            name: visible.source(source).to_owned(),
            state: condition.state,
            since: condition.since.0,
            error: condition.error.as_deref().map(str::to_owned),
        });
        self.notify(key, Arc::new(change));
    }
}
