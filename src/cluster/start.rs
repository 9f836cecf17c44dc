//! Start of a reader of the shared log: at a checkpoint, or at the first record.

use std::time::Duration;

use super::bucket::{Bucket, Stored};
use super::checkpoint::{CheckpointFault, LogCheckpoint, decode_checkpoint};
use super::items::{ItemFault, read_lead};
use super::log_store::LogStore;
use super::settings::ClusterSettings;
use super::store::{Extent, StoreError};
use crate::market::UnixNanos;
use crate::protocol::Epoch;

/// Point from which the log is read.
#[derive(Debug)]
pub struct Start {
    /// Epoch in which new topics begin.
    pub origin: Epoch,
    /// State to go on from; `None`: the first record.
    pub checkpoint: Option<Box<LogCheckpoint>>,
}

/// Reason for which a reader cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NoStart {
    /// A request to NATS failed for good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first record cannot be read.
    #[error("record 1: {0}")]
    First(ItemFault),
    /// The log no longer begins with record 1, and no checkpoint can be used.
    #[error(
        "the shared log begins with record {0}, and no checkpoint leads to it. Lower cluster.checkpoints.interval or raise cluster.log.bytes and cluster.log.age; to begin a new log, stop all servers and delete its stream in NATS"
    )]
    Cut(u64),
}

/// Reason for which a checkpoint is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Form(#[from] CheckpointFault),
    #[error("the log is another one")]
    OtherLog,
    #[error("cannot be decoded: {0}")]
    Panic(String),
}

/// Possible start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate<'s> {
    Checkpoint(&'s Stored),
    FirstRecord,
}

/// Possible starts, best first: the newest checkpoint before `from`, so that the records behind it
/// fill the history; otherwise the start that is the longest ago, but not a long log.
fn candidates(stored: &[Stored], log: Extent, from: UnixNanos) -> Vec<Candidate<'_>> {
    let usable = stored
        .iter()
        .filter(|one| (log.first.saturating_sub(1)..=log.last).contains(&one.number));
    let mut newest_first: Vec<&Stored> = usable.collect();
    newest_first.sort_by_key(|one| std::cmp::Reverse(one.number));
    let (old, mut young): (Vec<_>, Vec<_>) =
        newest_first.into_iter().partition(|one| one.time <= from);
    young.reverse();
    let has_first = log.first == 1;
    let is_short = has_first && log.first_time > from;
    let first = |is_there: bool| is_there.then_some(Candidate::FirstRecord);
    let old = old.into_iter().map(Candidate::Checkpoint);
    let young = young.into_iter().map(Candidate::Checkpoint);
    old.chain(first(is_short))
        .chain(young)
        .chain(first(has_first && !is_short))
        .collect()
}

/// Finds the start of a reader whose history reaches back for `history`; `None` if the log is
/// empty.
pub async fn find_start(
    store: &dyn LogStore,
    settings: &ClusterSettings,
    now: UnixNanos,
    history: Duration,
) -> Result<Option<Start>, NoStart> {
    let log = store.extent().await?;
    if log.last == 0 {
        return Ok(None);
    }
    let bucket = store.find_bucket(&settings.name).await;
    let bucket = bucket.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the checkpoints of the shared log");
        None
    });
    let stored = list(bucket.as_ref()).await;
    for candidate in candidates(&stored, log, now.minus(history)) {
        let (Candidate::Checkpoint(one), Some(bucket)) = (candidate, &bucket) else {
            return from_first(store).await.map(Some);
        };
        match load(store, bucket, one, log, settings.checkpoints.bytes).await {
            Ok(checkpoint) => {
                tracing::info!(record = one.number, "starting from a checkpoint");
                return Ok(Some(Start {
                    origin: checkpoint.origin(),
                    checkpoint: Some(Box::new(checkpoint)),
                }));
            }
            Err(error) => {
                tracing::warn!(record = one.number, %error, "cannot use a checkpoint; trying another start");
            }
        }
    }
    Err(NoStart::Cut(log.first))
}

