//! Follower: reads the shared log and publishes its items on this server. A gateway follows for
//! ever; a publisher follows until it takes over.

mod claim;
mod rebuild;

pub use claim::Claimed;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::checkpoint::LogCheckpoint;
use super::items::{ItemFault, Unpacker, read_lead};
use super::log_store::{LogStore, NewRecords};
use super::record::{Author, ChainFault, Kind, Position, Record, RecordFault};
use super::repair::KeptRecords;
use super::settings::{ClusterSettings, Role};
use super::start::NoStart;
use super::status::ClusterStatus;
use super::store::StoreError;
use crate::bus::Emitter;
use crate::clock::Clock;
use crate::log::{LogItem, SourceCondition, SourceId};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, SourceState};
use rebuild::RecentSums;

/// Records of a request to the log.
const READ_AT_ONCE: u64 = 128;
/// Requests for records that are on their way.
const READS_AHEAD: usize = 2;
/// Pause before a failed request to NATS is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Reason for which a server cannot follow the log any more.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A request to NATS failed for good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record follows another record than the one that was read: the log was replaced.
    #[error(transparent)]
    Chain(#[from] ChainFault),
    /// The body of a record cannot be applied.
    #[error("record {0}: {1}")]
    Item(u64, ItemFault),
    /// A record contradicts the state of a topic.
    #[error("record {0} contradicts the sequence numbers of the records before it")]
    Contradiction(u64),
    /// The log contains another record with a number that was read before.
    #[error("the shared log contains another record {0} than the one that was read")]
    Diverged(u64),
    /// The log is another one.
    #[error("the shared log is another one, whose epochs do not follow those that clients know")]
    OtherLog,
    /// The catalog of a checkpoint has other numbers than that of the clients.
    #[error("the checkpoint behind record {0} has another catalog; clients must connect again")]
    Catalog(u64),
    /// There is no point from which the log can be read.
    #[error(transparent)]
    Start(#[from] NoStart),
    /// The epochs of the log start over.
    #[error("record {0} begins the log anew, with other epochs")]
    Origin(u64),
    /// The connection to NATS ended.
    #[error("the connection to NATS is closed")]
    Closed,
    /// The bus has stopped.
    #[error("the server is stopping")]
    Stopping,
}

/// Reader of the shared log.
#[derive(Debug)]
pub struct Follower {
    store: Arc<dyn LogStore>,
    clock: Clock,
    bus: Emitter,
    status: Arc<ClusterStatus>,
    settings: ClusterSettings,
    /// Epoch in which new topics begin.
    origin: Epoch,
    position: Position,
    /// Author of the last record.
    author: Author,
    /// True if the last record hands the log over.
    is_handed_over: bool,
    unpacker: Unpacker,
    /// By source: condition according to the log.
    conditions: Vec<Option<SourceCondition>>,
    /// True while the sources are reported as reconnecting because the log is silent.
    is_silent: bool,
    /// Silence after which the sources are reported as reconnecting; `None`: never.
    stale_after: Option<Duration>,
    /// Newest records.
    kept: KeptRecords,
    /// Checksums of the newest records.
    sums: RecentSums,
}

impl Follower {
    /// Creates a reader at the start of the log. A publisher keeps the newest records, with which it
    /// can repair the log once it may write.
    pub fn new(
        store: Arc<dyn LogStore>,
        clock: Clock,
        bus: Emitter,
        status: Arc<ClusterStatus>,
        origin: Epoch,
        settings: ClusterSettings,
    ) -> Self {
        Self {
            store,
            clock,
            bus,
            status,
            kept: kept_records(&settings),
            settings,
            origin,
            position: Position::default(),
            author: Author { term: 0, node: 0 },
            is_handed_over: false,
            unpacker: Unpacker::default(),
            conditions: Vec::new(),
            is_silent: false,
            stale_after: None,
            sums: RecentSums::default(),
        }
    }

    /// Goes on from a checkpoint instead of the start of the log.
    pub async fn restore(&mut self, checkpoint: LogCheckpoint) -> Result<(), FollowError> {
        let place = checkpoint.place;
        self.restore_bus(checkpoint.state(), place.position.number)
            .await?;
        self.origin = checkpoint.origin();
        self.unpacker = Unpacker::behind(checkpoint.catalog);
        self.conditions = checkpoint.conditions;
        (self.position, self.author) = (place.position, place.author);
        self.is_handed_over = false;
        self.kept = kept_records(&self.settings);
        self.sums = RecentSums::default();
        self.status.set_term(place.author.term);
        self.status.advance(place.position, self.clock.now());
        Ok(())
    }

    /// Reads the log up to its present end; returns the subscription to what follows.
    pub async fn start(&mut self) -> Result<NewRecords, FollowError> {
        let live = self.store.subscribe().await?;
        let last = self.store.last().await?;
        loop {
            let read = self.read_up_to(last).await;
            let is_over = read.is_ok();
            self.recover(read).await?;
            if is_over {
                return Ok(live);
            }
        }
    }

    /// Follows the log for ever. While the log is silent for longer than `stale_after`, the
    /// sources are reported as reconnecting.
    pub async fn follow(
        &mut self,
        live: &mut NewRecords,
        stale_after: Duration,
    ) -> Result<(), FollowError> {
        self.stale_after = Some(stale_after);
        let mut heard = self.clock.now();
        loop {
            match self.next(live, heard.plus(stale_after)).await? {
                Heard::Record(record) => {
                    let before = self.position;
                    let taken = self.take_live(*record).await;
                    self.recover(taken).await?;
                    if self.position == before {
                        continue;
                    }
                    self.end_silence().await?;
                }
                Heard::Silence => {
                    let read = self.on_silence().await;
                    self.recover(read).await?;
                }
            }
            heard = self.clock.now();
        }
    }

    /// Next record, or silence until `due`.
    async fn next(&self, live: &mut NewRecords, due: UnixNanos) -> Result<Heard, FollowError> {
        loop {
            tokio::select! {
                biased;
                copy = live.next() => {
                    let copy = copy.ok_or(FollowError::Closed)?;
                    match Record::read(&copy) {
                        Ok(record) => return Ok(Heard::Record(Box::new(record))),
                        // The stream contains the record whose copy is damaged.
                        Err(fault) => ignore(fault),
                    }
                }
                () = self.clock.sleep_until(due) => return Ok(Heard::Silence),
            }
        }
    }

    /// Takes a record of the subscription, after those that the subscription has lost.
    async fn take_live(&mut self, record: Record) -> Result<(), FollowError> {
        if let Err(ChainFault::Hole(from, to)) = self.position.check(&record) {
            tracing::debug!(from, to, "reading missing records from the stream");
            self.status.count_hole();
            self.read_up_to(to).await?;
            if let Err(ChainFault::Hole(..)) = self.position.check(&record) {
                // The log has forgotten them, and perhaps this record.
                return Ok(());
            }
        }
        let taken = self.take(&record).await;
        if let Err(FollowError::Diverged(_) | FollowError::Chain(_)) = &taken
            && !self.is_in_log(&record).await
        {
            tracing::warn!(
                record = record.number,
                "ignoring a record that the log does not contain"
            );
            return Ok(());
        }
        taken
    }

    /// Reads records from the stream up to `last`, or to its end if it has forgotten some.
    async fn read_up_to(&mut self, last: u64) -> Result<(), FollowError> {
        let (store, clock) = (Arc::clone(&self.store), self.clock);
        let numbers = self.position.number + 1..=last;
        let begins = stream::iter(numbers.step_by(READ_AT_ONCE as usize));
        let range = |first| (first, last.min(first + READ_AT_ONCE - 1));
        let mut ranges = std::pin::pin!(
            begins
                .map(|first| read_range(&*store, clock, range(first)))
                .buffered(READS_AHEAD)
        );
        loop {
            let stale_after = self.stale_after.filter(|_| !self.is_silent);
            let silent_at = self.clock.now().plus(stale_after.unwrap_or_default());
            tokio::select! {
                biased;
                range = ranges.next() => {
                    let Some(Range { records, end }) = range else {
                        return Ok(());
                    };
                    for record in records {
                        self.status.count_fetched();
                        self.take(&record).await?;
                    }
                    if end? == End::Forgotten {
                        return Ok(());
                    }
                }
                () = self.clock.sleep_until(silent_at), if stale_after.is_some() => {
                    self.report_silence().await?;
                }
            }
        }
    }

    /// Applies the next record; one that was applied before is skipped.
    async fn take(&mut self, record: &Record) -> Result<(), FollowError> {
        match self.position.check(record) {
            Ok(()) => {}
            Err(ChainFault::Known(number)) if self.is_other(record) => {
                return Err(FollowError::Diverged(number));
            }
            Err(ChainFault::Known(_)) => return Ok(()),
            Err(fault) => return Err(fault.into()),
        }
        let number = record.number;
        let fault = |fault| FollowError::Item(number, fault);
        match record.kind {
            Kind::Lead => {
                let lead = read_lead(&record.body).map_err(fault)?;
                if lead.origin != self.origin.origin {
                    return Err(FollowError::Origin(number));
                }
                tracing::info!(
                    term = record.term,
                    node = lead.node,
                    "node leads the cluster"
                );
                self.status.set_term(record.term);
            }
            Kind::Tick => {}
            Kind::Handover => {
                tracing::info!(term = record.term, "the leader hands the cluster over");
            }
            Kind::Items => {
                let items = self.unpacker.unpack(&record.body).map_err(fault)?;
                self.note_conditions(&items);
                self.publish(items, number).await?;
            }
        }
        self.author = Author {
            term: record.term,
            node: record.node,
        };
        self.is_handed_over = record.kind == Kind::Handover;
        self.position = Position::behind(record);
        self.kept.push(self.position, record.bytes.clone());
        self.sums.push(record.sum);
        self.status.advance(self.position, self.clock.now());
        Ok(())
    }

    async fn publish(&self, items: Vec<LogItem>, record: u64) -> Result<(), FollowError> {
        if items.is_empty() {
            return Ok(());
        }
        let catalog = Arc::clone(self.unpacker.catalog());
        match self.bus.follow(items, catalog).await {
            Some(true) => Ok(()),
            Some(false) => Err(FollowError::Contradiction(record)),
            None => Err(FollowError::Stopping),
        }
    }

    fn note_conditions(&mut self, items: &[LogItem]) {
        for item in items {
            if let LogItem::Source { source, condition } = item {
                let at = source.0 as usize;
                self.conditions
                    .resize(self.conditions.len().max(at + 1), None);
                self.conditions[at] = Some(condition.clone());
            }
        }
    }

    /// Reports the silence, and reads what the subscription may have lost.
    async fn on_silence(&mut self) -> Result<(), FollowError> {
        self.report_silence().await?;
        match self.store.last().await {
            Ok(last) if last > self.position.number => {
                self.read_up_to(last).await?;
                self.end_silence().await
            }
            Ok(last) => self.compare(last).await,
            Err(_) => Ok(()),
        }
    }

    /// Reports all sources as reconnecting: this server does not know their state.
    async fn report_silence(&mut self) -> Result<(), FollowError> {
        if std::mem::replace(&mut self.is_silent, true) {
            return Ok(());
        }
        self.status.set_silent(true);
        tracing::warn!("no record of the shared log; reporting its sources as reconnecting");
        let since = self.clock.now();
        self.publish_conditions(|known| match known.map(|known| known.state) {
            Some(SourceState::Ended) => None,
            _ => Some(condition(SourceState::Reconnecting, since)),
        })
        .await
    }

    /// Reports the sources as the log describes them.
    async fn end_silence(&mut self) -> Result<(), FollowError> {
        if !std::mem::replace(&mut self.is_silent, false) {
            return Ok(());
        }
        self.status.set_silent(false);
        tracing::info!("records of the shared log arrive again");
        let since = self.clock.now();
        // A source that has reported nothing is live.
        self.publish_conditions(|known| {
            let known = known.cloned();
            Some(known.unwrap_or_else(|| condition(SourceState::Live, since)))
        })
        .await
    }

    /// Publishes the condition of each source, as a function of that of the log.
    async fn publish_conditions(
        &self,
        of: impl Fn(Option<&SourceCondition>) -> Option<SourceCondition>,
    ) -> Result<(), FollowError> {
        let item = |at: usize| {
            let condition = of(self.conditions.get(at).and_then(Option::as_ref))?;
            let source = SourceId(at as u16);
            Some(LogItem::Source { source, condition })
        };
        let sources = 0..self.unpacker.catalog().sources().len();
        let items = sources.filter_map(item).collect();
        self.publish(items, self.position.number).await
    }
}

const fn condition(state: SourceState, since: UnixNanos) -> SourceCondition {
    SourceCondition {
        state,
        since,
        error: None,
    }
}

/// Outcome of a wait for the next record.
enum Heard {
    Record(Box<Record>),
    Silence,
}

fn ignore(fault: RecordFault) {
    tracing::warn!(%fault, "damaged copy of a record; reading it from the stream");
}

/// Records that a server keeps to repair the log: a gateway may not write.
fn kept_records(settings: &ClusterSettings) -> KeptRecords {
    KeptRecords::new(match settings.role {
        Role::Publisher => settings.repair,
        Role::Gateway => 0,
    })
}

/// Records of a range, up to the first that cannot be read.
struct Range {
    records: Vec<Record>,
    end: Result<End, StoreError>,
}

/// End of the records of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    /// The log has forgotten the next one.
    Forgotten,
}

