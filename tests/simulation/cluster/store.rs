//! Connection of a server to the simulated log.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use tickcast::clock::Clock;
use tickcast::cluster::{
    Acknowledgement, AppendFault, Bucket, ClusterSettings, Extent, Last, LogStore, NewRecords,
    Record, StoreError,
};
use tokio::sync::{Notify, mpsc, oneshot};

use super::log::SimulatedLog;

/// Time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Copies of records that wait for their reader.
const COPIES_MAX: usize = 64;

type Answer<'s, T> = BoxFuture<'s, Result<T, StoreError>>;

/// The log, which all servers and the simulation share.
#[derive(Clone, Debug)]
pub(crate) struct SharedLog(Arc<Mutex<SimulatedLog>>);

impl SharedLog {
    pub(crate) fn new(log: SimulatedLog) -> Self {
        Self(Arc::new(Mutex::new(log)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SimulatedLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connection of a server.
pub(crate) struct SimulatedStore {
    /// Number of the server.
    node: usize,
    log: SharedLog,
    clock: Clock,
    /// Time limit of an append.
    acknowledged_within: Duration,
    reconnected: Arc<Notify>,
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedStore")
    }
}

/// Answer to a request, if it arrives in time.
async fn within<T>(clock: Clock, limit: Duration, answer: oneshot::Receiver<T>) -> Option<T> {
    let due = clock.now().plus(limit);
    tokio::select! {
        biased;
        Ok(answer) = answer => Some(answer),
        () = clock.sleep_until(due) => None,
    }
}

impl SimulatedStore {
    pub(crate) fn new(
        node: usize,
        log: SharedLog,
        clock: Clock,
        settings: &ClusterSettings,
        reconnected: Arc<Notify>,
    ) -> Self {
        Self {
            node,
            log,
            clock,
            acknowledged_within: settings.lease,
            reconnected,
        }
    }

    /// Sends a request and waits for its answer.
    fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut SimulatedLog, oneshot::Sender<Result<T, StoreError>>) + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(async move {
            let (to, answer) = oneshot::channel();
            let action = Box::new(move |log: &mut SimulatedLog| request(log, to));
            self.log.lock().network.request(self.node, action);
            let answer = within(self.clock, REQUEST_TIMEOUT, answer).await;
            answer.unwrap_or_else(|| Err(StoreError::Request("no answer in time".to_owned())))
        })
    }
}

impl LogStore for SimulatedStore {
    fn extent(&self) -> Answer<'_, Extent> {
        let node = self.node;
        self.ask(move |log, to| log.take_extent(node, to))
    }

    fn last(&self) -> Answer<'_, u64> {
        Box::pin(async { Ok(self.extent().await?.last) })
    }

    fn subscribe(&self) -> Answer<'_, NewRecords> {
        let (to, copies) = mpsc::channel(COPIES_MAX);
        self.log.lock().subscribe(self.node, to);
        let next = |mut copies: mpsc::Receiver<Bytes>| async {
            let copy = copies.recv().await?;
            Some((copy, copies))
        };
        let copies = futures_util::stream::unfold(copies, next).boxed();
        Box::pin(std::future::ready(Ok(copies)))
    }

    fn get(&self, number: u64) -> Answer<'_, Record> {
        let node = self.node;
        self.ask(move |log, to| log.take_get(node, number, to))
    }

    fn append(
        &self,
        record: Bytes,
        sum: u64,
        last: Last,
    ) -> BoxFuture<'_, Result<Acknowledgement, AppendFault>> {
        let (to, answer) = oneshot::channel();
        let node = self.node;
        let action =
            Box::new(move |log: &mut SimulatedLog| log.take_append(node, (record, sum), last, to));
        self.log.lock().network.request(node, action);
        let answer = within(self.clock, self.acknowledged_within, answer);
        let outcome = async { answer.await.unwrap_or(Err(AppendFault::Unknown)) };
        let outcome: Acknowledgement = Box::pin(outcome);
        Box::pin(std::future::ready(Ok(outcome)))
    }

    fn create_again(&self, first: u64) -> Answer<'_, ()> {
        let node = self.node;
        self.ask(move |log, to| log.take_create(node, first, to))
    }

    fn reconnected(&self) -> &Arc<Notify> {
        &self.reconnected
    }

    fn find_bucket<'s>(&'s self, _cluster: &'s str) -> Answer<'s, Option<Bucket>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn open_bucket<'s>(&'s self, _settings: &'s ClusterSettings) -> Answer<'s, Bucket> {
        let none = StoreError::Request("a simulation has no object store".to_owned());
        Box::pin(std::future::ready(Err(none)))
    }
}
