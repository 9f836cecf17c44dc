//! The bus before the rig's shard: events, epochs, overruns.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::Rig;
use crate::log::{Batch, Event, LogItem, TopicId};
use crate::market::{Aggressor, Bar, Body, Interval, Price, Qty, Quote, Trade, TradeId};
use crate::outbox::{Admitted, EventRange, EventRef};
use crate::protocol::Seq;
use crate::topic::Kind;

impl Rig {
    fn event(&mut self, topic: TopicId, closes: bool) -> Event {
        let seq = self.bus.head(topic).next();
        let (ts, px, qty) = (self.now, Price(Decimal::from(seq.0)), Qty(Decimal::ONE));
        let body = match self.catalog.topic(topic).topic.channel.kind() {
            Kind::Event => Body::Trade(Trade {
                ts,
                px,
                qty,
                side: Aggressor::Buy,
                id: TradeId::None,
            }),
            Kind::State => Body::Quote(Quote {
                ts,
                bid: None,
                ask: None,
            }),
            Kind::Bar => {
                let bar = Bar {
                    done: closes,
                    ..Bar::first(self.bar_start, ts, px, qty)
                };
                if closes {
                    self.bar_start = self.bar_start.plus(Interval::S1.span());
                }
                Body::Bar(bar)
            }
        };
        Event {
            topic,
            seq,
            tx: self.now,
            body,
        }
    }

    /// Publishes an event, which the shard sees unless it is being overrun.
    pub(in crate::outbox::tests) fn publish(
        &mut self,
        topic: TopicId,
        closes: bool,
        is_seen: bool,
    ) {
        let event = self.event(topic, closes);
        let item = LogItem::Event(event.clone());
        self.bus.apply(&item, &self.catalog);
        let (text, epoch) = (self.text(topic), self.bus.epoch(topic).to_string());
        self.truth.published(
            text,
            epoch,
            event.seq,
            matches!(&event.body, Body::Bar(bar) if bar.done),
        );
        if !is_seen {
            return;
        }
        self.replica.apply(&item, &self.catalog);
        let Some(slot) = self.outbox.slot_of(topic) else {
            return;
        };
        let batches = [Arc::new(Batch::new(vec![item], Arc::clone(&self.catalog)))];
        let places = [EventRef {
            batch: 0,
            item: 0,
            next: EventRef::END,
        }];
        let joined = batches[0].encode(self.encoding).0.item(0);
        let encoding = self.encoding;
        let run = EventRange {
            batches: &batches,
            places: &places,
            at: 0,
            first: event.seq,
            last: event.seq,
            joined,
            encoding,
        };
        let admitted = self.outbox.admit(
            slot,
            &run,
            self.now,
            &self.limits,
            &mut self.counts,
            &mut self.timers,
        );
        if admitted == Admitted::Marked {
            let generation = self.replica.epoch(topic).generation;
            self.last_values
                .keep(&event, generation, self.encoding, joined);
        }
    }

    /// The source misses one event, which the shard sees unless it is being overrun.
    pub(in crate::outbox::tests) fn miss(&mut self, topic: TopicId, is_seen: bool) {
        let item = LogItem::Missed {
            topic,
            missing: Some(1),
        };
        self.bus.apply(&item, &self.catalog);
        let (text, epoch) = (self.text(topic), self.bus.epoch(topic).to_string());
        let place = (text, epoch, self.bus.head(topic));
        self.truth.source_gaps.insert(place.clone());
        self.truth.missed.push(place);
        if !is_seen {
            return;
        }
        let known = self.replica.source_gaps(topic);
        self.replica.apply(&item, &self.catalog);
        if let Some(slot) = self.outbox.slot_of(topic) {
            let gaps = self.replica.source_gaps_since(topic, known);
            self.outbox.on_source_gaps(slot, gaps);
        }
    }

    /// A topic begins again.
    pub(in crate::outbox::tests) fn new_epoch(&mut self, topic: &str, is_seen: bool) {
        let topic = self.topic(topic);
        let epoch = self.bus.epoch(topic).next();
        let item = LogItem::Epoch { topic, epoch };
        self.bus.apply(&item, &self.catalog);
        if !is_seen {
            return;
        }
        let slot = self.outbox.slot_of(topic);
        if let Some(slot) = slot {
            self.with_view(|outbox, view| outbox.before_epoch(slot, view));
        }
        self.replica.apply(&item, &self.catalog);
        if let Some(slot) = slot {
            self.outbox
                .begin_epoch(slot, epoch, Seq::START, None, self.now);
        }
    }

    /// The shard goes on from a checkpoint, as `Shard::restore` does.
    pub(in crate::outbox::tests) fn restore(&mut self) {
        let catalog = Arc::clone(&self.catalog);
        let checkpoint = self.bus.checkpoint(0, self.now, catalog);
        let held: Vec<_> = self.outbox.subscribed_topics().collect();
        for &(topic, slot) in &held {
            let known = self.replica.epoch(topic);
            if checkpoint.epoch(topic) != known {
                let ended_at = checkpoint.ended_at(topic, known);
                self.with_view(|outbox, view| outbox.before_overrun_epoch(slot, ended_at, view));
            }
        }
        let known = |(topic, _): &(TopicId, _)| {
            let replica = &self.replica;
            (replica.epoch(*topic), replica.source_gaps(*topic))
        };
        let known: Vec<_> = held.iter().map(known).collect();
        self.replica.restore(&checkpoint);
        for ((topic, slot), (epoch, gaps)) in held.into_iter().zip(known) {
            self.with_view(|outbox, view| {
                outbox.on_overrun(slot, view);
                if view.replica.epoch(topic) == epoch {
                    outbox.on_source_gaps(slot, view.replica.source_gaps_since(topic, gaps));
                }
            });
        }
    }
}
