//! The feed over TLS: the same promises, and the rules of certificates.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result};
use rustls::{ClientConnection, StreamOwned};
use tickcast::client::{Client, ClientTls, FeedUrl, Trust};
use tickcast::protocol::{Control, Encoding, LagLevel, Mode, OnSlow, Op, Subscribe};

use crate::certificates::{Certificates, address, replace};
use crate::harness::{Feed, Tracked, deadline, exchange, market, subscribe, wish};

const TIGHT: &str = "fanout: {outbox: 64KiB, behind: 1s, unsent: 8KiB, frame: 16KiB}\nlimits: {requests_per_s: 1000}\n";

/// A server that sends nothing by itself.
const QUIET: &str =
    "session: {heartbeat: 10m, ping_after: 1h, drop_after: 2h}\nfanout: {unsent: 4KiB}\n";

/// A masked ping with the payload `hi`, and its pong.
const PING: [u8; 8] = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
const PONG: [u8; 4] = [0x8a, 2, b'h', b'i'];

const ANY: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

fn url(feed: &Feed) -> Result<FeedUrl> {
    Ok(format!("wss://localhost:{}", address(feed)?.port()).parse()?)
}

async fn connect(feed: &Feed, tls: &ClientTls, encoding: Encoding) -> Result<Tracked> {
    let client = deadline(Client::connect_with(&url(feed)?, tls, encoding)).await??;
    Tracked::welcome(client).await
}

/// Client with a small receive buffer that has subscribed and does not read.
async fn stalled(feed: &Feed, tls: &ClientTls, topic: &str, on_slow: OnSlow) -> Result<Tracked> {
    let mut client = connect(feed, tls, Encoding::Msgpack).await?;
    socket2::SockRef::from(client.client.socket()).set_recv_buffer_size(4096)?;
    let asked = Subscribe {
        wish: wish(Mode::Raw, Some(on_slow)),
        ..subscribe(&[topic])
    };
    client.subscribe(asked).await?;
    Ok(client)
}

