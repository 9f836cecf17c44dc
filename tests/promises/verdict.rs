//! Verdict of the load tester: a run that proves nothing never passes.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::clock::Clock;
use tickcast::load::{
    Dialect, Outcome, Plan, RawPlan, Update, run, run_by, write_html, write_table,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::Feed;

const TICKCAST: &str = env!("CARGO_BIN_EXE_tickcast");

/// Script of a foreign server after its handshake response.
#[derive(Debug, Clone)]
enum Script {
    /// Sends a message every 5 ms with a time that is ahead by this; reports each on this channel.
    Stream(Duration, mpsc::Sender<()>),
    /// Sends one message in the packet of the handshake response, then as above.
    GreetThenStream,
    /// Closes the connection.
    Close,
}

fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, text.len() as u8], text.as_bytes()].concat()
}

async fn run_script(mut stream: TcpStream, script: Script) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .context("missing key")?;
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes();
    let (ahead, sent) = match script {
        Script::Stream(ahead, sent) => (ahead, Some(sent)),
        Script::GreetThenStream => {
            response.extend(text_frame("{\"hello\":1}"));
            (Duration::ZERO, None)
        }
        Script::Close => {
            response.extend([0x88, 2, 0x03, 0xe8]);
            return Ok(stream.write_all(&response).await?);
        }
    };
    stream.write_all(&response).await?;
    let clock = Clock::start();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        let time = clock.now().plus(ahead).0;
        stream
            .write_all(&text_frame(&format!("{{\"t\":{time}}}")))
            .await?;
        if let Some(sent) = &sent {
            // Only the first ones are awaited.
            let _full = sent.try_send(());
        }
    }
}

/// WebSocket server that follows a script on each connection.
async fn scripted_server(script: Script) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(run_script(stream, script.clone()));
        }
    });
    Ok(address)
}

async fn run_test(plan: Plan) -> Result<Outcome> {
    Ok(tokio::task::spawn_blocking(move || run(&plan, &mut |_| false)).await??)
}

fn raw(address: SocketAddr) -> Result<Plan> {
    Ok(Plan {
        dialect: Dialect::Raw(RawPlan {
            path: "/".into(),
            send: Vec::new(),
            timestamp: Some("t".parse()?),
        }),
        connections: 3,
        warmup: Duration::ZERO,
        duration: Duration::from_secs(1),
        ..Plan::new(address, Vec::new())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_in_the_packet_of_the_handshake_is_counted() -> Result<()> {
    let address = scripted_server(Script::GreetThenStream).await?;
    let outcome = run_test(raw(address)?).await?;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    assert!(outcome.joining_s < 30.0 && outcome.tally.delivered > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_clock_ahead_invalidates_the_run() -> Result<()> {
    let (sent, _unread) = mpsc::channel(1);
    let address = scripted_server(Script::Stream(Duration::from_secs(5), sent)).await?;
    let outcome = run_test(raw(address)?).await?;
    assert!(
        outcome
            .void
            .as_ref()
            .is_some_and(|why| why.contains("ahead")),
        "{:?}",
        outcome.void
    );
    assert!(outcome.tally.negative > 0);
    assert_eq!(
        outcome.published, None,
        "negative latencies are not recorded"
    );
    Ok(())
}

/// The clock of the tester is stepped in the middle of the test, which its threads see as a pause
/// of two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_tester_reports_its_starvation() -> Result<()> {
    let (sent, _unread) = mpsc::channel(1);
    let address = scripted_server(Script::Stream(Duration::ZERO, sent)).await?;
    let plan = Plan {
        duration: Duration::from_secs(4),
        ..raw(address)?
    };
    let delayed = move || {
        let clock = Clock::start();
        let mut was_delayed = false;
        run_by(clock, &plan, &mut |update| {
            if matches!(update, Update::Second(span) if span.is_measured && !was_delayed) {
                was_delayed = true;
                clock.follow_time(clock.now().plus(Duration::from_secs(2)));
            }
            false
        })
    };
    let outcome = tokio::task::spawn_blocking(delayed).await??;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    let late = outcome
        .wake_up_lateness
        .context("no wake-up was measured")?;
    assert!(
        late.max > 1_900_000_000 && late.p99 > 1_000_000_000,
        "{late:?}"
    );
    let json = serde_json::to_value(&outcome)?;
    let starved = json["starved"].as_str().context("missing field starved")?;
    assert!(starved.contains("the tester was starved"), "{starved}");
    assert!(json["wake_up_lateness"]["p99"].as_u64() == Some(late.p99));
    let (mut table, mut page) = (Vec::new(), Vec::new());
    write_table(&outcome, &mut table)?;
    write_html(&outcome, &mut page)?;
    let (table, page) = (String::from_utf8(table)?, String::from_utf8(page)?);
    assert!(table.contains(&format!("STARVED: {starved}")), "{table}");
    assert!(page.contains("Starved: the tester was starved"), "{page}");
    // All three connections measured, and the report says so.
    let count = outcome
        .published
        .context("the time is in each message")?
        .count;
    assert!(count > 0 && outcome.probes == 3, "{count}");
    assert!(table.contains("events on 3 of 3 connections"), "{table}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_events_or_open_connections_fails() -> Result<()> {
    let feed =
        Feed::start("sources:\n  - {name: in, kind: push, open: true, instruments: [{symbol: A}]}")
            .await?;
    let quiet = run_test(Plan {
        warmup: Duration::ZERO,
        duration: Duration::from_millis(300),
        ..Plan::new(feed.address, vec!["trade:A".into()])
    })
    .await?;
    assert_eq!(
        quiet.failures,
        ["no event was delivered during measurement"]
    );
    let closed = run_test(raw(scripted_server(Script::Close).await?)?).await?;
    assert!(
        closed
            .failures
            .iter()
            .any(|failure| failure.contains("no connection was open")),
        "{:?}",
        closed.failures
    );
    Ok(())
}

#[test]
fn unwritable_outputs_are_rejected_before_the_test() -> Result<()> {
    // Nothing listens there: an attempt to connect would give exit code 1.
    for (flag, path) in [
        ("--json", "/nonexistent/x.json"),
        ("--hdr", "/nonexistent/x"),
        ("--report", "/nonexistent/x.html"),
    ] {
        let output = Command::new(TICKCAST)
            .args(["load", "--connect", "127.0.0.1:1", flag, path])
            .output()?;
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{flag}: {errors}");
        assert!(errors.contains("cannot write /nonexistent/x"), "{errors}");
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("new.json");
    let output = Command::new(TICKCAST)
        .args(["load", "--connect", "127.0.0.1:1", "--json"])
        .arg(&path)
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(!path.exists(), "a test that did not begin leaves no file");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_test_prints_its_results_and_exits_with_130() -> Result<()> {
    let (sent, mut received) = mpsc::channel(1);
    let address = scripted_server(Script::Stream(Duration::ZERO, sent)).await?;
    let child = Command::new(TICKCAST)
        .args(["load", "--raw", &format!("ws://{address}/"), "-c", "1"])
        .args(["--timestamp", "t", "--warmup", "0", "-d", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    for _ in 0..20 {
        received.recv().await.context("no message was read")?;
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()?;
    assert!(sent.success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let (table, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(
        table.contains("INTERRUPTED") && table.contains("delivered"),
        "{table}"
    );
    Ok(())
}
