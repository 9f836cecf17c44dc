//! Readiness of gateways: a balancer removes one that is cut off, and keeps all while nobody receives
//! records.

use std::time::Duration;

use anyhow::{Result, ensure};
use tickcast::clock::Clock;

use super::MARKET;
use super::process::{Cluster, Process, wait_for};
use super::takeover::metric;

const KEYS: &str = "role: gateway, stale_after: 200ms, unready_after: 500ms";

/// Status of `/readyz`.
fn ready(gateway: &Process) -> Result<u16> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(agent.build());
    let url = format!("http://{}/readyz", gateway.address);
    Ok(agent.get(&url).call()?.status().as_u16())
}

fn wait_until(gateway: &Process, status: u16) -> Result<()> {
    wait_for(
        "readiness",
        || Ok((ready(gateway)? == status).then_some(())),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_is_unready_only_while_others_receive_records() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else {
        return Ok(());
    };
    let publisher = cluster.publisher("a", MARKET)?;
    publisher.logs("leading the cluster")?;
    let gateway = cluster.member("one", KEYS, "")?;
    wait_until(&gateway, 200)?;
    // Nobody receives records: all gateways stay in service.
    publisher.signal("-STOP")?;
    gateway.logs("no record of the shared log")?;
    let clock = Clock::start();
    let silent = clock.now();
    while clock.now().since(silent) < Duration::from_secs(1) {
        ensure!(ready(&gateway)? == 200, "no other gateway is better");
    }
    publisher.signal("-CONT")?;
    wait_for("records", || {
        let silent = metric(&gateway, "tickcast_cluster_log_silent ")?;
        Ok((silent == 0).then_some(()))
    })?;
    // This gateway has lost NATS.
    cluster.crash_nats()?;
    wait_until(&gateway, 503)?;
    cluster.restart_nats()?;
    wait_until(&gateway, 200)?;
    let (code, text) = cluster.status("one")?;
    ensure!(code == Some(0), "{text}");
    for line in [
        "servers      2",
        "a    record ",
        ", leader",
        ", gateway, 0 clients",
    ] {
        ensure!(text.contains(line), "{text}");
    }
    Ok(())
}
