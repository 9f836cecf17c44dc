//! Snapshot and stream are joined by the server.

use anyhow::{Result, bail, ensure};
use tickcast::market::Body;
use tickcast::protocol::{
    Control, Encoding, Op, Seq, ServerMessage, SnapshotWish, Subscribe, TopicsAsked,
};

use crate::harness::{Feed, Tracked, market, subscribe};

/// Subscribes now; expects `subscribed` at S, the snapshot at S, then S + 1, S + 2, …
async fn join_once(client: &mut Tracked, topic: &str) -> Result<()> {
    let seq = client.subscribe(subscribe(&[topic])).await?.ok[0]
        .seq
        .unwrap_or_default();
    let mut next = None;
    while next.is_none_or(|next: Seq| next.since(seq) < 4) {
        match client.next().await? {
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                ensure!(
                    next.is_none() && snapshot.seq == seq,
                    "the snapshot is at {}, the response has seq {seq}",
                    snapshot.seq
                );
                ensure!(
                    snapshot
                        .events
                        .last()
                        .map_or(seq == Seq::START, |event| event.seq == seq),
                    "the newest event has the sequence number of the snapshot"
                );
                next = Some(seq.next());
            }
            ServerMessage::Events(events) => {
                for event in events {
                    ensure!(
                        Some(event.seq) == next,
                        "received {}, expected {next:?}",
                        event.seq
                    );
                    next = Some(event.seq.next());
                }
            }
            ServerMessage::Control(_) => {}
        }
    }
    client.ask(Op::Unsubscribe(TopicsAsked::All)).await?;
    client
        .control("unsubscribed", |control| match control {
            Control::Unsubscribed(response) => Some(response.topics.clone()),
            _ => None,
        })
        .await?;
    Ok(())
}

/// Invariant 6.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_subscribes_under_load_join_without_a_hole() -> Result<()> {
    let feed = Feed::start(&market(4, 8_000, "limits: {requests_per_s: 100000}")).await?;
    let mut tasks = Vec::new();
    for at in 0..10 {
        let mut client = feed.client(Encoding::ALL[at % Encoding::COUNT]).await?;
        tasks.push(tokio::spawn(async move {
            for round in 0..100 {
                let symbol = format!("S{}", 1 + (at + round) % 4);
                let topic = match round % 10 {
                    0 => format!("ticker:{symbol}"),
                    5 => format!("bar:{symbol}:1s"),
                    even if even % 2 == 0 => format!("trade:{symbol}"),
                    _ => format!("quote:{symbol}"),
                };
                join_once(&mut client, &topic).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_contain_the_documented_events_of_each_channel() -> Result<()> {
    let feed =
        Feed::start("sources: [{name: s, kind: sim, history: 1d, stale_after: 1h, instruments: [{symbol: A, start: 100, rate: 2000/s}]}]")
            .await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(subscribe(&["trade:A", "ticker:A"]))
        .await?;
    client.events(300).await?;
    let asked = |topic: &str, snapshot| Subscribe {
        snapshot,
        ..subscribe(&[topic])
    };
    let sizes = [
        ("trade:A", Some(SnapshotWish::Yes), 50),
        ("trade:A", Some(SnapshotWish::Events(7)), 7),
    ];
    let others = [
        ("quote:A", None, 1),
        ("status:A", None, 1),
        ("bar:A:1m", None, 1),
        ("bar:A:5m", Some(SnapshotWish::Events(20)), 20),
    ];
    for (topic, wish, count) in sizes.into_iter().chain(others) {
        let seq = client.subscribe(asked(topic, wish)).await?.ok[0].seq;
        let snapshot = client
            .control("snapshot", |control| match control {
                Control::Snapshot(snapshot) if snapshot.topic == topic => Some(snapshot.clone()),
                _ => None,
            })
            .await?;
        assert_eq!(snapshot.events.len(), count, "{topic}");
        assert!(Some(snapshot.seq) >= seq);
        if topic.starts_with("trade") {
            assert!(
                snapshot
                    .events
                    .windows(2)
                    .all(|pair| pair[0].seq.next() == pair[1].seq),
                "trades are consecutive"
            );
        }
        if topic == "bar:A:5m" {
            let starts = snapshot.events.iter().map(|event| match &event.body {
                Body::Bar(bar) => (bar.start, bar.done),
                _ => unreachable!("a bar topic has bars"),
            });
            let starts: Vec<_> = starts.collect();
            assert!(
                starts
                    .windows(2)
                    .all(|pair| pair[0].0 < pair[1].0 && pair[0].1),
                "one event per bar, all closed but the last"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_the_stream_begins_at_the_next_event() -> Result<()> {
    let feed = Feed::market(1, 1_000).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let request = Subscribe {
        snapshot: Some(SnapshotWish::No),
        ..subscribe(&["trade:S1"])
    };
    let seq = client.subscribe(request).await?.ok[0].seq;
    match client.next().await? {
        ServerMessage::Events(events) => assert_eq!(Some(events[0].seq.previous()), seq),
        other => bail!("expected events, received {other:?}"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_sends_a_snapshot_in_stream_order() -> Result<()> {
    let feed = Feed::market(1, 2_000).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["quote:S1"])).await?;
    for _ in 0..20 {
        client.events(20).await?;
        client
            .ask(Op::Resync {
                topics: vec!["quote:S1".into()],
            })
            .await?;
        client.subscribed().await?;
        let mut last = client
            .accounts
            .get("quote:S1")
            .map_or(Seq::START, |account| account.head);
        loop {
            match client.next().await? {
                ServerMessage::Events(events) => {
                    last = events.last().map_or(last, |event| event.seq);
                }
                ServerMessage::Control(Control::Snapshot(snapshot)) => {
                    assert_eq!(snapshot.seq, last, "after event `seq` and before `seq` + 1");
                    break;
                }
                ServerMessage::Control(_) => {}
            }
        }
    }
    client.ledger().await?;
    Ok(())
}
