//! Attacks that go on until they are stopped, for the measurement of `pairs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tickcast::client::{Client, ClientTls, Trust};
use tickcast::protocol::Encoding;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::arena::{close_code, connect_from, exchange_over, frame, open};

/// Attacks, with the number of attackers at once.
pub(crate) const ATTACKS: [(&str, usize); 11] = [
    ("connections from one address", 8),
    ("handshakes from many addresses", 8),
    ("TLS handshakes", 4),
    ("slow request heads", 200),
    ("invalid frames", 8),
    ("floods of pings", 8),
    ("decoding bombs", 8),
    ("dear requests", 8),
    ("clients that never read", 100),
    ("unread HTTP responses", 100),
    ("invalid publish bodies", 4),
];
/// Addresses of the attackers: 127.0.0.2 and following.
const ADDRESSES: usize = 190;
/// Time for which an attacker holds a connection that it does not read.
const HELD: Duration = Duration::from_secs(2);

/// Addresses of the server under attack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Victim {
    pub(crate) feed: SocketAddr,
    pub(crate) secure: SocketAddr,
}

/// Attacks for a time; returns the number of completed rounds.
pub(crate) async fn attack_for(name: &str, victim: Victim, time: Duration) -> Result<usize> {
    let attackers = ATTACKS.iter().find(|(known, _)| *known == name);
    let (name, attackers) = *attackers.with_context(|| format!("no attack {name}"))?;
    let rounds = Arc::new(AtomicUsize::new(0));
    for number in 0..attackers {
        let rounds = Arc::clone(&rounds);
        tokio::spawn(async move {
            for round in 0.. {
                // A refusal is the expected end of a round.
                let _refused = attack_once(name, victim, number + round * attackers).await;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(time).await;
    Ok(rounds.load(Ordering::Relaxed))
}

/// One round of an attack.
async fn attack_once(name: &str, victim: Victim, round: usize) -> Result<()> {
    let host = 2 + (round % ADDRESSES) as u8;
    if name == "TLS handshakes" {
        let tls = ClientTls::new(&Trust::Any)?;
        let url = format!("wss://{}/v1/feed", victim.secure).parse()?;
        Client::connect_with(&url, &tls, Encoding::Json).await?;
        return Ok(());
    }
    if matches!(name, "clients that never read" | "unread HTTP responses") {
        return hold(name, victim, host).await;
    }
    let host = if name == "connections from one address" {
        2
    } else {
        host
    };
    let mut stream = connect_from(host, victim.feed).await?;
    match name {
        "connections from one address" => {}
        "handshakes from many addresses" => {
            open(stream, "").await?;
        }
        "slow request heads" => {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            stream.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await?;
            loop {
                pace.tick().await;
                stream.write_all(b"a").await?;
            }
        }
        "invalid publish bodies" => {
            let lines = "1\n".repeat(30_000);
            let length = lines.len();
            let head = format!(
                "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
            );
            exchange_over(stream, (head + &lines).as_bytes()).await?;
        }
        frames => {
            let (mut stream, status) = open(stream, "").await?;
            ensure!(status == 101, "{status}");
            stream.write_all(&hostile_frames(frames)?).await?;
            close_code(&mut stream).await?;
        }
    }
    Ok(())
}

/// Frames that the server closes the connection for, sooner or later.
fn hostile_frames(name: &str) -> Result<Vec<u8>> {
    Ok(match name {
        "invalid frames" => frame(0xc1, b"a"),
        "floods of pings" => frame(0x89, b"a").repeat(2_000),
        "decoding bombs" => frame(0x81, &vec![b'['; 60_000]).repeat(21),
        "dear requests" => {
            let names: Vec<String> = (0..4_000).map(|n| format!("\"trade:X{n}\"")).collect();
            let request = format!("{{\"op\":\"subscribe\",\"topics\":[{}]}}", names.join(","));
            frame(0x81, request.as_bytes()).repeat(100)
        }
        other => bail!("no attack {other}"),
    })
}

/// Requests data on a connection with the smallest receive buffer, and reads none of it.
async fn hold(name: &str, victim: Victim, host: u8) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(1024)?;
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    let mut stream = socket.connect(victim.feed).await?;
    if name == "clients that never read" {
        (stream, _) = open(stream, "").await?;
        let request = b"{\"op\":\"subscribe\",\"topics\":[\"trade:*\",\"quote:*\",\"bar:*:1s\"]}";
        stream.write_all(&frame(0x81, request)).await?;
    } else {
        let request = "GET /v1/snapshot?topics=trade:S1,trade:S2,quote:S1&events=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let all = request.repeat(50);
        let _full = tokio::time::timeout(HELD, stream.write_all(all.as_bytes())).await;
    }
    tokio::time::sleep(HELD).await;
    Ok(())
}
