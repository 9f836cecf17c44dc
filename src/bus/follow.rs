//! Following: the bus of a server that reads the log of another one publishes its items
//! unchanged.

use std::sync::Arc;

use super::emit::Followed;
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
            tx,
            output,
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
            self.derive_followed(&items, &catalog, output);
            // Nobody else needs them.
            items.retain(|item| !matches!(item, LogItem::Input { .. }));
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

    /// Derives what the writer of these items has derived, if this server may take over.
    fn derive_followed(
        &mut self,
        items: &[LogItem],
        catalog: &Arc<Catalog>,
        output: Option<SavedOutput>,
    ) {
        let Some(standby) = &mut self.standby else {
            return;
        };
        let is_restored = items.iter().any(|item| match item {
            LogItem::Topics { restored, .. } => !restored.is_empty(),
            _ => false,
        });
        if output.is_some() || is_restored {
            let mismatches = standby.mismatches();
            let restored = output.and_then(|saved| Standby::restored(saved, catalog, mismatches));
            self.standby = restored.map(Box::new);
            return;
        }
        for item in items {
            standby.follow(item, catalog);
        }
    }
}
