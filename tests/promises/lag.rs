//! Lag in kernel and client buffers: measured by pings, reported, and handled by mode and
//! `on_slow`.

use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::protocol::{
    Control, Encoding, Lag, LagLevel, Mode, OnSlow, Op, ServerMessage, Subscribe,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{DEADLINE, Feed, Stopwatch, Tracked, market, subscribe, wish};

/// Observations of a client that takes its time for each message.
#[derive(Debug, Default)]
struct Seen {
    oldest: Duration,
    messages: usize,
    lags: Vec<Lag>,
}

/// Reads until `enough` returns true, with a `pause` after each message.
async fn read(
    client: &mut Tracked,
    pause: Duration,
    mut enough: impl FnMut(&Seen) -> bool,
) -> Result<Seen> {
    let (clock, mut seen) = (Clock::start(), Seen::default());
    while !enough(&seen) {
        let message = client.next().await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        match message {
            ServerMessage::Events(events) => {
                let ages = events.iter().map(|event| clock.now().since(event.tx));
                seen.oldest = ages.fold(seen.oldest, Duration::max);
                seen.messages += 1;
            }
            ServerMessage::Control(Control::Lag(lag)) => seen.lags.push(lag),
            ServerMessage::Control(_) => {}
        }
    }
    Ok(seen)
}

/// True after `time` has passed.
fn after(time: Duration) -> impl FnMut(&Seen) -> bool {
    let begun = Stopwatch::start();
    move |_| begun.elapsed() >= time
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_20_ms_per_message_gets_fresh_prices_and_a_lag_message() -> Result<()> {
    let feed = Feed::start(&market(10, 1000, "fanout: {behind: 1s}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Conflate, None),
            ..subscribe(&["quote:*"])
        })
        .await?;
    read(&mut client, Duration::ZERO, after(Duration::from_secs(2))).await?;
    // Settled once the server reports that it has caught up.
    let (pause, begun) = (Duration::from_millis(20), Stopwatch::start());
    let settled = |seen: &Seen| {
        let is_ok = seen
            .lags
            .last()
            .is_some_and(|lag| lag.level == LagLevel::Ok);
        is_ok || begun.elapsed() > DEADLINE
    };
    let settling = read(&mut client, pause, settled).await?;
    let warned = |lag: &Lag| lag.level == LagLevel::Warn && lag.behind_ms >= 250;
    assert!(settling.lags.iter().any(warned), "{settling:?}");
    let seen = read(&mut client, pause, after(Duration::from_secs(6))).await?;
    // `behind`, plus a second for a machine under other load.
    assert!(seen.oldest < Duration::from_secs(2), "{seen:?}");
    assert!(seen.messages > 50, "{seen:?}");
    let entries = client.ledger().await?;
    assert!(entries.iter().all(|entry| entry.lost == 0), "{entries:?}");
    Ok(())
}

/// Subscribes to raw quotes and reads for a while, so the client is known to response pings.
async fn reader(feed: &Feed, on_slow: OnSlow) -> Result<Tracked> {
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Raw, Some(on_slow)),
            ..subscribe(&["quote:*"])
        })
        .await?;
    read(&mut client, Duration::ZERO, after(Duration::from_secs(1))).await?;
    Ok(client)
}