/// Reads the records from the first number to the last one.
async fn read_range(store: &dyn LogStore, clock: Clock, (first, last): (u64, u64)) -> Range {
    let mut records = Vec::new();
    loop {
        let next = first + records.len() as u64;
        if next > last {
            let end = Ok(End::Complete);
            return Range { records, end };
        }
        let some = store.get_some(next, last + 1 - next).await;
        let some = some.unwrap_or_default();
        if !some.is_empty() {
            records.extend(some);
            continue;
        }
        // What cannot be read at once is read alone, as often as necessary.
        let end = match get_repeatedly(store, clock, next).await {
            Ok(Some(record)) => {
                records.push(record);
                continue;
            }
            Ok(None) => Ok(End::Forgotten),
            Err(error) => Err(error),
        };
        return Range { records, end };
    }
}

/// Reads a record; repeats the request while NATS has no answer. `None` if the log has forgotten
/// the record.
async fn get_repeatedly(
    store: &dyn LogStore,
    clock: Clock,
    number: u64,
) -> Result<Option<Record>, StoreError> {
    loop {
        match store.get(number).await {
            Err(StoreError::Request(error)) => {
                tracing::debug!(number, error, "cannot read a record; trying again");
                clock.sleep_until(clock.now().plus(RETRY_AFTER)).await;
            }
            answer => return answer.map(Some),
        }
        match store.last().await {
            Ok(last) if last < number => return Ok(None),
            Err(StoreError::Lost(_)) => return Ok(None),
            Ok(_) | Err(_) => {}
        }
    }
}
