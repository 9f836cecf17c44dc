//! Reading many records of the log by one request.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tickcast::cluster::{ClusterStatus, Store};
use tickcast::config::Config;
use tickcast::metrics::Metrics;

use super::MARKET;
use super::process::Cluster;
use super::takeover::wait_for_records;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_request_reads_many_records_in_order() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    wait_for_records(&publisher, 200)?;
    let config = Config::parse(&cluster.publisher_config(MARKET), "test")?;
    let settings = config.cluster.context("section cluster")?;
    let metrics = Metrics::new().add_cluster("publisher");
    let store = Store::open(&settings, Arc::new(ClusterStatus::new(metrics)), false).await?;
    let records = store.get_some(3, 128).await?;
    let numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
    ensure!(numbers == (3..131).collect::<Vec<_>>(), "{numbers:?}");
    ensure!(records[0].sum == store.get(3).await?.sum);
    // The log ends before.
    publisher.crash()?;
    let last = store.last().await?;
    let records = store.get_some(last - 1, 128).await?;
    ensure!(records.len() == 2, "{} records", records.len());
    ensure!(store.get_some(last + 1, 128).await?.is_empty());
    Ok(())
}