/// Low event rate, so kernel buffers can hold the events of minutes.
fn quiet_market() -> String {
    market(2, 50, "fanout: {behind: 1s}")
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_in_buffers_disconnects_by_on_slow() -> Result<()> {
    let feed = Feed::start(&quiet_market()).await?;
    let mut client = reader(&feed, OnSlow::Disconnect).await?;
    feed.until("a close", |feed| {
        feed.counted("connections_closed", "slow_consumer") == 1
    })
    .await?;
    let lag = client
        .control("lag", |control| match control {
            Control::Lag(lag) => Some(lag.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(lag.level, LagLevel::Warn);
    let (bye, code) = client.closed().await?;
    let bye = bye.context("no bye before the close")?;
    assert_eq!((bye.code, bye.reconnect, code), (407, true, 4407));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_in_buffers_conflates_by_on_slow_and_operators_see_it() -> Result<()> {
    let feed = Feed::start(&quiet_market()).await?;
    let admin = feed
        .app
        .admin_address()
        .context("the admin listener is enabled")?;
    let mut client = reader(&feed, OnSlow::Conflate).await?;
    feed.until("degraded", |feed| {
        feed.counted("lag_changes", "degraded") == 1
    })
    .await?;
    let request =
        b"GET /v1/admin/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let response = crate::harness::exchange(admin, request).await?;
    let (_, body) = response
        .split_once("\r\n\r\n")
        .context("the response has a body")?;
    let body: serde_json::Value = serde_json::from_str(body)?;
    let first = &body["connections"][0];
    assert!(first["behind_ms"].as_u64() >= Some(1000), "{first}");
    assert_eq!(first["waits_for"], "read_window", "{first}");
    let mut levels = Vec::new();
    client
        .control("lag ok", |control| match control {
            Control::Lag(lag) => {
                levels.push((lag.level, lag.behind_ms));
                (lag.level == LagLevel::Ok).then_some(())
            }
            _ => None,
        })
        .await?;
    let named: Vec<_> = levels.iter().map(|(level, _)| *level).collect();
    assert_eq!(
        named,
        [LagLevel::Warn, LagLevel::Degraded, LagLevel::Ok],
        "{levels:?}"
    );
    assert!(levels[1].1 >= 1000, "{levels:?}");
    let entries = client.ledger().await?;
    assert!(
        entries.iter().any(|entry| entry.merged > 0) && entries.iter().all(|entry| entry.lost == 0),
        "{entries:?}"
    );
    Ok(())
}

/// Forwards bytes after `delay`.
async fn delayed(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin + Send + 'static,
    delay: Duration,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<(Stopwatch, Vec<u8>)>(1000);
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(read) = from.read(&mut buffer).await {
            let bytes = buffer[..read].to_vec();
            if read == 0 || sender.send((Stopwatch::start(), bytes)).await.is_err() {
                break;
            }
        }
    });
    while let Some((since, bytes)) = receiver.recv().await {
        tokio::time::sleep(delay.saturating_sub(since.elapsed())).await;
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
}

/// Client behind a link with a round trip of 200 ms.
async fn far_client(feed: &Feed) -> Result<Tracked> {
    const DELAY: Duration = Duration::from_millis(100);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (near, server) = (listener.local_addr()?, feed.address);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let server = TcpStream::connect(server).await?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(delayed(from_client, to_server, DELAY));
        delayed(from_server, to_client, DELAY).await;
        anyhow::Ok(())
    });
    let stream = TcpStream::connect(near).await?;
    Tracked::welcome(Client::over(stream, Encoding::Msgpack).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_distant_client_that_keeps_up_is_not_slow() -> Result<()> {
    let rest = "fanout: {behind: 2s}\nallowed_hosts: [\"*\"]";
    let feed = Feed::start(&market(10, 1000, rest)).await?;
    for mode in [Mode::Conflate, Mode::Raw] {
        let mut client = far_client(&feed).await?;
        client
            .subscribe(Subscribe {
                wish: wish(mode, None),
                ..subscribe(&["quote:*"])
            })
            .await?;
        let seen = read(&mut client, Duration::ZERO, after(Duration::from_secs(4))).await?;
        assert!(seen.lags.is_empty(), "{mode:?}: {seen:?}");
        assert!(seen.oldest < Duration::from_secs(2), "{mode:?}: {seen:?}");
        client.ledger().await?;
    }
    Ok(())
}

/// A client library that never answers pings is not measured by them.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_answers_pings_gets_its_data() -> Result<()> {
    let feed = Feed::start(&market(2, 200, "fanout: {behind: 1s}")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let request = Subscribe {
        wish: wish(Mode::Conflate, None),
        ..subscribe(&["quote:*"])
    };
    client.ask(Op::Subscribe(request)).await?;
    // From here on the client library, which answers pings, reads nothing.
    let socket = client.client.socket();
    let (begun, mut late, mut some) = (Stopwatch::start(), 0, vec![0; 65_536]);
    while begun.elapsed() < Duration::from_secs(4) {
        socket.readable().await?;
        match socket.try_read(&mut some) {
            Ok(read) if begun.elapsed() > Duration::from_secs(2) => late += read,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    assert!(late > 10_000, "{late} bytes received in two seconds");
    assert_eq!(feed.counted("lag_changes", "warn"), 0);
    Ok(())
}

/// While reading is paused, pongs cannot be read, so they hold nothing back.
#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_answered_while_data_flows() -> Result<()> {
    const REQUESTS: usize = 300;
    let rest = "fanout: {behind: 1s}\nlimits: {requests_per_s: 1000, message: 1KiB}";
    let feed = Feed::start(&market(100, 1000, rest)).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let request = Subscribe {
        wish: wish(Mode::Conflate, None),
        ..subscribe(&["quote:*", "ticker:*"])
    };
    client.ask(Op::Subscribe(request)).await?;
    for _ in 0..REQUESTS {
        client.ask(Op::Subscriptions).await?;
    }
    for _ in 0..REQUESTS {
        client
            .control("a response", |control| {
                matches!(control, Control::Subscriptions(part) if !part.more).then_some(())
            })
            .await?;
    }
    client.ledger().await?;
    Ok(())
}
