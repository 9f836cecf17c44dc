//! Following: the bus of a server that reads the log of another one publishes its items
//! unchanged. A server that has followed can become the writer.

use std::sync::Arc;
use std::time::Duration;

use super::emit::Followed;
use super::{Bus, SourceSpec};
use crate::log::{Batch, InstrumentId, LogItem, Pace};

/// Silence after which an instrument is stale until its source states its own value.
const STALE_AFTER: Duration = Duration::from_secs(60);

impl Bus {
    /// Publishes items that another server has numbered.
    pub(super) fn follow(&mut self, followed: Followed) {
        self.publish();
        let Followed {
            items,
            catalog,
            tx,
            done,
        } = followed;
        let is_continuous = items.iter().all(|item| {
            let continues = self.out.replica.continues(item, &catalog);
            if continues {
                self.out.replica.apply(item, &catalog);
            }
            continues
        });
        if is_continuous {
            self.heritage.tx = self.heritage.tx.max(tx);
            for item in &items {
                if let LogItem::Event(event) = item {
                    let channel = catalog.topic(event.topic).topic.channel;
                    self.metrics.published[channel.index()].inc();
                    self.heritage.tx = self.heritage.tx.max(event.tx);
                }
            }
            self.out.catalog = Arc::clone(&catalog);
            self.metrics.topics.set(catalog.listed() as i64);
            self.log.publish(Batch::new(items, catalog));
            self.metrics.log_bytes.set(self.log.bytes() as i64);
        }
        // A send error means that the server is stopping.
        let _stopping = done.send(is_continuous);
    }

    /// Becomes the writer of all topics: from here on sources emit into this bus. Sources of the
    /// log have no instruments until they begin.
    pub(super) fn lead(&mut self, pace: Arc<Pace>) {
        self.publish();
        // Not earlier than the newest followed event.
        self.out.tx = self.now();
        self.pace = Some(pace);
        if let Some(max) = self.instruments_max {
            self.out.catalog().limit(max);
        }
        let catalog = Arc::clone(&self.out.catalog);
        for (at, name) in catalog.sources().iter().enumerate() {
            let spec = SourceSpec {
                name: Arc::clone(name),
                stale_after: STALE_AFTER,
                is_present: false,
            };
            self.meters.begin(&self.metrics, at, &spec);
            self.derive.add_source();
            self.instruments.push(Vec::new());
            self.sources.push(spec);
        }
        let all = (0..catalog.instruments_len() as u32).map(InstrumentId);
        let removed: Vec<InstrumentId> = all.clone().filter(|id| !catalog.is_there(*id)).collect();
        for id in all {
            self.derive.add(id, catalog.instrument(id), STALE_AFTER);
        }
        self.derive.remove(&removed);
    }
}
