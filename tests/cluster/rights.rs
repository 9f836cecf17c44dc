//! Rights of the NATS users in the deployment files: enough for each server, and no more.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{ConnectOptions, Event};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::process::Cluster;
use super::takeover::Seen;
use super::{DEADLINE, MARKET, Reader};

const PUBLISHER: &str = "publisher for a trial";
const GATEWAY: &str = "gateway for a trial";

/// The users of the deployment file.
fn users() -> Result<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/compose.cluster.yaml");
    let text = std::fs::read_to_string(file)?;
    let (_, from) = text.split_once("authorization {").context("the users")?;
    let (users, _) = from
        .split_once("\n  publisher-password:")
        .context("the end")?;
    Ok(format!("authorization {{{users}\n"))
}

/// Subject on which this user may not publish, or which it may not subscribe to.
async fn refused(violations: &mut mpsc::Receiver<String>) -> Result<String> {
    let refused = timeout(DEADLINE, violations.recv()).await;
    refused
        .context("nothing was refused")?
        .context("connection")
}

/// A gateway that was taken over gets no further with its password.
async fn refuses_everything_else(cluster: &Cluster) -> Result<()> {
    let (report, mut violations) = mpsc::channel(16);
    let options = ConnectOptions::with_user_and_password("gateway".into(), GATEWAY.into());
    let client = options
        .event_callback(move |event| {
            let report = report.clone();
            async move {
                if let Event::ServerError(error) = event {
                    // After a send error the test has ended.
                    let _ended = report.send(error.to_string().to_lowercase()).await;
                }
            }
        })
        .connect(cluster.nats.address().to_string())
        .await?;
    for subject in [
        "tc.log.main",
        "tc.live.main",
        "tc.control.main",
        "$JS.API.STREAM.DELETE.TC_LOG_main",
        "$JS.API.STREAM.UPDATE.TC_LOG_main",
        "$JS.API.STREAM.PURGE.OBJ_TC_CHECKPOINTS_main",
        "$O.TC_CHECKPOINTS_main.C.x",
    ] {
        client.publish(subject, "x".into()).await?;
        let refused = refused(&mut violations).await?;
        ensure!(
            refused.contains(&subject.to_lowercase()),
            "{subject}: {refused}"
        );
    }
    let _requests = client.subscribe("tc.push.main").await?;
    let refused = refused(&mut violations).await?;
    ensure!(refused.contains("tc.push.main"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_cannot_write_the_log() -> Result<()> {
    let Some(cluster) = Cluster::with_users(&users()?)? else {
        return Ok(());
    };
    let urls = cluster.nats.urls();
    let keys = |user: &str, password: &str| {
        anyhow::Ok(format!(
            "nats: {{urls: {urls}, {}}}",
            cluster.login(user, password)?
        ))
    };
    let publisher = format!(
        "role: publisher, log: {{replicas: 1, bytes: 64MiB}}, checkpoints: {{interval: 1s, kept: 1}}, {}",
        keys("publisher", PUBLISHER)?
    );
    let sources = format!("sources: {MARKET}\n");
    let first = cluster.member("a", &publisher, &sources)?;
    first.logs("leading the cluster")?;
    let gateway = format!("role: gateway, {}", keys("gateway", GATEWAY)?);
    let gateway = cluster.member("one", &gateway, "bus: {history: {age: 1s}}\n")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    let mut seen = Seen::default();
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    // The leader replaces checkpoints, another publisher and a gateway start from one.
    let second = cluster.member("b", &publisher, &sources)?;
    second.logs("starting from a checkpoint")?;
    let (code, text) = cluster.command("a", &["handover"])?;
    ensure!(code == Some(0), "{text}");
    second.logs("leading the cluster")?;
    timeout(DEADLINE, seen.read(&mut reader, 200)).await??;
    let (code, text) = cluster.command("b", &["checkpoint"])?;
    ensure!(code == Some(0), "{text}");
    let (code, text) = cluster.command("one", &["status"])?;
    ensure!(code == Some(0), "{text}");
    for server in [&first, &second, &gateway] {
        let log = server.log()?.to_lowercase();
        ensure!(!log.contains("permissions violation"), "{log}");
    }
    refuses_everything_else(&cluster).await?;
    // The log goes on undisturbed.
    timeout(Duration::from_secs(30), seen.read(&mut reader, 100)).await??;
    Ok(())
}
