//! Small requests, parity of the encodings, and the size of server messages.

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tickcast::codec::{decode_server_message, encode_request};
use tickcast::protocol::{Control, Encoding, Op, ServerMessage};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Feed, market, subscribe};

#[tokio::test(flavor = "multi_thread")]
async fn ping_is_answered_with_the_server_time() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client
            .ask(Op::Ping {
                t: -9_007_199_254_740_992,
            })
            .await?;
        let (t, ts) = client
            .control("pong", |control| match control {
                Control::Pong(pong) => Some((pong.t, pong.ts)),
                _ => None,
            })
            .await?;
        assert_eq!(t, -9_007_199_254_740_992);
        assert!(ts >= client.welcome.ts);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instruments_are_listed_by_pattern_and_auth_is_answered() -> Result<()> {
    let feed = Feed::market(12, 10).await?;
    let mut client = feed.client(Encoding::Json).await?;
    for (pattern, count) in [("*", 12), ("S1*", 4), ("S7", 1), ("X*", 0)] {
        client
            .ask(Op::Instruments {
                pattern: pattern.into(),
            })
            .await?;
        let found = client
            .control("instruments", |control| match control {
                Control::Instruments(response) => Some(response.instruments.clone()),
                _ => None,
            })
            .await?;
        assert_eq!(found.len(), count, "{pattern}");
        assert!(found.iter().all(|instrument| instrument.channels.len() == 9
            && instrument.src == tickcast::market::SourceKind::Sim));
    }
    client
        .ask(Op::Auth {
            token: "any".into(),
        })
        .await?;
    let expires = client
        .control("authenticated", |control| match control {
            Control::Authenticated(response) => Some(response.expires),
            _ => None,
        })
        .await?;
    assert_eq!((expires, client.welcome.auth.as_str()), (None, "none"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_accepted_in_either_encoding() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let op = Op::Ping { t: 5 };
    let request = tickcast::protocol::Request { id: None, op };
    for (negotiated, sent) in [
        (Encoding::Msgpack, Encoding::Json),
        (Encoding::Json, Encoding::Msgpack),
    ] {
        let mut client = feed.client(negotiated).await?;
        let bytes = encode_request(&request, sent);
        let message = match sent {
            Encoding::Json => Message::text(String::from_utf8(bytes)?),
            Encoding::Msgpack => Message::binary(bytes),
        };
        client.client.send_message(message).await?;
        let payload = client.client.next_payload().await?;
        let response = decode_server_message(&payload, negotiated)?;
        assert!(
            matches!(response, ServerMessage::Control(Control::Pong(pong)) if pong.t == 5),
            "a {sent:?} request is answered in the negotiated {negotiated:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_encodings_carry_the_same_messages() -> Result<()> {
    let feed = Feed::market(2, 2_000).await?;
    let mut clients = Vec::new();
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client
            .subscribe(subscribe(&[
                "trade:*", "quote:*", "ticker:*", "bar:*:1s", "status:*",
            ]))
            .await?;
        clients.push(client);
    }
    let mut seen = Vec::new();
    for client in &mut clients {
        let events = client.events(3_000).await?;
        seen.push(
            events
                .into_iter()
                .map(|event| ((event.topic.to_string(), event.seq), event))
                .collect::<std::collections::HashMap<_, _>>(),
        );
    }
    let common: Vec<_> = seen[0]
        .keys()
        .filter(|key| seen[1].contains_key(*key))
        .collect();
    assert!(common.len() > 1_000, "{} events in both", common.len());
    assert!(common.iter().all(|key| seen[0][*key] == seen[1][*key]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn long_responses_are_split_into_parts_below_the_limit() -> Result<()> {
    let feed = Feed::start(&market(
        3_000,
        100,
        "limits: {topics: 30000, requests_per_s: 100}",
    ))
    .await?;
    for encoding in Encoding::ALL {
        let mut client = feed.client(encoding).await?;
        client
            .client
            .request(Op::Subscribe(subscribe(&[
                "quote:*", "trade:*", "ticker:*", "bar:*:1m",
            ])))
            .await?;
        let (mut parts, mut topics) = (0, 0);
        loop {
            let payload = client.client.next_payload().await?;
            assert!(payload.len() <= 512 * 1024, "{} bytes", payload.len());
            let tickcast::protocol::ServerMessage::Control(Control::Subscribed(part)) =
                decode_server_message(&payload, encoding)?
            else {
                continue;
            };
            parts += 1;
            topics += part
                .ok
                .iter()
                .filter_map(|entry| entry.matched.as_ref())
                .map(Vec::len)
                .sum::<usize>();
            assert!(part.count >= topics as u64, "{} held", part.count);
            if !part.more {
                assert_eq!(part.count, 12_000);
                break;
            }
        }
        assert!(
            parts > 1 && topics == 12_000,
            "{topics} topics in {parts} parts"
        );
        client
            .client
            .request(Op::Instruments {
                pattern: "*".into(),
            })
            .await?;
        let mut listed = 0;
        let mut more = true;
        while more {
            let payload = client.client.next_payload().await?;
            if let tickcast::protocol::ServerMessage::Control(Control::Instruments(part)) =
                decode_server_message(&payload, encoding)?
            {
                listed += part.instruments.len();
                more = part.more;
            }
        }
        assert_eq!(listed, 3_000);
    }
    Ok(())
}

/// Reads a feed as a client whose WebSocket accepts messages of 32 KiB only, the default of Go's
/// coder/websocket.
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn read_in_small_messages(feed: &Feed, encoding: Encoding, by_request: bool) -> Result<()> {
    const BYTES_MAX: usize = 32 * 1024;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(feed.address).await?;
    let query = if by_request { "" } else { "&max_message=32768" };
    let url = format!(
        "ws://{}/v1/feed?encoding={}{query}",
        feed.address,
        encoding.name()
    );
    let config = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default()
        .max_message_size(Some(BYTES_MAX));
    let (mut client, _) =
        tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
    let request = tickcast::protocol::Subscribe {
        snapshot: Some(tickcast::protocol::SnapshotWish::Events(1_000)),
        max_message: by_request.then_some(BYTES_MAX as u64),
        ..subscribe(&["trade:*", "bar:*:1s"])
    };
    let requests = [
        Op::Subscribe(request),
        Op::Instruments {
            pattern: "*".into(),
        },
        Op::Ledger,
    ];
    for op in requests {
        let request = tickcast::protocol::Request { id: None, op };
        let payload = tickcast::codec::encode_request(&request, Encoding::Msgpack);
        client.send(Message::binary(payload)).await?;
    }
    feed.until("the client is behind", |feed| {
        feed.metric("tickcast_outbox_bytes") > 300_000.0
    })
    .await?;
    let (mut events, mut largest, mut granted, mut has_ledger) = (0, 0, Vec::new(), false);
    while events < 6_000 || !has_ledger {
        let message = client.next().await.context("the feed ended early")??;
        if !(message.is_binary() || message.is_text()) {
            continue;
        }
        let payload = message.into_data();
        largest = payload.len().max(largest);
        match decode_server_message(&payload, encoding)? {
            tickcast::protocol::ServerMessage::Events(some) => events += some.len(),
            tickcast::protocol::ServerMessage::Control(Control::Welcome(welcome)) => {
                granted.push(welcome.max_message);
            }
            tickcast::protocol::ServerMessage::Control(Control::Subscribed(part)) => {
                granted.extend(part.max_message);
            }
            tickcast::protocol::ServerMessage::Control(Control::Ledger(part)) => {
                has_ledger |= !part.more;
            }
            tickcast::protocol::ServerMessage::Control(Control::Bye(bye)) => bail!("{bye:?}"),
            tickcast::protocol::ServerMessage::Control(_) => {}
        }
    }
    let of_welcome = if by_request {
        512 * 1024
    } else {
        BYTES_MAX as u64
    };
    assert_eq!(granted[0], of_welcome, "`welcome` contains the bound");
    assert!(
        !by_request || granted[1..].iter().all(|bytes| *bytes == BYTES_MAX as u64),
        "`subscribed` contains the granted settings: {granted:?}"
    );
    assert!(
        largest > BYTES_MAX / 2,
        "no long message was received: {largest}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn max_message_also_holds_for_a_client_that_falls_behind() -> Result<()> {
    let feed = Feed::start(&market(
        300,
        30_000,
        "limits: {requests_per_s: 100}\nfanout: {outbox: 8MiB, behind: 60s}",
    ))
    .await?;
    for encoding in Encoding::ALL {
        for by_request in [false, true] {
            read_in_small_messages(&feed, encoding, by_request).await?;
        }
    }
    let refused = refusal_of(&feed, "max_message=100").await?;
    assert!(refused.contains("at least 4096"), "{refused}");
    Ok(())
}

/// Response of the server to a handshake with this query.
async fn refusal_of(feed: &Feed, query: &str) -> Result<String> {
    let url = format!("ws://{}/v1/feed?{query}", feed.address);
    let stream = tokio::net::TcpStream::connect(feed.address).await?;
    match tokio_tungstenite::client_async(url, stream).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
            let body = response.into_body().unwrap_or_default();
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
        other => bail!("expected a rejection, received {other:?}"),
    }
}
