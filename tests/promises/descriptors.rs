//! Without file descriptors, the server rejects clients, serves operators, and logs one line.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::{DEADLINE, Stopwatch};
use crate::terminal::TICKCAST;

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn ask(stream: &mut TcpStream, path: &str) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // Sent at once: the server reads no further after a rejection.
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    // A reset after the response is an end too.
    let read = stream.read_to_string(&mut response);
    if response.is_empty() {
        read?;
    }
    Ok(response)
}

#[test]
fn without_file_descriptors_clients_are_rejected_and_operators_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let script = format!(
        "ulimit -n 100; exec {TICKCAST} serve --sim-instruments 1 --listen 127.0.0.1:0 --admin 127.0.0.1:0"
    );
    let child = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stdout.take().context("stdout is piped")?).lines();
    let (mut feed, mut admin) = (None, None);
    while admin.is_none() {
        let line = lines
            .next()
            .context("the server ended before it listened")??;
        let line = line.trim();
        let address = |rest: &str| rest.split('/').next().map(str::to_owned);
        if let Some(rest) = line.strip_prefix("feed     ws://") {
            feed = address(rest);
        } else if let Some(rest) = line.strip_prefix("metrics  http://") {
            admin = address(rest);
        }
    }
    let feed: SocketAddr = feed.context("missing feed address")?.parse()?;
    let admin: SocketAddr = admin.context("missing admin address")?.parse()?;
    // Each sends one byte, so it is accepted and waits for the rest of its request head.
    let mut silent = Vec::new();
    for _ in 0..120 {
        let mut stream = TcpStream::connect(feed)?;
        // Rejected ones may be closed by now.
        let _refused = stream.write_all(b"G");
        silent.push(stream);
    }
    for _ in 0..3 {
        let response = ask(&mut TcpStream::connect(feed)?, "/healthz")?;
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        let response = ask(&mut TcpStream::connect(admin)?, "/healthz")?;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
    let logged = std::fs::read_to_string(&log)?;
    assert!(
        logged.contains("too low for limits.connections"),
        "{logged}"
    );
    let lines = logged.matches("out of file descriptors").count();
    assert!(
        (1..=2).contains(&lines),
        "one line for each listener: {logged}"
    );
    assert!(!logged.contains("accept failed"), "{logged}");
    // The server recovers once the others have disconnected.
    drop(silent);
    let begun = Stopwatch::start();
    while begun.elapsed() < DEADLINE {
        let response = ask(&mut TcpStream::connect(feed)?, "/healthz")?;
        if response.starts_with("HTTP/1.1 200 ") {
            return Ok(());
        }
    }
    anyhow::bail!("clients are still rejected")
}
