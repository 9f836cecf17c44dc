//! Alerts fire when their conditions are provoked, with scaled-down waiting times.
//! (`dashboards/prometheus/tests.yml` tests their real times, and that they stay silent otherwise.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::clock::Clock;
use tickcast::load::{Plan, TopicChoice, run};

use crate::prometheus::{Feed, Prometheus, exclusive, is_installed, path};

/// Three sources: a healthy one, one whose file is removed during the replay, and one whose
/// publisher never publishes.
fn three_sources(tape: &std::path::Path) -> String {
    format!(
        "
sources:
  - {{name: sim, kind: sim, stale_after: 1h, instruments: [{{symbol: A, start: 100, rate: 100/s}}]}}
  - {{name: tape, kind: replay, files: [\"{}\"], loop: true, symbol: T}}
  - {{name: in, kind: push, open: true, stale_after: 1s, instruments: [{{symbol: P}}]}}
",
        tape.display()
    )
}

#[test]
fn a_killed_source_a_silent_publisher_and_a_missing_server_raise_alerts() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let tape = folder.path().join("BTCUSDT-trades-2024-08-08.csv");
    let lines: Vec<String> = (0..40u64)
        .map(|at| {
            format!(
                "{at},60000.00,0.01,600.00,{},true,true",
                1_723_075_200_000 + 50 * at
            )
        })
        .collect();
    std::fs::write(&tape, lines.join("\n"))?;
    let mut feed = Feed::start(&three_sources(&tape))?;
    let prometheus = Prometheus::start(feed.admin)?;
    std::fs::remove_file(&tape)?;
    let labels = prometheus.alert("TickcastSourceNotLive")?;
    assert_eq!(
        (&labels["source"], &labels["severity"]),
        (&"tape".into(), &"page".into()),
        "{labels}"
    );
    prometheus.alert("TickcastInstrumentsStale")?;
    assert!(!prometheus.firing()?.contains(&"TickcastDown".to_owned()));
    let app = feed.app.take().context("the app is not running")?;
    feed.runtime.block_on(app.stop());
    drop(feed);
    prometheus.alert("TickcastDown")?;
    Ok(())
}

/// One shard with low limits.
const SMALL: &str = "
shards: 1
sources: [{name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [{symbol: A, start: 100, rate: 1000/s}, {symbol: B, start: 100, rate: 1000/s}]}]
limits: {requests_per_s: 1000, connections: 60, topics: 16, message: 1KiB, publish: 64KiB, publish_events: 100, http_requests: 1}
bus: {queue: 1MiB, log: 1MiB, history: {events: 50, bytes: 1MiB}}
session: {heartbeat: 200ms}
fanout: {unsent: 16KiB, outbox: 64KiB, control: 8KiB, frame: 8KiB, behind: 500ms}
";

#[test]
fn stalled_clients_churn_and_reached_limits_raise_alerts() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(SMALL)?;
    let prometheus = Prometheus::start(feed.admin)?;
    let plan = |on_slow: &str, slow: &str, churn_per_s: f64| -> Result<Plan> {
        Ok(Plan {
            connections: 20,
            duration: Duration::from_secs(15),
            warmup: Duration::from_millis(200),
            slow: slow.parse()?,
            slow_bytes_per_s: 20_000,
            stalled: "30%".parse()?,
            on_slow: Some(serde_json::from_value(on_slow.into())?),
            churn_per_s,
            topics: TopicChoice::All(vec!["trade:*".into(), "quote:*".into()]),
            ..Plan::new(feed.address, Vec::new())
        })
    };
    let (gap, disconnect) = (plan("gap", "70%", 0.0)?, plan("disconnect", "0%", 40.0)?);
    let testing = std::thread::spawn(move || run(&gap, &mut |_| false));
    prometheus.alert("TickcastEventLoss")?;
    // The bound exceeds the share of these clients: the process itself holds the rest.
    let bound = prometheus.query("tickcast_memory_bound_bytes")?.pop();
    let (_, bound) = bound.context("the memory bound is scraped")?;
    let ballast = std::hint::black_box(vec![1_u8; bound as usize]);
    prometheus.alert("TickcastMemoryNearLimit")?;
    drop(ballast);
    prometheus.alert("TickcastSlowConsumers")?;
    testing
        .join()
        .map_err(|_panic| anyhow::anyhow!("the load tester panicked"))??;
    let testing = std::thread::spawn(move || run(&disconnect, &mut |_| false));
    prometheus.alert("TickcastSlowConsumersDisconnected")?;
    prometheus.alert("TickcastReconnectStorm")?;
    testing
        .join()
        .map_err(|_panic| anyhow::anyhow!("the load tester panicked"))??;
    // A slow consumer delays only itself.
    let firing = prometheus.firing()?;
    for name in ["TickcastUnaccountedEvents", "TickcastLatencyBudgetBurnFast"] {
        assert!(!firing.contains(&name.to_owned()), "{firing:?}");
    }
    Ok(())
}

/// More load than one shard can carry.
const TOO_MUCH: &str = "
shards: 1
sources: [{name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [
  {symbol: A, start: 100, rate: 40000/s}, {symbol: B, start: 100, rate: 40000/s}, {symbol: C, start: 100, rate: 40000/s}, {symbol: D, start: 100, rate: 40000/s}]}]
limits: {requests_per_s: 1000, connections: 450}
bus: {log: 16MiB}
fanout: {behind: 1s}
";

#[test]
fn an_overloaded_shard_raises_alerts() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(TOO_MUCH)?;
    let prometheus = Prometheus::start(feed.admin)?;
    let topics = vec!["quote:*".into(), "trade:*".into()];
    let plan = Plan {
        connections: 400,
        duration: Duration::from_secs(60),
        ..Plan::new(feed.address, topics)
    };
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let testing = std::thread::spawn(move || run(&plan, &mut |_| stopped.load(Ordering::Relaxed)));
    prometheus.alert("TickcastConnectionsNearLimit")?;
    let labels = prometheus.alert("TickcastShardSaturated")?;
    assert_eq!(labels["shard"], "0", "{labels}");
    // Its clients read immediately, and yet the events are late.
    for name in [
        "TickcastLatencyBudgetBurnFast",
        "TickcastLatencyBudgetBurnSlow",
    ] {
        prometheus.alert(name)?;
    }
    stop.store(true, Ordering::Relaxed);
    // The verdict of such a load test does not matter here; it is invalid.
    let _outcome = testing
        .join()
        .map_err(|_panic| anyhow::anyhow!("the load tester panicked"))?;
    Ok(())
}

