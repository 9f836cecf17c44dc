//! Clients that read slowly, or send without reading: which of them are closed.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tickcast::client::Client;
use tickcast::clock::Clock;
use tickcast::protocol::{Control, Encoding, LagLevel, Mode, OnSlow, Op, Subscribe};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{DEADLINE, Feed, Stopwatch, Tracked, market, subscribe, wish};

/// Client that falls behind immediately: a small buffer, and 20,000 events per second.
const TIGHT: &str =
    "fanout: {outbox: 512KiB, behind: 1s, unsent: 16KiB}\nlimits: {requests_per_s: 1000}";

async fn stalled(feed: &Feed, encoding: Encoding, on_slow: OnSlow) -> Result<Tracked> {
    let mut client = feed.small_client(encoding).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Raw, Some(on_slow)),
            ..subscribe(&["quote:*"])
        })
        .await?;
    Ok(client)
}

/// Reads a socket at 40 KB/s until its end, or until `enough` returns true for the received bytes.
async fn read_slowly(client: &Tracked, enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let socket = client.client.socket();
    let reading = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let (mut all, mut some) = (Vec::new(), vec![0; 4096]);
        loop {
            ticks.tick().await;
            socket.readable().await?;
            match socket.try_read(&mut some) {
                Ok(0) => return anyhow::Ok(all),
                Ok(read) => all.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => bail!("after {} bytes: {error}", all.len()),
            }
            if enough(&all) {
                return Ok(all);
            }
        }
    };
    tokio::time::timeout(2 * DEADLINE, reading)
        .await
        .context("no output in time")?
}

fn contains_bytes(all: &[u8], wanted: &[u8]) -> bool {
    all.windows(wanted.len()).any(|bytes| bytes == wanted)
}

