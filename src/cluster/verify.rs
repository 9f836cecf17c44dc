//! Verification of the shared log: every record by number, checksum and chain, its term, and its
//! body.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::bucket::{Bucket, Stored};
use super::checkpoint::LogCheckpoint;
use super::control::connect;
use super::items::{ItemFault, Unpacker, read_lead};
use super::record::{ChainFault, Kind, Position, Record, RecordFault};
use super::settings::ClusterSettings;
use super::start::load;
use super::store::{Extent, Store, StoreError};
use crate::log::LogItem;
use crate::protocol::Epoch;

/// Records read from the stream at once.
const FETCHED_AT_ONCE: usize = 256;
/// Attempts to read a record.
const ATTEMPTS: u32 = 4;
/// Pause between two attempts.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// New beginnings because the log has dropped records that were to be read.
const RESTARTS_MAX: u32 = 10;

/// Reason for which the log cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A request to NATS failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be read.
    #[error("cannot read record {0}: {1}")]
    Read(u64, StoreError),
    /// The log has no records.
    #[error("the log has no records")]
    Empty,
    /// The log does not contain the record with which to begin.
    #[error("the log has records {0} to {1}; --from {2} is none of them")]
    From(u64, u64, u64),
}

/// Fault of a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFlaw {
    /// Bytes that are not a record, or damaged ones.
    #[error(transparent)]
    Form(#[from] RecordFault),
    /// A record at the place of another one.
    #[error("it has the number {0}")]
    Number(u64),
    /// Another record before it.
    #[error("it does not follow the record before it")]
    Chain,
    /// A term that does not follow the previous one.
    #[error("it is of term {0} and node {1:016x}, without a record that starts the term")]
    Term(u64, u64),
    /// Epochs that could be taken for those of the records before it.
    #[error("it begins the log anew, with epochs that do not follow those before it")]
    Origin,
    /// A body that cannot be applied.
    #[error("its body: {0}")]
    Body(#[from] ItemFault),
}

/// Result of a verification.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of the first record that was read.
    pub first: u64,
    /// Number of records that are right.
    pub records: u64,
    /// Size of these records in the log, in bytes.
    pub bytes: u64,
    /// Number of terms that they belong to.
    pub terms: u64,
    /// Number of the first record whose body was applied; `None` if none was, because no
    /// checkpoint leads to it.
    pub bodies_from: Option<u64>,
    /// Number of events in these bodies.
    pub events: u64,
    /// The first record that is wrong.
    pub wrong: Option<(u64, RecordFlaw)>,
}

/// Reads and verifies the log from a record, or from the first one that it contains, to its end.
pub async fn verify(
    settings: &ClusterSettings,
    from: Option<u64>,
) -> Result<Verified, VerifyError> {
    let store = connect(settings).await?;
    let mut restarts = 0;
    loop {
        let log = store.extent().await?;
        if log.last < log.first.max(1) {
            return Err(VerifyError::Empty);
        }
        let begin = from.unwrap_or(log.first);
        if !(log.first..=log.last).contains(&begin) {
            return Err(VerifyError::From(log.first, log.last, begin));
        }
        let checkpoints = Checkpoints::open(&store, settings, log).await?;
        match walk(&store, &checkpoints, begin..=log.last).await {
            // The log drops its oldest records all the time.
            Err(VerifyError::Read(_, StoreError::Gone(_)))
                if from.is_none() && restarts < RESTARTS_MAX =>
            {
                restarts += 1;
            }
            verified => return verified,
        }
    }
}

/// Checkpoints from which the bodies of records can be read.
struct Checkpoints<'s> {
    store: &'s Store,
    log: Extent,
    bucket: Option<Bucket>,
    stored: Vec<Stored>,
    bytes_max: usize,
}

impl<'s> Checkpoints<'s> {
    async fn open(
        store: &'s Store,
        settings: &ClusterSettings,
        log: Extent,
    ) -> Result<Self, StoreError> {
        let bucket = Bucket::find(store, &settings.name).await?;
        let stored = match &bucket {
            Some(bucket) => bucket.list().await?,
            None => Vec::new(),
        };
        Ok(Self {
            store,
            log,
            bucket,
            stored,
            bytes_max: settings.checkpoints.bytes,
        })
    }

