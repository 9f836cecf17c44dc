//! Checkpoints of the leading publisher: it takes one at each interval and stores it once the
//! shared log contains its last record. Encoding and storing happen in a task of their own, so that
//! the log is never delayed.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::bucket::{Bucket, Stored};
use super::checkpoint::{Place, encode_checkpoint};
use super::log_store::LogStore;
use super::record::{Author, Position};
use super::settings::ClusterSettings;
use super::status::ClusterStatus;
use super::store::StoreError;
use crate::bus::{Emitter, WriterState};
use crate::clock::Clock;

/// Position in the shared log behind a batch of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchEnd {
    /// Number of the next batch.
    pub(super) next: u64,
    pub(super) position: Position,
}

/// Ends of the batches that the log contains: those since a request for a checkpoint, or the last
/// one.
#[derive(Debug)]
struct Ends(VecDeque<BatchEnd>);

/// Place of a checkpoint in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Position(Position),
    /// The log does not contain its last batch yet.
    Later,
    /// The end of its last batch is not known.
    Missed,
}

impl Ends {
    /// Position behind the batches before number `next`. The ends before it are forgotten.
    fn find(&mut self, next: u64) -> Found {
        while self.0.len() > 1 && self.0.front().is_some_and(|end| end.next < next) {
            self.0.pop_front();
        }
        match self.0.front() {
            Some(end) if end.next == next => Found::Position(end.position),
            Some(end) if end.next > next => Found::Missed,
            _ => Found::Later,
        }
    }
}

/// Checkpoint that was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenCheckpoint {
    /// Number of the last record that it contains.
    pub record: u64,
    /// Size, in bytes.
    pub bytes: usize,
}

/// Receiver of the outcome of a checkpoint that was asked for.
pub type Asker = oneshot::Sender<Result<WrittenCheckpoint, String>>;

fn answer(askers: Vec<Asker>, outcome: &Result<WrittenCheckpoint, String>) {
    for asker in askers {
        // A send error means that it no longer waits.
        let _gone = asker.send(outcome.clone());
    }
}

/// Checkpoint whose last record is in the log.
struct Ready {
    state: WriterState,
    place: Place,
    askers: Vec<Asker>,
}

