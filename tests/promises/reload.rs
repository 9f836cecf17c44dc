//! Reload: applicable changes are applied by name, and an invalid config changes nothing.

use std::io::Write as _;
use std::process::Command;

use anyhow::{Context, Result};
use tickcast::app::App;
use tickcast::config::Config;
use tickcast::market::{Body, TradingState};
use tickcast::protocol::{Control, Encoding, ServerMessage, Subscribe};

use crate::harness::{Feed, subscribe};

const BEFORE: &str = "
limits: {connections: 3, topics: 14}
sources:
  - {name: a, kind: sim, seed: 7, stale_after: 1h, instruments: [{symbol: A1, start: 100, rate: 200/s}, {symbol: A2, start: 100, rate: 200/s}]}
  - {name: b, kind: sim, seed: 8, stale_after: 1h, instruments: [{symbol: B1, start: 100, rate: 200/s}]}
  - {name: gone, kind: push, open: true, instruments: [{symbol: G1}]}
";
/// Larger limits; source `a` with one symbol removed and one added; `b` unchanged; `gone` removed,
/// and `new` added.
const AFTER: &str = "
shards: 3
limits: {connections: 4, topics: 20}
sources:
  - {name: b, kind: sim, seed: 8, stale_after: 1h, instruments: [{symbol: B1, start: 100, rate: 200/s}]}
  - {name: a, kind: sim, seed: 7, stale_after: 1h, instruments: [{symbol: A1, start: 100, rate: 200/s}, {symbol: A3, start: 100, rate: 200/s}]}
  - {name: new, kind: push, open: true, instruments: [{symbol: N1}]}
";

