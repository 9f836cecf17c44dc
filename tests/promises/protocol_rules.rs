//! Rules of `docs/protocol.md` that need no market of their own.

use anyhow::{Context, Result};
use compact_str::CompactString;
use tickcast::codec::decode_server_message;
use tickcast::protocol::{
    Control, Encoding, Mode, OnSlow, Op, ServerMessage, Subscribe, TopicsAsked,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{DEADLINE, Feed, market, subscribe, wish};

const MANY_REQUESTS: &str = "limits: {requests_per_s: 1000}";

fn names(topics: &[&str]) -> Vec<CompactString> {
    topics.iter().map(|topic| (*topic).into()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_take_effect_and_are_answered_in_order() -> Result<()> {
    let feed = Feed::start(&market(2, 1_000, MANY_REQUESTS)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let modify = Op::Modify {
        topics: names(&["quote:S1"]),
        wish: wish(Mode::Conflate, None),
    };
    for op in [
        Op::Subscribe(subscribe(&["quote:S1"])),
        Op::Ping { t: 1 },
        Op::Subscriptions,
        modify,
        Op::Subscriptions,
        Op::Unsubscribe(TopicsAsked::All),
        Op::Ping { t: 2 },
        Op::Subscriptions,
    ] {
        client.ask(op).await?;
    }
    let mut responses = Vec::new();
    while responses.len() < 8 {
        let response = client
            .control("a response", |control| match control {
                Control::Subscribed(part) => Some(format!("subscribed {}", part.ok[0].mode)),
                Control::Unsubscribed(part) => Some(format!("unsubscribed {}", part.count)),
                Control::Pong(pong) => Some(format!("pong {}", pong.t)),
                Control::Subscriptions(part) => {
                    let modes = part.ok.iter().map(|entry| entry.mode.as_str());
                    Some(format!("subscriptions {:?}", modes.collect::<Vec<_>>()))
                }
                _ => None,
            })
            .await?;
        responses.push(response);
    }
    assert_eq!(
        responses,
        [
            "subscribed raw",
            "pong 1",
            r#"subscriptions ["raw"]"#,
            "subscribed conflate",
            r#"subscriptions ["conflate"]"#,
            "unsubscribed 0",
            "pong 2",
            "subscriptions []",
        ]
    );
    Ok(())
}

/// Table of channels, modes and policies.
#[tokio::test(flavor = "multi_thread")]
async fn each_channel_has_the_modes_and_policies_of_the_table() -> Result<()> {
    let feed = Feed::start(&market(1, 10, MANY_REQUESTS)).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    for topic in [
        "trade:S1",
        "quote:S1",
        "ticker:S1",
        "bar:S1:1m",
        "status:S1",
    ] {
        let is_trade = topic == "trade:S1";
        let response = client.subscribe(subscribe(&[topic])).await?;
        let default = if is_trade {
            OnSlow::Gap
        } else {
            OnSlow::Conflate
        };
        assert_eq!(
            (response.ok[0].mode.as_str(), response.ok[0].on_slow),
            ("raw", default)
        );
        for mode in [Mode::Raw, Mode::Conflate, Mode::Interval(100)] {
            for on_slow in [OnSlow::Conflate, OnSlow::Gap, OnSlow::Disconnect] {
                let request = Subscribe {
                    wish: wish(mode, Some(on_slow)),
                    ..subscribe(&[topic])
                };
                let response = client.subscribe(request).await?;
                if is_trade && (mode != Mode::Raw || on_slow == OnSlow::Conflate) {
                    assert_eq!(response.err[0].code, 413, "{topic} {mode:?} {on_slow:?}");
                } else {
                    let entry = &response.ok[0];
                    assert_eq!((entry.mode.as_str(), entry.on_slow), (mode.name(), on_slow));
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_several_names_appears_under_each_with_the_settings_in_force() -> Result<()> {
    let feed = Feed::market(2, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Conflate, None),
            ..subscribe(&["quote:S1"])
        })
        .await?;
    let response = client
        .subscribe(subscribe(&["quote:S*", "quote:*", "quote:S2"]))
        .await?;
    let modes = |name: &str| -> Vec<(String, String)> {
        let entry = response.ok.iter().find(|entry| entry.topic == name);
        let matched = entry.and_then(|entry| entry.matched.as_ref());
        let pairs = matched.into_iter().flatten();
        pairs
            .map(|entry| (entry.topic.clone(), entry.mode.clone()))
            .collect()
    };
    let expected = [("quote:S1", "conflate"), ("quote:S2", "raw")]
        .map(|(topic, mode)| (topic.to_owned(), mode.to_owned()));
    assert_eq!(modes("quote:S*"), expected);
    assert_eq!(modes("quote:*"), expected);
    assert!(response.ok.iter().any(|entry| entry.topic == "quote:S2"));
    assert_eq!(response.count, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_beyond_the_limit_are_rejected_with_405() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {topics: 3}")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let patterns = ["trade:A*", "trade:B*", "trade:C*", "trade:D*"];
    let response = client.subscribe(subscribe(&patterns)).await?;
    assert_eq!((response.ok.len(), response.count), (3, 0));
    let refused = &response.err[0];
    assert_eq!((refused.topic.as_str(), refused.code), ("trade:D*", 405));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resync_accepts_topics_under_any_name_and_patterns_under_their_own() -> Result<()> {
    let feed = Feed::market(2, 100).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["quote:*"])).await?;
    let asked = names(&["quote:S1", "quote:*", "quote:S*"]);
    client.ask(Op::Resync { topics: asked }).await?;
    let response = client.subscribed().await?;
    let ok: Vec<_> = response
        .ok
        .iter()
        .map(|entry| entry.topic.as_str())
        .collect();
    assert_eq!(ok, ["quote:S1", "quote:*"]);
    let refused = &response.err[0];
    assert_eq!((refused.topic.as_str(), refused.code), ("quote:S*", 412));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn modify_to_interval_keeps_the_interval_in_force_or_is_rejected() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let modify =
        || Message::text(r#"{"op":"modify","topics":["quote:S1"],"mode":"interval"}"#.to_owned());
    let by_interval = Subscribe {
        wish: wish(Mode::Interval(250), None),
        ..subscribe(&["quote:S1"])
    };
    client.subscribe(by_interval).await?;
    client.client.send_message(modify()).await?;
    let entry = client.subscribed().await?.ok.remove(0);
    assert_eq!(
        (entry.mode.as_str(), entry.interval_ms),
        ("interval", Some(250))
    );
    client.subscribe(subscribe(&["quote:S1"])).await?;
    client.client.send_message(modify()).await?;
    assert_eq!(client.error().await?.0, 400);
    client.ask(Op::Subscriptions).await?;
    let modes = client
        .control("subscriptions", |control| match control {
            Control::Subscriptions(part) => Some(part.ok[0].mode.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(modes, "raw");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_beyond_max_message_has_the_newest_events_that_fit() -> Result<()> {
    const BYTES_MAX: usize = 4096;
    let feed = Feed::market(1, 2_000).await?;
    feed.until("a history", |feed| {
        feed.metric("tickcast_events_published_total") > 2_000.0
    })
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    let request = Subscribe {
        max_message: Some(BYTES_MAX as u64),
        ..subscribe(&["trade:S1"])
    };
    client.ask(Op::Subscribe(request)).await?;
    let (bytes, snapshot) = loop {
        let payload = client.client.next_payload().await?;
        let message = decode_server_message(&payload, Encoding::Json)?;
        if let ServerMessage::Control(Control::Snapshot(snapshot)) = message {
            break (payload.len(), snapshot);
        }
    };
    let seqs: Vec<_> = snapshot.events.iter().map(|event| event.seq).collect();
    assert!((5..50).contains(&seqs.len()), "{} events", seqs.len());
    assert_eq!(seqs.last(), Some(&snapshot.seq));
    assert!((BYTES_MAX * 3 / 4..=BYTES_MAX).contains(&bytes), "{bytes}");
    Ok(())
}

/// Threat 10: endless control frames and fragments.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_control_frames_in_ten_seconds_close_with_4400() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    let fragment = [0x00, 0x80, 0, 0, 0, 0];
    for (first, repeated) in [(&[][..], ping), (&[0x02, 0x80, 0, 0, 0, 0][..], fragment)] {
        let mut stream = TcpStream::connect(feed.address).await?;
        let head = format!("{}\r\n", crate::handshake::GOOD);
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(first).await?;
        stream.write_all(&repeated.repeat(1_001)).await?;
        let mut response = Vec::new();
        let _reset = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut response)).await?;
        let close = response.windows(4).rev().find(|bytes| bytes[0] == 0x88);
        let close = close.context("no close frame received")?;
        assert_eq!(u16::from_be_bytes([close[2], close[3]]), 4400);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_channel_of_the_reference_exists_and_no_other() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let topics = ["trade:S1", "quote:S1", "ticker:S1", "status:S1", "book:S1"];
    let response = client.subscribe(subscribe(&topics)).await?;
    assert_eq!(response.ok.len(), 4);
    let refused = &response.err[0];
    assert_eq!((refused.topic.as_str(), refused.code), ("book:S1", 412));
    let ServerMessage::Control(Control::Snapshot(_)) = client.next().await? else {
        anyhow::bail!("a snapshot follows the response")
    };
    Ok(())
}
