//! Errors name the problem and the expected value, and change nothing else.

use anyhow::Result;
use tickcast::protocol::{Encoding, Op, SnapshotWish, Subscribe};

use crate::harness::{Feed, Tracked, market, subscribe};

/// Sends a raw request in JSON and in MessagePack; returns the codes of the responses.
async fn codes(client: &mut Tracked, json: &str) -> Result<(u16, String)> {
    client
        .client
        .send_message(tokio_tungstenite::tungstenite::Message::text(
            json.to_owned(),
        ))
        .await?;
    client.error().await
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_requests_get_error_400_and_change_nothing() -> Result<()> {
    let feed = Feed::start(&market(1, 500, "limits: {requests_per_s: 1000}")).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client.subscribe(subscribe(&["trade:S1"])).await?;
        for (request, named) in [
            ("nonsense", "not a json map"),
            ("[]", "a list"),
            ("{}", "`op` is missing"),
            (r#"{"op":"dance"}"#, "unknown"),
            (
                r#"{"op":"subscribe","topics":["trade:S1"],"mode":"fast"}"#,
                "`mode`",
            ),
            (
                r#"{"op":"subscribe","topics":["quote:S1"],"mode":"interval"}"#,
                "`interval_ms`",
            ),
            (
                r#"{"op":"subscribe","topics":["quote:S1"],"mode":"interval","interval_ms":7}"#,
                "unsupported `interval_ms`",
            ),
            (
                r#"{"op":"modify","topics":["trade:S1"]}"#,
                "requires at least one of",
            ),
            (r#"{"op":"ping","t":1.5}"#, "a float"),
            (r#"{"op":"ping","t":1,"t":1}"#, "duplicate key"),
            (
                r#"{"op":"subscribe","topics":["trade:S1"],"from":{"seqs":{}}}"#,
                "from.epoch",
            ),
        ] {
            let (code, message) = codes(&mut client, request).await?;
            assert_eq!(code, 400, "{request}");
            assert!(message.contains(named), "{request}: {message}");
        }
        client.events(50).await?;
        client.ledger().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_repeats_the_request_id_if_readable() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    for (request, id) in [
        (r#"{"id":"x","op":"?"}"#, r#""id":"x""#),
        (r#"{"id":1.5,"op":"ledger"}"#, r#""id":null"#),
    ] {
        client
            .client
            .send_message(tokio_tungstenite::tungstenite::Message::text(request))
            .await?;
        let payload = String::from_utf8(client.client.next_payload().await?)?;
        assert!(payload.contains(id), "{payload}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_topics_are_listed_in_err_with_the_nearest_match() -> Result<()> {
    let feed = Feed::market(3, 10).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let names = [
        "trade:S2",
        "trade:s2",
        "trade:S22",
        "candle:S1",
        "bar:S1:2m",
        "bar:S1",
        "trade:S1:1m",
        "book:S1:10",
        "nonsense",
    ];
    let response = client.subscribe(subscribe(&names)).await?;
    assert_eq!(response.ok.len(), 1);
    assert_eq!(response.err.len(), 8);
    assert!(
        response.err.iter().all(|refusal| refusal.code == 412),
        "{response:?}"
    );
    assert!(
        response.err[0].message.contains("did you mean trade:S2?"),
        "{response:?}"
    );
    let held_by_nobody = Op::Resync {
        topics: vec!["trade:S1".into()],
    };
    client.ask(held_by_nobody).await?;
    assert_eq!(client.subscribed().await?.err[0].code, 412);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unsupported_snapshots_are_listed_in_err() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let asked = Subscribe {
        snapshot: Some(SnapshotWish::Events(5)),
        ..subscribe(&["quote:S1", "trade:S1", "bar:S1:1m"])
    };
    let response = client.subscribe(asked).await?;
    assert_eq!(
        (
            response.ok.len(),
            response.err[0].code,
            response.err[0].topic.as_str()
        ),
        (2, 400, "quote:S1")
    );
    let asked = Subscribe {
        snapshot: Some(SnapshotWish::Events(1001)),
        ..subscribe(&["trade:S1"])
    };
    assert_eq!(client.subscribe(asked).await?.err[0].code, 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_limit_keeps_earlier_topics_and_rejects_a_pattern_entirely() -> Result<()> {
    let feed = Feed::start(&market(5, 10, "limits: {topics: 4}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let response = client
        .subscribe(subscribe(&[
            "trade:S1", "quote:*", "trade:S2", "trade:S3", "trade:S4", "trade:S5",
        ]))
        .await?;
    assert_eq!(response.ok.len(), 4);
    let refused: Vec<_> = response
        .err
        .iter()
        .map(|refusal| (refusal.topic.as_str(), refusal.code))
        .collect();
    assert_eq!(refused, [("quote:*", 405), ("trade:S5", 405)]);
    assert_eq!(response.count, 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn atomic_is_all_or_nothing() -> Result<()> {
    let feed = Feed::market(2, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let asked = Subscribe {
        atomic: true,
        ..subscribe(&["trade:S1", "trade:NO", "quote:*"])
    };
    let response = client.subscribe(asked).await?;
    assert!(response.ok.is_empty() && response.count == 0);
    let mut codes: Vec<_> = response
        .err
        .iter()
        .map(|refusal| (refusal.topic.as_str(), refusal.code))
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [("quote:*", 424), ("trade:NO", 412), ("trade:S1", 424)]
    );
    let asked = Subscribe {
        atomic: true,
        ..subscribe(&["trade:S1", "quote:*"])
    };
    assert_eq!(client.subscribe(asked).await?.count, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_invalid_requests_close_with_4400() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {requests_per_s: 1000}")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    for _ in 0..21 {
        client
            .client
            .send_message(tokio_tungstenite::tungstenite::Message::text("{}"))
            .await?;
    }
    let (bye, code) = client.closed().await?;
    assert_eq!(
        (bye.map(|bye| (bye.code, bye.reconnect)), code),
        (Some((400, false)), 4400)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_the_rate_get_429_and_then_close_with_4429() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {requests_per_s: 1}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    for _ in 0..40 {
        client.client.request(Op::Ping { t: 1 }).await?;
    }
    let error = client
        .control("429", |control| match control {
            tickcast::protocol::Control::Error(error) => Some(error.clone()),
            _ => None,
        })
        .await?;
    assert_eq!((error.code, error.name.as_str()), (429, "rate_limit"));
    assert!(error.retry_ms.is_some_and(|ms| (1..=6000).contains(&ms)));
    let (bye, code) = client.closed().await?;
    assert_eq!((bye.map(|bye| bye.code), code), (Some(429), 4429));
    Ok(())
}
