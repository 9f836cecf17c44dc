//! New origin: all topics begin new epochs behind a record that starts a term. The leading
//! publisher begins one when the log has forgotten records that nobody keeps, and on request.
//!
//! Readers cannot derive the states of the topics from the records before, so a checkpoint has
//! them. It is stored before the record is appended: whoever reads the record finds it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Pending, SentBatch, Uplink};
use crate::bus::WriterState;
use crate::cluster::checkpoint::Place;
use crate::cluster::checkpoints::{BatchEnd, write_one};
use crate::cluster::command::NewOrigin;
use crate::cluster::items::{Lead, Packer, lead_body};
use crate::cluster::record::{Author, Kind, Position};
use crate::cluster::repair::{KeptRecords, end_of};
use crate::cluster::store::{Last, StoreError};
use crate::cluster::uplink::LeadError;
use crate::log::Next;

/// Time limit to store the state with which an origin begins.
const STORED_WITHIN: Duration = Duration::from_secs(10);

/// Outcome of the append of the record that begins an origin.
enum Appended {
    Yes,
    /// The log now ends behind this position.
    Behind(Position),
}

impl Uplink {
    /// Begins new epochs because an operator, or a gateway that has read other records, asks for it.
    /// The log contains everything that was published before.
    pub(super) async fn begin_origin(&mut self, request: NewOrigin) -> Result<(), LeadError> {
        let is_over = request.of.is_some_and(|of| of != self.origin.origin);
        if !is_over {
            if let Err(error) = self.store.open_bucket(&self.settings).await {
                tracing::warn!(%error, "no new epochs: cannot store their checkpoint");
                return Ok(());
            }
            let state = self.interrupt().await?;
            self.append_origin(state, self.verified).await?;
        }
        // A send error means that nobody waits any more.
        let _gone = request.done.send(self.verified.number);
        Ok(())
    }

    /// Begins new epochs behind a log that has forgotten records. What was published and is not in
    /// the log is part of the state with which the epochs begin.
    pub(super) async fn begin_behind_forgotten(&mut self) -> Result<(), LeadError> {
        let until = self.clock.now().plus(STORED_WITHIN);
        while let Err(error) = self.store.open_bucket(&self.settings).await {
            self.status.note_checkpoint_lack(true);
            if self.clock.now() >= until {
                tracing::error!(%error, "cannot store the checkpoint of new epochs");
                return Err(LeadError::Forgotten(self.position.number));
            }
            self.pause().await;
        }
        self.status.note_checkpoint_lack(false);
        self.pending = Pending::new();
        for sent in self.sent.drain(..) {
            if let Some(SentBatch { footprint, .. }) = sent.batch {
                self.pace.done(footprint);
            }
        }
        let (bus, log) = (self.bus.clone(), Arc::clone(&self.log));
        let mut begun = std::pin::pin!(bus.begin_origin(rand::random()));
        // The bus may wait until the batches that it has published are taken.
        let state = loop {
            self.drop_published(log.head());
            tokio::select! {
                state = &mut begun => break state.ok_or(LeadError::Stopping)?,
                () = log.reader(self.reader).notified() => {}
            }
        };
        self.drop_published(state.checkpoint.next);
        let known = self.position;
        let before = loop {
            let last = match self.store.last().await {
                Ok(last) => Some(Some(last)),
                Err(StoreError::Lost(_)) => Some(None),
                Err(_) => None,
            };
            if let Some(last) = last
                && let Some(before) = end_of(&*self.store, last, known).await
            {
                break before;
            }
            self.pause().await;
        };
        self.append_origin(state, before).await?;
        self.has_forgotten = false;
        Ok(())
    }

    /// Passes over published batches before number `next`.
    fn drop_published(&mut self, next: u64) {
        while self.next < next {
            if let Next::Batch(batch) = self.log.read(self.next) {
                self.pace.done(batch.footprint());
            }
            self.next += 1;
        }
    }

