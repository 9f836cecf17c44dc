//! Steps of the wall clock while the server runs: no interval, timeout, order or bar depends on it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tickcast::market::{Body, UnixNanos};
use tickcast::protocol::{Control, Encoding, Mode, ServerMessage, Subscribe};

use crate::harness::{Feed, Tracked, subscribe, wish};

const HOUR: Duration = Duration::from_secs(3600);

/// Reads until an event was published at `until` or later; publication times and the beginnings of
/// bars never go back.
async fn read_until(client: &mut Tracked, until: UnixNanos) -> Result<()> {
    let (mut newest, mut bar) = (UnixNanos(0), UnixNanos(0));
    while newest < until {
        let ServerMessage::Events(events) = client.next().await? else {
            continue;
        };
        for event in events {
            ensure!(event.tx >= newest, "publication times went back");
            newest = event.tx;
            if let Body::Bar(one) = &event.body {
                ensure!(one.start >= bar, "bars went back");
                bar = one.start;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clock_steps_break_no_interval_timeout_order_or_bar() -> Result<()> {
    // Default timeouts, which an hour exceeds by far.
    let feed = Feed::start(
        "session: {heartbeat: 100ms}\nsources: [{name: sim, kind: sim, seed: 7, stale_after: 2h, \
         instruments: [{symbol: S1, start: 100, rate: 8/s}]}]",
    )
    .await?;
    let mut raw = feed.client(Encoding::Msgpack).await?;
    raw.subscribe(subscribe(&["bar:S1:1s"])).await?;
    let mut trades = feed.client(Encoding::Json).await?;
    trades.subscribe(subscribe(&["trade:S1"])).await?;
    let mut paced = feed.client(Encoding::Json).await?;
    let request = Subscribe {
        wish: wish(Mode::Interval(100), None),
        ..subscribe(&["quote:S1"])
    };
    paced.subscribe(request).await?;
    trades.events(3).await?;
    let clock = feed.app.clock();
    let set = clock.now().plus(HOUR);
    ensure!(clock.follow_time(set).stepped);
    for client in [&mut raw, &mut trades, &mut paced] {
        read_until(client, set).await?;
        client.ledger().await?;
    }
    // The clock does not go back: it runs slower until the wall clock has caught up.
    let before = clock.now();
    let back = clock.follow_time(before.minus(HOUR));
    ensure!(!back.stepped && back.skew < 0);
    let goal = before.plus(Duration::from_secs(2));
    for client in [&mut raw, &mut trades, &mut paced] {
        read_until(client, goal).await?;
        client
            .control("a heartbeat", |control| match control {
                Control::Heartbeat(heartbeat) => (heartbeat.ts >= goal.0).then_some(()),
                _ => None,
            })
            .await?;
        client.ledger().await?;
    }
    assert_eq!(
        feed.metric("tickcast_connections") as u64,
        3,
        "none was closed"
    );
    Ok(())
}
