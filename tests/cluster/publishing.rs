//! `POST /v1/publish` in a cluster: at the leader, at a publisher that stands by, and at gateways.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::Reader;
use crate::process::{Cluster, Process, wait_for};

const NDJSON: &str = "application/x-ndjson";
/// Sources that accept events from programs on this machine; a trade sent again is rejected.
const OPEN: &str = "[{name: in, kind: push, open: true, rules: {on_duplicate: drop}, instruments: [{symbol: BTC-USD}]}]";

/// Response to a publish request.
#[derive(Debug, PartialEq, Eq)]
struct Posted {
    status: u16,
    content_type: Option<String>,
    challenge: Option<String>,
    retry_after: Option<String>,
    body: String,
}

/// Publishes at a server.
fn post(
    at: SocketAddr,
    content_type: &str,
    token: Option<&str>,
    body: impl AsRef<[u8]>,
) -> Result<Posted> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = ureq::Agent::new_with_config(agent.build());
    let mut request = agent
        .post(format!("http://{at}/v1/publish"))
        .content_type(content_type)
        // A body that is refused by its length is not sent.
        .header("Expect", "100-continue");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut response = request.send(body.as_ref())?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    Ok(Posted {
        status: response.status().as_u16(),
        content_type: header("content-type"),
        challenge: header("www-authenticate"),
        retry_after: header("retry-after"),
        body: response.body_mut().read_to_string()?,
    })
}

/// A trade with an id.
fn trade(id: u32) -> String {
    format!(
        "{{\"ch\":\"trade\",\"sym\":\"BTC-USD\",\"px\":\"1.5\",\"qty\":\"2\",\"id\":\"{id}\"}}\n"
    )
}

/// Ensures that all events of a request were accepted.
fn accepted(posted: &Posted, count: usize) -> Result<()> {
    let report: serde_json::Value =
        serde_json::from_str(&posted.body).with_context(|| format!("not a report: {posted:?}"))?;
    ensure!(
        posted.status == 200 && report["accepted"] == count && report["refused"] == 0,
        "{posted:?}"
    );
    Ok(())
}

/// Ensures a 503 that names the time of the next attempt.
fn unavailable(posted: &Posted, message: &str) -> Result<()> {
    ensure!(
        posted.status == 503
            && posted.retry_after.as_deref() == Some("1")
            && posted.body.contains(message),
        "{posted:?}"
    );
    Ok(())
}

/// Waits until a publisher has published this number of trades, committed or not.
fn trades_published(publisher: &Process, count: usize) -> Result<()> {
    let url = format!("http://{}/metrics", publisher.admin);
    let line = format!("tickcast_events_published_total{{channel=\"trade\"}} {count}");
    wait_for(&line, || {
        let metrics = ureq::get(&url).call()?.body_mut().read_to_string()?;
        Ok(metrics.lines().any(|one| one == line).then_some(()))
    })
}