    /// Has the bus begin new epochs, and appends everything that it has published before; returns
    /// the state with which the new epochs begin.
    async fn interrupt(&mut self) -> Result<WriterState, LeadError> {
        let (bus, log) = (self.bus.clone(), Arc::clone(&self.log));
        let mut begun = std::pin::pin!(bus.begin_origin(rand::random()));
        let mut state: Option<WriterState> = None;
        self.is_interrupted = true;
        loop {
            self.send_published().await?;
            // The interruption has a number of its own.
            let end = state.as_ref().map(|state| state.checkpoint.next - 1);
            if Some(self.next) == end && self.sent.is_empty() {
                break;
            }
            let (has_state, has_room) = (state.is_some(), self.sent.len() < self.settings.window);
            tokio::select! {
                answer = &mut begun, if !has_state => {
                    state = Some(answer.ok_or(LeadError::Stopping)?);
                }
                Some(acknowledged) = self.pending.next(), if !self.pending.is_empty() => {
                    self.on_acknowledged(acknowledged).await?;
                }
                () = log.reader(self.reader).notified(), if has_room => {}
            }
        }
        state.ok_or(LeadError::Stopping)
    }

    /// Stores the state as a checkpoint, and appends the record that begins its epochs behind
    /// `before`.
    async fn append_origin(
        &mut self,
        state: WriterState,
        mut before: Position,
    ) -> Result<(), LeadError> {
        let origin = state.checkpoint.origin();
        let author = Author {
            term: self.author.term + 1,
            node: self.author.node,
        };
        let lead = Lead {
            origin: origin.origin,
            generation: origin.generation,
            node: self.settings.node.clone(),
        };
        let (bytes, behind) = loop {
            let (bytes, behind) = author.write(Kind::Lead, before, &lead_body(&lead));
            let place = Place {
                origin: origin.origin,
                position: behind,
                author,
            };
            self.store_origin(&state, place).await?;
            match self.append_lead(bytes.clone(), behind, before).await? {
                Appended::Yes => break (bytes, behind),
                Appended::Behind(end) => before = end,
            }
        };
        tracing::warn!(
            record = behind.number,
            epoch = %origin,
            "all topics begin new epochs"
        );
        let next = state.checkpoint.next;
        (self.origin, self.author, self.next) = (origin, author, next);
        (self.position, self.verified) = (behind, behind);
        self.is_interrupted = false;
        self.packer = Packer::new(state.checkpoint.catalog().sources().len());
        self.kept = KeptRecords::new(self.settings.repair);
        self.kept.push(behind, bytes);
        let end = BatchEnd {
            next,
            position: behind,
        };
        self.checkpoints.begin_origin(origin.origin, author, end);
        // The state contains what they have published.
        self.commits.accept(next);
        self.status.set_term(author.term);
        self.status.advance(behind, self.clock.now());
        Ok(())
    }

    /// Stores the state with which an origin begins; repeats it for a while, because readers cannot
    /// go on without it.
    async fn store_origin(&mut self, state: &WriterState, place: Place) -> Result<(), LeadError> {
        let until = self.clock.now().plus(STORED_WITHIN);
        loop {
            let written = write_one(state.clone(), place, &*self.store, &self.settings).await;
            match written {
                Ok(_) => return Ok(()),
                Err(error) if self.clock.now() >= until => {
                    tracing::error!(error, "cannot store the checkpoint of the new epochs");
                    return Err(LeadError::Unstored);
                }
                Err(error) => {
                    tracing::warn!(
                        error,
                        "cannot store the checkpoint of the new epochs; trying again"
                    );
                    self.pause().await;
                }
            }
        }
    }

    async fn append_lead(
        &mut self,
        bytes: Bytes,
        behind: Position,
        before: Position,
    ) -> Result<Appended, LeadError> {
        let after = Last::verified(before.number);
        loop {
            let appended = match self.store.append(bytes.clone(), behind.sum, after).await {
                Ok(acknowledgement) => acknowledgement.await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = appended {
                self.status.count_failed_append(fault);
            } else {
                return Ok(Appended::Yes);
            }
            let last = match self.store.last().await {
                Ok(last) => Some(last),
                Err(StoreError::Lost(_)) => None,
                Err(_) => {
                    self.pause().await;
                    continue;
                }
            };
            match last {
                Some(last) if last == before.number => {}
                Some(last) if last > before.number => match self.store.get(behind.number).await {
                    Ok(record) if record.sum == behind.sum => return Ok(Appended::Yes),
                    Ok(record) => return Err(LeadError::Fenced(record.number)),
                    Err(_) => {}
                },
                // It has forgotten more.
                last => {
                    if let Some(end) = end_of(&*self.store, last, before).await {
                        return Ok(Appended::Behind(end));
                    }
                }
            }
            self.pause().await;
        }
    }
}
