//! Shortage of memory and of file descriptors.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::arena::{
    DEADLINE, Expected, REFUSED, Target, attack, connect_from, exchange, market, open,
};

/// Time without descriptors over which processor time is measured.
const SHORTAGE: Duration = Duration::from_secs(2);
/// Open sockets beyond `limits.connections`.
const SPARE_SOCKETS: usize = 1024;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Connects until the feed's port answers with a status.
async fn until_status(target: &Target, status: &str) -> Result<()> {
    let asking = async {
        loop {
            // A reset is a refusal that has overtaken its response.
            let response = exchange(target.feed, get("/healthz").as_bytes()).await;
            if response.is_ok_and(|response| response.get(9..12) == Some(status)) {
                return;
            }
        }
    };
    let asked = tokio::time::timeout(DEADLINE, asking).await;
    asked.with_context(|| format!("no response {status}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn near_the_memory_limit_new_clients_are_refused_and_others_served() -> Result<()> {
    let target = Target::start(&market("limits: {memory: auto}"))?;
    let expected = Expected {
        name: "memory limit",
        metric: (REFUSED, "memory"),
    };
    let shortage = async || {
        let (held, status) = open(connect_from(2, target.feed).await?, "").await?;
        ensure!(status == 101, "{status}");
        target.reconfigure(&market("limits: {memory: 16MiB}"))?;
        target
            .until("tickcast_config_reloads_total", "applied", 1.0)
            .await?;
        let limit = target.metric("tickcast_memory_limit_bytes", "").await?;
        ensure!((limit - 16.0 * 1024.0 * 1024.0).abs() < 1.0, "{limit}");
        until_status(&target, "503").await?;
        let response = exchange(target.admin, get("/healthz").as_bytes()).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        ensure!(target.metric("tickcast_connections", "").await? >= 3.0);
        let holders = target
            .metric("tickcast_memory_held_bytes", "connections")
            .await?;
        ensure!(holders > 0.0, "{holders}");
        // With the limit as before, clients are accepted again.
        target.reconfigure(&market("limits: {memory: auto}"))?;
        until_status(&target, "200").await?;
        drop(held);
        Ok(())
    };
    attack(&target, expected, shortage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_healthy_clients_are_served_at_little_cost() -> Result<()> {
    let target = Target::start_with(&market(""), "ulimit -n 100", "")?;
    let expected = Expected {
        name: "no file descriptors",
        metric: (REFUSED, "sockets"),
    };
    let flood = async || {
        let mut held = Vec::new();
        for _ in 0..120 {
            held.push(connect_from(2, target.feed).await?);
        }
        // Clients that wait in vain cost nothing.
        let (clock, cpu) = (Clock::start(), target.cpu()?);
        let begun = clock.now();
        target.until(REFUSED, "sockets", 10.0).await?;
        let mut looks = tokio::time::interval(SHORTAGE / 20);
        while clock.now().since(begun) < SHORTAGE {
            looks.tick().await;
            let response = exchange(target.admin, get("/healthz").as_bytes()).await?;
            ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        let share = target.cpu()?.saturating_sub(cpu).as_secs_f64()
            / clock.now().since(begun).as_secs_f64();
        ensure!(
            share < 0.3,
            "{share} of a processor, healthy clients included"
        );
        Ok(())
    };
    attack(&target, expected, flood).await?;
    let log = target.log()?;
    let lines = log.matches("out of file descriptors").count();
    ensure!(
        (1..=2).contains(&lines),
        "one line for each listener: {log}"
    );
    Ok(())
}

/// Bytes that a client receives that begins with TLS, behind other bytes.
async fn received(target: &Target, first: &[u8]) -> Result<Vec<u8>> {
    let to = target.secure.context("a feed with TLS")?;
    let mut stream = connect_from(9, to).await?;
    // The beginning of a record of a handshake.
    let _sent = stream
        .write_all(&[first, &[22, 3, 1, 2, 0, 1, 0]].concat())
        .await;
    let mut bytes = Vec::new();
    // It may be reset.
    let _ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await?;
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_of_the_tls_port_gets_no_plain_response() -> Result<()> {
    let proxied = "proxy_protocol: required\ntrusted_proxies: [127.0.0.9]\nlimits: {exempt: [], connections_per_address: 1}";
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n";
    for (reason, config, before, first) in [
        ("memory", "limits: {memory: 16MiB}", "", &b""[..]),
        (
            "address_limit",
            "limits: {exempt: [127.0.0.1], connections_per_address: 1}",
            "",
            b"",
        ),
        ("address_limit", proxied, "", header),
        (
            "sockets",
            "limits: {connections: 1, handshake: 1m}",
            "",
            b"",
        ),
        ("sockets", "limits: {handshake: 1m}", "ulimit -n 100", b""),
    ] {
        let target = Target::start_secure(&market(config), before)?;
        let secure = target.secure.context("a feed with TLS")?;
        let others = match (reason, before) {
            ("sockets", "") => SPARE_SOCKETS,
            ("sockets", _) => 100,
            _ => 1,
        };
        let mut held = Vec::new();
        let flood = async {
            while held.len() < others || target.refused(reason).await? < 1.0 {
                let mut stream = connect_from(9, secure).await?;
                let _refused = stream.write_all(first).await;
                held.push(stream);
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(DEADLINE, flood)
            .await
            .context(reason)??;
        let before = target.refused(reason).await?;
        let bytes = received(&target, first).await?;
        ensure!(
            bytes.is_empty(),
            "{reason}: {}",
            String::from_utf8_lossy(&bytes)
        );
        ensure!(target.refused(reason).await? > before, "{reason}");
    }
    Ok(())
}
