//! State of a cluster for operators, as its log and its checkpoints show it.

use std::time::Duration;

use super::bucket::{Bucket, Stored};
use super::control::connect;
use super::items::read_lead;
use super::node_report::{NodeReport, REPORT_INTERVAL, collect};
use super::record::{Kind, Record};
use super::settings::ClusterSettings;
use super::store::{Extent, Store, StoreError};
use crate::clock::Clock;
use crate::market::UnixNanos;

/// Time in which each server reports at least once.
const LISTENING: Duration = REPORT_INTERVAL.saturating_mul(2);

/// Publisher that leads a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Number of changes of the leading node so far.
    pub term: u64,
    /// Name of the node; `None` if the log no longer contains the record that starts the term.
    pub node: Option<String>,
}

/// State of a cluster.
#[derive(Debug)]
pub struct Survey {
    /// Records of the log.
    pub log: Extent,
    /// Author of the last record; `None` if the log is empty.
    pub leader: Option<Leader>,
    /// Checkpoints, newest first.
    pub checkpoints: Vec<Stored>,
    /// Servers that have reported afterwards, by name.
    pub nodes: Vec<NodeReport>,
    /// Time at which the log was read.
    pub at: UnixNanos,
}

/// Reads the state of a cluster; it changes nothing.
pub async fn survey(settings: &ClusterSettings) -> Result<Survey, StoreError> {
    let store = connect(settings).await?;
    let log = store.extent().await?;
    let at = Clock::start().now();
    let mut checkpoints = match Bucket::find(&store, &settings.name).await? {
        Some(bucket) => bucket.list().await?,
        None => Vec::new(),
    };
    checkpoints.sort_by_key(|one| std::cmp::Reverse(one.time));
    let leader = if log.last < log.first.max(1) {
        None
    } else {
        Some(leader(&store, log).await?)
    };
    let nodes = collect(&store, &settings.name, LISTENING).await?;
    Ok(Survey {
        log,
        leader,
        checkpoints,
        nodes,
        at,
    })
}

/// Author of the last record. Terms never decrease, so the first record of the term is found by
/// bisection.
async fn leader(store: &Store, log: Extent) -> Result<Leader, StoreError> {
    let last = store.get(log.last).await?;
    let term = last.term;
    let (mut from, mut first) = (log.first, last);
    while from < first.number {
        let middle = from + (first.number - from) / 2;
        match store.get(middle).await {
            Ok(record) if record.term == term => first = record,
            // Records before the log are of no interest.
            Ok(_) | Err(StoreError::Gone(_)) => from = middle + 1,
            Err(error) => return Err(error),
        }
    }
    let node = name_of(&first);
    Ok(Leader { term, node })
}

/// Name of the node that starts a term with this record.
fn name_of(record: &Record) -> Option<String> {
    let starts = record.kind == Kind::Lead;
    let lead = starts.then(|| read_lead(&record.body).ok()).flatten();
    lead.map(|lead| lead.node)
}
