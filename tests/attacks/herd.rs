//! All clients of a server reconnect at the same time and subscribe to everything.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::arena::{
    DEADLINE, Expected, Target, attack, connect_from, frame, is_full, market, open,
};

/// Time in milliseconds over which clients of a stopping server are told to return.
const SPREAD_MS: u64 = 3_000;

/// Connects and subscribes; returns the connection once the first snapshot has arrived.
async fn join(target: std::net::SocketAddr, host: u8) -> Result<TcpStream> {
    let (mut stream, status) = open(connect_from(host, target).await?, "").await?;
    ensure!(status == 101, "{status}");
    let request = b"{\"op\":\"subscribe\",\"topics\":[\"trade:*\",\"quote:*\",\"bar:*:1s\"]}";
    stream.write_all(&frame(0x81, request)).await?;
    wait_for(&mut stream, "\"op\":\"snapshot\"").await?;
    Ok(stream)
}

/// Reads until a text has arrived; returns everything that was read.
async fn wait_for(stream: &mut TcpStream, text: &str) -> Result<String> {
    let mut seen = Vec::new();
    let reading = async {
        let mut buffer = vec![0; 16_384];
        loop {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "closed");
            seen.extend_from_slice(&buffer[..read]);
            if seen.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading)
        .await
        .context(text.to_owned())??;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_that_reconnects_at_once_is_served_beside_healthy_clients() -> Result<()> {
    let target = Target::start(&market(&format!(
        "limits: {{exempt: [127.0.0.0/8]}}\ndrain: {{spread: {SPREAD_MS}ms}}"
    )))?;
    let expected = Expected {
        name: "simultaneous reconnect of all clients",
        metric: ("tickcast_connections_opened_total", ""),
    };
    let clients: u8 = if is_full() { 250 } else { 40 };
    let herd = async || {
        for _ in 0..3 {
            let mut joining = JoinSet::new();
            for number in 0..clients {
                joining.spawn(join(target.feed, 2 + number % 190));
            }
            // All of them leave together, too.
            let joined: Result<Vec<TcpStream>> = joining.join_all().await.into_iter().collect();
            ensure!(joined?.len() == usize::from(clients));
        }
        Ok(())
    };
    attack(&target, expected, herd).await?;
    // Clients of a server that stops are told to return at different times.
    let mut waits = Vec::new();
    let mut held = Vec::new();
    for number in 0..10 {
        held.push(join(target.feed, 2 + number).await?);
    }
    target.terminate()?;
    for stream in &mut held {
        let text = wait_for(stream, "\"after_ms\":").await?;
        let (_, rest) = text.rsplit_once("\"after_ms\":").context("a wait")?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !digits.is_empty() {
            waits.push(digits.parse::<u64>()?);
        }
    }
    waits.sort_unstable();
    waits.dedup();
    ensure!(waits.len() > 5, "{waits:?}");
    ensure!(waits.iter().all(|wait| *wait <= SPREAD_MS), "{waits:?}");
    Ok(())
}
