//! A reader of a log that forgets records while they are read.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::Notify;

use super::super::append_fault::AppendFault;
use super::super::bucket::Bucket;
use super::super::follower::Follower;
use super::super::log_store::{Acknowledgement, LogStore, NewRecords};
use super::super::record::Record;
use super::super::settings::ClusterSettings;
use super::super::status::ClusterStatus;
use super::super::store::{Extent, Last, StoreError};
use super::START;
use crate::bus::input_queue;
use crate::clock::Clock;
use crate::config::Config;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::Epoch;

type Answer<'s, T> = BoxFuture<'s, Result<T, StoreError>>;

/// A log that is lost once it has named its last record.
#[derive(Debug, Default)]
struct ForgetfulLog {
    is_lost: AtomicBool,
    reconnected: Arc<Notify>,
}

fn failed<'s, T: Send + 's>() -> Answer<'s, T> {
    Box::pin(ready(Err(StoreError::Request("no responders".to_owned()))))
}

impl LogStore for ForgetfulLog {
    fn extent(&self) -> Answer<'_, Extent> {
        failed()
    }

    fn last(&self) -> Answer<'_, u64> {
        let was_lost = self.is_lost.swap(true, Ordering::Relaxed);
        Box::pin(ready(if was_lost {
            Err(StoreError::Lost("TC_LOG".to_owned()))
        } else {
            Ok(5)
        }))
    }

    fn subscribe(&self) -> Answer<'_, NewRecords> {
        Box::pin(ready(Ok(futures_util::stream::pending().boxed())))
    }

    fn get(&self, _number: u64) -> Answer<'_, Record> {
        failed()
    }

    fn append(
        &self,
        _record: Bytes,
        _sum: u64,
        _last: Last,
    ) -> BoxFuture<'_, Result<Acknowledgement, AppendFault>> {
        Box::pin(ready(Err(AppendFault::Unknown)))
    }

    fn create_again(&self, _first: u64) -> Answer<'_, ()> {
        failed()
    }

    fn reconnected(&self) -> &Arc<Notify> {
        &self.reconnected
    }

    fn find_bucket<'s>(&'s self, _cluster: &'s str) -> Answer<'s, Option<Bucket>> {
        failed()
    }

    fn open_bucket<'s>(&'s self, _settings: &'s ClusterSettings) -> Answer<'s, Bucket> {
        failed()
    }
}

fn settings() -> ClusterSettings {
    let text = "cluster: {role: gateway, nats: {urls: [\"nats://none\"]}}\n";
    let config = Config::parse(text, "test").expect("a valid config");
    config.cluster.expect("a config of a cluster")
}

#[test]
fn a_reader_does_not_wait_for_records_that_the_log_has_forgotten() {
    let clock = Clock::simulated(UnixNanos(START));
    let (bus, _queue) = input_queue(1 << 20, clock);
    let status = Arc::new(ClusterStatus::new(Metrics::new().add_cluster("publisher")));
    let log = Arc::new(ForgetfulLog::default());
    let mut follower = Follower::new(log, clock, bus, status, Epoch::first(7), settings());
    let mut start = pin!(follower.start());
    let mut context = Context::from_waker(Waker::noop());
    assert!(start.as_mut().poll(&mut context).is_pending());
    clock.advance_to(clock.now().plus(Duration::from_secs(1)), Duration::ZERO);
    let started = start.as_mut().poll(&mut context);
    assert!(matches!(started, Poll::Ready(Ok(_))), "it waits for them");
}