/// More load than a shard can follow, with a log that fills quickly.
const FLOOD: &str = "
shards: 1
bus: {queue: 8MiB, log: 1MiB}
limits: {publish: 1MiB}
sources: [{name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [
  {symbol: A, start: 100, rate: 4000000/s}, {symbol: B, start: 100, rate: 4000000/s}, {symbol: C, start: 100, rate: 4000000/s}]}]
";

#[test]
fn a_flood_overruns_a_shard_and_raises_an_alert() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(FLOOD)?;
    let prometheus = Prometheus::start(feed.admin)?;
    prometheus.alert("TickcastShardOverrun")?;
    Ok(())
}

/// A config that becomes invalid while the server runs.
#[test]
fn rejected_configs_and_certificates_raise_alerts() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("feeds.yaml");
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
    let now = Clock::start().now();
    let tomorrow = Duration::from_nanos(now.0) + Duration::from_secs(86_400);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + tomorrow;
    let own = rcgen::KeyPair::generate()?;
    std::fs::write(&certificate, params.self_signed(&own)?.pem())?;
    std::fs::write(&key, own.serialize_pem())?;
    let config = format!(
        "sources: [{{name: sim, kind: sim, instruments: [{{symbol: A, start: 100}}]}}]
tls: {{listen: 127.0.0.1:0, certificate: {}, key: {}}}",
        certificate.display(),
        key.display()
    );
    std::fs::write(&file, config)?;
    let mut server = std::process::Command::new(env!("CARGO_BIN_EXE_tickcast"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--config",
        ])
        .arg(&file)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let lines = std::io::BufRead::lines(std::io::BufReader::new(
        server.stdout.take().context("stdout is piped")?,
    ));
    let metrics = lines.map_while(Result::ok).find_map(|line| {
        line.trim_start()
            .strip_prefix("metrics  http://")
            .map(str::to_owned)
    });
    let raised = || -> Result<()> {
        let admin = metrics
            .context("the server prints no address")?
            .trim_end_matches("/metrics")
            .parse()?;
        let prometheus = Prometheus::start(admin)?;
        prometheus.alert("TickcastCertificateExpiresSoon")?;
        std::fs::write(&certificate, "no certificate")?;
        prometheus.alert("TickcastCertificateReloadFailed")?;
        std::fs::write(&file, "sources: []")?;
        prometheus
            .alert("TickcastConfigReloadFailed")
            .map(|_labels| ())
    };
    let raised = raised();
    server.kill()?;
    server.wait()?;
    raised
}

