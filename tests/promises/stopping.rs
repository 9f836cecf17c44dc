//! Graceful shutdown: order and deadline.

use std::time::Duration;

use anyhow::Result;
use tickcast::protocol::Encoding;

use crate::harness::{Feed, Stopwatch, market, subscribe};

/// Invariant 11: `bye` with a reconnect slot for each client, close code 1012, within the deadline,
/// even if some clients never read.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown_sends_bye_with_spread_reconnect_slots_and_meets_its_deadline() -> Result<()> {
    let feed = Feed::start(&market(2, 5_000, "drain: {deadline: 5s, spread: 2s}")).await?;
    let mut clients = Vec::new();
    for at in 0..10 {
        let mut client = feed.client(Encoding::ALL[at % Encoding::COUNT]).await?;
        client.subscribe(subscribe(&["trade:*", "quote:*"])).await?;
        clients.push(client);
    }
    let mut stalled = feed.small_client(Encoding::Msgpack).await?;
    stalled.subscribe(subscribe(&["trade:*"])).await?;
    let reading = clients
        .into_iter()
        .map(|mut client| tokio::spawn(async move { client.closed().await }));
    let reading: Vec<_> = reading.collect();
    let begun = Stopwatch::start();
    let address = feed.address;
    feed.app.stop().await;
    // Without the deadline of 5 s, the stalled client holds the shutdown up for `close_timeout`, 30
    // s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let mut slots = Vec::new();
    for client in reading {
        let (bye, code) = client.await??;
        let bye = bye.ok_or_else(|| anyhow::anyhow!("no bye before the close"))?;
        assert_eq!((bye.code, bye.reconnect, code), (503, true, 1012));
        slots.push(bye.after_ms);
    }
    slots.sort_unstable();
    assert!(
        slots.windows(2).all(|pair| pair[0] < pair[1]) && slots[9] <= 2_000,
        "{slots:?}"
    );
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "the listener is closed"
    );
    Ok(())
}
