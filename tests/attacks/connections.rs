//! Floods of connections, by address, network and rate, directly and behind proxies.

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::arena::{
    DEADLINE, Expected, REFUSED, Target, attack, connect_from, exchange, exchange_over, frame,
    is_full, market, open, websocket,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_address_can_neither_take_all_connections_nor_all_handshakes() -> Result<()> {
    let target = Target::start(&market(
        "limits: {exempt: [127.0.0.1], connections_per_address: 20, handshakes_per_s_per_address: 10}",
    ))?;
    let expected = Expected {
        name: "flood of connections from one address",
        metric: (REFUSED, "address_limit"),
    };
    let flood = async || {
        // WebSockets, silent sockets and HTTP connections count alike.
        let mut held = Vec::new();
        for _ in 0..10 {
            let (stream, status) = open(connect_from(2, target.feed).await?, "").await?;
            ensure!(status == 101, "{status}");
            held.push(stream);
        }
        for _ in 0..10 {
            held.push(connect_from(2, target.feed).await?);
        }
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = exchange_over(connect_from(2, target.feed).await?, request).await?;
        ensure!(response.starts_with("HTTP/1.1 429 "), "{response}");
        ensure!(response.contains("\r\nRetry-After: "), "{response}");
        ensure!(
            response.contains("limits.connections_per_address"),
            "{response}"
        );
        // Others are not concerned, and a closed connection makes room.
        let (_other, status) = open(connect_from(3, target.feed).await?, "").await?;
        ensure!(status == 101, "{status}");
        held.clear();
        target.until("tickcast_connections", "", 3.0).await?;
        let mut statuses = Vec::new();
        for _ in 0..100 {
            match open(connect_from(2, target.feed).await?, "").await {
                Ok((_, status)) => statuses.push(status),
                Err(_reset) => statuses.push(0),
            }
        }
        ensure!(statuses[0] == 101, "{statuses:?}");
        ensure!(statuses.contains(&429), "{statuses:?}");
        Ok(())
    };
    attack(&target, expected, flood).await?;
    ensure!(target.refused("handshake_rate").await? > 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_all_clients_have_a_rate() -> Result<()> {
    let target = Target::start(&market(
        "limits: {exempt: [127.0.0.201, 127.0.0.202], handshakes_per_s: 10}",
    ))?;
    let expected = Expected {
        name: "handshakes from many addresses",
        metric: (REFUSED, "handshake_rate"),
    };
    let flood = async || {
        let mut refused = 0;
        for host in 0..150 {
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let response = exchange_over(connect_from(2 + host, target.feed).await?, request).await;
            refused += usize::from(response.is_ok_and(|text| text.starts_with("HTTP/1.1 503 ")));
        }
        ensure!(refused > 20, "{refused} of 150 were refused");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_one_connection_have_the_rate_of_their_address() -> Result<()> {
    let target = Target::start(&market(
        "limits: {exempt: [127.0.0.1], handshakes_per_s_per_address: 10}",
    ))?;
    let expected = Expected {
        name: "requests on one connection",
        metric: (REFUSED, "\"rate\""),
    };
    let flood = async || {
        let request = "GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        // A burst of five seconds is allowed.
        let requests = request.repeat(199) + &last;
        let stream = connect_from(2, target.feed).await?;
        let responses = exchange_over(stream, requests.as_bytes()).await?;
        let (allowed, refused) = (
            responses.matches("HTTP/1.1 200 ").count(),
            responses.matches("HTTP/1.1 429 ").count(),
        );
        ensure!(allowed >= 40, "{allowed}");
        ensure!(refused > 50, "{refused}");
        ensure!(responses.contains("limits.handshakes_per_s_per_address"));
        let other = exchange_over(connect_from(3, target.feed).await?, last.as_bytes()).await?;
        ensure!(other.starts_with("HTTP/1.1 200 "), "{other}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

/// Connections as operators see them, once these addresses or other texts are among them.
pub(crate) async fn listed(target: &Target, addresses: &[&str]) -> Result<String> {
    let request =
        b"GET /v1/admin/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let waiting = async {
        loop {
            let connections = exchange(target.admin, request).await?;
            if addresses
                .iter()
                .all(|address| connections.contains(address))
            {
                return anyhow::Ok(connections);
            }
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_trusted_proxy_are_limited_by_their_own_address() -> Result<()> {
    let target = Target::start(&market(
        "trusted_proxies: [127.0.0.9]\nlimits: {exempt: [127.0.0.1], connections_per_address: 3}",
    ))?;
    let expected = Expected {
        name: "spoofed X-Forwarded-For",
        metric: (REFUSED, "address_limit"),
    };
    let flood = async || {
        let mut held = Vec::new();
        let mut from = async |host, forwarded: &str| -> Result<u16> {
            let lines = format!("X-Forwarded-For: {forwarded}\r\n");
            let stream = connect_from(host, target.feed).await?;
            let (stream, status) = open(stream, &lines).await?;
            held.push(stream);
            Ok(status)
        };
        for _ in 0..3 {
            ensure!(from(9, "192.0.2.7").await? == 101);
        }
        // The client adds addresses before the one that the proxy reports.
        ensure!(from(9, "198.51.100.1, 192.0.2.7").await? == 429);
        ensure!(from(9, "198.51.100.1").await? == 101);
        // Without a trusted proxy the header means nothing.
        for spoofed in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
            ensure!(from(4, spoofed).await? == 101);
        }
        ensure!(from(4, "203.0.113.4").await? == 429);
        let connections = listed(&target, &["192.0.2.7", "127.0.0.4"]).await?;
        ensure!(!connections.contains("203.0.113."), "{connections}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

/// Header of version 2 for a client at 192.0.2.`host`.
fn binary_header(host: u8) -> Vec<u8> {
    let addresses = [192, 0, 2, host, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", &addresses[..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_header_names_the_client_and_only_trusted_proxies_may_send_it() -> Result<()> {
    let config = "proxy_protocol: required\ntrusted_proxies: [127.0.0.9]\nadmin: {metrics_on_feed: true}\nlimits: {exempt: [], connections_per_address: 3, handshake: 1s}";
    let push = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: P}]}, ";
    let target = Target::start(&market(config).replace("sources: [", push))?;
    let via = async |host, header: &[u8]| -> Result<TcpStream> {
        let mut stream = connect_from(host, target.feed).await?;
        stream.write_all(header).await?;
        Ok(stream)
    };
    let text = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 80\r\n";
    let mut held = Vec::new();
    for _ in 0..3 {
        let (stream, status) = open(via(9, text).await?, "").await?;
        ensure!(status == 101, "{status}");
        held.push(stream);
    }
    let (_limited, status) = open(via(9, text).await?, "").await?;
    ensure!(status == 429, "the limit of the client's address: {status}");
    let (stream, status) = open(via(9, &binary_header(8)).await?, "").await?;
    ensure!(status == 101, "version 2: {status}");
    held.push(stream);
    listed(&target, &["192.0.2.7:1", "192.0.2.8:4660"]).await?;
    // A header that names this machine makes nobody local, nor does the proxy's own connection.
    for header in [
        &b"PROXY TCP4 127.0.0.1 127.0.0.1 1 80\r\n"[..],
        b"PROXY UNKNOWN\r\n",
    ] {
        let request = b"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: 0\r\n\r\n";
        let response = exchange_over(via(9, header).await?, request).await?;
        ensure!(response.starts_with("HTTP/1.1 403 "), "{response}");
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = exchange_over(via(9, header).await?, request).await?;
        ensure!(response.starts_with("HTTP/1.1 404 "), "{response}");
    }
    // Others are closed without a response, with or without a header; so are bytes that are none.
    for (host, bytes) in [
        (4, &text[..]),
        (4, b"GET / HTTP/1.1\r\n"),
        (9, b"GET / HTTP/1.1\r\n"),
        (9, b"PROXY TCP4 1"),
    ] {
        let mut response = Vec::new();
        let read = via(host, bytes).await?.read_to_end(&mut response).await;
        ensure!(
            response.is_empty(),
            "{read:?}: {}",
            String::from_utf8_lossy(&response)
        );
    }
    target.until(REFUSED, "proxy_header", 4.0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_reset_at_once_do_not_stop_the_accept_loop() -> Result<()> {
    let target = Target::start(&market(""))?;
    let expected = Expected {
        name: "connections reset at once",
        metric: (REFUSED, "silent"),
    };
    let flood = async || {
        for _ in 0..if is_full() { 20_000 } else { 500 } {
            let stream = connect_from(2, target.feed).await?;
            socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO))?;
        }
        let (_stream, status) = open(connect_from(2, target.feed).await?, "").await?;
        ensure!(status == 101, "{status}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_ended_connections_is_released() -> Result<()> {
    let target = Target::start(&market("limits: {exempt: [127.0.0.0/8]}"))?;
    let expected = Expected {
        name: "connections that subscribe and leave",
        metric: ("tickcast_connections_opened_total", ""),
    };
    let series = async || -> Result<usize> { Ok(target.metrics().await?.lines().count()) };
    let before = series().await?;
    let churn = async || {
        for round in 0..if is_full() { 20_000 } else { 200 } {
            let mut stream = websocket(&target, 2).await?;
            let request = format!(
                "{{\"op\":\"subscribe\",\"id\":{round},\"topics\":[\"quote:*\",\"trade:S1\",\"trade:NO{round}\"]}}"
            );
            stream.write_all(&frame(0x81, request.as_bytes())).await?;
        }
        Ok(())
    };
    attack(&target, expected, churn).await?;
    target
        .until_at_most("tickcast_connections", "", 0.0)
        .await?;
    for gauge in [
        "tickcast_subscriptions",
        "tickcast_outbox_bytes",
        "tickcast_slow_consumers",
    ] {
        let value = target.metric(gauge, "").await?;
        ensure!(value.abs() < 0.5, "{gauge}: {value}");
    }
    let after = series().await?;
    ensure!(after == before, "{before} series before, {after} after");
    Ok(())
}