/// A source that runs and emits nothing.
#[test]
fn a_running_source_without_events_raises_an_alert() -> Result<()> {
    let _alone = exclusive();
    if !is_installed("prometheus")? {
        return Ok(());
    }
    let feed = Feed::start(
        "sources: [{name: sim, kind: sim, stale_after: 30d, instruments: [{symbol: A, start: 100, rate: 1/m}]}]",
    )?;
    let prometheus = Prometheus::start(feed.admin)?;
    prometheus.alert("TickcastNoEventsPublished")?;
    Ok(())
}

/// Alerts that are provoked above. Tested by rule tests only: the alert on a bug, the alert on a
/// bus slower than its sources, which one simulation cannot cause, and those that need many
/// restarts, ten minutes, nearly all file descriptors of the test process, or a cluster that breaks
/// its invariants.
#[test]
fn every_alert_is_provoked_or_listed_as_an_exception() -> Result<()> {
    let alerts = std::fs::read_to_string(path("dashboards/prometheus/alerts.yml"))?;
    let tests = std::fs::read_to_string(path("dashboards/prometheus/tests.yml"))?;
    let guide = std::fs::read_to_string(path("docs/operations.md"))?;
    let (here, rules_alone) = (
        concat!(include_str!("alerts.rs"), include_str!("cluster.rs")),
        [
            "TickcastUnaccountedEvents",
            "TickcastBusQueueNearLimit",
            "TickcastCrashLoop",
            "TickcastConnectionsHalved",
            "TickcastFileDescriptorsNearLimit",
            "TickcastClusterTwoLeaders",
            "TickcastClusterServerBehind",
            "TickcastDiverged",
            "TickcastCheckpointOld",
        ],
    );
    for name in alerts
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- alert: "))
    {
        let provoked =
            here.matches(&format!("\"{name}\"")).count() > usize::from(rules_alone.contains(&name));
        assert!(
            provoked || rules_alone.contains(&name),
            "{name} is neither provoked nor listed as an exception"
        );
        assert!(
            tests.contains(&format!("name: {name} fires"))
                && tests.contains(&format!("name: {name} keeps silent")),
            "{name} has no rule test"
        );
        assert!(
            guide.contains(&format!("### {name}\n")),
            "{name} has no entry in docs/operations.md"
        );
        assert!(
            alerts.contains(&format!(
                "runbook_url: '{{{{ or $externalLabels.runbooks \"docs/operations.md\" }}}}#{}'",
                name.to_lowercase()
            )),
            "{name} has no runbook link"
        );
    }
    Ok(())
}
