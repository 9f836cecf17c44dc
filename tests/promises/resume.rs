//! Resuming after a disconnect.

use std::collections::HashMap;

use anyhow::Result;
use tickcast::protocol::{
    Control, DataEvent, Encoding, GapCause, Mode, ResumeFrom, Seq, ServerMessage, Subscribe,
};

use crate::harness::{Feed, Tracked, market, subscribe, wish};

fn from(client: &Tracked) -> ResumeFrom {
    let seqs = client
        .accounts
        .iter()
        .map(|(topic, account)| (topic.into(), account.head))
        .collect();
    ResumeFrom {
        epoch: client.welcome.epoch.clone(),
        seqs,
        epochs: Vec::new(),
    }
}

fn heads(client: &Tracked) -> HashMap<String, Seq> {
    client
        .accounts
        .iter()
        .map(|(topic, account)| (topic.into(), account.head))
        .collect()
}

/// Disconnects a client and reconnects it with the same topics.
pub(crate) async fn reconnect(
    feed: &Feed,
    old: Tracked,
    topics: &[&str],
    mode: Mode,
) -> Result<(Tracked, tickcast::protocol::Subscribed)> {
    let (request_from, own_heads) = (from(&old), heads(&old));
    drop(old);
    let mut client = feed.client(Encoding::Msgpack).await?;
    let request = Subscribe {
        from: Some(request_from),
        wish: wish(mode, None),
        ..subscribe(topics)
    };
    client
        .ask(tickcast::protocol::Op::Subscribe(request))
        .await?;
    let response = client.subscribed().await?;
    for (topic, head) in own_heads {
        client.accounts.resume(&topic, head);
    }
    Ok((client, response))
}