/// Finds the first checkpoint of an origin that follows `known`: the state with which its epochs
/// begin.
pub(super) async fn find_other_origin(
    store: &dyn LogStore,
    settings: &ClusterSettings,
    known: Epoch,
) -> Result<Option<Start>, StoreError> {
    let log = store.extent().await?;
    let Some(bucket) = store.find_bucket(&settings.name).await? else {
        return Ok(None);
    };
    let mut stored = bucket.list().await?;
    let numbers = log.first.saturating_sub(1)..=log.last;
    stored.retain(|one| one.origin != known.origin && numbers.contains(&one.number));
    stored.sort_by_key(|one| one.number);
    for one in &stored {
        if let Ok(checkpoint) = load(store, &bucket, one, log, settings.checkpoints.bytes).await
            && checkpoint.origin().generation > known.generation
        {
            return Ok(Some(Start {
                origin: checkpoint.origin(),
                checkpoint: Some(Box::new(checkpoint)),
            }));
        }
    }
    Ok(None)
}

async fn list(bucket: Option<&Bucket>) -> Vec<Stored> {
    let Some(bucket) = bucket else {
        return Vec::new();
    };
    bucket.list().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot list the checkpoints of the shared log");
        Vec::new()
    })
}

async fn from_first(store: &dyn LogStore) -> Result<Start, NoStart> {
    let first = store.get(1).await?;
    let lead = read_lead(&first.body).map_err(NoStart::First)?;
    if lead.generation > 0 {
        // The states of the topics are in a checkpoint alone.
        return Err(NoStart::Cut(1));
    }
    Ok(Start {
        origin: lead.epoch(),
        checkpoint: None,
    })
}

/// Reads a checkpoint and checks that the log continues it.
pub(super) async fn load(
    store: &dyn LogStore,
    bucket: &Bucket,
    stored: &Stored,
    log: Extent,
    bytes_max: usize,
) -> Result<LogCheckpoint, Unusable> {
    let bytes = bucket.read(stored, bytes_max).await?;
    let decoded = tokio::task::spawn_blocking(move || decode_checkpoint(&bytes, bytes_max)).await;
    let checkpoint = decoded.map_err(|panicked| Unusable::Panic(panicked.to_string()))??;
    if !stored.is_of(&checkpoint.place) {
        return Err(CheckpointFault::Place.into());
    }
    let position = checkpoint.place.position;
    let is_same = if position.number == log.last {
        store.get(log.last).await?.sum == position.sum
    } else {
        let next = store.get(position.number + 1).await?;
        position.check(&next).is_ok()
    };
    if is_same {
        Ok(checkpoint)
    } else {
        Err(Unusable::OtherLog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(number: u64, second: u64) -> Stored {
        Stored::for_tests(7, number, UnixNanos(second * 1_000_000_000))
    }

    /// Numbers of the starts, 0 for the first record.
    fn starts(stored: &[Stored], first: (u64, u64), from: u64) -> Vec<u64> {
        let log = Extent {
            first: first.0,
            first_time: UnixNanos(first.1 * 1_000_000_000),
            last: 500,
            last_time: UnixNanos(500_000_000_000),
        };
        let from = UnixNanos(from * 1_000_000_000);
        let candidates = candidates(stored, log, from).into_iter();
        let number = |candidate| match candidate {
            Candidate::Checkpoint(stored) => stored.number,
            Candidate::FirstRecord => 0,
        };
        candidates.map(number).collect()
    }

    #[test]
    fn a_reader_starts_where_the_rest_of_the_log_fills_its_history() {
        let all = [stored(300, 300), stored(100, 100), stored(200, 200)];
        assert_eq!(starts(&all, (1, 1), 250), [200, 100, 300, 0]);
        assert_eq!(starts(&all, (1, 1), 400), [300, 200, 100, 0]);
        assert_eq!(starts(&all, (1, 1), 0), [0, 100, 200, 300], "a short log");
        assert_eq!(starts(&all, (1, 1), 50), [100, 200, 300, 0], "a long log");
        assert_eq!(starts(&all, (101, 101), 50), [100, 200, 300]);
        assert_eq!(starts(&all, (102, 102), 50), [200, 300]);
        assert_eq!(starts(&all, (302, 302), 50), [0; 0]);
        let others = [501, 500, 0, u64::MAX].map(|number| stored(number, 300));
        assert_eq!(starts(&others, (400, 100), 400), [500]);
    }
}
