//! The load tester's verdict: a run that proves nothing never passes.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::clock::Clock;
use tickcast::load::{Dialect, Outcome, Plan, RawPlan, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::harness::Feed;

const TICKCAST: &str = env!("CARGO_BIN_EXE_tickcast");

/// What a server of another kind does once it has answered the handshake.
#[derive(Debug, Clone)]
enum Script {
    /// Sends a message with the time, as far ahead of the right one, every 5 ms; each is told of
    /// here.
    Stream(Duration, mpsc::Sender<()>),
    /// Sends one message in the same packet as the answer, then as above.
    GreetThenStream,
    /// Closes.
    Close,
}

fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, text.len() as u8], text.as_bytes()].concat()
}

async fn answer(mut stream: TcpStream, script: Script) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .context("a key")?;
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes();
    let (ahead, sent) = match script {
        Script::Stream(ahead, sent) => (ahead, Some(sent)),
        Script::GreetThenStream => {
            answer.extend(text_frame("{\"hello\":1}"));
            (Duration::ZERO, None)
        }
        Script::Close => {
            answer.extend([0x88, 2, 0x03, 0xe8]);
            return Ok(stream.write_all(&answer).await?);
        }
    };
    stream.write_all(&answer).await?;
    let clock = Clock::start();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        let time = clock.now().plus(ahead).0;
        stream
            .write_all(&text_frame(&format!("{{\"t\":{time}}}")))
            .await?;
        if let Some(sent) = &sent {
            // Only the first ones are waited for.
            let _full = sent.try_send(());
        }
    }
}

/// A WebSocket server that follows a script on each connection.
async fn scripted(script: Script) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, script.clone()));
        }
    });
    Ok(address)
}

async fn tested(plan: Plan) -> Result<Outcome> {
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
    let address = scripted(Script::GreetThenStream).await?;
    let outcome = tested(raw(address)?).await?;
    assert!(outcome.is_sound(), "{:?}", outcome.failures);
    assert!(outcome.joining_s < 30.0 && outcome.tally.delivered > 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_clock_is_ahead_makes_the_run_void() -> Result<()> {
    let (sent, _unread) = mpsc::channel(1);
    let address = scripted(Script::Stream(Duration::from_secs(5), sent)).await?;
    let outcome = tested(raw(address)?).await?;
    assert!(
        outcome
            .void
            .as_ref()
            .is_some_and(|why| why.contains("ahead")),
        "{:?}",
        outcome.void
    );
    assert!(outcome.tally.negative > 0);
    assert_eq!(outcome.published, None, "none of them is a latency");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_which_nothing_came_or_all_were_closed_fails() -> Result<()> {
    let feed =
        Feed::start("sources:\n  - {name: in, kind: push, open: true, instruments: [{symbol: A}]}")
            .await?;
    let quiet = tested(Plan {
        warmup: Duration::ZERO,
        duration: Duration::from_millis(300),
        ..Plan::new(feed.address, vec!["trade:A".into()])
    })
    .await?;
    assert_eq!(
        quiet.failures,
        ["no event was delivered during measurement"]
    );
    let closed = tested(raw(scripted(Script::Close).await?)?).await?;
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
fn outputs_that_cannot_be_written_are_refused_before_the_test() -> Result<()> {
    // Nobody listens there: had it tried to connect, the exit code would be 1.
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
    assert!(!path.exists(), "a test that never began leaves no file");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_test_prints_what_it_measured_and_exits_with_130() -> Result<()> {
    let (sent, mut received) = mpsc::channel(1);
    let address = scripted(Script::Stream(Duration::ZERO, sent)).await?;
    let child = Command::new(TICKCAST)
        .args(["load", "--raw", &format!("ws://{address}/"), "-c", "1"])
        .args(["--timestamp", "t", "--warmup", "0", "-d", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    for _ in 0..20 {
        received.recv().await.context("it reads")?;
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