/// State of the checkpoint that is taken.
enum Stage {
    /// None is due.
    Waiting,
    /// The bus has been asked for it.
    Asked(BoxFuture<'static, Option<WriterState>>),
    /// The log does not contain its last record yet.
    Taken(WriterState),
}

/// Checkpoints of a leading publisher.
pub(super) struct Checkpoints {
    clock: Clock,
    bus: Emitter,
    interval: Duration,
    due: crate::market::UnixNanos,
    origin: u64,
    author: Author,
    stage: Stage,
    /// Requests for the next checkpoint.
    requests: Vec<Asker>,
    /// Requests for the checkpoint that is taken.
    askers: Vec<Asker>,
    ends: Ends,
    writer: mpsc::Sender<Ready>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checkpoints {
    /// Starts behind a batch.
    pub(super) fn new(
        (clock, bus, store, status): (Clock, Emitter, Arc<dyn LogStore>, Arc<ClusterStatus>),
        settings: &ClusterSettings,
        (origin, author): (u64, Author),
        end: BatchEnd,
    ) -> Self {
        let (writer, ready) = mpsc::channel(1);
        let interval = settings.checkpoints.interval;
        // The first one is due from now on.
        status.note_checkpoint(clock.now());
        let writer_task = write_all(ready, (clock, store, status), settings.clone());
        Self {
            clock,
            bus,
            interval,
            due: clock.now().plus(interval),
            origin,
            author,
            stage: Stage::Waiting,
            requests: Vec::new(),
            askers: Vec::new(),
            ends: Ends(VecDeque::from([end])),
            writer,
            task: tokio::spawn(writer_task),
        }
    }

    /// Notes that the log contains a batch.
    pub(super) fn accept(&mut self, end: BatchEnd) {
        if matches!(self.stage, Stage::Waiting) {
            self.ends.0.clear();
        }
        self.ends.0.push_back(end);
        self.store_taken();
    }

    /// Begins a new origin behind a batch. A state that was taken before is no longer that of the
    /// log.
    pub(super) fn begin_origin(&mut self, origin: u64, author: Author, end: BatchEnd) {
        (self.origin, self.author) = (origin, author);
        self.stage = Stage::Waiting;
        self.ends = Ends(VecDeque::from([end]));
        self.requests.append(&mut self.askers);
        self.due = self.clock.now();
    }

    /// Takes a checkpoint at once, of the state at this time or later.
    pub(super) fn request(&mut self, asker: Asker) {
        self.requests.push(asker);
        self.due = self.clock.now();
    }

    /// Stores a last checkpoint, whose last batch the log contains; waits until it and those before
    /// it are stored.
    pub(super) async fn finish(&mut self, last: Option<WriterState>) {
        if let Some(last) = last {
            self.askers.append(&mut self.requests);
            self.stage = Stage::Taken(last);
        }
        if let Some(ready) = self.ready() {
            // The writer ends with this sender.
            let _ended = self.writer.send(ready).await;
        }
        self.writer = mpsc::channel(1).0;
        // An error means that it has panicked.
        let _panicked = (&mut self.task).await;
    }

    /// Waits for the next change. Cancel safe.
    pub(super) async fn step(&mut self) {
        match &mut self.stage {
            Stage::Asked(taken) => {
                let taken = taken.await;
                self.stage = taken.map_or(Stage::Waiting, Stage::Taken);
                self.store_taken();
            }
            Stage::Waiting | Stage::Taken(_) => {
                self.clock.sleep_until(self.due).await;
                self.due = self.clock.now().plus(self.interval);
                self.askers.append(&mut self.requests);
                let bus = self.bus.clone();
                self.stage = Stage::Asked(async move { bus.writer_state().await }.boxed());
            }
        }
    }

    /// Hands the checkpoint to the writer if the log contains its last batch.
    fn store_taken(&mut self) {
        let Some(ready) = self.ready() else {
            return;
        };
        if let Err(full) = self.writer.try_send(ready) {
            tracing::warn!("checkpoint skipped: the last one is still being stored");
            let busy = "the last checkpoint is still being stored".to_owned();
            answer(full.into_inner().askers, &Err(busy));
        }
    }

    /// The taken checkpoint, once the log contains its last batch.
    fn ready(&mut self) -> Option<Ready> {
        let Stage::Taken(state) = &self.stage else {
            return None;
        };
        let found = self.ends.find(state.checkpoint.next);
        if found == Found::Later {
            return None;
        }
        let Stage::Taken(state) = std::mem::replace(&mut self.stage, Stage::Waiting) else {
            return None;
        };
        let askers = std::mem::take(&mut self.askers);
        let Found::Position(position) = found else {
            let missed = "the state is no longer that behind a record".to_owned();
            answer(askers, &Err(missed));
            return None;
        };
        let place = Place {
            origin: self.origin,
            position,
            author: self.author,
        };
        Some(Ready {
            state,
            place,
            askers,
        })
    }
}

/// Stores checkpoints, one after the other.
async fn write_all(
    mut ready: mpsc::Receiver<Ready>,
    (clock, store, status): (Clock, Arc<dyn LogStore>, Arc<ClusterStatus>),
    settings: ClusterSettings,
) {
    while let Some(next) = ready.recv().await {
        let record = next.place.position.number;
        let written = write(next.state, next.place, &*store, &settings).await;
        match &written {
            Ok(bytes) => {
                status.note_checkpoint(clock.now());
                tracing::debug!(record, bytes, "checkpoint stored");
            }
            Err(error) => tracing::warn!(record, error, "cannot store a checkpoint"),
        }
        let written = written.map(|bytes| WrittenCheckpoint { record, bytes });
        answer(next.askers, &written);
    }
}

/// Stores a checkpoint and deletes old ones; returns its size in bytes.
async fn write(
    state: WriterState,
    place: Place,
    store: &dyn LogStore,
    settings: &ClusterSettings,
) -> Result<usize, String> {
    let kept = settings.checkpoints.kept;
    let (bucket, bytes) = write_one(state, place, store, settings).await?;
    let deleted = async {
        for old in superseded(bucket.list().await?, place.origin, kept) {
            bucket.delete(&old).await?;
        }
        Ok::<(), StoreError>(())
    };
    deleted.await.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Stores a checkpoint; returns the bucket, and its size in bytes.
pub(super) async fn write_one(
    state: WriterState,
    place: Place,
    store: &dyn LogStore,
    settings: &ClusterSettings,
) -> Result<(Bucket, usize), String> {
    let bucket = store.open_bucket(settings).await;
    let bucket = bucket.map_err(|error| error.to_string())?;
    let bytes_max = settings.checkpoints.bytes;
    let encode =
        move || encode_checkpoint(&state.checkpoint, Some(&state.output), place, bytes_max);
    let encoded = tokio::task::spawn_blocking(encode).await;
    let encoded = encoded.map_err(|panicked| panicked.to_string())?;
    let encoded = encoded.map_err(|fault| fault.to_string())?;
    let stored = bucket.write(&place, &encoded).await;
    stored.map_err(|error| error.to_string())?;
    Ok((bucket, encoded.len()))
}

/// Checkpoints that are not among the newest `kept` ones of the log, and those of other logs.
fn superseded(mut stored: Vec<Stored>, origin: u64, kept: usize) -> Vec<Stored> {
    let is_own = |one: &Stored| one.origin == origin;
    stored.sort_by_key(|one| std::cmp::Reverse((is_own(one), one.number)));
    let own = stored.iter().filter(|one| is_own(one)).count();
    stored.split_off(own.min(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::UnixNanos;

    #[test]
    fn a_checkpoint_is_behind_the_last_record_of_its_last_batch() {
        let position = |number| Position { number, sum: 0 };
        let end = |next| BatchEnd {
            next,
            position: position(next * 10),
        };
        let mut ends = Ends(VecDeque::from([end(4)]));
        assert_eq!(ends.find(4), Found::Position(position(40)));
        assert_eq!(ends.find(6), Found::Later);
        ends.0.extend([end(5), end(6), end(7)]);
        assert_eq!(ends.find(6), Found::Position(position(60)));
        assert_eq!(ends.find(5), Found::Missed, "it was forgotten");
        assert_eq!(ends.find(9), Found::Later);
        assert_eq!(ends.0.len(), 1, "only the last end is kept");
    }

    #[test]
    fn the_oldest_checkpoints_and_those_of_other_logs_are_superseded() {
        let stored = |origin, number| Stored::for_tests(origin, number, UnixNanos(0));
        let all = || vec![stored(7, 1), stored(8, 9), stored(7, 3), stored(7, 2)];
        let left = |origin, kept| {
            let superseded = superseded(all(), origin, kept).into_iter();
            superseded
                .map(|one| (one.origin, one.number))
                .collect::<Vec<_>>()
        };
        assert_eq!(left(7, 2), [(7, 1), (8, 9)]);
        assert_eq!(left(7, 8), [(8, 9)]);
        assert_eq!(left(8, 2), [(7, 3), (7, 2), (7, 1)]);
    }
}