async fn reload(app: &mut App, config: &str) -> Result<tickcast::app::Reloaded> {
    let text = format!(
        "listen: 127.0.0.1:0
admin: {{listen: 127.0.0.1:0}}
{config}"
    );
    Ok(app.reload(&Config::parse(&text, "test")?).await)
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn a_reload_applies_limits_and_sources_and_lists_changes_that_require_a_restart() -> Result<()>
{
    let mut feed = Feed::start(&format!("shards: 1\n{BEFORE}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(subscribe(&["trade:*", "status:*"]))
        .await?;
    client.events(50).await?;
    let reloaded = reload(&mut feed.app, AFTER).await?;
    assert_eq!(reloaded.needs_restart, ["shards"]);
    for taken in [
        "limits.connections",
        "limits.topics",
        "source gone removed",
        "source a restarts in a new epoch",
        "source new added",
    ] {
        assert!(
            reloaded.applied.contains(&taken.to_owned()),
            "{taken}: {reloaded:?}"
        );
    }
    assert_eq!(reloaded.applied.len(), 5, "source b changed: {reloaded:?}");

    // Patterns get new topics; removed ones are closed; a source with another config begins a new
    // epoch with a snapshot.
    let (mut added, mut closed, mut begun, mut traded) = (
        Vec::new(),
        Vec::new(),
        Vec::new(),
        std::collections::HashSet::new(),
    );
    while !(traded.contains("A3") && closed.len() >= 2 && begun.contains(&"trade:A1".to_owned())) {
        match client.next().await? {
            ServerMessage::Control(Control::Topics(topics)) => {
                added.extend(topics.added.into_iter().map(|entry| entry.topic));
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => begun.push(snapshot.topic),
            ServerMessage::Control(Control::Gap(gap)) => anyhow::bail!("unexpected gap: {gap:?}"),
            ServerMessage::Control(_) => {}
            ServerMessage::Events(events) => {
                for event in events {
                    match event.body {
                        Body::Status(status) if status.state == TradingState::Closed => {
                            closed.push(event.topic.symbol.to_string());
                        }
                        Body::Trade(_) => _ = traded.insert(event.topic.symbol.to_string()),
                        _ => {}
                    }
                }
            }
        }
    }
    closed.sort();
    assert_eq!(closed, ["A2", "G1"]);
    assert!(
        added.contains(&"trade:A3".to_owned()) && added.contains(&"trade:N1".to_owned()),
        "{added:?}"
    );
    assert!(
        !begun.iter().any(|topic| topic.contains("B1")),
        "source b started over: {begun:?}"
    );
    // The accounts compare themselves with the ledger.
    client.ledger().await?;

    // New clients get the new limits, and one more of them can connect.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(feed.client(Encoding::Json).await?);
    }
    assert_eq!(
        (
            client.welcome.limits.topics,
            others[0].welcome.limits.topics
        ),
        (14, 20)
    );
    // Only the sources of the new config accept records.
    let response = feed
        .http(&publish(r#"{"ch":"trade","sym":"N1","px":"1","qty":"1"}"#))
        .await?;
    assert!(response.contains(r#""accepted":1"#), "{response}");
    let response = feed
        .http(&publish(r#"{"ch":"trade","sym":"G1","px":"1","qty":"1"}"#))
        .await?;
    assert!(response.contains(r#""accepted":0"#), "{response}");

    // A source that returns continues under its name.
    let reloaded = reload(&mut feed.app, BEFORE).await?;
    assert!(
        reloaded
            .applied
            .contains(&"source gone restarts in a new epoch".to_owned()),
        "{reloaded:?}"
    );
    let response = feed
        .http(&publish(r#"{"ch":"trade","sym":"G1","px":"1","qty":"1"}"#))
        .await?;
    assert!(response.contains(r#""accepted":1"#), "{response}");
    others[0]
        .subscribe(Subscribe {
            ..subscribe(&["trade:G1"])
        })
        .await?;
    others[0].ledger().await?;
    client.ledger().await?;

    // A symbol that its source gives up belongs to the next source that announces it, so a source
    // can be renamed.
    let traded = |message: &ServerMessage| match message {
        ServerMessage::Events(events) => events
            .iter()
            .any(|event| event.topic.to_string() == "trade:A2")
            .then_some(()),
        ServerMessage::Control(_) => None,
    };
    client
        .until("trades of the returned source", traded)
        .await?;
    let renamed = BEFORE.replace("name: a,", "name: c,");
    let reloaded = reload(&mut feed.app, &renamed).await?;
    assert!(
        reloaded.applied.contains(&"source a removed".to_owned())
            && reloaded.applied.contains(&"source c added".to_owned()),
        "{reloaded:?}"
    );
    client
        .control("a new epoch", |control| {
            matches!(control, Control::Snapshot(snapshot) if snapshot.topic == "trade:A2")
                .then_some(())
        })
        .await?;
    client.until("trades of the renamed source", traded).await?;
    client.ledger().await?;
    Ok(())
}

fn publish(line: &str) -> String {
    format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{line}",
        line.len()
    )
}

/// By signal and by the file alone: a valid file is applied; an invalid one is rejected with all of
/// its errors, and the previous config stays.
#[test]
fn an_invalid_file_keeps_the_previous_config_and_is_reported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, log) = (folder.path().join("feeds.yaml"), folder.path().join("log"));
    let text = |connections: &str, more: &str| {
        format!(
            "sources: [{{name: sim, kind: sim, instruments: [{{symbol: A, start: 100}}]}}]\nlimits: {{connections: {connections}}}\nadmin: {{metrics_on_feed: true}}\n{more}"
        )
    };
    let write = |text: String| -> Result<()> {
        Ok(std::fs::File::create(&file)?.write_all(text.as_bytes())?)
    };
    write(text("100", ""))?;
    let path = file.display().to_string();
    let served =
        crate::terminal::serve_with(&["--config", &path], std::fs::File::create(&log)?.into())?;
    let address: std::net::SocketAddr = served.address.parse()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let metrics = |wanted: &str| -> Result<()> {
        let asking = async {
            loop {
                let response = crate::harness::exchange(
                    address,
                    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                )
                .await?;
                if response.lines().any(|line| line == wanted) {
                    return anyhow::Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        runtime
            .block_on(crate::harness::deadline(asking))
            .with_context(|| wanted.to_owned())?
    };
    let hang_up = || -> Result<()> {
        let signalled = Command::new("kill")
            .args(["-HUP", &served.id().to_string()])
            .status()?;
        assert!(signalled.success());
        Ok(())
    };
    metrics("tickcast_config_reload_failed 0")?;
    // Two errors; both are reported, triggered by the file alone.
    write(text("none", "drain: {spread: long}\n"))?;
    metrics("tickcast_config_reload_failed 1")?;
    let logged = std::fs::read_to_string(&log)?;
    assert!(
        logged.contains("limits.connections")
            && logged.contains("drain.spread")
            && logged.contains("keeping the previous config"),
        "{logged}"
    );
    // Valid again, with a change that requires a restart, by signal.
    write(text("200", "bus: {log: 32MiB}\n"))?;
    hang_up()?;
    metrics("tickcast_config_reload_failed 0")?;
    metrics("tickcast_config_reloads_total{outcome=\"rejected\"} 1")?;
    let logged = std::fs::read_to_string(&log)?;
    assert!(
        logged.contains("applied=\"limits.connections\"")
            && logged.contains("bus.log")
            && logged.contains("require a restart"),
        "{logged}"
    );
    Ok(())
}

/// Heartbeats follow `welcome`, whatever the interval of clients that connect after a reload.
#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeat_interval_of_welcome_holds_over_a_reload() -> Result<()> {
    let with = |heartbeat: &str| {
        let heartbeat = format!("session: {{heartbeat: {heartbeat}}}");
        crate::harness::market(1, 10, &heartbeat)
    };
    let mut feed = Feed::start(&with("200ms")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    assert_eq!(client.welcome.heartbeat_ms, 200);
    let reloaded = reload(&mut feed.app, &with("10m")).await?;
    assert_eq!(reloaded.applied, ["session.heartbeat"]);
    for _ in 0..5 {
        client
            .control("a heartbeat", |control| {
                matches!(control, Control::Heartbeat(_)).then_some(())
            })
            .await?;
    }
    let late = feed.client(Encoding::Json).await?;
    assert_eq!(late.welcome.heartbeat_ms, 600_000);
    Ok(())
}