/// Response to a request over TLS.
fn https(
    stream: &mut StreamOwned<ClientConnection, std::net::TcpStream>,
    request: &str,
) -> Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    match stream.read_to_end(&mut response) {
        // Truncated by a peer that has no time for the end of its stream.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        read => _ = read?,
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

fn upgrade(more: &str) -> String {
    format!(
        "GET /v1/feed?encoding=json HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_the_same_with_and_without_tls_at_once() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = Feed::start(&market(5, 2_000, &certificates.section(""))).await?;
    let tls = certificates.tls()?;
    for encoding in Encoding::ALL {
        let mut clients = [
            connect(&feed, &tls, encoding).await?,
            feed.client(encoding).await?,
        ];
        for client in &mut clients {
            client.subscribe(subscribe(&["trade:*", "quote:*"])).await?;
            client.events(2_000).await?;
            client.ledger().await?;
        }
    }
    assert_eq!(feed.counted("tls_handshakes", "1.3"), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_served_from_the_configured_version_on() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates.feed(100, "", "").await?;
    for (version, label) in [
        (&rustls::version::TLS12, "1.2"),
        (&rustls::version::TLS13, "1.3"),
    ] {
        let mut stream = certificates.stream(&feed, &[version])?;
        stream.write_all(upgrade("").as_bytes())?;
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("\"op\":\"welcome\"") {
            let mut some = [0; 4096];
            let read = stream.read(&mut some)?;
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&some[..read]);
        }
        assert_eq!(
            stream.conn.alpn_protocol(),
            None,
            "the client has not asked"
        );
        assert_eq!(feed.counted("tls_handshakes", label), 1);
    }
    let newest = certificates.feed(100, ", min_version: 1.3", "").await?;
    let mut old = certificates.stream(&newest, &[&rustls::version::TLS12])?;
    assert!(https(&mut old, "GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").is_err());
    newest
        .until("a refusal", |feed| {
            feed.counted("handshakes_rejected", "tls_failed") == 1
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_consumers_over_tls_lose_nothing_without_notice() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates.feed(20_000, "", TIGHT).await?;
    let tls = certificates.tls()?;
    let mut conflated = stalled(&feed, &tls, "quote:*", OnSlow::Conflate).await?;
    let mut skipped = stalled(&feed, &tls, "trade:*", OnSlow::Gap).await?;
    let published = feed.metric("tickcast_events_published_total");
    feed.until("more than an outbox holds", |feed| {
        feed.counted("lag_changes", "degraded") >= 1
            && feed.metric("tickcast_slow_consumers") >= 2.0
            && feed.metric("tickcast_events_published_total") > published + 40_000.0
    })
    .await?;
    // A pause of the machine can make a client late and catch up before its socket is full.
    for level in [LagLevel::Degraded, LagLevel::Ok] {
        let reached = |control: &Control| {
            matches!(control, Control::Lag(lag) if lag.level == level).then_some(())
        };
        conflated.control(level.name(), reached).await?;
    }
    let is_gap = |control: &Control| matches!(control, Control::Gap(_)).then_some(());
    skipped.control("a gap", is_gap).await?;
    let entries = conflated.ledger().await?;
    assert!(entries.iter().any(|entry| entry.merged > 0), "{entries:?}");
    assert!(entries.iter().all(|entry| entry.lost == 0), "{entries:?}");
    let entries = skipped.ledger().await?;
    assert!(entries.iter().any(|entry| entry.lost > 0), "{entries:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_arrive_over_tls_with_their_reasons() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates.feed(20_000, "", TIGHT).await?;
    let tls = certificates.tls()?;
    let mut slow = stalled(&feed, &tls, "trade:*", OnSlow::Disconnect).await?;
    let closed = |feed: &Feed| feed.metric("tickcast_connections_closed_total") >= 1.0;
    feed.until("a close", closed).await?;
    let (bye, code) = slow.closed().await?;
    assert_eq!((bye.map(|bye| bye.code), code), (Some(407), 4407));
    let mut healthy = connect(&feed, &tls, Encoding::Json).await?;
    let stopping = tokio::spawn(feed.app.stop());
    let (bye, code) = healthy.closed().await?;
    assert!(
        bye.is_some_and(|bye| bye.reconnect),
        "`bye` before the close"
    );
    assert_eq!(code, 1012);
    deadline(stopping).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_without_disconnecting_anybody() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates.feed(1_000, "", "").await?;
    let tls = certificates.tls()?;
    let mut before = connect(&feed, &tls, Encoding::Json).await?;
    before.subscribe(subscribe(&["trade:*"])).await?;
    before.events(10).await?;

    let expires = |feed: &Feed| feed.metric("tickcast_tls_certificate_expiry_timestamp_seconds");
    let start_of_4096 = 67_090_118_400.0;
    assert!((expires(&feed) - start_of_4096).abs() < 1.0);

    let new = certificates.renew_until("server", 2100)?;
    let pinned = ClientTls::new(&Trust::Fingerprint(new))?;
    feed.until("the new certificate", |feed| {
        feed.counted("tls_reloads", "applied") >= 1
    })
    .await?;
    let start_of_2100 = 4_102_444_800.0;
    assert!((expires(&feed) - start_of_2100).abs() < 1.0);
    connect(&feed, &pinned, Encoding::Json).await?;

    replace(&certificates.path("server.pem"), "no certificate")?;
    feed.until("a refusal", |feed| {
        feed.counted("tls_reloads", "rejected") >= 1
            && feed.metric("tickcast_tls_reload_failed") > 0.0
    })
    .await?;
    connect(&feed, &pinned, Encoding::Json).await?;

    // A key of another certificate.
    let key = std::fs::read_to_string(certificates.path("server.key"))?;
    certificates.renew("server")?;
    replace(&certificates.path("server.key"), &key)?;
    feed.until("a refusal", |feed| {
        feed.counted("tls_reloads", "rejected") >= 2
    })
    .await?;
    connect(&feed, &pinned, Encoding::Json).await?;
    let newest = certificates.renew("server")?;
    feed.until("a right certificate again", |feed| {
        feed.metric("tickcast_tls_reload_failed") < 1.0
    })
    .await?;
    let old = Client::connect_with(&url(&feed)?, &pinned, Encoding::Json).await;
    assert!(old.is_err(), "the previous certificate is no longer used");
    connect(
        &feed,
        &ClientTls::new(&Trust::Fingerprint(newest))?,
        Encoding::Json,
    )
    .await?;

    before.events(10).await?;
    before.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_asked_for_as_configured() -> Result<()> {
    let (certificates, strangers) = (Certificates::new()?, Certificates::new()?);
    certificates.renew("client")?;
    strangers.renew("client")?;
    let without = certificates.tls()?;
    let own = certificates.tls_of("client", &certificates)?;
    let foreign = certificates.tls_of("client", &strangers)?;
    for (mode, allowed) in [
        ("required", [false, true, false]),
        ("optional", [true, true, false]),
    ] {
        let ca = certificates.path("ca.pem");
        let more = format!(", client_ca: {}, client_certificates: {mode}", ca.display());
        let feed = certificates.feed(100, &more, "").await?;
        for (tls, is_allowed) in [&without, &own, &foreign].into_iter().zip(allowed) {
            let connected = connect(&feed, tls, Encoding::Json).await;
            assert_eq!(connected.is_ok(), is_allowed, "{mode}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stall_are_bounded_and_delay_nobody() -> Result<()> {
    const STALLED: u64 = 40;
    let certificates = Certificates::new()?;
    let feed = certificates
        .feed(1_000, "", "limits: {handshake: 1s}\n")
        .await?;
    let mut sockets = Vec::new();
    for _ in 0..STALLED {
        let mut stream = std::net::TcpStream::connect(address(&feed)?)?;
        // The beginning of a record that announces more.
        stream.write_all(&[22, 3, 1, 2, 0, 1, 0])?;
        sockets.push(stream);
    }
    let mut client = connect(&feed, &certificates.tls()?, Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:*"])).await?;
    client.events(100).await?;
    feed.until("the end of all stalled handshakes", |feed| {
        feed.counted("handshakes_rejected", "tls_slow") == STALLED
    })
    .await?;
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_and_garbage_on_the_tls_port_are_closed() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates.feed(100, "", "").await?;
    let response = exchange(
        address(&feed)?,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await?;
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    let (head, body) = response.split_once("\r\n\r\n").context("a body")?;
    assert!(
        head.contains(&format!("Content-Length: {}", body.len())),
        "{head}"
    );
    assert!(body.contains("https://"), "{body}");
    assert_eq!(exchange(address(&feed)?, b"\0\0garbage\n").await?, "");
    assert_eq!(feed.counted("handshakes_rejected", "no_tls"), 2);
    // A record of a handshake with something else inside gets an alert at most.
    let alert = exchange(address(&feed)?, &[&[22, 3, 1, 0, 5][..], b"GET /"].concat()).await?;
    assert!(alert.len() < 10, "{alert:?}");
    feed.until("a failed handshake", |feed| {
        feed.counted("handshakes_rejected", "tls_failed") == 1
    })
    .await?;
    let plain = Client::connect(address(&feed)?, Encoding::Json).await;
    assert!(plain.is_err(), "no feed without TLS on this port");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_tls_origin_are_told_to_stay_with_tls() -> Result<()> {
    let certificates = Certificates::new()?;
    let feed = certificates
        .feed(100, "", "allowed_origins: [self]\n")
        .await?;
    let port = address(&feed)?.port();
    let page = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    let response = https(&mut certificates.stream(&feed, ANY)?, page)?;
    assert!(response.starts_with("HTTP/1.0 200 "), "{response:.300}");
    assert!(
        response.contains("strict-transport-security: max-age=2592000\r\n"),
        "{response:.600}"
    );
    assert!(!feed.http(page).await?.contains("strict-transport-security"));
    for (origin, status) in [("https", "101"), ("http", "403")] {
        let request = upgrade(&format!("Origin: {origin}://localhost:{port}\r\n")).replace(
            "Host: localhost\r\n",
            &format!("Host: localhost:{port}\r\n"),
        );
        let mut stream = certificates.stream(&feed, ANY)?;
        stream.write_all(request.as_bytes())?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        assert_eq!(String::from_utf8_lossy(&head), format!("HTTP/1.1 {status}"));
    }
    let never = certificates.feed(100, ", hsts: 0", "").await?;
    let response = https(&mut certificates.stream(&never, ANY)?, page)?;
    assert!(
        !response.contains("strict-transport-security"),
        "{response:.600}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_in_the_segment_of_the_handshake_are_answered() -> Result<()> {
    let certificates = Certificates::new()?;
    // Without heartbeats, so that the read below ends if there is no pong.
    let feed = certificates.feed(100, "", QUIET).await?;
    for records in [1, 2] {
        let mut stream = certificates.stream(&feed, ANY)?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let request = upgrade("").into_bytes();
        if records == 1 {
            stream
                .conn
                .writer()
                .write_all(&[&request[..], &PING].concat())?;
        } else {
            stream.conn.writer().write_all(&request)?;
            stream.conn.writer().write_all(&PING)?;
        }
        let mut segment = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut segment)?;
        }
        stream.sock.write_all(&segment)?;
        let mut received = Vec::new();
        while !received.windows(PONG.len()).any(|some| some == PONG) {
            let mut some = [0; 4096];
            let read = stream.read(&mut some)?;
            assert!(
                read > 0,
                "no pong in {}",
                String::from_utf8_lossy(&received)
            );
            received.extend_from_slice(&some[..read]);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_bytes_of_a_long_response_are_sent_over_tls() -> Result<()> {
    const INSTRUMENTS: usize = 2000;
    let certificates = Certificates::new()?;
    let config = market(INSTRUMENTS, 10, &(certificates.section("") + QUIET));
    let feed = Feed::start(&config).await?;
    let mut client = connect(&feed, &certificates.tls()?, Encoding::Json).await?;
    socket2::SockRef::from(client.client.socket()).set_recv_buffer_size(4096)?;
    let pattern = "*".to_owned();
    client.ask(Op::Instruments { pattern }).await?;
    let is_full = |feed: &Feed| feed.metric("tickcast_outbox_bytes") > 0.0;
    feed.until("a full socket", is_full).await?;
    let mut listed = 0;
    let last = |control: &Control| match control {
        Control::Instruments(part) => {
            listed += part.instruments.len();
            (!part.more).then_some(())
        }
        _ => None,
    };
    client.control("all instruments", last).await?;
    assert_eq!(listed, INSTRUMENTS);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_records_of_a_segment_are_read() -> Result<()> {
    // More than one read of the socket takes, and less plaintext than a read asks for.
    const PINGS: usize = 300;
    let certificates = Certificates::new()?;
    let feed = certificates.feed(100, "", QUIET).await?;
    let mut stream = certificates.stream(&feed, ANY)?;
    stream.write_all(upgrade("").as_bytes())?;
    let mut received = Vec::new();
    let mut some = [0; 4096];
    while !String::from_utf8_lossy(&received).contains("\"op\":\"welcome\"") {
        let read = stream.read(&mut some)?;
        received.extend_from_slice(&some[..read]);
    }
    let mut segment = Vec::new();
    for _ in 0..PINGS {
        stream.conn.writer().write_all(&PING)?;
        stream.conn.write_tls(&mut segment)?;
    }
    stream.sock.write_all(&segment)?;
    let pongs = |bytes: &[u8]| bytes.windows(4).filter(|some| *some == PONG).count();
    while pongs(&received) < PINGS {
        let read = stream.read(&mut some)?;
        received.extend_from_slice(&some[..read]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_port_can_be_off() -> Result<()> {
    let certificates = Certificates::new()?;
    let config = market(1, 100, &certificates.section(""));
    let text = format!("listen: off\nadmin: {{listen: off}}\n{config}");
    let config = tickcast::config::Config::parse(&text, "test")?;
    let feed = Feed {
        app: tickcast::app::App::start(&config).await?,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    assert_eq!(Some(feed.app.address()), feed.app.tls_address());
    connect(&feed, &certificates.tls()?, Encoding::Json).await?;
    let with = config.memory_formula(10).0;
    let text = text
        .replace("listen: off\n", "")
        .replace("tls: {listen: 127.0.0.1:0", "tls: {listen: off");
    let without = tickcast::config::Config::parse(&text, "test")?
        .memory_formula(10)
        .0;
    assert!(
        with > without + 10_000 * 64 * 1024,
        "TLS has its share of the memory"
    );
    Ok(())
}