fn check_consecutive(events: &[DataEvent], heads: &mut HashMap<String, Seq>) {
    for event in events {
        let head = heads.entry(event.topic.to_string()).or_default();
        assert_eq!(event.seq, head.next(), "{}", event.topic);
        *head = event.seq;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_under_load_neither_misses_nor_repeats_events() -> Result<()> {
    let history = "bus: {history: {events: 100000, bytes: 256MiB}}\nlimits: {requests_per_s: 1000}";
    let feed = Feed::start(&market(4, 8_000, history)).await?;
    let topics = ["trade:*", "quote:S1"];
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&topics)).await?;
    client.events(500).await?;
    for _ in 0..20 {
        let mut expected = heads(&client);
        let (back, response) = reconnect(
            &feed,
            client,
            &["trade:S1", "trade:S2", "trade:S3", "trade:S4", "quote:S1"],
            Mode::Raw,
        )
        .await?;
        client = back;
        assert!(
            response
                .ok
                .iter()
                .all(|entry| entry.recovered == Some(true)),
            "{response:?}"
        );
        let mut seen = 0;
        while seen < 400 {
            match client.next().await? {
                ServerMessage::Events(events) => {
                    check_consecutive(&events, &mut expected);
                    seen += events.len();
                }
                ServerMessage::Control(Control::Snapshot(snapshot)) => {
                    unreachable!("recovered, so no snapshot: {snapshot:?}")
                }
                ServerMessage::Control(_) => {}
            }
        }
    }
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_topics_are_recovered_without_a_message() -> Result<()> {
    let feed =
        Feed::start("sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]")
            .await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:A", "quote:A"])).await?;
    let (mut client, response) =
        reconnect(&feed, client, &["trade:A", "quote:A"], Mode::Raw).await?;
    assert!(
        response
            .ok
            .iter()
            .all(|entry| entry.recovered == Some(true) && entry.seq == Some(Seq::START)),
        "0 included: {response:?}"
    );
    let entries = client.ledger().await?;
    assert!(
        entries
            .iter()
            .all(|entry| (entry.start, entry.head) == (Seq::START, Seq::START))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_modes_recover_with_the_newest_event() -> Result<()> {
    let feed = Feed::market(1, 4_000).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Conflate, None),
            ..subscribe(&["quote:S1"])
        })
        .await?;
    client.events(5).await?;
    let before = heads(&client)["quote:S1"];
    feed.until("events while away", |feed| {
        feed.metric("tickcast_events_published_total") > (before.0 * 2 + 3000) as f64
    })
    .await?;
    let (mut client, response) = reconnect(&feed, client, &["quote:S1"], Mode::Conflate).await?;
    assert_eq!(response.ok[0].recovered, Some(true));
    client.events(3).await?;
    let entries = client.ledger().await?;
    assert!(
        entries[0].merged > 1000 && entries[0].lost == 0 && entries[0].start == before,
        "{entries:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_history_gives_a_gap_and_a_snapshot() -> Result<()> {
    let feed = Feed::start(&market(1, 4_000, "bus: {history: {events: 50}}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:S1"])).await?;
    client.events(10).await?;
    let before = heads(&client)["trade:S1"];
    feed.until("events while away", |feed| {
        feed.metric("tickcast_events_published_total") > (before.0 * 2 + 2000) as f64
    })
    .await?;
    let (mut client, response) = reconnect(&feed, client, &["trade:S1"], Mode::Raw).await?;
    assert_eq!(response.ok[0].recovered, Some(false));
    let seq = response.ok[0].seq.unwrap_or_default();
    let gap = client
        .control("gap", |control| match control {
            Control::Gap(gap) => Some(gap.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(
        (gap.from, gap.to, gap.n, gap.cause),
        (before.next(), seq, seq.since(before), GapCause::Expired)
    );
    let snapshot = client
        .control("snapshot", |control| match control {
            Control::Snapshot(snapshot) => Some(snapshot.seq),
            _ => None,
        })
        .await?;
    assert_eq!(snapshot, seq);
    client.events(10).await?;
    assert_eq!(client.ledger().await?[0].lost, seq.since(before));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_epoch_gets_a_snapshot() -> Result<()> {
    let feed = Feed::market(1, 1_000).await?;
    for (epoch, seq) in [("00000000000000aa", 5), ("another server's", 5)] {
        let mut client = feed.client(Encoding::Json).await?;
        let from = ResumeFrom {
            epoch: epoch.into(),
            seqs: vec![("trade:S1".into(), Seq(seq))],
            epochs: Vec::new(),
        };
        let response = client
            .subscribe(Subscribe {
                from: Some(from),
                ..subscribe(&["trade:S1"])
            })
            .await?;
        assert_eq!(response.ok[0].recovered, Some(false));
        match client.next().await? {
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                assert_eq!(Some(snapshot.seq), response.ok[0].seq);
            }
            other => unreachable!("expected a snapshot first, without a gap: {other:?}"),
        }
        client.events(10).await?;
        client.ledger().await?;
    }
    let mut client = feed.client(Encoding::Json).await?;
    let from = ResumeFrom {
        epoch: client.welcome.epoch.clone(),
        seqs: vec![("trade:S1".into(), Seq(1 << 40))],
        epochs: Vec::new(),
    };
    let response = client
        .subscribe(Subscribe {
            from: Some(from),
            ..subscribe(&["trade:S1"])
        })
        .await?;
    assert_eq!(response.ok[0].recovered, Some(false), "beyond the head");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_in_from_that_are_not_requested_are_rejected() -> Result<()> {
    let feed = Feed::market(2, 100).await?;
    // Events to recover.
    feed.until("events", |feed| {
        feed.metric("tickcast_events_published_total") > 50.0
    })
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    let epoch = client.welcome.epoch.clone();
    let seqs = vec![
        ("trade:S1".into(), Seq::START),
        ("trade:S2".into(), Seq::START),
        ("trade:NO".into(), Seq::START),
    ];
    let from = ResumeFrom {
        epoch,
        seqs,
        epochs: Vec::new(),
    };
    let response = client
        .subscribe(Subscribe {
            from: Some(from.clone()),
            ..subscribe(&["trade:S1", "quote:S1"])
        })
        .await?;
    let codes: Vec<_> = response
        .err
        .iter()
        .map(|refusal| (refusal.topic.as_str(), refusal.code))
        .collect();
    assert_eq!(codes, [("trade:NO", 412), ("trade:S2", 412)]);
    assert_eq!(
        (response.ok[0].recovered, response.ok[1].recovered),
        (Some(true), None),
        "{response:?}"
    );
    client.accounts.resume("trade:S1", Seq::START);
    let again = client
        .subscribe(Subscribe {
            from: Some(from),
            ..subscribe(&["trade:S1"])
        })
        .await?;
    assert_eq!(again.ok[0].recovered, None, "already subscribed");
    Ok(())
}
