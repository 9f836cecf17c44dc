//! Sequencer: assigns each event the next sequence number of its topic and collects events into
//! batches.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

use super::derive::Publish;
use super::standby::Compared;
use crate::limits::HistoryLimits;
use crate::log::{Catalog, Event, InstrumentId, LogItem, Replica, RestoredTopic, TopicId};
use crate::market::{Body, TradingState, UnixNanos};
use crate::protocol::Epoch;
use crate::topic::Channel;

const NO_HISTORY: HistoryLimits = HistoryLimits {
    events: 0,
    bytes: usize::MAX,
    age: Duration::MAX,
};

/// Assigns sequence numbers and collects events for the next batch.
#[derive(Debug)]
pub(super) struct Sequencer {
    pub(super) replica: Replica,
    pub(super) catalog: Arc<Catalog>,
    pub(super) items: Vec<LogItem>,
    /// Position of the batch's announcement of topics.
    pub(super) topics_at: Option<usize>,
    pub(super) tx: UnixNanos,
    pub(super) published: [u64; Channel::COUNT],
    /// Instruments whose values have more decimals than the catalog states; announced with the
    /// batch.
    grown: HashMap<InstrumentId, (u32, u32)>,
    /// Status topics of instruments whose prices are stale.
    pub(super) stale: HashSet<TopicId>,
    /// Derived events that the log contains already, after a takeover.
    pub(super) logged: Option<Box<Compared>>,
}

impl Publish for Sequencer {
    fn publish(&mut self, topic: TopicId, body: Body) {
        if let Some(logged) = &mut self.logged
            && logged.is_logged(topic, &body)
        {
            return;
        }
        let event = Event {
            topic,
            seq: self.replica.head(topic).next(),
            tx: self.tx,
            body,
        };
        let info = self.catalog.topic(topic);
        self.published[info.topic.channel.index()] += 1;
        if let Body::Status(status) = &event.body {
            match status.state {
                TradingState::Stale => self.stale.insert(topic),
                _ => self.stale.remove(&topic),
            };
        }
        self.push(LogItem::Event(event));
    }
}

impl Sequencer {
    /// Creates an empty sequencer. New topics begin in the epoch `origin`; no event is stamped
    /// earlier than `tx`.
    pub(super) fn new(origin: Epoch, sources: Vec<Arc<str>>, tx: UnixNanos) -> Self {
        Self {
            replica: Replica::new(origin, NO_HISTORY),
            catalog: Arc::new(Catalog::new(sources)),
            items: Vec::new(),
            topics_at: None,
            tx,
            published: [0; Channel::COUNT],
            grown: HashMap::new(),
            stale: HashSet::new(),
            logged: None,
        }
    }

    /// Forgets all topics. New ones begin in the epoch `origin`.
    pub(super) fn forget_topics(&mut self, origin: Epoch) {
        self.replica = Replica::new(origin, NO_HISTORY);
    }

    /// Catalog for modification; `push` the affected topics afterwards.
    pub(super) fn catalog(&mut self) -> &mut Catalog {
        // With a second owner, each change would copy the whole catalog.
        self.replica.release_catalog();
        Arc::make_mut(&mut self.catalog)
    }

    /// Announces new topics. All new topics of a batch form one item: no earlier item of the batch
    /// can refer to them.
    pub(super) fn announce(
        &mut self,
        new: Range<u32>,
        instruments: Vec<InstrumentId>,
        restored: Vec<(TopicId, Arc<RestoredTopic>)>,
    ) {
        let item = LogItem::Topics {
            instruments,
            new,
            restored,
        };
        self.replica.apply(&item, &self.catalog);
        let known = self.topics_at.and_then(|at| self.items.get_mut(at));
        match (known, item) {
            (
                Some(LogItem::Topics {
                    instruments: announced,
                    new: known,
                    restored: before,
                }),
                LogItem::Topics {
                    instruments,
                    new,
                    restored,
                },
            ) => {
                announced.extend(instruments);
                known.end = new.end;
                before.extend(restored);
            }
            (_, item) => {
                self.topics_at = Some(self.items.len());
                self.items.push(item);
            }
        }
    }

    /// Records the number of decimals of a price and its quantity.
    pub(super) fn note_scales(&mut self, id: InstrumentId, px: Decimal, qty: Decimal) {
        let instrument = &self.catalog.instrument(id).instrument;
        let (price, qty) = (px.scale(), qty.scale());
        if price > instrument.price_scale || qty > instrument.qty_scale {
            let grown = self.grown.entry(id).or_default();
            *grown = (grown.0.max(price), grown.1.max(qty));
        }
    }

    /// Updates the descriptions of instruments with more decimals than before: the catalog is
    /// copied once per batch.
    pub(super) fn announce_grown_scales(&mut self) {
        if self.grown.is_empty() {
            return;
        }
        let mut grown: Vec<_> = std::mem::take(&mut self.grown).into_iter().collect();
        grown.sort_by_key(|(id, _)| id.0);
        let catalog = self.catalog();
        for (id, (price, qty)) in &grown {
            catalog.grow_scales(*id, *price, *qty);
        }
        self.push(LogItem::Instruments(
            grown.into_iter().map(|(id, _)| id).collect(),
        ));
    }

    pub(super) fn push(&mut self, item: LogItem) {
        self.replica.apply(&item, &self.catalog);
        self.items.push(item);
    }
}
