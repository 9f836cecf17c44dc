//! Uplink: appends the batches of the leading publisher to the shared log, several records at a
//! time without waiting for each acknowledgement.

mod new_origin;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;

use super::append_fault::AppendFault;
use super::checkpoints::{BatchEnd, Checkpoints};
use super::command::{Command, Leave};
use super::commits::CommitWriter;
use super::follower::Claimed;
use super::items::Packer;
use super::log_store::{Acknowledgement, LogStore};
use super::record::{Author, Kind, Position, Record};
use super::repair::{KeptRecords, Repaired, repair};
use super::settings::ClusterSettings;
use super::status::ClusterStatus;
use super::store::{Last, StoreError};
use crate::bus::Emitter;
use crate::clock::Clock;
use crate::log::{Log, Next, Pace};
use crate::market::UnixNanos;
use crate::metrics::LocalHistogram;
use crate::protocol::Epoch;

/// Pause before a failed request to NATS is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Reason for which a publisher no longer leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeadError {
    /// Another node has appended to the log.
    #[error("another publisher leads the cluster since record {0}")]
    Fenced(u64),
    /// The log has forgotten a record that this server does not keep any more.
    #[error(
        "the shared log has forgotten record {0}, which this server no longer keeps (cluster.repair)"
    )]
    Forgotten(u64),
    /// The state with which new epochs begin cannot be stored.
    #[error("NATS has not stored the checkpoint of the new epochs")]
    Unstored,
    /// The bus has stopped.
    #[error("the server is stopping")]
    Stopping,
    /// The log of this process no longer contains a batch that was not sent.
    #[error("a batch was dropped before it was appended to the shared log")]
    Overrun,
}

/// Sent record whose acknowledgement is pending.
#[derive(Debug)]
struct Sent {
    position: Position,
    bytes: Bytes,
    at: UnixNanos,
    /// Batch that ends with this record; `None` if more records of it follow.
    batch: Option<SentBatch>,
}

#[derive(Debug, Clone, Copy)]
struct SentBatch {
    /// Number of the batch behind it.
    next: u64,
    /// Memory, in bytes.
    footprint: usize,
}

type Pending = FuturesOrdered<Acknowledgement>;

/// Writer of the shared log.
#[derive(Debug)]
pub struct Uplink {
    store: Arc<dyn LogStore>,
    clock: Clock,
    bus: Emitter,
    settings: ClusterSettings,
    log: Arc<Log>,
    /// Number of this reader of the log.
    reader: usize,
    pace: Arc<Pace>,
    status: Arc<ClusterStatus>,
    /// Epoch in which new topics begin.
    origin: Epoch,
    /// True while new epochs begin: the bus has interrupted the log of this server, or will do so.
    is_interrupted: bool,
    /// True if the log has forgotten records that are not kept: new epochs must begin.
    has_forgotten: bool,
    author: Author,
    /// Position behind the last sent record.
    position: Position,
    /// Newest record of this server that the log contains.
    verified: Position,
    packer: Packer,
    append_times: LocalHistogram,
    /// Number of the next batch.
    next: u64,
    sent: VecDeque<Sent>,
    pending: Pending,
    /// Newest records that NATS has acknowledged.
    kept: KeptRecords,
    checkpoints: Checkpoints,
    commits: CommitWriter,
    commands: mpsc::Receiver<Command>,
}

/// Parts of the server that an uplink uses.
#[derive(Debug)]
pub struct UplinkParts {
    /// The shared log.
    pub store: Arc<dyn LogStore>,
    /// The clock of the server.
    pub clock: Clock,
    /// The bus of the server.
    pub bus: Emitter,
    /// The log of this server.
    pub log: Arc<Log>,
    /// Number of the uplink among the readers of the log.
    pub reader: usize,
    /// Bound of the batches that are not acknowledged.
    pub pace: Arc<Pace>,
    /// State of the server in the cluster.
    pub status: Arc<ClusterStatus>,
    /// Requests to the uplink.
    pub commands: mpsc::Receiver<Command>,
}

impl Uplink {
    /// Creates a writer behind a claimed position; `first` is the number of the first batch to
    /// append.
    pub fn new(
        parts: UplinkParts,
        settings: &ClusterSettings,
        claimed: Claimed,
        first: u64,
    ) -> Self {
        let UplinkParts {
            store,
            clock,
            bus,
            log,
            reader,
            pace,
            status,
            commands,
        } = parts;
        let end = BatchEnd {
            next: first,
            position: claimed.position,
        };
        let checkpoints = Checkpoints::new(
            (clock, bus.clone(), Arc::clone(&store), Arc::clone(&status)),
            settings,
            (claimed.origin.origin, claimed.author),
            end,
        );
        Self {
            store,
            clock,
            bus,
            settings: settings.clone(),
            log,
            reader,
            pace,
            append_times: status.append_times(),
            commits: status.begin_term(claimed.author.term, first),
            status,
            origin: claimed.origin,
            is_interrupted: false,
            has_forgotten: claimed.has_forgotten,
            author: claimed.author,
            position: claimed.position,
            verified: claimed.position,
            packer: Packer::new(claimed.catalog.sources().len()),
            kept: claimed.kept,
            next: first,
            sent: VecDeque::new(),
            pending: Pending::new(),
            checkpoints,
            commands,
        }
    }