    /// Usable checkpoint of a position.
    async fn at(&self, position: Position) -> Option<LogCheckpoint> {
        let bucket = self.bucket.as_ref()?;
        for stored in &self.stored {
            if stored.number == position.number
                && let Ok(checkpoint) =
                    load(self.store, bucket, stored, self.log, self.bytes_max).await
                && checkpoint.place.position == position
            {
                return Some(checkpoint);
            }
        }
        None
    }
}

async fn walk(
    store: &Store,
    checkpoints: &Checkpoints<'_>,
    numbers: std::ops::RangeInclusive<u64>,
) -> Result<Verified, VerifyError> {
    let mut walk = Walk::new(*numbers.start());
    let read = |number| async move { (number, read_repeatedly(store, number).await) };
    let mut records = std::pin::pin!(stream::iter(numbers).map(read).buffered(FETCHED_AT_ONCE));
    while let Some((number, bytes)) = records.next().await {
        let bytes = bytes.map_err(|error| VerifyError::Read(number, error))?;
        let taken = match Record::read(&bytes) {
            Ok(record) => {
                let position = walk.position_before(&record);
                if walk.lacks_catalog()
                    && let Some(checkpoint) = checkpoints.at(position).await
                {
                    walk.begin_behind(checkpoint);
                }
                walk.take(number, position, &record)
            }
            Err(fault) => Err(fault.into()),
        };
        if let Err(flaw) = taken {
            walk.verified.wrong = Some((number, flaw));
            break;
        }
        walk.verified.records += 1;
        walk.verified.bytes += bytes.len() as u64;
    }
    Ok(walk.verified)
}

/// Reads a record; repeats the request a few times while a replica does not have it.
async fn read_repeatedly(store: &Store, number: u64) -> Result<Bytes, StoreError> {
    let mut answer = store.read(number).await;
    for _ in 1..ATTEMPTS {
        if !matches!(answer, Err(StoreError::Request(_))) {
            break;
        }
        tokio::time::sleep(RETRY_AFTER).await;
        answer = store.read(number).await;
    }
    answer
}

/// State behind the records that were verified.
struct Walk {
    verified: Verified,
    position: Option<Position>,
    /// Term and node of the last record.
    author: Option<(u64, u64)>,
    /// True if the last record ends its term.
    is_handed_over: bool,
    /// Epoch in which new topics begin, once a record or a checkpoint has stated it.
    origin: Option<Epoch>,
    /// Reader of bodies, once there is a catalog.
    unpacker: Option<Unpacker>,
}

impl Walk {
    fn new(first: u64) -> Self {
        let is_whole = first == 1;
        Self {
            verified: Verified {
                first,
                bodies_from: is_whole.then_some(1),
                ..Verified::default()
            },
            position: is_whole.then(Position::default),
            author: is_whole.then_some((0, 0)),
            is_handed_over: false,
            origin: None,
            unpacker: is_whole.then(Unpacker::default),
        }
    }

    /// Position behind the last record; before the first one, the position that the record states.
    fn position_before(&self, record: &Record) -> Position {
        self.position.unwrap_or(Position {
            number: self.verified.first - 1,
            sum: record.previous,
        })
    }

    const fn lacks_catalog(&self) -> bool {
        self.unpacker.is_none()
    }

    fn begin_behind(&mut self, checkpoint: LogCheckpoint) {
        let first = checkpoint.place.position.number + 1;
        self.verified.bodies_from.get_or_insert(first);
        self.origin.get_or_insert(checkpoint.origin());
        self.unpacker = Some(Unpacker::behind(checkpoint.catalog));
    }

    /// Verifies the record that the stream contains behind `position` at this number.
    fn take(&mut self, number: u64, position: Position, record: &Record) -> Result<(), RecordFlaw> {
        if record.number != number {
            return Err(RecordFlaw::Number(record.number));
        }
        match position.check(record) {
            Ok(()) => {}
            Err(ChainFault::Known(_) | ChainFault::Hole(..) | ChainFault::Other(_)) => {
                return Err(RecordFlaw::Chain);
            }
        }
        self.take_author(record)?;
        match record.kind {
            Kind::Lead => {
                let origin = read_lead(&record.body)?.epoch();
                let known = *self.origin.get_or_insert(origin);
                if known != origin {
                    if known.origin == origin.origin || known.generation >= origin.generation {
                        return Err(RecordFlaw::Origin);
                    }
                    // A checkpoint has the instruments.
                    (self.origin, self.unpacker) = (Some(origin), None);
                }
            }
            Kind::Tick | Kind::Handover => {}
            Kind::Items => {
                if let Some(unpacker) = &mut self.unpacker {
                    let items = unpacker.unpack(&record.body)?;
                    let is_event = |item: &&LogItem| matches!(item, LogItem::Event(_));
                    self.verified.events += items.iter().filter(is_event).count() as u64;
                }
            }
        }
        self.is_handed_over = record.kind == Kind::Handover;
        self.position = Some(Position::behind(record));
        Ok(())
    }

