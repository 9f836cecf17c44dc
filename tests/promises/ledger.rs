//! No silent loss: every event is delivered, merged, or reported as lost.

use std::time::Duration;

use anyhow::Result;
use tickcast::protocol::{Encoding, Mode, OnSlow, Op};

use crate::harness::{Feed, Tracked, market, subscribe, wish};

const LIMITS: &str = "shards: 2\nfanout: {outbox: 128KiB, behind: 2s, unsent: 16KiB}\nlimits: {requests_per_s: 1000, connections: 200, topics: 64, message: 4KiB}\nsession: {heartbeat: 500ms}";

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

/// Reads for the duration of the test, then requests the ledger; returns the deliveries.
async fn read_on(mut client: Tracked, pace: Pace, time: Duration) -> Result<u64> {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let reading = async {
        loop {
            match pace {
                Pace::Fast => _ = client.next().await?,
                Pace::Slow => {
                    ticks.tick().await;
                    client.next().await?;
                }
                Pace::Never => std::future::pending().await,
            }
        }
    };
    // Reading ends with the duration, or earlier with a broken promise.
    if let Ok(broken) = tokio::time::timeout(time, reading).await {
        return broken;
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

/// Runs `connections` in mixed modes, encodings and reading behaviours; returns all deliveries.
async fn run(connections: usize, rate: usize, time: Duration) -> Result<u64> {
    let feed = Feed::start(&market(10, rate, LIMITS)).await?;
    let before = resident_bytes()?;
    let mut tasks = Vec::new();
    for at in 0..connections {
        let pace = match at % 20 {
            0 | 1 => Pace::Slow,
            2 => Pace::Never,
            _ => Pace::Fast,
        };
        let client = one_client(&feed, at, pace).await?;
        tasks.push(tokio::spawn(read_on(client, pace, time)));
    }
    let mut delivered = 0;
    for task in tasks {
        delivered += task.await??;
    }
    // The process also contains the test's own clients.
    let text = format!("{}\nlisten: 127.0.0.1:0", market(10, rate, LIMITS));
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
    let delivered = run(200, 2_000, Duration::from_secs(20)).await?;
    eprintln!("{delivered} deliveries");
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
