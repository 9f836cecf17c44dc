//! Start of a gateway behind a log of some minutes: from the first record, and from a checkpoint.

use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::clock::Clock;

use crate::latency::{GATEWAY, PUBLISHER, market};
use crate::process::{Cluster, Process, wait_for};
use crate::report::Report;
use crate::{Engine, ONE};

pub(crate) const EVENTS_PER_S: f64 = 20_000.0;
/// Keys of a publisher that stores no checkpoint during the case.
const WITHOUT_CHECKPOINTS: &str = "checkpoints: {interval: 1h}";
const WITH_CHECKPOINTS: &str = "checkpoints: {interval: 10s}";
/// Latest time of the first checkpoint.
const FIRST_CHECKPOINT: Duration = Duration::from_secs(15);

/// Seconds from the start of a gateway until it is ready.
fn boot(cluster: &Cluster, node: &str) -> Result<(f64, Process)> {
    let clock = Clock::start();
    let since = clock.now();
    let gateway = cluster.member(node, GATEWAY, "")?;
    let url = format!("http://{}/readyz", gateway.address);
    wait_for("readiness", || {
        Ok(ureq::get(&url).call().is_ok().then_some(()))
    })?;
    Ok((clock.now().since(since).as_secs_f64(), gateway))
}

/// Records and bytes that the log contains.
pub(crate) async fn stored(cluster: &Cluster) -> Result<(f64, f64)> {
    let jetstream = cluster.jetstream().await?;
    let stream = jetstream.get_stream("TC_LOG_main").await?;
    let state = &stream.cached_info().state;
    Ok((state.messages as f64, state.bytes as f64))
}

/// Value of a counter of a server, over all labels.
fn counter(server: &Process, name: &str) -> Result<f64> {
    let url = format!("http://{}/metrics", server.admin);
    let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the log grows with time, not by an event"
)]
pub(crate) fn run(written: Duration, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let Engine { name, .. } = ONE;
    let cluster = ONE.start()?;
    let market = market(EVENTS_PER_S);
    let keys = format!("{PUBLISHER}, {WITHOUT_CHECKPOINTS}");
    let publisher = cluster.member("a", &keys, &market)?;
    publisher.logs("leading the cluster")?;
    std::thread::sleep(written);
    let events = counter(&publisher, "tickcast_events_published_total")?;
    let (records, bytes) = runtime.block_on(stored(&cluster))?;
    let (seconds, _gateway) = boot(&cluster, "one")?;
    let minutes = written.as_secs_f64() / 60.0;
    report.add(
        "events in the log at the start of a gateway",
        vec![events],
        "",
        "",
    );
    report.add("records in it", vec![records], "", "");
    report.add(
        "bytes per event in the log",
        vec![bytes / events],
        "B",
        "36 B",
    );
    let what = format!("start of a gateway behind {minutes} min of 20,000 events/s, {name}");
    report.add(what, vec![seconds], "s", "≤ 6 s");
    publisher.stop().context("the publisher")?;
    let keys = format!("{PUBLISHER}, {WITH_CHECKPOINTS}");
    let publisher = cluster.member("a", &keys, &market)?;
    publisher.logs("leading the cluster")?;
    std::thread::sleep(FIRST_CHECKPOINT);
    let (seconds, _gateway) = boot(&cluster, "two")?;
    report.add("the same, from a checkpoint", vec![seconds], "s", "");
    Ok(())
}