/// Ensures that a reader gets the trades 1 to `count` in order, each once.
async fn each_once(reader: &mut Reader, count: u64) -> Result<()> {
    let mut trades = Vec::new();
    while (trades.len() as u64) < count {
        let events = reader.events(1).await?.into_iter();
        trades.extend(events.filter(|((topic, _), _)| topic == "trade:BTC-USD"));
    }
    trades.sort();
    for (number, ((_, seq), event)) in (1..).zip(&trades) {
        let id = format!("id: Number({number})");
        ensure!(*seq == number && event.contains(&id), "{trades:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_event_that_is_published_anywhere_is_delivered_everywhere() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let leader = cluster.publisher("a", OPEN)?;
    leader.logs("leading the cluster")?;
    let standby = cluster.publisher("b", OPEN)?;
    let (one, two) = (cluster.gateway("one")?, cluster.gateway("two")?);
    let mut reader = Reader::connect(&two).await?;
    reader.subscribe(None).await?;
    for (id, server) in (1..).zip([&leader, &standby, &one, &two]) {
        accepted(&post(server.address, NDJSON, None, trade(id))?, 1)?;
    }
    each_once(&mut reader, 4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publisher_is_answered_once_the_log_contains_its_events() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let leader = cluster.publisher_with("a", OPEN, "publish_timeout: 2s", "")?;
    leader.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let mut reader = Reader::connect(&gateway).await?;
    reader.subscribe(None).await?;
    accepted(&post(leader.address, NDJSON, None, trade(1))?, 1)?;
    cluster.signal_nats("-STOP")?;
    let late = post(leader.address, NDJSON, None, trade(2))?;
    unavailable(&late, "within cluster.publish_timeout; it is unknown")?;
    // The first request is committed late, the second one within its time.
    let address = leader.address;
    let waiting = spawn_blocking(move || post(address, NDJSON, None, trade(3)));
    trades_published(&leader, 3)?;
    ensure!(!waiting.is_finished(), "answered without the log");
    cluster.signal_nats("-CONT")?;
    accepted(&waiting.await??, 1)?;
    let again = post(leader.address, NDJSON, None, trade(2))?;
    ensure!(again.body.contains("`duplicate`"), "{again:?}");
    accepted(&post(gateway.address, NDJSON, None, trade(4))?, 1)?;
    each_once(&mut reader, 4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_publisher_that_stops_answers_what_waits_for_the_log() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let leader = cluster.publisher_with("a", OPEN, "publish_timeout: 20s", "")?;
    leader.logs("leading the cluster")?;
    cluster.signal_nats("-STOP")?;
    let address = leader.address;
    let waiting = spawn_blocking(move || post(address, NDJSON, None, trade(1)));
    trades_published(&leader, 1)?;
    leader.signal("-TERM")?;
    unavailable(
        &waiting.await??,
        "stopped leading the cluster; it is unknown",
    )?;
    cluster.signal_nats("-CONT")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_without_a_leader_refuses_publish_requests() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let leader = cluster.publisher("a", OPEN)?;
    leader.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    accepted(&post(gateway.address, NDJSON, None, trade(1))?, 1)?;
    leader.crash()?;
    let refused = wait_for("end of the leader in NATS", || {
        let refused = post(gateway.address, NDJSON, None, trade(2))?;
        Ok(refused
            .body
            .contains("no publisher leads")
            .then_some(refused))
    })?;
    unavailable(&refused, "nothing was published")?;
    let next = cluster.publisher("a", OPEN)?;
    next.logs("leading the cluster")?;
    wait_for("sources of the next leader", || {
        let posted = post(gateway.address, NDJSON, None, trade(3))?;
        Ok((posted.status == 200).then_some(()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_that_does_not_fit_into_a_message_is_too_large() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let leader = cluster.publisher("a", OPEN)?;
    leader.logs("leading the cluster")?;
    let gateway = cluster.gateway("one")?;
    let fits = trade(1) + &"\n".repeat(1_000_000);
    accepted(&post(gateway.address, NDJSON, None, fits)?, 1)?;
    let large = trade(2) + &"\n".repeat(1 << 20);
    let refused = post(gateway.address, NDJSON, None, &large)?;
    ensure!(
        refused.status == 413 && refused.body.contains("bytes (max_payload of NATS"),
        "{refused:?}"
    );
    accepted(&post(leader.address, NDJSON, None, &large)?, 1)
}

fn sha256(secret: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(secret))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_refuses_what_a_standalone_server_refuses() -> Result<()> {
    let Some(cluster) = Cluster::start()? else {
        return Ok(());
    };
    let token = sha256("orange-17");
    let sources = format!(
        "[{{name: in, kind: push, token_sha256: {token}, instruments: [{{symbol: BTC-USD}}, {{symbol: ETH-USD}}]}}]"
    );
    let secret = sha256("lemon-23");
    let rights = format!(
        "roles: {{desk: {{publish: {{in: [BTC-USD]}}}}, reader: {{topics: [\"*\"]}}}}\n\
         auth: {{scheme: keys, keys: [{{id: desk, sha256: {secret}, role: desk}}, {{id: reader, sha256: {secret}, role: reader}}]}}\n"
    );
    let standalone = cluster.standalone("alone", &format!("sources: {sources}\n{rights}"))?;
    let leader = cluster.publisher_with("a", &sources, "publish_timeout: 5s", &rights)?;
    leader.logs("leading the cluster")?;
    let gateway = cluster.gateway_with("one", &rights)?;
    let event = trade(1);
    let other = event.replace("BTC", "ETH");
    let statuses = [
        (NDJSON, Some("orange-17"), &event, 200),
        (NDJSON, Some("desk.lemon-23"), &event, 200),
        // A symbol without the right to it, in the report.
        (NDJSON, Some("desk.lemon-23"), &other, 200),
        (NDJSON, None, &event, 401),
        (NDJSON, Some("wrong"), &event, 401),
        (NDJSON, Some("desk.wrong"), &event, 401),
        (NDJSON, Some("reader.lemon-23"), &event, 403),
        ("text/plain", Some("orange-17"), &event, 415),
        ("application/msgpack", Some("orange-17"), &event, 400),
    ];
    for (content_type, token, body, status) in statuses {
        let expected = post(standalone.address, content_type, token, body)?;
        ensure!(expected.status == status, "{token:?}: {expected:?}");
        let posted = post(gateway.address, content_type, token, body)?;
        ensure!(posted == expected, "{posted:?}, not {expected:?}");
    }
    for secret in ["orange-17", "lemon-23"] {
        for log in [gateway.log()?, leader.log()?] {
            if log.contains(secret) {
                bail!("{secret} is in the log: {log}");
            }
        }
    }
    Ok(())
}
