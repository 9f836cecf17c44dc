//! Claim of the log: a publisher that stands by becomes its writer.

use std::sync::Arc;

use super::{FollowError, Follower, Heard, RETRY_AFTER, kept_records};
use crate::cluster::append_fault::AppendFault;
use crate::cluster::items::{Lead, lead_body};
use crate::cluster::log_store::NewRecords;
use crate::cluster::record::{Author, ChainFault, Kind, Position, short_sum};
use crate::cluster::repair::{KeptRecords, Repaired, end_of, repair};
use crate::cluster::store::{Last, StoreError};
use crate::log::Catalog;
use crate::market::UnixNanos;
use crate::protocol::Epoch;

/// End of following: this server may write.
#[derive(Debug)]
pub struct Claimed {
    /// Author of the records of this server.
    pub author: Author,
    /// Position behind the record that starts the term.
    pub position: Position,
    /// Epoch in which new topics begin.
    pub origin: Epoch,
    /// True if the log has forgotten records that this server has read: it must begin new epochs.
    pub has_forgotten: bool,
    /// Catalog as of this position.
    pub catalog: Arc<Catalog>,
    /// Newest records of the log.
    pub kept: KeptRecords,
}

/// Number of a node.
fn node_number(name: &str) -> u64 {
    short_sum(&[name.as_bytes()])
}

/// End of the log, which may be claimed.
struct End {
    position: Position,
    has_forgotten: bool,
}

impl Follower {
    /// Follows the log until it is handed over, or silent for the lease, and this server has taken
    /// over.
    pub async fn stand_by(&mut self, live: &mut NewRecords) -> Result<Claimed, FollowError> {
        let node = node_number(&self.settings.node);
        let mut lost_since = None;
        loop {
            let is_own = self.position.number == 0 || self.author.node == node;
            if !is_own && !self.is_handed_over {
                let due = self.clock.now().plus(self.settings.lease);
                if let Heard::Record(record) = self.next(live, due).await? {
                    let taken = self.take_live(*record).await;
                    self.recover(taken).await?;
                    lost_since = None;
                    continue;
                }
            }
            match self.claim(node, &mut lost_since).await {
                Ok(Some(claimed)) => return Ok(claimed),
                Ok(None) => {}
                Err(error) => self.recover(Err(error)).await?,
            }
        }
    }

    /// Starts the next term if the log has not moved on; `None` if it has.
    async fn claim(
        &mut self,
        node: u64,
        lost_since: &mut Option<UnixNanos>,
    ) -> Result<Option<Claimed>, FollowError> {
        let Some(end) = self.end(lost_since).await? else {
            return Ok(None);
        };
        let author = Author {
            term: self.author.term + 1,
            node,
        };
        let lead = Lead {
            origin: self.origin.origin,
            generation: self.origin.generation,
            node: self.settings.node.clone(),
        };
        let (bytes, behind) = author.write(Kind::Lead, end.position, &lead_body(&lead));
        let after = Last::verified(end.position.number);
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
        if end.has_forgotten {
            self.kept = kept_records(&self.settings);
        }
        (self.position, self.author) = (behind, author);
        self.kept.push(behind, bytes);
        self.status.set_term(author.term);
        self.status.advance(behind, self.clock.now());
        Ok(Some(Claimed {
            author,
            position: behind,
            origin: self.origin,
            has_forgotten: end.has_forgotten,
            catalog: Arc::clone(self.unpacker.catalog()),
            kept: std::mem::replace(&mut self.kept, KeptRecords::new(0)),
        }))
    }

    /// End of the log, once this server has read it; `None` if the log has moved on, or must be
    /// asked again.
    async fn end(
        &mut self,
        lost_since: &mut Option<UnixNanos>,
    ) -> Result<Option<End>, FollowError> {
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
            forgotten => return self.end_of_forgotten(forgotten, lost_since).await,
        };
        if last > self.position.number {
            self.read_up_to(last).await?;
            return Ok(None);
        }
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
        Ok(Some(End {
            position: self.position,
            has_forgotten: false,
        }))
    }

    /// Appends the records again that the log has forgotten. If this server does not keep them, and
    /// no other one appends them within the lease, the log ends where it ends now.
    async fn end_of_forgotten(
        &self,
        last: Option<u64>,
        lost_since: &mut Option<UnixNanos>,
    ) -> Result<Option<End>, FollowError> {
        match repair(&*self.store, &self.kept, last).await {
            Repaired::Records(count) => self.status.count_repaired(count),
            Repaired::Unknown => self.pause().await,
            Repaired::Other(number) => return Err(ChainFault::Other(number).into()),
            Repaired::Lost(_) => {
                let now = self.clock.now();
                let since = *lost_since.get_or_insert(now);
                if now.since(since) >= self.settings.lease
                    && let Some(position) = end_of(&*self.store, last, self.position).await
                {
                    return Ok(Some(End {
                        position,
                        has_forgotten: true,
                    }));
                }
                self.pause().await;
            }
        }
        Ok(None)
    }

    async fn pause(&self) {
        let until = self.clock.now().plus(RETRY_AFTER);
        self.clock.sleep_until(until).await;
    }
}
