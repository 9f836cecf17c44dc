//! No silent loss: every event is delivered, merged, or reported as lost.

use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::market::Body;
use tickcast::protocol::{Encoding, Mode, OnSlow, Op, ServerMessage};
use tokio::sync::watch;

use crate::harness::{Feed, Tracked, exchange, market, subscribe, wish};

/// A client that reads nothing sends nothing either, and must last as long as a busy machine needs.
const LIMITS: &str = "shards: 2\nfanout: {outbox: 128KiB, behind: 2s, unsent: 16KiB}\nlimits: {requests_per_s: 1000, connections: 200, topics: 64, message: 4KiB}\nsession: {heartbeat: 500ms, drop_after: 10m}";

/// Reading behaviour of a client.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    Fast,
    Slow,
    Never,
}

async fn one_client(feed: &Feed, at: usize, pace: Pace) -> Result<Tracked> {
    let encoding = Encoding::ALL[at % Encoding::COUNT];
    let mut client = if pace == Pace::Fast {
        feed.client(encoding).await?
    } else {
        feed.small_client(encoding).await?
    };
    let modes = [Mode::Raw, Mode::Conflate, Mode::Interval(100), Mode::Raw];
    let mode = modes[at % modes.len()];
    let on_slow = if at.is_multiple_of(3) {
        OnSlow::Gap
    } else {
        OnSlow::Conflate
    };
    client.subscribe(subscribe(&["trade:*"])).await?;
    let states = tickcast::protocol::Subscribe {
        wish: wish(mode, Some(on_slow)),
        ..subscribe(&["quote:*", "ticker:*", "bar:*:1s"])
    };
    client.subscribe(states).await?;
    Ok(client)
}

/// Reads until the end of the test, then requests the ledger; returns the deliveries. Counts the
/// trades that it receives.
async fn read_on(
    mut client: Tracked,
    pace: Pace,
    trades: watch::Sender<u64>,
    mut end: watch::Receiver<bool>,
) -> Result<u64> {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let reading = async {
        loop {
            match pace {
                Pace::Fast => {}
                Pace::Slow => _ = ticks.tick().await,
                Pace::Never => std::future::pending().await,
            }
            if let ServerMessage::Events(events) = client.next().await? {
                let received = events
                    .iter()
                    .filter(|event| matches!(event.body, Body::Trade(_)));
                trades.send_modify(|sum| *sum += received.count() as u64);
            }
        }
    };
    // Reading ends with the test, or earlier with a broken promise.
    tokio::select! {
        broken = reading => return broken,
        _ = end.wait_for(|has_ended| *has_ended) => {}
    }
    let entries = client.ledger().await?;
    anyhow::ensure!(!entries.is_empty(), "the ledger is empty");
    Ok(client.accounts.delivered)
}

fn resident_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}

/// Market of ten instruments whose prices the test publishes.
fn published_market() -> String {
    let list: Vec<String> = (0..10).map(|n| format!("{{symbol: S{n}}}")).collect();
    let list = list.join(", ");
    format!("sources: [{{name: in, kind: push, open: true, instruments: [{list}]}}]\n{LIMITS}\n")
}

