//! Handshake: from the first byte to the open feed, and all ways to fail.

use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::protocol::{Encoding, Op};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Feed, deadline, exchange, market, subscribe};

pub(crate) const GOOD: &str = "GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Status of the response to a valid handshake with one change.
pub(crate) async fn status(feed: &Feed, change: impl Fn(&str) -> String) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(feed.address).await?;
    stream
        .write_all(format!("{}\r\n", change(GOOD)).as_bytes())
        .await?;
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await??;
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| text.clone())?;
    Ok((status, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_accepted_or_rejected_by_rfc_6455() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let (code, text) = status(&feed, str::to_owned).await?;
    assert_eq!(code, 101);
    assert!(
        text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "RFC 6455, section 1.3"
    );
    let changes: [(u16, &str, &str); 19] = [
        (426, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
        (426, "Upgrade: websocket\r\n", ""),
        (426, "Connection: Upgrade", "Connection: close"),
        (400, "dGhlIHNhbXBsZSBub25jZQ==", "short"),
        (400, "HTTP/1.1", "HTTP/1.0"),
        (405, "GET", "POST"),
        (
            400,
            "Host: localhost\r\n",
            "Host: localhost\r\nContent-Length: 5\r\n",
        ),
        (404, "/v1/feed", "/v2/feed"),
        (404, "/v1/feed", "/"),
        (404, "/v1/feed", "/v1/instruments"),
        (400, "Host: localhost\r\n", ""),
        (
            400,
            "Host: localhost\r\n",
            "Host: localhost\r\nHost: localhost\r\n",
        ),
        (421, "Host: localhost", "Host: evil.example"),
        (400, "Host: localhost\r\n", "Host: localhost\n"),
        (
            426,
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13",
        ),
        (
            400,
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key",
        ),
        (400, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBs!SBub25jZQ=="),
        (
            403,
            "Host: localhost\r\n",
            "Host: localhost\r\nOrigin: http://127.0.0.1:9600.evil\r\n",
        ),
        (
            403,
            "Host: localhost\r\n",
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
        ),
    ];
    for (expected, from, to) in changes {
        let (code, text) = status(&feed, |good| good.replace(from, to)).await?;
        assert_eq!(code, expected, "{from} → {to}: {text}");
        assert!(code != 426 || text.to_lowercase().contains("sec-websocket-version: 13"));
        assert!(code != 404 || text.contains("/v1/feed"), "{text}");
    }
    let (code, _) = status(&feed, |good| {
        good.replace(
            "Host: localhost\r\n",
            "Host: localhost\r\nOrigin: http://localhost:5173\r\n",
        )
    })
    .await?;
    assert_eq!(
        code, 101,
        "any loopback origin is allowed if the server listens on loopback"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_supported_subprotocol_selects_the_encoding() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let with = |protocols: &'static str| {
        move |good: &str| format!("{good}Sec-WebSocket-Protocol: {protocols}\r\n")
    };
    let (code, text) = status(&feed, with("other, tickcast.v1.json, tickcast.v1.msgpack")).await?;
    assert!(
        code == 101
            && text
                .to_lowercase()
                .contains("sec-websocket-protocol: tickcast.v1.json"),
        "{text}"
    );
    let (code, text) = status(&feed, with("other")).await?;
    assert!(
        code == 400 && text.contains("tickcast.v1.msgpack, tickcast.v1.json"),
        "{text}"
    );
    let (code, text) = status(&feed, |good| {
        good.replace("/v1/feed", "/v1/feed?encoding=json")
    })
    .await?;
    assert!(code == 101 && !text.to_lowercase().contains("sec-websocket-protocol"));
    let (code, _) = status(&feed, |good| {
        good.replace("/v1/feed", "/v1/feed?encoding=xml")
    })
    .await?;
    assert_eq!(code, 400);
    Ok(())
}

/// Threats 1, 2 and 11: slow, large and smuggled request heads end with a response or a close, and
/// leave no state behind.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_request_heads_are_rejected_and_silent_sockets_closed() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {handshake: 300ms}")).await?;
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(200_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n",
        "X: y\r\n".repeat(150)
    );
    for bytes in [
        "",
        "GET / HTTP/1.1\r\nHos",
        "\u{16}\u{3}\u{1}",
        &huge,
        &many,
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "GET http://other.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ] {
        let response = exchange(feed.address, bytes.as_bytes())
            .await
            .unwrap_or_default();
        assert!(
            !response.contains(" 200 ") && !response.contains("root:"),
            "{response}"
        );
    }
    assert!(feed.metric("tickcast_handshakes_rejected_total") >= 1.0);
    assert_eq!(feed.get("/healthz").await?, "ok\n");
    Ok(())
}

/// Each reason for a failed handshake has its own count.
#[tokio::test(flavor = "multi_thread")]
async fn rejected_handshakes_are_counted_by_reason() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {handshake: 300ms}")).await?;
    let huge = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    let evil = "Host: localhost\r\nOrigin: http://evil.example\r\n";
    for (reason, bytes) in [
        ("silent", String::new()),
        ("slow", "GET / HTTP/1.1\r\nHos".to_owned()),
        (
            "malformed",
            "GET / HTTP/1.1\nHost: localhost\r\n\r\n".to_owned(),
        ),
        ("too_large", huge),
        (
            "host",
            format!("{}\r\n", GOOD.replace("localhost", "evil.example")),
        ),
        (
            "origin",
            format!("{}\r\n", GOOD.replace("Host: localhost\r\n", evil)),
        ),
        ("handshake", format!("{}\r\n", GOOD.replace("13", "12"))),
    ] {
        // A head that is rejected before its end is closed by a reset.
        let _answer = exchange(feed.address, bytes.as_bytes()).await;
        feed.until(reason, |feed| {
            feed.counted("handshakes_rejected", reason) == 1
        })
        .await?;
    }
    let mut stream = TcpStream::connect(feed.address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHos").await?;
    stream.shutdown().await?;
    feed.until("incomplete", |feed| {
        feed.counted("handshakes_rejected", "incomplete") == 1
    })
    .await?;
    let all = feed.metric("tickcast_handshakes_rejected_total");
    assert!((7.5..8.5).contains(&all), "each is counted once, not {all}");
    Ok(())
}

/// Invariant 9; threats 6, 8, 9, 10: invalid frames are closed with their codes before anything is
/// allocated.
#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_network_bytes_never_panic_and_close_with_a_defined_code() -> Result<()> {
    let feed = Feed::start(&market(1, 100, "session: {message_timeout: 300ms}")).await?;
    let frames: [(&[u8], u16); 8] = [
        (&[0x81, 0x01, b'a'], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], 1007),
        (
            &[
                0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
            ],
            1009,
        ),
        (&[0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 1], 4408),
    ];
    for (bytes, expected) in frames {
        let mut stream = TcpStream::connect(feed.address).await?;
        stream.write_all(format!("{GOOD}\r\n").as_bytes()).await?;
        stream.write_all(bytes).await?;
        let mut response = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut response))
            .await
            .context("not closed in time")?
            .ok();
        let close = response
            .windows(4)
            .rev()
            .find(|bytes| bytes[0] == 0x88)
            .context("no close frame received")?;
        assert_eq!(
            u16::from_be_bytes([close[2], close[3]]),
            expected,
            "{bytes:?}"
        );
    }
    feed.until("all connections are closed", |feed| {
        feed.metric("tickcast_connections") < 1.0
    })
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:S1"])).await?;
    client.events(5).await?;
    Ok(())
}

