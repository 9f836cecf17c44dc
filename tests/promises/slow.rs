//! Slow consumers: notified, and by their policy conflated, skipped ahead or disconnected, without
//! effect on others.

use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::protocol::{
    Control, Encoding, GapCause, LagLevel, Mode, OnSlow, Seq, ServerMessage, SnapshotWish,
    Subscribe,
};

use tokio::io::AsyncWriteExt;

use crate::harness::{Feed, Tracked, market, subscribe, wish};

const TIGHT: &str = "fanout: {outbox: 64KiB, behind: 1s, unsent: 8KiB, frame: 16KiB}\nlimits: {requests_per_s: 1000}";

/// Maximum number of times that a client of these tests may fall behind again on a busy machine.
const ATTEMPTS: usize = 20;

/// Waits until more is published than any outbox of these tests can hold.
async fn wait_until_overflow(feed: &Feed) -> Result<()> {
    let published = feed.metric("tickcast_events_published_total");
    feed.until("more events than an outbox holds", |feed| {
        feed.metric("tickcast_events_published_total") > published + 20_000.0
    })
    .await
}

async fn stalled(feed: &Feed, topics: &[&str], on_slow: OnSlow) -> Result<Tracked> {
    let mut client = feed.small_client(Encoding::Msgpack).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Raw, Some(on_slow)),
            ..subscribe(topics)
        })
        .await?;
    Ok(client)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_slow_gap_warns_and_reports_the_lost_events() -> Result<()> {
    let feed = Feed::start(&market(2, 20_000, TIGHT)).await?;
    let mut client = stalled(&feed, &["trade:*"], OnSlow::Gap).await?;
    feed.until("a warning", |feed| {
        feed.metric("tickcast_lag_changes_total") > 0.0
    })
    .await?;
    wait_until_overflow(&feed).await?;
    let mut lags = Vec::new();
    let gap = client
        .control("a gap", |control| match control {
            Control::Lag(lag) => {
                lags.push(lag.level);
                None
            }
            Control::Gap(gap) => Some(gap.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(
        (gap.cause, gap.n),
        (GapCause::Slow, gap.to.since(gap.from) + 1)
    );
    assert_eq!(lags, [LagLevel::Warn]);
    wait_until_caught_up(&mut client).await?;
    let entries = client.ledger().await?;
    assert!(
        entries.iter().any(|entry| entry.lost > 0) && entries.iter().all(|entry| entry.merged == 0)
    );
    Ok(())
}

/// Reads until the server reports that the client has caught up.
async fn wait_until_caught_up(client: &mut Tracked) -> Result<()> {
    client
        .control("lag ok", |control| {
            matches!(control, Control::Lag(lag) if lag.level == LagLevel::Ok).then_some(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_slow_conflate_degrades_and_recovers() -> Result<()> {
    let feed = Feed::start(&market(2, 20_000, TIGHT)).await?;
    let mut client = stalled(&feed, &["quote:*", "bar:*:1s"], OnSlow::Conflate).await?;
    feed.until("degraded", |feed| {
        feed.metric("tickcast_lag_changes_total") >= 2.0
    })
    .await?;
    wait_until_overflow(&feed).await?;
    let degraded = |control: &Control| {
        matches!(control, Control::Lag(lag) if lag.level == LagLevel::Degraded).then_some(())
    };
    client.control("degraded", degraded).await?;
    // On a busy machine the client itself may fall behind again.
    for _ in 0..ATTEMPTS {
        wait_until_caught_up(&mut client).await?;
        let (merged, mut raw) = (client.accounts.merged, 0);
        let keeps_up = |message: &ServerMessage| match message {
            ServerMessage::Events(events) => {
                raw += events.len();
                (raw >= 200).then_some(true)
            }
            ServerMessage::Control(control) => degraded(control).map(|()| false),
        };
        if client.until("200 events", keeps_up).await? {
            assert_eq!(
                client.accounts.merged, merged,
                "raw delivery is restored after `ok`"
            );
            let entries = client.ledger().await?;
            assert!(entries.iter().any(|entry| entry.merged > 0), "{entries:?}");
            assert!(entries.iter().all(|entry| entry.lost == 0), "{entries:?}");
            return Ok(());
        }
    }
    anyhow::bail!("the client fell behind {ATTEMPTS} times")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_slow_disconnect_closes_with_4407() -> Result<()> {
    let feed = Feed::start(&market(2, 20_000, TIGHT)).await?;
    let mut client = stalled(&feed, &["trade:*"], OnSlow::Disconnect).await?;
    let closed = |feed: &Feed| feed.metric("tickcast_connections_closed_total") >= 1.0;
    feed.until("a close", closed).await?;
    let mut warned = false;
    let (bye, code) = loop {
        match client.client.next().await {
            Ok(ServerMessage::Control(Control::Lag(lag))) => warned |= lag.level != LagLevel::Ok,
            Ok(ServerMessage::Control(Control::Bye(bye))) => break (bye, client.closed().await?.1),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    };
    assert!(warned, "no `lag` before the close");
    assert_eq!((bye.code, bye.reconnect, code), (407, true, 4407));
    Ok(())
}

/// Threat 5: reading single bytes is not keeping up.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_single_bytes_is_slow_by_the_age_of_its_queue() -> Result<()> {
    let feed = Feed::start(&market(
        1,
        400,
        "fanout: {outbox: 16MiB, behind: 500ms, unsent: 4KiB}",
    ))
    .await?;
    let client = stalled(&feed, &["trade:*", "quote:*"], OnSlow::Gap).await?;
    let socket = client.client.socket();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let trickle = async {
        while socket.readable().await.is_ok() {
            socket.try_read(&mut [0]).ok();
            ticks.tick().await;
        }
        anyhow::Ok(())
    };
    let overflow = feed.until("a gap", |feed| {
        feed.metric("tickcast_lag_changes_total") >= 1.0
    });
    tokio::select! {
        ended = trickle => ended?,
        overflow = overflow => overflow?,
    }
    Ok(())
}

/// Invariant 3: healthy clients get everything on time while others never read.
#[tokio::test(flavor = "multi_thread")]
async fn slow_session_does_not_delay_its_neighbour() -> Result<()> {
    let feed = Feed::start(&market(2, 3_000, TIGHT)).await?;
    let mut sleepers = Vec::new();
    for at in 0..20 {
        let on_slow = [OnSlow::Gap, OnSlow::Conflate][at % 2];
        sleepers.push(stalled(&feed, &["quote:*"], on_slow).await?);
    }
    let mut healthy = feed.client(Encoding::Msgpack).await?;
    healthy
        .subscribe(subscribe(&["trade:*", "quote:*"]))
        .await?;
    healthy.events(15_000).await?;
    assert_eq!((healthy.accounts.merged, healthy.accounts.lost), (0, 0));
    healthy.ledger().await?;
    // Invariant 4: queues of clients that do not read stay within their bounds.
    let bound = 20.0 * (64.0 + 64.0 + 2.0 * 16.0 + 32.0) * 1024.0;
    assert!(
        feed.metric("tickcast_outbox_bytes") < bound,
        "{} bytes are queued",
        feed.metric("tickcast_outbox_bytes")
    );
    assert!(
        feed.metric("tickcast_outbox_bytes") > 0.0,
        "stalled clients have queued bytes"
    );
    Ok(())
}

/// An overrun shard continues from a checkpoint: missed events are reported as a gap with cause
/// `bus`, or merged.
#[tokio::test(flavor = "multi_thread")]
async fn an_overrun_shard_reports_the_missed_events() -> Result<()> {
    let feed = Feed::start(&market(
        4,
        300_000,
        "shards: 1\nbus: {log: 1MiB}\nlimits: {requests_per_s: 1000, publish: 1MiB}",
    ))
    .await?;
    let mut clients = Vec::new();
    for at in 0..12 {
        let mut client = feed.client(Encoding::ALL[at % Encoding::COUNT]).await?;
        client.subscribe(subscribe(&["trade:*"])).await?;
        let mode = [Mode::Raw, Mode::Conflate][at % 2];
        client
            .subscribe(Subscribe {
                wish: wish(mode, None),
                ..subscribe(&["quote:*", "bar:*:1s"])
            })
            .await?;
        clients.push(client);
    }
    let reading = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let mut gaps = 0;
            while gaps < 2 {
                if let ServerMessage::Control(Control::Gap(gap)) = client.next().await? {
                    gaps += u32::from(gap.cause == GapCause::Bus);
                }
            }
            client.ledger().await
        })
    });
    for client in reading.collect::<Vec<_>>() {
        assert!(client.await??.iter().any(|entry| entry.lost > 0));
    }
    assert!(feed.metric("tickcast_shard_overruns_total") >= 1.0);
    Ok(())
}

/// The admin address lists the slow client first, with its reason, and its name without terminal
/// control characters.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn operators_see_slow_clients_with_the_reason() -> Result<()> {
    let feed = Feed::start(&market(2, 20_000, TIGHT)).await?;
    let admin = feed
        .app
        .admin_address()
        .context("the admin listener is enabled")?;
    let mut fast = feed.client(Encoding::Json).await?;
    fast.subscribe(Subscribe {
        wish: wish(Mode::Interval(100), None),
        ..subscribe(&["quote:*"])
    })
    .await?;
    let handshake = "GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: an\tagent\r\n\r\n";
    let mut named = tokio::net::TcpStream::connect(feed.address).await?;
    named.write_all(handshake.as_bytes()).await?;
    let _slow = stalled(&feed, &["quote:*"], OnSlow::Conflate).await?;
    feed.until("a client is degraded", |feed| {
        feed.metric("tickcast_slow_consumers") > 0.0
    })
    .await?;
    feed.until("all connections are counted", |feed| {
        feed.metric("tickcast_connections") >= 3.0
    })
    .await?;
    let ask = async |query: &str| -> Result<serde_json::Value> {
        let request = format!(
            "GET /v1/admin/connections{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let response = crate::harness::exchange(admin, request.as_bytes()).await?;
        Ok(serde_json::from_str(
            response
                .split_once("\r\n\r\n")
                .context("the response has a body")?
                .1,
        )?)
    };
    let response = ask("?by=age&top=1").await?;
    let first = &response["connections"][0];
    assert_eq!(
        (
            response["count"].as_u64(),
            response["connections"].as_array().map(Vec::len)
        ),
        (Some(3), Some(1)),
        "{response}"
    );
    assert!(
        first["level"] != "ok" && first["late_since"].is_u64() && first["waits_for"] == "socket",
        "{first}"
    );
    assert_eq!(
        (&first["modes"], first["topics"].as_u64()),
        (&serde_json::json!([2, 0, 0]), Some(2)),
        "{first}"
    );
    let all = ask("").await?;
    let agents: Vec<_> = all["connections"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| one["agent"].as_str().unwrap_or_default())
        .collect();
    assert!(
        agents.contains(&"an?agent")
            && agents.contains(&concat!("tickcast-client/", env!("CARGO_PKG_VERSION"))),
        "{agents:?}"
    );
    let refused = crate::harness::exchange(
        admin,
        b"GET /v1/admin/connections?by=size HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )
    .await?;
    assert!(
        refused.starts_with("HTTP/1.1 400")
            && refused.contains("expected age, merged, lost, queued or delivered"),
        "{refused}"
    );
    // The feed's port does not have this route.
    assert!(
        feed.get("/v1/admin/connections")
            .await?
            .contains("expected /, /v1/feed")
    );
    Ok(())
}

/// SHA-256 of the publisher's token, `secret`.
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Lines of `trades` trades of each of `symbols` symbols, for `/v1/publish`.
fn trades(symbols: usize, trades: usize) -> String {
    let line = |symbol| {
        format!(r#"{{"ch":"trade","sym":"S{symbol}","px":"10.50","qty":"2","side":"buy"}}"#)
    };
    let lines: Vec<String> = (0..trades).flat_map(|_| (0..symbols).map(line)).collect();
    lines.join("\n")
}

/// A client that reads steadily gets its requested snapshots, and no gap on topics with a low event
/// rate.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_its_requested_snapshots_is_not_slow() -> Result<()> {
    const SYMBOLS: usize = 20;
    let symbols: Vec<_> = (0..SYMBOLS).map(|n| format!("{{symbol: S{n}}}")).collect();
    let feed = Feed::start(&format!(
        "sources: [{{name: in, kind: push, token_sha256: {SECRET}, stale_after: 1h, instruments: [{}]}}]\n\
         fanout: {{behind: 2s, unsent: 8KiB}}\nlimits: {{publish: 8MiB}}",
        symbols.join(", ")
    ))
    .await?;
    let mut other = feed.client(Encoding::Json).await?;
    other.subscribe(subscribe(&["trade:*"])).await?;
    publish(&feed, &trades(SYMBOLS, 1000)).await?;
    // A gap is allowed here; only the publication of all events matters.
    let is_there = |other: &Tracked| other.accounts.iter().all(|(_, own)| own.head == Seq(1000));
    while !is_there(&other) {
        other.next().await?;
    }
    drop(other);
    let mut client = feed.small_client(Encoding::Json).await?;
    let request = Subscribe {
        snapshot: Some(SnapshotWish::Events(1000)),
        ..subscribe(&["trade:*"])
    };
    client.subscribe(request).await?;
    // Each takes a fifth of a second, so the last ones arrive long after `behind`.
    let (mut ticks, mut snapshots) = (tokio::time::interval(Duration::from_millis(200)), 0);
    while snapshots < SYMBOLS {
        if let ServerMessage::Control(control) = client.next().await? {
            assert!(
                !matches!(control, Control::Lag(_) | Control::Gap(_)),
                "{control:?} after {snapshots} snapshots"
            );
            snapshots += usize::from(matches!(control, Control::Snapshot(_)));
        }
        publish(&feed, &trades(4, 1)).await?;
        ticks.tick().await;
    }
    let entries = client.ledger().await?;
    assert!(entries.iter().all(|entry| entry.lost == 0), "{entries:?}");
    Ok(())
}

async fn publish(feed: &Feed, lines: &str) -> Result<()> {
    let response = feed
        .http(&format!(
            "POST /v1/publish HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\
             Content-Type: application/x-ndjson\r\n\
             Content-Length: {}\r\n\r\n{lines}",
            feed.address,
            lines.len()
        ))
        .await?;
    anyhow::ensure!(response.starts_with("HTTP/1.1 200"), "{response}");
    Ok(())
}