/// Publishes `count` trades and as many quotes.
async fn publish(feed: &Feed, count: usize) -> Result<()> {
    let pair = |at: usize| {
        let (symbol, price) = (at % 10, 100 + at % 50);
        let trade = format!(r#"{{"ch":"trade","sym":"S{symbol}","px":"{price}","qty":"1"}}"#);
        let quote = format!(r#"{{"ch":"quote","sym":"S{symbol}","bid":"{price}","bidq":"1"}}"#);
        format!("{trade}\n{quote}\n")
    };
    let body: Vec<String> = (0..count).map(pair).collect();
    let body = body.concat();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let response = exchange(feed.address, (head + &body).as_bytes()).await?;
    let accepted = format!(r#""accepted":{}"#, 2 * count);
    anyhow::ensure!(response.contains(&accepted), "{response}");
    Ok(())
}

/// Trades per batch.
const BATCH: usize = 200;
/// Longest wait for clients that keep up, per batch. Some may have lost trades on a busy machine,
/// and never receive all.
const WAIT: Duration = Duration::from_secs(1);

/// Publishes batches until the server has made so many deliveries, and has merged and lost events
/// too. Each batch waits until clients that keep up have received those before it, so that the load
/// suits any machine.
async fn publish_until(
    deliveries: f64,
    feed: &Feed,
    fast: &mut [watch::Receiver<u64>],
) -> Result<()> {
    let of = |outcome: &str| feed.metric(&format!("tickcast_events_{outcome}_total"));
    let mut published = 0;
    while of("delivered") < deliveries || of("merged") < 1.0 || of("lost") < 1.0 {
        publish(feed, BATCH).await?;
        published += BATCH as u64;
        let all_received = async {
            for trades in &mut *fast {
                let received = trades.wait_for(|received| *received >= published);
                received.await.context("a client has ended")?;
            }
            anyhow::Ok(())
        };
        if let Ok(received) = tokio::time::timeout(WAIT, all_received).await {
            received?;
        }
    }
    Ok(())
}

/// Runs `connections` in mixed modes, encodings and reading behaviours; returns all deliveries.
async fn run(connections: usize, deliveries: f64) -> Result<u64> {
    let feed = Feed::start(&published_market()).await?;
    let before = resident_bytes()?;
    let (end, ended) = watch::channel(false);
    let (mut tasks, mut fast) = (Vec::new(), Vec::new());
    for at in 0..connections {
        let pace = match at % 20 {
            0 | 1 => Pace::Slow,
            2 => Pace::Never,
            _ => Pace::Fast,
        };
        let client = one_client(&feed, at, pace).await?;
        let (trades, received) = watch::channel(0);
        if pace == Pace::Fast {
            fast.push(received);
        }
        tasks.push(tokio::spawn(read_on(client, pace, trades, ended.clone())));
    }
    publish_until(deliveries, &feed, &mut fast).await?;
    end.send_replace(true);
    let mut delivered = 0;
    for task in tasks {
        delivered += task.await??;
    }
    // The process also contains the test's own clients.
    let text = format!("{}listen: 127.0.0.1:0", published_market());
    let (formula, _) = tickcast::config::Config::parse(&text, "test")?.memory_formula(90);
    let grown = resident_bytes()?.saturating_sub(before);
    assert!(
        grown < formula,
        "{grown} bytes more than before; the formula allows {formula}"
    );
    Ok(delivered)
}

/// Invariants 5 and 8: 200 connections in mixed modes and encodings; 10 % read slowly, 5 % never.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_balances_over_two_million_deliveries() -> Result<()> {
    let delivered = run(200, 2e6).await?;
    assert!(delivered >= 2_000_000, "only {delivered} deliveries");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_counts_exactly_the_events_before_it() -> Result<()> {
    let feed = Feed::start(&market(4, 2_000, LIMITS)).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:*", "quote:*"])).await?;
    for _ in 0..4 {
        let mut counted = None;
        while counted.is_none() {
            if let tickcast::protocol::ServerMessage::Control(
                tickcast::protocol::Control::Heartbeat(heartbeat),
            ) = client.next().await?
            {
                counted = Some((heartbeat.delivered, heartbeat.merged, heartbeat.lost));
            }
        }
        assert_eq!(
            counted,
            Some((
                client.accounts.delivered,
                client.accounts.merged,
                client.accounts.lost
            ))
        );
    }
    assert!(client.accounts.delivered > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribe_ends_the_account_and_subscribe_starts_a_new_one() -> Result<()> {
    let feed = Feed::start(&market(1, 1_000, LIMITS)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:S1"])).await?;
    client.events(50).await?;
    client
        .ask(Op::Unsubscribe(tickcast::protocol::TopicsAsked::All))
        .await?;
    client
        .ledger()
        .await
        .map(|entries| assert!(entries.is_empty()))?;
    let again = client.subscribe(subscribe(&["trade:S1"])).await?;
    client.events(50).await?;
    let entries = client.ledger().await?;
    assert_eq!(Some(entries[0].start), again.ok[0].seq);
    Ok(())
}
