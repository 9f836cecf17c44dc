//! Following: the bus of a server that reads the log of another one publishes its items
//! unchanged.

use std::sync::Arc;

use super::emit::{Followed, ForeignState};
use super::standby::Standby;
use super::{Bus, SavedOutput};
use crate::log::{Batch, Catalog, LogItem};

impl Bus {
    /// Publishes items that another server has numbered.
    pub(super) fn follow(&mut self, followed: Followed) {
        self.publish();
        let Followed {
            mut items,
            catalog,
            done,
        } = followed;
        let is_continuous = self.apply(&items, &catalog);
        if is_continuous {
            if let Some(standby) = &mut self.standby {
                for item in &items {
                    standby.follow(item, &catalog);
                }
            }
            // Nobody else needs them.
            items.retain(|item| !matches!(item, LogItem::Input { .. }));
            for item in &items {
                if let LogItem::Event(event) = item {
                    let channel = catalog.topic(event.topic).topic.channel;
                    self.metrics.published[channel.index()].inc();
                    self.heritage.tx = self.heritage.tx.max(event.tx);
                }
            }
            self.note_catalog(&catalog);
            self.log.publish(Batch::new(items, catalog));
            self.metrics.log_bytes.set(self.log.bytes() as i64);
        }
        // A send error means that the server is stopping.
        let _stopping = done.send(is_continuous);
    }

    /// Replaces what was followed so far by the state of a log. Returns false if the state
    /// contradicts itself, or if clients could take its epochs for those that they know.
    pub(super) fn restore(&mut self, state: ForeignState) -> bool {
        self.publish();
        let ForeignState {
            origin,
            items,
            catalog,
            tx,
            output,
        } = state;
        let replica = &self.out.replica;
        let is_first = replica.is_empty() && replica.origin() == origin;
        let is_new = replica.origin().origin != origin.origin;
        if is_new && !replica.is_empty() && replica.newest_generation() >= origin.generation {
            return false;
        }
        self.out.forget_topics(origin);
        if !self.apply(&items, &catalog) {
            return false;
        }
        self.stand_by_behind(&items, &catalog, output);
        self.heritage.tx = self.heritage.tx.max(tx);
        self.note_catalog(&catalog);
        if is_first {
            self.log.publish(Batch::new(items, catalog));
        } else {
            // The shards go on from a checkpoint of this state.
            self.interrupt();
        }
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        true
    }

    /// Applies items to the replica as long as they continue its state; returns true if all do.
    fn apply(&mut self, items: &[LogItem], catalog: &Arc<Catalog>) -> bool {
        items.iter().all(|item| {
            let continues = self.out.replica.continues(item, catalog);
            if continues {
                self.out.replica.apply(item, catalog);
            }
            continues
        })
    }

    fn note_catalog(&mut self, catalog: &Arc<Catalog>) {
        self.out.catalog = Arc::clone(catalog);
        self.metrics.topics.set(catalog.listed() as i64);
    }

    /// Goes on deriving what the writer of the log derives, if this server may take over.
    fn stand_by_behind(
        &mut self,
        items: &[LogItem],
        catalog: &Arc<Catalog>,
        output: Option<SavedOutput>,
    ) {
        let Some(standby) = &self.standby else {
            return;
        };
        let mismatches = standby.mismatches();
        let restored = if items.is_empty() {
            Some(Standby::new(mismatches))
        } else {
            output.and_then(|saved| Standby::restored(saved, catalog, mismatches))
        };
        self.standby = restored.map(Box::new);
    }
}