/// A closed connection ends soon, whatever its client still sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_ends_although_its_client_keeps_sending() -> Result<()> {
    let feed = Feed::start(&market(
        1,
        100,
        "session: {message_timeout: 100ms}\nlimits: {requests_per_s: 1000}",
    ))
    .await?;
    let mut stream = TcpStream::connect(feed.address).await?;
    stream.write_all(format!("{GOOD}\r\n").as_bytes()).await?;
    let bad = [0x82, 0x81, 0, 0, 0, 0, 0xc0];
    stream.write_all(&bad.repeat(21)).await?;
    feed.until("the connection is being closed", |feed| {
        feed.metric("tickcast_connections_closed_total") >= 1.0
    })
    .await?;
    stream.write_all(&[0x82, 0xfe, 0x01]).await?;
    feed.until("the connection is closed", |feed| {
        feed.metric("tickcast_connections") < 1.0
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_with_the_handshake_are_not_lost() -> Result<()> {
    let feed = Feed::market(1, 10).await?;
    let mut stream = TcpStream::connect(feed.address).await?;
    let request = br#"{"op":"ping","t":7}"#;
    let mut bytes =
        format!("{}\r\n", GOOD.replace("/v1/feed", "/v1/feed?encoding=json")).into_bytes();
    bytes.extend_from_slice(&[0x81, 0x80 | request.len() as u8, 0, 0, 0, 0]);
    bytes.extend_from_slice(request);
    stream.write_all(&bytes).await?;
    // Heartbeats do not extend the deadline.
    let pong = async {
        let (mut response, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&response).contains(r#""t":7"#) {
            let read = stream.read(&mut buffer).await?;
            anyhow::ensure!(read > 0, "closed before the pong");
            response.extend_from_slice(&buffer[..read]);
        }
        Ok(())
    };
    deadline(pong).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_limit_is_closed_with_4406() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "limits: {connections: 2}")).await?;
    let first = feed.client(Encoding::Msgpack).await?;
    let _second = feed.client(Encoding::Msgpack).await?;
    let mut third = tickcast::client::Client::connect(feed.address, Encoding::Msgpack).await?;
    let tickcast::protocol::ServerMessage::Control(tickcast::protocol::Control::Bye(bye)) =
        third.next().await?
    else {
        anyhow::bail!("expected a bye first")
    };
    assert_eq!(bye.code, 406);
    assert!(matches!(
        third.next().await,
        Err(tickcast::client::ClientError::Closed { code: 4406, .. })
    ));
    first.client.close().await?;
    feed.until("a connection slot is free", |feed| {
        feed.metric("tickcast_connections") < 2.0
    })
    .await?;
    feed.client(Encoding::Msgpack).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_pinged_and_then_closed_with_4408() -> Result<()> {
    let feed = Feed::start(&market(
        1,
        10,
        "session: {ping_after: 200ms, drop_after: 600ms}",
    ))
    .await?;
    let mut stream = TcpStream::connect(feed.address).await?;
    stream.write_all(format!("{GOOD}\r\n").as_bytes()).await?;
    let mut response = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut response)).await??;
    let find = |wanted: &[u8]| {
        response
            .windows(wanted.len())
            .position(|bytes| bytes == wanted)
    };
    let (ping, close) = (find(&[0x89, 0x00]), find(&4408u16.to_be_bytes()));
    assert!(ping.is_some() && close.is_some() && ping < close);
    let mut alive = feed.client(Encoding::Json).await?;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..10 {
        alive
            .client
            .send_message(Message::Ping(Vec::new().into()))
            .await?;
        alive.ask(Op::Ping { t: 1 }).await?;
        alive
            .control("pong", |control| {
                matches!(control, tickcast::protocol::Control::Pong(_)).then_some(())
            })
            .await?;
        ticks.tick().await;
    }
    Ok(())
}
