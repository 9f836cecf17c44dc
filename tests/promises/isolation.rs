//! Isolation of clients from each other, and memory per client.

use std::time::Duration;

use anyhow::{Result, bail};
use tickcast::client::Client;
use tickcast::protocol::{Encoding, Mode, OnSlow, ServerMessage, Subscribe};

use crate::harness::{Feed, Tracked, market, subscribe, wish};
use crate::terminal::serve;

/// Upper bound of the median latency of a client that keeps up. A stall of 20 ms in each turn adds
/// 10 ms to it; the median of the slowest machine that runs these tests is below 2 ms.
const MEDIAN_MAX: Duration = Duration::from_millis(5);
/// Upper bound of the server's memory for an idle connection with one topic, in a debug build.
const IDLE_BYTES_MAX: u64 = 64 << 10;

/// Invariant 3: a client that keeps up gets events immediately, whatever its neighbours do.
#[tokio::test(flavor = "multi_thread")]
async fn latency_is_bounded_for_a_client_that_keeps_up() -> Result<()> {
    let tight = "shards: 1\nfanout: {outbox: 64KiB, behind: 1s, unsent: 8KiB, frame: 16KiB}\n\
                 limits: {requests_per_s: 1000}";
    let feed = Feed::start(&market(2, 2_000, tight)).await?;
    let mut neighbour = feed.client(Encoding::Json).await?;
    neighbour.subscribe(subscribe(&["trade:*"])).await?;
    let reading: tokio::task::JoinHandle<Result<()>> = tokio::spawn(async move {
        loop {
            neighbour.next().await?;
        }
    });
    let mut stalled = Vec::new();
    for at in 0..20 {
        let mut client = feed.small_client(Encoding::Msgpack).await?;
        let on_slow = [OnSlow::Gap, OnSlow::Conflate][at % 2];
        let request = Subscribe {
            wish: wish(Mode::Raw, Some(on_slow)),
            ..subscribe(&["quote:*"])
        };
        client.subscribe(request).await?;
        stalled.push(client);
    }
    let mut healthy = feed.client(Encoding::Msgpack).await?;
    healthy
        .subscribe(subscribe(&["trade:*", "quote:*"]))
        .await?;
    let mut medians = Vec::new();
    // Other processes may use the machine for a while, but not during every window.
    for _ in 0..20 {
        let median = median_latency(&feed, &mut healthy, 1_000).await?;
        if median < MEDIAN_MAX {
            reading.abort();
            return Ok(());
        }
        medians.push(median);
    }
    bail!("the median latency is never below {MEDIAN_MAX:?}: {medians:?}");
}

/// Median time from publication to receipt of the next `count` events.
async fn median_latency(feed: &Feed, client: &mut Tracked, count: usize) -> Result<Duration> {
    let clock = feed.app.clock();
    let mut latencies = Vec::new();
    while latencies.len() < count {
        if let ServerMessage::Events(events) = client.next().await? {
            let now = clock.now();
            latencies.extend(events.iter().map(|event| now.since(event.tx)));
        }
    }
    latencies.sort_unstable();
    Ok(latencies[latencies.len() / 2])
}

/// Invariant 8: an idle connection takes kilobytes.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_takes_little_memory() -> Result<()> {
    const CLIENTS: u64 = 200;
    let served = serve(&["--sim-instruments", "2", "--sim-rate", "1"])?;
    let address = served.address.parse()?;
    let mut clients = vec![idle_client(address).await?];
    let before = resident_bytes(served.id())?;
    for _ in 0..CLIENTS {
        clients.push(idle_client(address).await?);
    }
    let grown = resident_bytes(served.id())?.saturating_sub(before);
    assert!(
        grown < CLIENTS * IDLE_BYTES_MAX,
        "{} bytes a connection",
        grown / CLIENTS
    );
    Ok(())
}

/// Client with a confirmed subscription.
async fn idle_client(address: std::net::SocketAddr) -> Result<Tracked> {
    let mut client = Tracked::welcome(Client::connect(address, Encoding::Msgpack).await?).await?;
    client.subscribe(subscribe(&["trade:SIM0001"])).await?;
    Ok(client)
}

fn resident_bytes(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok(pages * 4096)
}