    /// Checks that a new term begins with a record that starts it, has one author, and ends with a
    /// handover if there is one.
    fn take_author(&mut self, record: &Record) -> Result<(), RecordFlaw> {
        let (term, node) = (record.term, record.node);
        match self.author {
            Some(last) if last == (term, node) && !self.is_handed_over => return Ok(()),
            Some((last, _)) if term <= last || record.kind != Kind::Lead => {
                return Err(RecordFlaw::Term(term, node));
            }
            Some(_) | None => {}
        }
        self.author = Some((term, node));
        self.verified.terms += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Author, Lead, lead_body};

    const FIRST: Author = Author { term: 1, node: 7 };
    const SECOND: Author = Author { term: 2, node: 8 };

    fn lead(origin: u64) -> Bytes {
        let node = "a".to_owned();
        lead_body(&Lead {
            origin,
            generation: 0,
            node,
        })
    }

    /// Verifies these records one behind the other, each written by its author.
    fn verified(first: u64, records: &[(Author, Kind, Bytes)]) -> Result<Verified, RecordFlaw> {
        let mut walk = Walk::new(first);
        let mut behind = Position {
            number: first - 1,
            sum: first - 1,
        };
        for (number, (author, kind, body)) in (first..).zip(records) {
            let (bytes, next) = author.write(*kind, behind, body);
            let record = Record::read(&bytes)?;
            let position = walk.position_before(&record);
            walk.take(number, position, &record)?;
            behind = next;
        }
        Ok(walk.verified)
    }

    #[test]
    fn a_term_begins_with_its_own_record_and_in_the_same_epochs() {
        let tick = |author| (author, Kind::Tick, Bytes::new());
        let begin = |author, origin| (author, Kind::Lead, lead(origin));
        let terms = |records: &[_]| verified(1, records).map(|verified| verified.terms);
        let both = [begin(FIRST, 5), tick(FIRST), begin(SECOND, 5), tick(SECOND)];
        assert_eq!(terms(&both), Ok(2));
        let term = |author: Author| Err(RecordFlaw::Term(author.term, author.node));
        assert_eq!(terms(&[begin(FIRST, 5), tick(SECOND)]), term(SECOND));
        assert_eq!(terms(&[begin(SECOND, 5), begin(FIRST, 5)]), term(FIRST));
        assert_eq!(terms(&[tick(FIRST)]), term(FIRST));
        let handover = (FIRST, Kind::Handover, Bytes::new());
        let both = [begin(FIRST, 5), handover.clone(), begin(SECOND, 5)];
        assert_eq!(terms(&both), Ok(2));
        let more = [begin(FIRST, 5), handover, tick(FIRST)];
        assert_eq!(terms(&more), term(FIRST));
        let other = [begin(FIRST, 5), begin(SECOND, 6)];
        assert_eq!(terms(&other), Err(RecordFlaw::Origin));
    }

    #[test]
    fn bodies_are_read_only_behind_a_known_catalog() {
        let bad = [(FIRST, Kind::Items, Bytes::from_static(b"no items"))];
        let later = verified(9, &bad).expect("chain and checksum are right");
        assert_eq!((later.terms, later.bodies_from), (1, None));
        let begin = (FIRST, Kind::Lead, lead(5));
        let fault = verified(1, &[begin, bad[0].clone()]).map(|_| ());
        assert_eq!(fault, Err(ItemFault::Malformed("items").into()));
    }

    #[test]
    fn a_record_at_another_place_or_behind_another_record_is_wrong() {
        let (bytes, behind) = FIRST.write(Kind::Lead, Position::default(), &lead(5));
        let record = Record::read(&bytes).expect("written above");
        let taken = |number, position| Walk::new(1).take(number, position, &record);
        assert_eq!(taken(2, behind), Err(RecordFlaw::Number(1)));
        let foreign = Position { number: 0, sum: 1 };
        assert_eq!(taken(1, foreign), Err(RecordFlaw::Chain));
        assert_eq!(taken(1, Position::default()), Ok(()));
    }
}
