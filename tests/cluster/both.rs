//! Servers that are publisher and gateway in one process.

use anyhow::{Result, ensure};
use tokio::time::timeout;

use super::process::{Cluster, Process};
use super::takeover::Seen;
use super::{DEADLINE, MARKET, Reader};

fn server(cluster: &Cluster, node: &str) -> Result<Process> {
    let keys = "role: both, publisher_admin: 127.0.0.1:0, lease: 500ms, stale_after: 500ms, log: {replicas: 1, bytes: 64MiB}";
    cluster.member(node, keys, &format!("sources: {MARKET}\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_of_both_parts_is_replaced_by_another_one() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let first = server(&cluster, "a")?;
    first.logs("leading the cluster")?;
    let second = server(&cluster, "b")?;
    let mut seen = Seen::default();
    let mut reader = Reader::connect(&first).await?;
    reader.subscribe(None).await?;
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    let (code, text) = cluster.status("b")?;
    ensure!(code == Some(0), "{text}");
    for part in [
        "servers      4",
        ", leader",
        ", standby",
        ", gateway, 1 clients",
    ] {
        ensure!(text.contains(part), "{text}");
    }
    first.crash()?;
    second.logs("leading the cluster")?;
    let mut next = Reader::connect(&second).await?;
    next.subscribe(Some(&reader.positions)).await?;
    timeout(DEADLINE, seen.read(&mut next, 200)).await??;
    ensure!(second.stop()?.success());
    Ok(())
}
