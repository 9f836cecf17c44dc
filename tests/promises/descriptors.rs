//! A server without file descriptors refuses clients, answers its operators, and says so once.

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
    // In one piece: who is refused is not read any further.
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    // A reset behind the answer is an end too.
    let read = stream.read_to_string(&mut answer);
    if answer.is_empty() {
        read?;
    }
    Ok(answer)
}

#[test]
fn out_of_descriptors_clients_are_refused_and_operators_answered() -> Result<()> {
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
    let mut lines = BufReader::new(running.0.stdout.take().context("piped")?).lines();
    let (mut feed, mut admin) = (None, None);
    while admin.is_none() {
        let line = lines.next().context("it ended before it listened")??;
        let line = line.trim();
        let address = |rest: &str| rest.split('/').next().map(str::to_owned);
        if let Some(rest) = line.strip_prefix("feed     ws://") {
            feed = address(rest);
        } else if let Some(rest) = line.strip_prefix("metrics  http://") {
            admin = address(rest);
        }
    }
    let feed: SocketAddr = feed.context("the feed")?.parse()?;
    let admin: SocketAddr = admin.context("the admin address")?.parse()?;
    // Each sends one byte, so that it is accepted and waits for the rest of its head.
    let mut silent = Vec::new();
    for _ in 0..120 {
        let mut stream = TcpStream::connect(feed)?;
        // Those that are refused may be gone by now.
        let _refused = stream.write_all(b"G");
        silent.push(stream);
    }
    for _ in 0..3 {
        let answer = ask(&mut TcpStream::connect(feed)?, "/healthz")?;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        let answer = ask(&mut TcpStream::connect(admin)?, "/healthz")?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let said = std::fs::read_to_string(&log)?;
    assert!(said.contains("too low for limits.connections"), "{said}");
    let lines = said.matches("out of file descriptors").count();
    assert!((1..=2).contains(&lines), "once for each listener: {said}");
    assert!(!said.contains("accepting rests"), "{said}");
    // Recovers once the others have left.
    drop(silent);
    let begun = Stopwatch::start();
    while begun.elapsed() < DEADLINE {
        let answer = ask(&mut TcpStream::connect(feed)?, "/healthz")?;
        if answer.starts_with("HTTP/1.1 200 ") {
            return Ok(());
        }
    }
    anyhow::bail!("clients are still refused")
}
