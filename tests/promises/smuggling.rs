//! Request smuggling through the reverse proxies of docs/proxies.md: a route that the proxy blocks
//! stays blocked, and no client gets a response to bytes of another one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

#[path = "../attacks/ambiguous.rs"]
mod ambiguous;

use crate::harness::{DEADLINE, Stopwatch};
use crate::proxies::{are_installed, configuration, feed, free_port, start_haproxy, start_nginx};
use ambiguous::{AMBIGUOUS, SMUGGLED};

/// Request to the route that the proxies block.
const BLOCKED: &str =
    "GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// Part of the response to it.
const SECRET: &str = "\"price_scale\"";

/// Upgrades that the server does not make, but that a proxy may take for made: it would then pass
/// on all bytes that follow.
const TUNNELS: [(&str, &str); 3] = [
    (
        "WebSocket of another version",
        "GET /v1/feed HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nSMUGGLED",
    ),
    (
        "WebSocket at a path without one",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nSMUGGLED",
    ),
    (
        "HTTP/2 without TLS",
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nSMUGGLED",
    ),
];

/// Sends bytes; returns all that comes back until the connection ends or nothing comes any more.
fn send(port: u16, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    // A proxy may close before it has read everything.
    let _sent = stream.write_all(bytes);
    let (mut response, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        response.extend_from_slice(&buffer[..read]);
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Sends the corpus through a proxy on a plain port; the proxy blocks one route.
fn check(port: u16, direct: u16) -> Result<()> {
    let healthy = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let patience = Stopwatch::start();
    while !send(port, healthy.as_bytes())
        .is_ok_and(|response| response.starts_with("HTTP/1.1 200 "))
    {
        ensure!(patience.elapsed() < DEADLINE, "the proxy did not start");
    }
    let open = send(direct, BLOCKED.as_bytes())?;
    ensure!(open.contains(SECRET), "the route itself responds: {open}");
    let blocked = send(port, BLOCKED.as_bytes())?;
    ensure!(blocked.starts_with("HTTP/1.1 403 "), "{blocked}");
    for (name, request) in AMBIGUOUS.into_iter().chain(TUNNELS) {
        let request = request.replace(SMUGGLED, BLOCKED);
        let response = send(port, request.as_bytes())?;
        ensure!(!response.contains(SECRET), "{name}: {response}");
        // The next client, perhaps on the same connection to the server, gets its own response.
        let next = send(port, healthy.as_bytes())?;
        let is_own = next.starts_with("HTTP/1.1 200 ") && next.ends_with("\r\n\r\nok\n");
        ensure!(is_own, "after {name}: {next}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_nginx() -> Result<()> {
    if !are_installed(&["nginx", "openssl"])? {
        return Ok(());
    }
    let (feed, folder) = (feed().await?, tempfile::tempdir()?);
    let (secure, plain) = (free_port()?, free_port()?);
    let block = configuration("nginx", &feed, secure, folder.path())?;
    // Connections to the server are reused, so that bytes left over would meet the next client.
    let upstream = format!(
        "upstream tickcast {{ server {}; keepalive 4; }}\n",
        feed.address
    );
    let block = block
        .replace(
            "server {\n",
            &format!("server {{\n    listen 127.0.0.1:{plain};\n    location = /v1/instruments {{ return 403; }}\n"),
        )
        .replace(&format!("http://{}", feed.address), "http://tickcast");
    let _nginx = start_nginx(folder.path(), &(upstream + &block))?;
    let direct = feed.address.port();
    tokio::task::spawn_blocking(move || check(plain, direct)).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_past_haproxy() -> Result<()> {
    if !are_installed(&["haproxy", "openssl"])? {
        return Ok(());
    }
    let (feed, folder) = (feed().await?, tempfile::tempdir()?);
    let (secure, plain) = (free_port()?, free_port()?);
    let block = configuration("haproxy", &feed, secure, folder.path())?;
    let front = "    default_backend tickcast\n";
    ensure!(block.contains(front), "{block}");
    let block = block.replace(
        front,
        &format!("    bind 127.0.0.1:{plain}\n    http-request deny if {{ path /v1/instruments }}\n{front}"),
    )
    .replace("backend tickcast\n    mode http\n", "backend tickcast\n    mode http\n    http-reuse always\n");
    let _haproxy = start_haproxy(folder.path(), &block).context("haproxy")?;
    let direct = feed.address.port();
    tokio::task::spawn_blocking(move || check(plain, direct)).await?
}
