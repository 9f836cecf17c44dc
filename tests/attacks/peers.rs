//! Peers that do not read, or read and send slowly.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::arena::{
    CLOSED, Expected, REFUSED, Target, attack, exchange, frame, handshake, market, open,
};

/// Connection with the smallest receive buffer.
async fn small(target: &Target) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(1024)?;
    Ok(socket.connect(target.feed).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_dropped_by_their_policy() -> Result<()> {
    let target = Target::start(&market(
        "fanout: {outbox: 64KiB, unsent: 4KiB, behind: 1s, stall_timeout: 3s}\nsession: {close_timeout: 500ms}",
    ))?;
    let expected = Expected {
        name: "clients that never read",
        metric: (CLOSED, "slow_consumer"),
    };
    let stall = async || {
        let mut stalled = Vec::new();
        for policy in ["gap", "disconnect", "conflate"] {
            for _ in 0..10 {
                let (mut stream, status) = open(small(&target).await?, "").await?;
                ensure!(status == 101, "{status}");
                let channel = if policy == "conflate" {
                    "quote"
                } else {
                    "trade"
                };
                let request = format!(
                    "{{\"op\":\"subscribe\",\"topics\":[\"{channel}:*\"],\"on_slow\":\"{policy}\"}}"
                );
                stream.write_all(&frame(0x81, request.as_bytes())).await?;
                stalled.push(stream);
            }
        }
        // All of them end by the stall timeout, whatever their policy, and their sockets are closed
        // although they do not read the close.
        target.until(CLOSED, "slow_consumer", 30.0).await?;
        let healthy = 2.0;
        target
            .until_at_most("tickcast_connections", "", healthy)
            .await
    };
    attack(&target, expected, stall).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_and_slowly_read_responses_are_bounded() -> Result<()> {
    let target = Target::start(&market("limits: {http_requests: 4}"))?;
    let expected = Expected {
        name: "unread responses",
        metric: (REFUSED, "busy"),
    };
    let flood = async || {
        let many: Vec<String> = (1..=5)
            .flat_map(|n| {
                [
                    format!("trade:S{n}"),
                    format!("quote:S{n}"),
                    format!("bar:S{n}:1s"),
                ]
            })
            .collect();
        let request = format!(
            "GET /v1/snapshot?topics={}&events=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            many.join(",")
        );
        let mut held = Vec::new();
        // Pipelined, and so many that even short refusals fill the socket buffers.
        for _ in 0..20 {
            let mut stream = small(&target).await?;
            let _full = tokio::time::timeout(
                Duration::from_millis(200),
                stream.write_all(request.repeat(1_000).as_bytes()),
            )
            .await;
            held.push(stream);
        }
        target.until(REFUSED, "busy", 1.0).await?;
        // The page and health checks need no permit.
        for path in ["/", "/healthz"] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let response = exchange(target.feed, request.as_bytes()).await?;
            ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        }
        // Those that read nothing are closed in the end, and others get the permits.
        target.until(REFUSED, "unread", 4.0).await
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_large_publish_bodies_take_bounded_time_and_memory() -> Result<()> {
    let push = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ";
    let target = Target::start(&market("").replace("sources: [", push))?;
    let expected = Expected {
        name: "slow and large publish bodies",
        metric: ("tickcast_rejected_input_total", "malformed"),
    };
    let head = |length: usize| {
        format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let good = "{\"ch\":\"trade\",\"sym\":\"P\",\"px\":\"1\",\"qty\":\"1\"}\n";
    let flood = async || {
        let mut slow = Vec::new();
        for _ in 0..8 {
            let mut stream = TcpStream::connect(target.feed).await?;
            stream.write_all(head(1 << 20).as_bytes()).await?;
            stream.write_all(b"{").await?;
            slow.push(stream);
        }
        // Lines of one byte: the answer names the first of them only.
        let lines = "1\n".repeat(150_000);
        let response = exchange(target.feed, (head(lines.len()) + &lines).as_bytes()).await?;
        ensure!(
            response.contains("\"refused\":150000"),
            "{}",
            &response[..200.min(response.len())]
        );
        ensure!(response.len() < 400_000, "{}", response.len());
        let response = exchange(target.feed, (head(good.len()) + good).as_bytes()).await?;
        ensure!(response.contains("\"accepted\":1"), "{response}");
        for mut stream in slow {
            let mut response = Vec::new();
            tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut response))
                .await??;
            ensure!(
                response.starts_with(b"HTTP/1.1 408 "),
                "{}",
                String::from_utf8_lossy(&response)
            );
        }
        Ok(())
    };
    attack(&target, expected, flood).await?;
    ensure!(target.refused("slow_body").await? >= 8.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_single_bytes_fall_back_without_harm() -> Result<()> {
    let target = Target::start(&market(
        "fanout: {outbox: 64KiB, unsent: 4KiB, behind: 500ms}",
    ))?;
    let expected = Expected {
        name: "readers of single bytes",
        metric: ("tickcast_lag_changes_total", "degraded"),
    };
    let drip = async || {
        let mut readers = Vec::new();
        for _ in 0..10 {
            let mut stream = small(&target).await?;
            stream.write_all(handshake("").as_bytes()).await?;
            let request =
                b"{\"op\":\"subscribe\",\"topics\":[\"quote:*\"],\"on_slow\":\"conflate\"}";
            stream.write_all(&frame(0x81, request)).await?;
            readers.push(tokio::spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(100));
                while stream.read_u8().await.is_ok() {
                    pace.tick().await;
                }
            }));
        }
        target
            .until("tickcast_slow_consumers", "degraded", 10.0)
            .await?;
        for reader in readers {
            ensure!(!reader.is_finished(), "a reader was closed");
            reader.abort();
        }
        Ok(())
    };
    attack(&target, expected, drip).await
}
