//! A log that has forgotten acknowledged records is whole again while a publisher has them.

use anyhow::{Result, ensure};
use tokio::time::timeout;

use super::process::Cluster;
use super::takeover::{Seen, metric, wait_for_records};
use super::{DEADLINE, MARKET, Reader};

/// Files of NATS after which it has forgotten something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgotten {
    Newest,
    Everything,
}

async fn clients_notice_nothing(forgotten: Forgotten) -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    if forgotten == Forgotten::Newest {
        cluster.save_nats()?;
        timeout(DEADLINE, seen.read(&mut reader, 400)).await??;
        wait_for_records(&gateway, 20)?;
    }
    cluster.set_back_nats()?;
    publisher.logs("they were appended again")?;
    timeout(DEADLINE, seen.read(&mut reader, 600)).await??;
    let repaired = metric(&publisher, "tickcast_cluster_repaired_records_total ")?;
    ensure!(repaired >= 20, "{repaired}");
    // The repaired log has all records, in a chain.
    if forgotten == Forgotten::Newest {
        let later = cluster.gateway("two")?;
        let mut other = Reader::connect(&later).await?;
        other.subscribe(Some(&reader.positions)).await?;
        other.events(200).await?;
    }
    ensure!(publisher.stop()?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_log_that_forgot_is_repaired() -> Result<()> {
    clients_notice_nothing(Forgotten::Newest).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lost_stream_is_created_again_with_the_records_that_are_kept() -> Result<()> {
    clients_notice_nothing(Forgotten::Everything).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_standby_repairs_the_log_before_it_leads() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = cluster.publisher("a", MARKET)?;
    first.logs("leading the cluster")?;
    let second = cluster.publisher("b", MARKET)?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    cluster.save_nats()?;
    timeout(DEADLINE, seen.read(&mut reader, 400)).await??;
    wait_for_records(&second, 20)?;
    first.crash()?;
    cluster.set_back_nats()?;
    second.logs("they were appended again")?;
    second.logs("source goes on where the log ends")?;
    timeout(DEADLINE, seen.read(&mut reader, 600)).await??;
    Ok(())
}
