//! A panic while serving one connection ends that connection alone.

use anyhow::{Result, ensure};
use tickcast::shard::FAILPOINT;
use tokio::io::AsyncWriteExt;

use crate::arena::{
    CLOSED, Expected, Target, attack, close_code, exchange, frame, handshake, market, websocket,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_serving_a_connection_closes_only_that_connection() -> Result<()> {
    let target = Target::start(&market("shards: 1"))?;
    let expected = Expected {
        name: "panics",
        metric: ("tickcast_panics_total", "request"),
    };
    let panics = async || {
        let mut neighbour = websocket(&target, 3).await?;
        for _ in 0..5 {
            let mut stream = websocket(&target, 2).await?;
            let subscribe = frame(
                0x81,
                b"{\"op\":\"subscribe\",\"topics\":[\"trade:*\",\"bar:*:1s\"]}",
            );
            let ping = frame(0x81, b"{\"op\":\"ping\"}");
            stream
                .write_all(&[subscribe, frame(0x82, FAILPOINT), ping].concat())
                .await?;
            let code = close_code(&mut stream).await?;
            ensure!(code == 1011, "{code}");
            let http = handshake("X-Tickcast-Failpoint: 1\r\n");
            let response = exchange(target.feed, http.as_bytes())
                .await
                .unwrap_or_default();
            ensure!(response.is_empty(), "{response}");
        }
        // The neighbour on the same shard is served, and nothing of the others is left.
        neighbour.write_all(&frame(0x88, &[3, 0xe8])).await?;
        ensure!(close_code(&mut neighbour).await? == 1000);
        target.until(CLOSED, "1011", 5.0).await?;
        Ok(())
    };
    attack(&target, expected, panics).await?;
    let log = target.log()?;
    ensure!(log.contains("panic while serving a connection"), "{log}");
    ensure!(
        target.metric("tickcast_panics_total", "http").await? >= 5.0,
        "{log}"
    );
    Ok(())
}
