//! What clients see depends on what the NATS servers have committed, and on nothing else.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;

use super::chaos::stream_leader;
use super::nats::SYNC;
use super::process::{Cluster, Process, wait_for};
use super::takeover::{Seen, metric};
use super::{DEADLINE, MARKET, Reader};

/// Makes a NATS server the leader of the stream of the log.
async fn lead_stream(cluster: &Cluster, server: &str) -> Result<()> {
    let client = async_nats::connect(cluster.nats.address().to_string()).await?;
    let jetstream = cluster.jetstream().await?;
    let lead = async {
        while stream_leader(&jetstream).await? != server {
            let preferred = format!("{{\"placement\":{{\"preferred\":\"{server}\"}}}}");
            let subject = "$JS.API.STREAM.LEADER.STEPDOWN.TC_LOG_main";
            // It may not answer while it elects one.
            let _asked = client.request(subject, preferred.into()).await;
        }
        Ok(())
    };
    timeout(DEADLINE, lead)
        .await
        .context("no change of the leader")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_committed_records_reach_a_client() -> Result<()> {
    let Some(mut cluster) = Cluster::with_nats(3, SYNC)? else {
        return Ok(());
    };
    // Both keep their connection to the server that stays.
    let nats = format!("nats: {{urls: [\"nats://{}\"]}}", cluster.nats.address());
    let keys = format!(
        "role: publisher, lease: 500ms, stale_after: 500ms, log: {{replicas: 3, bytes: 64MiB}}, {nats}"
    );
    let publisher = cluster.member("a", &keys, &format!("sources: {MARKET}\n"))?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.member("one", &format!("role: gateway, {nats}"), "")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    lead_stream(&cluster, "nats-0").await?;
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    // Without a majority nothing is committed, while the publisher goes on.
    cluster.nats.crash(1)?;
    cluster.nats.crash(2)?;
    wait_for("a silent log", || {
        let is_silent = metric(&gateway, "tickcast_cluster_log_silent ")? == 1;
        Ok(is_silent.then_some(()))
    })?;
    let shown = metric(&gateway, "tickcast_cluster_record ")?;
    let buffered = metric(&publisher, "tickcast_cluster_buffered_bytes ")?;
    wait_for("batches that are not committed", || {
        let now = metric(&publisher, "tickcast_cluster_buffered_bytes ")?;
        Ok((now > buffered + 100_000).then_some(()))
    })?;
    ensure!(
        metric(&gateway, "tickcast_cluster_record ")? == shown,
        "a gateway shows what no majority has"
    );
    let sent = metric(&publisher, "tickcast_cluster_unacknowledged_records ")?;
    let committed = metric(&publisher, "tickcast_cluster_record ")?;
    ensure!(sent > 20, "{sent} records were sent");
    // The last acknowledgements may be lost with their server.
    ensure!(
        shown <= committed + 5,
        "{shown} records are shown, {committed} committed"
    );
    cluster.nats.restart(1)?;
    cluster.nats.restart(2)?;
    timeout(DEADLINE, seen.read(&mut reader, 400)).await?
}

/// Ports of this machine from which a process has connections that it has accepted or opened.
fn connected_ports(process: &Process) -> Result<HashSet<u16>> {
    let id = process.id();
    let mut sockets = HashSet::new();
    for file in std::fs::read_dir(format!("/proc/{id}/fd"))? {
        // A file may be closed meanwhile.
        let Ok(target) = std::fs::read_link(file?.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let inode = target.strip_prefix("socket:[");
        sockets.extend(inode.map(|inode| inode.trim_end_matches(']').to_owned()));
    }
    let mut ports = HashSet::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = std::fs::read_to_string(format!("/proc/{id}/net/{table}"))?;
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_listening = fields[3] == "0A";
            if sockets.contains(fields[9]) && !is_listening {
                let (_, port) = fields[1].split_once(':').context("an address")?;
                ports.insert(u16::from_str_radix(port, 16)?);
            }
        }
    }
    Ok(ports)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn standalone_opens_no_connection() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let alone = cluster.standalone("alone", &format!("sources: {MARKET}\n"))?;
    let mut reader = Reader::connect(&alone).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    let ports = connected_ports(&alone)?;
    ensure!(
        ports == HashSet::from([alone.address.port()]),
        "connections from {ports:?}, besides that of the client"
    );
    // A server of the cluster does have one.
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    ensure!(!connected_ports(&publisher)?.is_empty());
    Ok(())
}