/// Close frame of a server: opcode, length, code.
fn close_frame(code: u16, name: &str) -> Vec<u8> {
    let mut frame = vec![0x88, 2 + name.len() as u8];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(name.as_bytes());
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_its_bye_and_close_code() -> Result<()> {
    let feed = Feed::start(&market(2, 20_000, TIGHT)).await?;
    let client = stalled(&feed, Encoding::Json, OnSlow::Disconnect).await?;
    let all = read_slowly(&client, |_| false).await?;
    let end = String::from_utf8_lossy(&all[all.len().saturating_sub(600)..]).into_owned();
    assert!(
        end.contains(r#""op":"bye","code":407"#),
        "after {} bytes: {end}",
        all.len()
    );
    assert!(all.ends_with(&close_frame(4407, "slow_consumer")), "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_gets_its_bye_when_the_server_stops() -> Result<()> {
    let rest = format!("{TIGHT}\ndrain: {{deadline: 1m}}");
    let feed = Feed::start(&market(2, 20_000, &rest)).await?;
    let client = stalled(&feed, Encoding::Json, OnSlow::Gap).await?;
    let behind = |_: &[u8]| feed.metric("tickcast_lag_changes_total") >= 1.0;
    read_slowly(&client, behind).await?;
    let stopping = tokio::spawn(feed.app.stop());
    let all = read_slowly(&client, |_| false).await?;
    let end = String::from_utf8_lossy(&all[all.len().saturating_sub(600)..]).into_owned();
    assert!(all.ends_with(&close_frame(1012, "draining")), "{end}");
    stopping.await?;
    Ok(())
}

/// The responses wait longer than the idle timeout; the client reads and pings all the while.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_while_its_responses_wait_is_not_closed_as_idle() -> Result<()> {
    const REQUESTS: usize = 20;
    let rest = "session: {ping_after: 300ms, drop_after: 1s, message_timeout: 1s}\nfanout: {unsent: 4KiB, control: 8KiB, frame: 4KiB}\nlimits: {requests_per_s: 1000, message: 1KiB}";
    let feed = Feed::start(&market(100, 50, rest)).await?;
    let mut client = feed.small_client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["trade:*", "quote:*", "ticker:*", "status:*"]))
        .await?;
    for _ in 0..REQUESTS {
        client.ask(Op::Subscriptions).await?;
    }
    let (mut all, mut some) = (Vec::new(), vec![0; 8192]);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let begun = Stopwatch::start();
    // Id of the last response; the subscription had the first.
    let last = format!(r#""id":{},"#, REQUESTS + 1);
    while !contains_bytes(&all, last.as_bytes()) {
        ticks.tick().await;
        client
            .client
            .send_message(Message::Ping(vec![7].into()))
            .await?;
        match client.client.socket().try_read(&mut some) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&some[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => bail!("after {} bytes: {error}", all.len()),
        }
        anyhow::ensure!(begun.elapsed() < 2 * DEADLINE, "responses are too slow");
    }
    let end = String::from_utf8_lossy(&all[all.len().saturating_sub(300)..]).into_owned();
    assert!(
        contains_bytes(&all, last.as_bytes()),
        "after {:?}: {end}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "the responses did not wait"
    );
    assert!(!contains_bytes(&all, b"\"bye\""), "{end}");
    Ok(())
}

/// Pings every 100 ms without reading, for a time or until `over`.
async fn send_pings(client: &mut Tracked, time: Duration, over: impl Fn() -> bool) -> Result<()> {
    let begun = Stopwatch::start();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while begun.elapsed() < time && !over() {
        ticks.tick().await;
        client
            .client
            .send_message(Message::Ping(Vec::new().into()))
            .await
            .with_context(|| format!("after {:?}", begun.elapsed()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_and_does_not_read_is_subject_to_on_slow_only() -> Result<()> {
    let rest = format!("{TIGHT}\nsession: {{ping_after: 300ms, drop_after: 1s}}");
    let feed = Feed::start(&market(2, 20_000, &rest)).await?;
    let mut client = stalled(&feed, Encoding::Msgpack, OnSlow::Conflate).await?;
    send_pings(&mut client, Duration::from_secs(5), || false).await?;
    client
        .control("lag ok", |control| {
            matches!(control, Control::Lag(lag) if lag.level == LagLevel::Ok).then_some(())
        })
        .await?;
    let closed = feed.metric("tickcast_connections_closed_total");
    assert!(closed < 1.0, "{closed} connections were closed");
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_disconnected_after_the_stall_timeout() -> Result<()> {
    let rest = TIGHT.replace("fanout: {", "fanout: {stall_timeout: 2s, ")
        + "\nsession: {heartbeat: 200ms, drop_after: 1h}";
    let feed = Feed::start(&market(2, 20_000, &rest)).await?;
    let mut client = stalled(&feed, Encoding::Msgpack, OnSlow::Conflate).await?;
    let closed = || feed.metric("tickcast_connections_closed_total") >= 1.0;
    send_pings(&mut client, DEADLINE, closed).await?;
    let text = String::from_utf8_lossy(&feed.app.metrics().render()).into_owned();
    assert!(
        text.contains(r#"tickcast_connections_closed_total{code="slow_consumer"} 1"#),
        "{text}"
    );
    let (bye, code) = client.closed().await?;
    let bye = bye.context("no bye before the close")?;
    assert_eq!((bye.code, bye.reconnect, code), (407, true, 4407));
    Ok(())
}

/// The process is paused for longer than the idle timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_server_does_not_make_its_clients_idle() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (config, log) = (folder.path().join("feeds.yaml"), folder.path().join("log"));
    let session = "session: {heartbeat: 200ms, ping_after: 500ms, drop_after: 3s}";
    std::fs::write(&config, market(1, 10, session))?;
    let config = config.to_str().context("the path is not UTF-8")?;
    let errors = std::fs::File::create(&log)?.into();
    let served = crate::terminal::serve_with(&["--config", config], errors)?;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = Client::connect(&*served.address, Encoding::Json).await?;
        clients.push(Tracked::welcome(client).await?);
    }
    let signal = |name: &str| -> Result<()> {
        let id = served.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &id])
            .status()?;
        anyhow::ensure!(sent.success(), "kill {name}");
        Ok(())
    };
    signal("-STOP")?;
    let begun = Stopwatch::start();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while begun.elapsed() < Duration::from_secs(6) {
        ticks.tick().await;
    }
    signal("-CONT")?;
    let resumed = Clock::start().now();
    for client in &mut clients {
        client
            .control("a heartbeat after the pause", |control| {
                matches!(control, Control::Heartbeat(heartbeat) if heartbeat.ts > resumed.0)
                    .then_some(())
            })
            .await?;
    }
    let log = std::fs::read_to_string(&log)?;
    assert!(log.contains("server was paused"), "{log}");
    Ok(())
}
