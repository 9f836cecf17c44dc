//! Servers whose connection to NATS stalls, is slow, or loses what was under way: clients receive
//! every trade once, in one epoch.

use anyhow::{Result, ensure};
use tickcast::protocol::SourceState;
use tokio::time::timeout;

use super::process::{Cluster, Process, wait_for};
use super::proxy::{Link, Proxy};
use super::takeover::{Seen, metric};
use super::{DEADLINE, MARKET, Reader};

const PUBLISHER: &str =
    "role: publisher, lease: 700ms, stale_after: 500ms, log: {replicas: 1, bytes: 64MiB}";
const GATEWAY: &str = "role: gateway, stale_after: 300ms, unready_after: 400ms";

/// Starts a server that reaches NATS through a proxy.
async fn behind(cluster: &Cluster, node: &str, keys: &str, rest: &str) -> Result<(Proxy, Process)> {
    let proxy = Proxy::start(cluster.nats.address()).await?;
    let keys = format!("{keys}, nats: {{urls: [\"nats://{}\"]}}", proxy.address);
    // The proxy runs on this thread's runtime.
    let server = tokio::task::block_in_place(|| cluster.member(node, &keys, rest))?;
    Ok((proxy, server))
}

async fn reader_of(gateway: &Process) -> Result<Reader> {
    let mut reader = Reader::connect(gateway).await?;
    reader.subscribe(None).await?;
    Ok(reader)
}

/// Reads trades, which must be complete.
async fn read(seen: &mut Seen, reader: &mut Reader, count: usize) -> Result<()> {
    timeout(DEADLINE, seen.read(reader, count)).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_nats_is_replaced_and_does_not_go_on() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let sources = format!("sources: {MARKET}\n");
    let (proxy, mut first) = behind(&cluster, "a", PUBLISHER, &sources).await?;
    first.logs("leading the cluster")?;
    let second = cluster.member("b", PUBLISHER, &sources)?;
    let gateway = cluster.member("one", GATEWAY, "")?;
    let mut reader = reader_of(&gateway).await?;
    let mut seen = Seen::default();
    read(&mut seen, &mut reader, 200).await?;
    proxy.set(Link::Stalled);
    tokio::task::block_in_place(|| second.logs("leading the cluster"))?;
    read(&mut seen, &mut reader, 200).await?;
    // What it had sent arrives now, and is refused.
    proxy.set(Link::Open);
    let ended = tokio::task::block_in_place(|| first.ended())?;
    ensure!(!ended.success(), "it was overtaken");
    first.logs("another publisher leads the cluster")?;
    read(&mut seen, &mut reader, 200).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_in_the_log_once_however_often_it_was_sent() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let sources = format!("sources: {MARKET}\n");
    let (proxy, first) = behind(&cluster, "a", PUBLISHER, &sources).await?;
    first.logs("leading the cluster")?;
    let second = cluster.member("b", PUBLISHER, &sources)?;
    let gateway = cluster.member("one", GATEWAY, "")?;
    let mut reader = reader_of(&gateway).await?;
    let mut seen = Seen::default();
    for round in 1..=3 {
        read(&mut seen, &mut reader, 50).await?;
        // The log accepts records whose acknowledgements are lost with the connection.
        proxy.set(Link::AnswersHeld);
        let held = metric(&gateway, "tickcast_cluster_record ")?;
        tokio::task::block_in_place(|| {
            wait_for("records without acknowledgement", || {
                let now = metric(&gateway, "tickcast_cluster_record ")?;
                Ok((now >= held + 5).then_some(()))
            })
        })?;
        proxy.cut();
        read(&mut seen, &mut reader, 50).await?;
        let log = first.log()?;
        let resolved = log.matches("reading what it contains").count();
        ensure!(resolved >= round, "{log}");
    }
    ensure!(
        !second.log()?.contains("leading the cluster"),
        "no takeover"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_link_stalls_says_so_and_catches_up() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    let (proxy, gateway) = behind(&cluster, "one", GATEWAY, "").await?;
    let mut reader = reader_of(&gateway).await?;
    let mut seen = Seen::default();
    read(&mut seen, &mut reader, 200).await?;
    proxy.set(Link::Stalled);
    timeout(
        DEADLINE,
        seen.read_until(&mut reader, SourceState::Reconnecting),
    )
    .await??;
    // Its connection to NATS still stands, but nothing arrives.
    let url = format!("http://{}/readyz", gateway.address);
    tokio::task::block_in_place(|| {
        wait_for("a gateway that is not ready", || {
            Ok(ureq::get(&url).call().is_err().then_some(()))
        })
    })?;
    proxy.set(Link::Open);
    timeout(DEADLINE, seen.read_until(&mut reader, SourceState::Live)).await??;
    read(&mut seen, &mut reader, 1000).await?;
    // A link that is too slow for the log, and then recovers.
    proxy.set(Link::Slow(20_000));
    let behind = metric(&publisher, "tickcast_cluster_record ")?;
    tokio::task::block_in_place(|| {
        wait_for("a gateway that is behind", || {
            let own = metric(&gateway, "tickcast_cluster_record ")?;
            let all = metric(&publisher, "tickcast_cluster_record ")?;
            Ok((all > behind + 200 && all > own + 50).then_some(()))
        })
    })?;
    proxy.set(Link::Open);
    read(&mut seen, &mut reader, 1000).await
}
