//! The shared log as its writers and readers use it, whatever keeps it: a stream of NATS, or the
//! memory of a simulation.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Notify;

use super::append_fault::AppendFault;
use super::bucket::Bucket;
use super::record::Record;
use super::settings::ClusterSettings;
use super::store::{Extent, Last, Store, StoreError};

/// Outcome of an append, once the log has answered.
pub type Acknowledgement = BoxFuture<'static, Result<(), AppendFault>>;
/// Copies of the records that the log accepts. It ends with the connection.
pub type NewRecords = BoxStream<'static, Bytes>;

/// Number of records that are read one by one at the same time.
const READS_MAX: usize = 128;

/// Answer to a request to the log.
type Answer<'s, T> = BoxFuture<'s, Result<T, StoreError>>;

/// The shared log.
pub trait LogStore: fmt::Debug + Send + Sync {
    /// Records that the log contains.
    fn extent(&self) -> Answer<'_, Extent>;

    /// Number of the last record; 0 if the log is empty.
    fn last(&self) -> Answer<'_, u64>;

    /// Subscribes to new records. Records are lost if the reader is slow, and must then be read
    /// from the log.
    fn subscribe(&self) -> Answer<'_, NewRecords>;

    /// Reads a record.
    fn get(&self, number: u64) -> Answer<'_, Record>;

    /// Reads consecutive records, from this one on and at most this number: those that the log can
    /// send at once. By default it is asked for each of them.
    fn get_some(&self, first: u64, count: u64) -> Answer<'_, Vec<Record>> {
        let numbers = stream::iter(first..first + count);
        let read = numbers.map(|number| self.get(number));
        let records = read.buffered(READS_MAX);
        let until_one_fails = records.take_while(|read| ready(read.is_ok()));
        Box::pin(until_one_fails.try_collect())
    }

    /// Sends a record with checksum `sum`, which the log accepts only directly behind `last`.
    fn append(
        &self,
        record: Bytes,
        sum: u64,
        last: Last,
    ) -> BoxFuture<'_, Result<Acknowledgement, AppendFault>>;

    /// Creates the log again, with a first record of this number, because it is lost.
    fn create_again(&self, first: u64) -> Answer<'_, ()>;

    /// Reports to the leader that this server has read other records than those of the log, in the
    /// epochs of `origin`. The report may be lost.
    fn report_divergence<'s>(&'s self, cluster: &'s str, origin: u64) -> BoxFuture<'s, ()> {
        tracing::debug!(cluster, origin, "nobody hears of other records");
        Box::pin(std::future::ready(()))
    }

    /// Notification of a new connection: the log may have lost what was sent before, or only the
    /// answer to it.
    fn reconnected(&self) -> &Arc<Notify>;

    /// Finds the bucket of the checkpoints; `None` if there is none.
    fn find_bucket<'s>(&'s self, cluster: &'s str) -> Answer<'s, Option<Bucket>>;

    /// Finds the bucket of the checkpoints, or creates it.
    fn open_bucket<'s>(&'s self, settings: &'s ClusterSettings) -> Answer<'s, Bucket>;
}

impl LogStore for Store {
    fn extent(&self) -> Answer<'_, Extent> {
        Box::pin(self.extent())
    }

    fn last(&self) -> Answer<'_, u64> {
        Box::pin(self.last())
    }

    fn subscribe(&self) -> Answer<'_, NewRecords> {
        Box::pin(async {
            let messages = self.subscribe().await?;
            Ok(messages.map(|message| message.payload).boxed())
        })
    }

    fn get(&self, number: u64) -> Answer<'_, Record> {
        Box::pin(self.get(number))
    }

    fn get_some(&self, first: u64, count: u64) -> Answer<'_, Vec<Record>> {
        Box::pin(self.get_some(first, count))
    }

    fn append(
        &self,
        record: Bytes,
        sum: u64,
        last: Last,
    ) -> BoxFuture<'_, Result<Acknowledgement, AppendFault>> {
        Box::pin(async move {
            let pending = self.append(record, sum, last).await?;
            Ok(pending.accepted().boxed())
        })
    }

    fn create_again(&self, first: u64) -> Answer<'_, ()> {
        Box::pin(self.create_again(first))
    }

    fn report_divergence<'s>(&'s self, cluster: &'s str, origin: u64) -> BoxFuture<'s, ()> {
        Box::pin(self.report_divergence(cluster, origin))
    }

    fn reconnected(&self) -> &Arc<Notify> {
        self.reconnected()
    }

    fn find_bucket<'s>(&'s self, cluster: &'s str) -> Answer<'s, Option<Bucket>> {
        Box::pin(Bucket::find(self, cluster))
    }

    fn open_bucket<'s>(&'s self, settings: &'s ClusterSettings) -> Answer<'s, Bucket> {
        Box::pin(Bucket::open(self, settings))
    }
}
