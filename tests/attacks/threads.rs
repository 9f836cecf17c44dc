//! Threads of a server: HTTP takes no time of the threads that serve the feed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::arena::{Target, exchange, market};

/// Requests whose bodies are decoded.
const REQUESTS: usize = 20;
/// Lines of a body, each of which is rejected.
const LINES: usize = 30_000;
/// Nice value of the threads for HTTP above that of the shards.
const NICENESS: i64 = 5;

/// A thread of the server.
struct Thread {
    name: String,
    nice: i64,
    cpu: Duration,
}

/// Threads of the server whose names begin with `name`.
fn threads(target: &Target, name: &str) -> Result<Vec<Thread>> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(format!("/proc/{}/task", target.process()))? {
        let read =
            |file| std::fs::read_to_string(folder.as_ref().expect("listed").path().join(file));
        let (stat, times) = (read("stat")?, read("schedstat")?);
        let (start, fields) = stat.rsplit_once(')').context("a name in parentheses")?;
        let (_, of) = start.split_once('(').context("a name in parentheses")?;
        let nanos = times.split(' ').next().context("a time")?.parse()?;
        let nice = fields.split_whitespace().nth(16).context("a nice value")?;
        found.push(Thread {
            name: of.to_owned(),
            nice: nice.parse()?,
            cpu: Duration::from_nanos(nanos),
        });
    }
    found.retain(|thread| thread.name.starts_with(name));
    ensure!(!found.is_empty(), "no thread {name}");
    Ok(found)
}

fn cpu(target: &Target, name: &str) -> Result<Duration> {
    Ok(threads(target, name)?.iter().map(|thread| thread.cpu).sum())
}

#[tokio::test]
async fn bodies_are_decoded_by_threads_of_lower_priority_than_the_shards() -> Result<()> {
    let push = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ";
    let target = Target::start(&market("shards: 1").replace("sources: [", push))?;
    let body = "1\n".repeat(LINES);
    let request = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (shard_before, http_before) = (cpu(&target, "shard-0")?, cpu(&target, "http")?);
    for _ in 0..REQUESTS {
        let response = exchange(target.feed, request.as_bytes()).await?;
        let head = response.lines().next().context("a response")?;
        ensure!(response.contains(&format!("\"refused\":{LINES}")), "{head}");
    }
    let shard = cpu(&target, "shard-0")?.saturating_sub(shard_before);
    let http = cpu(&target, "http")?.saturating_sub(http_before);
    eprintln!("shard {shard:?}, http {http:?}");
    ensure!(http > 3 * shard, "shard {shard:?}, http {http:?}");
    let feed = threads(&target, "shard-0")?.remove(0).nice;
    for name in ["shard-", "bus", "http"] {
        let expected = feed + if name == "http" { NICENESS } else { 0 };
        for Thread { name, nice, .. } in threads(&target, name)? {
            ensure!(
                nice == expected,
                "{name}: nice value {nice}, not {expected}"
            );
        }
    }
    Ok(())
}
