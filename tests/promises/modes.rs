//! Delivery modes by subscription: granted, reported, and changed in mid-stream.

use std::time::Duration;

use anyhow::Result;
use tickcast::market::Body;
use tickcast::protocol::{
    DeliveryWish, Encoding, Mode, OnSlow, Op, ServerMessage, Subscribe, TopicsAsked,
};

use crate::harness::{Feed, Stopwatch, Tracked, market, subscribe, wish};

fn in_mode(topics: &[&str], mode: Mode) -> Subscribe {
    Subscribe {
        wish: wish(mode, None),
        ..subscribe(topics)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_delivers_every_event_and_conflate_the_newest() -> Result<()> {
    let feed = Feed::market(1, 5_000).await?;
    let mut raw = feed.client(Encoding::Msgpack).await?;
    raw.subscribe(in_mode(&["quote:S1"], Mode::Raw)).await?;
    raw.events(2_000).await?;
    assert_eq!((raw.accounts.merged, raw.accounts.lost), (0, 0));
    let mut conflated = feed.client(Encoding::Json).await?;
    conflated
        .subscribe(in_mode(&["quote:S1"], Mode::Conflate))
        .await?;
    conflated.events(500).await?;
    conflated.ledger().await?;
    assert_eq!(conflated.accounts.lost, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn interval_mode_keeps_its_interval_and_sends_only_changes() -> Result<()> {
    let feed = Feed::market(1, 2_000).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(in_mode(&["quote:S1"], Mode::Interval(100)))
        .await?;
    let begun = Stopwatch::start();
    let mut last_tx = None;
    for _ in 0..15 {
        let event = client.events(1).await?.remove(0);
        if let Some(last) = last_tx {
            assert!(event.tx > last, "each event is newer than the one before");
        }
        last_tx = Some(event.tx);
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(14 * 100),
        "15 sends need 14 intervals"
    );
    let entries = client.ledger().await?;
    assert!(entries[0].merged > entries[0].delivered, "{entries:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn modify_in_mid_stream_keeps_the_account() -> Result<()> {
    let feed = Feed::start(&market(2, 4_000, "limits: {requests_per_s: 1000}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(in_mode(&["quote:S1", "bar:S1:1s"], Mode::Raw))
        .await?;
    for mode in [
        Mode::Conflate,
        Mode::Interval(50),
        Mode::Raw,
        Mode::Interval(10),
        Mode::Conflate,
        Mode::Raw,
    ] {
        client.events(40).await?;
        let topics = vec!["quote:S1".into(), "bar:S1:1s".into()];
        client
            .ask(Op::Modify {
                topics,
                wish: wish(mode, None),
            })
            .await?;
        let response = client.subscribed().await?;
        assert!(
            response
                .ok
                .iter()
                .all(|entry| entry.mode == mode.name() && entry.interval_ms == mode.interval_ms()),
            "{response:?}"
        );
        client.ledger().await?;
    }
    let merged = client.accounts.merged;
    client.events(500).await?;
    assert_eq!(
        client.accounts.merged, merged,
        "nothing is merged in raw mode"
    );
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn modify_changes_only_given_settings_and_subscribe_resets_all() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Interval(250), Some(OnSlow::Gap)),
            ..subscribe(&["quote:S1"])
        })
        .await?;
    let topics = || vec!["quote:S1".into()];
    client
        .ask(Op::Modify {
            topics: topics(),
            wish: DeliveryWish {
                on_slow: Some(OnSlow::Disconnect),
                ..DeliveryWish::default()
            },
        })
        .await?;
    let entry = client.subscribed().await?.ok.remove(0);
    assert_eq!(
        (entry.mode.as_str(), entry.interval_ms, entry.on_slow),
        ("interval", Some(250), OnSlow::Disconnect)
    );
    client
        .ask(Op::Modify {
            topics: topics(),
            wish: DeliveryWish {
                interval_ms: Some(100),
                ..DeliveryWish::default()
            },
        })
        .await?;
    assert_eq!(client.subscribed().await?.ok[0].interval_ms, Some(100));
    let entry = client
        .subscribe(subscribe(&["quote:S1"]))
        .await?
        .ok
        .remove(0);
    assert_eq!(
        (entry.mode.as_str(), entry.interval_ms, entry.on_slow),
        ("raw", None, OnSlow::Conflate),
        "defaults"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_name_decides_and_the_next_takes_over() -> Result<()> {
    let feed = Feed::market(3, 10).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(in_mode(&["quote:*"], Mode::Interval(1000)))
        .await?;
    client
        .subscribe(in_mode(&["quote:S*"], Mode::Conflate))
        .await?;
    let response = client.subscribe(in_mode(&["quote:S1"], Mode::Raw)).await?;
    assert_eq!((response.count, response.ok[0].mode.as_str()), (3, "raw"));
    let leave = |name: &str| Op::Unsubscribe(TopicsAsked::These(vec![name.into()]));
    client.ask(leave("quote:S1")).await?;
    let response = unsubscribed(&mut client).await?;
    assert!(response.topics.is_empty());
    assert_eq!(
        (response.ok[0].topic.as_str(), response.ok[0].mode.as_str()),
        ("quote:S1", "conflate")
    );
    client.ask(leave("quote:S*")).await?;
    assert!(
        unsubscribed(&mut client)
            .await?
            .ok
            .iter()
            .all(|entry| entry.mode == "interval")
    );
    client.ask(leave("quote:*")).await?;
    let response = unsubscribed(&mut client).await?;
    assert_eq!((response.topics.len(), response.count), (3, 0));
    Ok(())
}

async fn unsubscribed(client: &mut Tracked) -> Result<tickcast::protocol::Unsubscribed> {
    client
        .control("unsubscribed", |control| match control {
            tickcast::protocol::Control::Unsubscribed(response) => Some(response.clone()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_are_never_merged() -> Result<()> {
    let feed = Feed::market(1, 100).await?;
    let mut client = feed.client(Encoding::Json).await?;
    for wish in [
        wish(Mode::Conflate, None),
        wish(Mode::Interval(100), None),
        wish(Mode::Raw, Some(OnSlow::Conflate)),
    ] {
        let response = client
            .subscribe(Subscribe {
                wish,
                ..subscribe(&["trade:S1", "trade:*"])
            })
            .await?;
        assert!(response.ok.is_empty());
        assert_eq!(
            response
                .err
                .iter()
                .map(|refusal| refusal.code)
                .collect::<Vec<_>>(),
            [413, 413]
        );
    }
    Ok(())
}

/// Invariant 7: no mode drops a closed bar.
#[tokio::test(flavor = "multi_thread")]
async fn merging_never_drops_a_closed_bar() -> Result<()> {
    let feed = Feed::market(1, 500).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(in_mode(&["bar:S1:1s"], Mode::Interval(5000)))
        .await?;
    let mut closed = Vec::new();
    while closed.len() < 6 {
        if let ServerMessage::Events(events) = client.next().await? {
            closed.extend(events.iter().filter_map(|event| match &event.body {
                Body::Bar(bar) if bar.done => Some(bar.start.0 / 1_000_000_000),
                _ => None,
            }));
        }
    }
    assert!(
        closed.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "a bar is missing: {closed:?}"
    );
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_lists_the_settings_in_force() -> Result<()> {
    let feed = Feed::market(2, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(in_mode(&["quote:*"], Mode::Conflate))
        .await?;
    client.subscribe(subscribe(&["trade:S1"])).await?;
    client.ask(Op::Subscriptions).await?;
    let response = client
        .control("subscriptions", |control| match control {
            tickcast::protocol::Control::Subscriptions(response) => Some(response.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(response.count, 3);
    let pattern = response
        .ok
        .iter()
        .find(|entry| entry.topic == "quote:*")
        .and_then(|entry| entry.matched.as_ref());
    assert_eq!(pattern.map(Vec::len), Some(2));
    assert!(response.ok.iter().any(|entry| entry.topic == "trade:S1"
        && entry.mode == "raw"
        && entry.on_slow == OnSlow::Gap));
    Ok(())
}