    /// Appends batches until this server leaves, or another node leads.
    pub async fn run(mut self) -> Result<(), LeadError> {
        loop {
            if self.has_forgotten {
                Box::pin(self.begin_behind_forgotten()).await?;
            }
            match self.lead().await {
                Ok(leave) => return self.leave(leave).await,
                Err(LeadError::Forgotten(record)) => {
                    tracing::error!(
                        record,
                        "the shared log has forgotten records that this server no longer keeps (cluster.repair)"
                    );
                    self.has_forgotten = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn lead(&mut self) -> Result<Leave, LeadError> {
        let tick = self.settings.tick;
        let mut tick_due = self.clock.now().plus(tick);
        let (log, reconnected) = (Arc::clone(&self.log), Arc::clone(self.store.reconnected()));
        loop {
            self.report();
            if self.send_published().await? {
                tick_due = self.clock.now().plus(tick);
            }
            let new_batch = log.reader(self.reader).notified();
            // Rare ones first: acknowledgements may arrive without end.
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => match command {
                    Command::Checkpoint(asker) => self.checkpoints.request(asker),
                    Command::NewOrigin(request) => {
                        Box::pin(self.begin_origin(request)).await?;
                    }
                    Command::Leave(leave) => return Ok(leave),
                },
                () = reconnected.notified() => {
                    if !self.sent.is_empty() {
                        self.resolve(AppendFault::Unknown).await?;
                    }
                }
                () = self.checkpoints.step() => {}
                acknowledged = self.pending.next(), if !self.pending.is_empty() => {
                    self.on_acknowledged(acknowledged.unwrap_or(Err(AppendFault::Unknown))).await?;
                }
                () = new_batch, if self.sent.len() < self.settings.window => {}
                () = self.clock.sleep_until(tick_due) => {
                    if self.sent.is_empty() {
                        self.send(Kind::Tick, &[], None).await?;
                    }
                    tick_due = self.clock.now().plus(tick);
                }
            }
        }
    }

    /// Sends the published batches while the window has room; returns true if there were some.
    async fn send_published(&mut self) -> Result<bool, LeadError> {
        let first = self.next;
        while self.sent.len() < self.settings.window {
            match self.log.read(self.next) {
                Next::Batch(batch) => {
                    self.next += 1;
                    let bodies = self.packer.pack(&batch);
                    self.send_batch(&bodies, batch.footprint()).await?;
                }
                Next::Empty => break,
                Next::Overrun if self.is_interrupted => break,
                Next::Overrun => return Err(LeadError::Overrun),
            }
        }
        Ok(self.next > first)
    }

    /// Appends the rest of the batches of a bus that has stopped, hands the log over, and stores the
    /// last checkpoint.
    async fn leave(mut self, leave: Leave) -> Result<(), LeadError> {
        self.drain().await?;
        self.send(Kind::Handover, &[], None).await?;
        self.drain().await?;
        self.status.set_following();
        // A send error means that nobody waits for it any more.
        let _gone = leave.done.send(self.position.number);
        self.checkpoints.finish(leave.state).await;
        Ok(())
    }

    /// Waits until the log contains all published batches.
    async fn drain(&mut self) -> Result<(), LeadError> {
        loop {
            self.send_published().await?;
            match self.pending.next().await {
                Some(acknowledged) => self.on_acknowledged(acknowledged).await?,
                None => return Ok(()),
            }
        }
    }

    async fn send_batch(&mut self, bodies: &[Bytes], footprint: usize) -> Result<(), LeadError> {
        if bodies.is_empty() {
            self.pace.done(footprint);
        }
        let next = self.next;
        for (at, body) in bodies.iter().enumerate() {
            let is_last = at + 1 == bodies.len();
            let batch = is_last.then_some(SentBatch { next, footprint });
            self.send(Kind::Items, body, batch).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        kind: Kind,
        body: &[u8],
        batch: Option<SentBatch>,
    ) -> Result<(), LeadError> {
        let last = self.last(self.position);
        let (bytes, behind) = self.author.write(kind, self.position, body);
        self.position = behind;
        self.sent.push_back(Sent {
            position: behind,
            bytes: bytes.clone(),
            at: self.clock.now(),
            batch,
        });
        match self.store.append(bytes, behind.sum, last).await {
            Ok(acknowledgement) => self.pending.push_back(acknowledgement),
            Err(fault) => self.resolve(fault).await?,
        }
        Ok(())
    }

    /// Record behind which the next one is appended.
    fn last(&self, position: Position) -> Last {
        Last {
            number: position.number,
            unverified: (position != self.verified).then_some(position.sum),
        }
    }

    async fn on_acknowledged(&mut self, outcome: Result<(), AppendFault>) -> Result<(), LeadError> {
        match outcome {
            Ok(()) => {
                self.accept_first();
                Ok(())
            }
            Err(fault) => self.resolve(fault).await,
        }
    }

    /// Removes the first sent record, which the log contains.
    fn accept_first(&mut self) {
        if let Some(sent) = self.sent.pop_front() {
            let now = self.clock.now();
            self.append_times.time(now.since(sent.at));
            self.append_times.hand_over();
            self.verified = sent.position;
            self.status.advance(sent.position, now);
            self.kept.push(sent.position, sent.bytes);
            if let Some(SentBatch { next, footprint }) = sent.batch {
                self.pace.done(footprint);
                self.commits.accept(next);
                let position = sent.position;
                self.checkpoints.accept(BatchEnd { next, position });
            }
        }
    }

    fn report(&self) {
        let (records, bytes) = (self.sent.len(), self.pace.bytes());
        self.status.report_unsent(records, bytes);
    }

    /// After a refusal, a missing answer or a new connection: reads what the log really contains,
    /// and sends the rest again.
    async fn resolve(&mut self, fault: AppendFault) -> Result<(), LeadError> {
        tracing::warn!(
            ?fault,
            records = self.sent.len(),
            "append to the shared log failed; reading what it contains"
        );
        self.status.count_failed_append(fault);
        // What is still on its way arrives at the number that it was sent for, or never: a record
        // that is sent again is in the log once.
        self.pending = Pending::new();
        while !self.take_accepted().await? {
            self.report();
            self.pause().await;
        }
        self.send_again().await
    }

    /// Removes the sent records that the log contains; returns false if NATS does not answer.
    async fn take_accepted(&mut self) -> Result<bool, LeadError> {
        let last = match self.store.last().await {
            Ok(last) => Some(last),
            Err(StoreError::Lost(_)) => None,
            Err(_) => return Ok(false),
        };
        let last = match last {
            Some(last) if last >= self.verified.number => last,
            forgotten => return self.repair(forgotten).await,
        };
        match self.store.get(self.verified.number).await {
            Ok(record) if record.sum == self.verified.sum => {}
            Ok(other) => return Err(self.replaced_by(&other)),
            Err(StoreError::Record(_)) => {
                return Err(LeadError::Forgotten(self.verified.number));
            }
            // It has expired, and nobody has appended another one since.
            Err(StoreError::Gone(_)) => {}
            Err(_) => return Ok(false),
        }
        while let Some(first) = self.sent.front() {
            let Position { number, sum } = first.position;
            if number > last {
                return Ok(true);
            }
            match self.store.get(number).await {
                Ok(record) if record.sum == sum => self.accept_first(),
                Ok(_) => return Err(LeadError::Fenced(number)),
                Err(_) => return Ok(false),
            }
        }
        if last > self.position.number {
            return Err(LeadError::Fenced(self.position.number + 1));
        }
        Ok(true)
    }

    /// Appends the records again that the log has forgotten; returns false, because the log must be
    /// read again.
    async fn repair(&mut self, last: Option<u64>) -> Result<bool, LeadError> {
        match repair(&*self.store, &self.kept, last).await {
            Repaired::Records(count) => self.status.count_repaired(count),
            Repaired::Unknown => {}
            Repaired::Lost(number) => return Err(LeadError::Forgotten(number)),
            Repaired::Other(number) => {
                if let Ok(other) = self.store.get(number).await {
                    return Err(self.replaced_by(&other));
                }
            }
        }
        Ok(false)
    }

    /// Meaning of another record than the one that this server has appended or read.
    fn replaced_by(&self, other: &Record) -> LeadError {
        if other.term > self.author.term {
            LeadError::Fenced(other.number)
        } else {
            // No publisher has appended it behind the records of this server.
            LeadError::Forgotten(other.number)
        }
    }

    async fn send_again(&mut self) -> Result<(), LeadError> {
        let mut failed = false;
        let mut before = self.verified;
        for sent in &self.sent {
            let (bytes, last) = (sent.bytes.clone(), self.last(before));
            before = sent.position;
            let outcome = self.store.append(bytes, before.sum, last).await;
            match outcome {
                Ok(acknowledgement) => self.pending.push_back(acknowledgement),
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        if failed {
            Box::pin(self.resolve(AppendFault::Unknown)).await?;
        }
        Ok(())
    }

    /// Waits before a failed request is repeated.
    async fn pause(&mut self) {
        let until = self.clock.now().plus(RETRY_AFTER);
        self.clock.sleep_until(until).await;
    }
}
