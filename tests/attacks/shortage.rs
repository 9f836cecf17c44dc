//! Shortage of memory and of file descriptors.

use anyhow::{Result, ensure};

use crate::arena::{Expected, REFUSED, Target, attack, connect_from, exchange, market, open};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
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
        let mut status = 200;
        while status != 503 {
            // A reset is a refusal that has overtaken its response.
            let response = exchange(target.feed, get("/healthz").as_bytes()).await;
            let response = response.unwrap_or_default();
            status = response.get(9..12).unwrap_or("0").parse()?;
        }
        let response = exchange(target.admin, get("/healthz").as_bytes()).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        ensure!(target.metric("tickcast_connections", "").await? >= 3.0);
        let holders = target
            .metric("tickcast_memory_held_bytes", "connections")
            .await?;
        ensure!(holders > 0.0, "{holders}");
        // With the limit as before, clients are accepted again.
        target.reconfigure(&market("limits: {memory: auto}"))?;
        while status != 200 {
            let response = exchange(target.feed, get("/healthz").as_bytes()).await;
            let response = response.unwrap_or_default();
            status = response.get(9..12).unwrap_or("0").parse()?;
        }
        drop(held);
        Ok(())
    };
    attack(&target, expected, shortage).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_healthy_clients_are_served_at_little_cost() -> Result<()> {
    let target = Target::start_with(&market(""), "ulimit -n 100")?;
    let expected = Expected {
        name: "no file descriptors",
        metric: (REFUSED, "sockets"),
    };
    let mut used = None;
    let flood = async || {
        let mut held = Vec::new();
        for _ in 0..120 {
            held.push(connect_from(2, target.feed).await?);
        }
        let before = target.cpu()?;
        target.until(REFUSED, "sockets", 10.0).await?;
        let response = exchange(target.admin, get("/healthz").as_bytes()).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        used = Some(target.cpu()?.saturating_sub(before));
        Ok(())
    };
    attack(&target, expected, flood).await?;
    let lines = target.log()?.matches("out of file descriptors").count();
    ensure!(lines <= 2, "{lines} lines");
    eprintln!("processor time while descriptors were short: {used:?}");
    Ok(())
}
