//! Claim of the log: a publisher that stands by becomes its writer.

use std::sync::Arc;

use super::{FollowError, Follower, Heard, RETRY_AFTER};
use crate::cluster::append_fault::AppendFault;
use crate::cluster::items::{Lead, lead_body};
use crate::cluster::log_store::NewRecords;
use crate::cluster::record::{Author, ChainFault, Kind, Position, short_sum};
use crate::cluster::repair::{KeptRecords, Repaired, repair};
use crate::cluster::settings::ClusterSettings;
use crate::cluster::store::{Last, StoreError};
use crate::log::Catalog;

/// End of following: this server may write.
#[derive(Debug)]
pub struct Claimed {
    /// Author of the records of this server.
    pub author: Author,
    /// Position behind the record that starts the term.
    pub position: Position,
    /// Catalog as of this position.
    pub catalog: Arc<Catalog>,
    /// Newest records of the log.
    pub kept: KeptRecords,
}

/// Number of a node.
fn node_number(name: &str) -> u64 {
    short_sum(&[name.as_bytes()])
}

impl Follower {
    /// Follows the log until it is handed over, or silent for the lease, and this server has taken
    /// over.
    pub async fn stand_by(
        &mut self,
        live: &mut NewRecords,
        settings: &ClusterSettings,
    ) -> Result<Claimed, FollowError> {
        let node = node_number(&settings.node);
        loop {
            let is_own = self.position.number == 0 || self.author.node == node;
            if !is_own && !self.is_handed_over {
                let due = self.clock.now().plus(settings.lease);
                if let Heard::Record(record) = self.next(live, due).await? {
                    self.take_live(*record).await?;
                    continue;
                }
            }
            if let Some(claimed) = self.claim(node, &settings.node).await? {
                return Ok(claimed);
            }
        }
    }

    /// Starts the next term if the log has not moved on; `None` if it has.
    async fn claim(&mut self, node: u64, name: &str) -> Result<Option<Claimed>, FollowError> {
        let last = match self.store.last().await {
            Ok(last) => Some(last),
            Err(StoreError::Lost(_)) => None,
            Err(_) => {
                // Nobody can write while the stream has no leader.
                self.pause().await;
                return Ok(None);
            }
        };
        let last = match last {
            Some(last) if last >= self.position.number => last,
            forgotten => {
                self.repair(forgotten).await?;
                return Ok(None);
            }
        };
        if last > self.position.number {
            self.read_up_to(last).await?;
            return Ok(None);
        }
        let author = Author {
            term: self.author.term + 1,
            node,
        };
        let lead = Lead {
            origin: self.origin,
            node: name.to_owned(),
        };
        let (bytes, behind) = author.write(Kind::Lead, self.position, &lead_body(&lead));
        // The number alone does not say that the log contains this record.
        if last > 0 {
            match self.store.get(last).await {
                Ok(record) if record.sum == self.position.sum => {}
                Ok(_) => return Err(ChainFault::Other(last).into()),
                // It has expired, and nobody has appended another one since.
                Err(StoreError::Gone(_)) => {}
                Err(_) => {
                    self.pause().await;
                    return Ok(None);
                }
            }
        }
        let after = Last::verified(last);
        let sent = match self.store.append(bytes.clone(), behind.sum, after).await {
            Ok(acknowledgement) => acknowledgement.await,
            Err(fault) => Err(fault),
        };
        let is_accepted = match sent {
            Ok(()) => true,
            Err(AppendFault::Refused) => false,
            // A repeated claim has the same bytes.
            Err(AppendFault::Unknown) => match self.store.get(behind.number).await {
                Ok(record) => record.sum == behind.sum,
                Err(_) => return Ok(None),
            },
        };
        if !is_accepted {
            return Ok(None);
        }
        (self.position, self.author) = (behind, author);
        self.kept.push(behind, bytes);
        self.status.set_term(author.term);
        self.status.advance(behind, self.clock.now());
        Ok(Some(Claimed {
            author,
            position: behind,
            catalog: Arc::clone(self.unpacker.catalog()),
            kept: std::mem::replace(&mut self.kept, KeptRecords::new(0)),
        }))
    }

    /// Appends the records again that the log has forgotten.
    async fn repair(&self, last: Option<u64>) -> Result<(), FollowError> {
        match repair(&*self.store, &self.kept, last).await {
            Repaired::Records(count) => self.status.count_repaired(count),
            Repaired::Unknown => self.pause().await,
            Repaired::Lost(number) => return Err(FollowError::Forgotten(number)),
            Repaired::Other(number) => return Err(ChainFault::Other(number).into()),
        }
        Ok(())
    }

    async fn pause(&self) {
        let until = self.clock.now().plus(RETRY_AFTER);
        self.clock.sleep_until(until).await;
    }
}
