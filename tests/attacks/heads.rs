//! Hostile request heads: slow, large, ambiguous, from foreign sites, for other files.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ambiguous::{AMBIGUOUS, SMUGGLED};
use crate::arena::{
    Expected, REFUSED, Target, attack, connect_from, exchange, handshake, market, open,
};

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_end_at_their_deadline() -> Result<()> {
    let target = Target::start(&market("limits: {handshake: 500ms}"))?;
    let expected = Expected {
        name: "slow handshakes",
        metric: (REFUSED, "slow"),
    };
    let flood = async || {
        let mut slow = Vec::new();
        for number in 0..60u8 {
            let mut stream = connect_from(2, target.feed).await?;
            match number % 3 {
                0 => {}
                1 => {
                    stream
                        .write_all(b"GET /v1/feed HTTP/1.1\r\nHost: loc")
                        .await?;
                }
                _ => stream.write_all(b"G").await?,
            }
            slow.push(tokio::spawn(async move {
                // A header line now and then does not extend the deadline.
                let mut lines = tokio::time::interval(Duration::from_millis(100));
                let mut byte = [0];
                loop {
                    tokio::select! {
                        _ = lines.tick(), if number % 3 == 1 => {
                            let _closed = stream.write_all(b"\r\nX-A: b").await;
                        }
                        read = stream.read(&mut byte) => {
                            if read.unwrap_or(0) == 0 { return; }
                        }
                    }
                }
            }));
        }
        for stream in slow {
            tokio::time::timeout(Duration::from_secs(20), stream).await??;
        }
        Ok(())
    };
    attack(&target, expected, flood).await?;
    ensure!(target.refused("silent").await? >= 20.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_heads_are_rejected_with_431() -> Result<()> {
    let target = Target::start(&market("limits: {head: 8KiB}"))?;
    let expected = Expected {
        name: "large heads",
        metric: (REFUSED, "too_large"),
    };
    let flood = async || {
        let many: String = (0..150).map(|n| format!("X-{n}: a\r\n")).collect();
        for lines in [
            format!("X-Long: {}\r\n", "a".repeat(200_000)),
            format!("X-Endless: {}", "a".repeat(200_000)),
            many,
        ] {
            let response = exchange(target.feed, handshake(&lines).as_bytes()).await?;
            ensure!(response.starts_with("HTTP/1.1 431 "), "{response}");
        }
        // The limit of the config applies.
        let line = format!("X-Long: {}\r\n", "a".repeat(6_000));
        let (_stream, status) = open(connect_from(2, target.feed).await?, &line).await?;
        ensure!(status == 101, "{status}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_heads_get_one_refusal_and_no_second_response() -> Result<()> {
    let target = Target::start(&market("limits: {handshake: 500ms}"))?;
    let expected = Expected {
        name: "ambiguous heads",
        metric: (REFUSED, "malformed"),
    };
    let flood = async || {
        let smuggled = "GET /v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for (name, request) in AMBIGUOUS {
            let request = request.replace(SMUGGLED, smuggled);
            let response = exchange(target.feed, request.as_bytes()).await?;
            let responses = response.matches("HTTP/1.1 ").count();
            ensure!(responses <= 1, "{name}: {response}");
            let is_refused = response.is_empty()
                || response.starts_with("HTTP/1.1 4")
                || response.starts_with("HTTP/1.1 501");
            ensure!(is_refused, "{name}: {response}");
            ensure!(!response.contains("S1"), "{name}: {response}");
        }
        // An upgrade to HTTP/2 is not made.
        let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nGET /v1/instruments HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let response = exchange(target.feed, upgrade.as_bytes()).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        ensure!(response.matches("HTTP/1.1 ").count() == 1, "{response}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_cannot_open_the_feed() -> Result<()> {
    let target = Target::start(&market("allowed_origins: [\"https://good.com\"]"))?;
    let expected = Expected {
        name: "cross-site hijacking",
        metric: (REFUSED, "origin"),
    };
    let flood = async || {
        for origin in [
            "https://evil.example",
            "null",
            "https://good.com.evil",
            "https://good.com:8443",
            "http://good.com",
            "https://good.com/",
            "https://xgood.com",
            "https://good.com@evil.example",
            "https://good.com https://evil.example",
            "",
        ] {
            let stream = connect_from(2, target.feed).await?;
            let (_stream, status) = open(stream, &format!("Origin: {origin}\r\n")).await?;
            ensure!(status == 403, "{origin}: {status}");
        }
        let stream = connect_from(2, target.feed).await?;
        let (_stream, status) = open(stream, "Origin: https://good.com\r\n").await?;
        ensure!(status == 101, "{status}");
        Ok(())
    };
    attack(&target, expected, flood).await
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_reach_no_files_and_make_no_series() -> Result<()> {
    let target = Target::start(&market(""))?;
    let series = async || -> Result<BTreeSet<String>> {
        let response = target.metrics().await?;
        let (_head, text) = response.split_once("\r\n\r\n").context("no body")?;
        let names = text.lines().filter_map(|line| line.rsplit_once(' '));
        Ok(names.map(|(name, _)| name.to_owned()).collect())
    };
    let before = series().await?;
    for path in [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/.%2e/etc/passwd",
        "//etc/passwd",
        "/..\\..\\etc\\passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/app/../../Cargo.toml",
        "/index.html%00.js",
        "/%00",
        "/etc/passwd",
        "/./app/state.js/..",
        "/Cargo.toml",
        "/.git/config",
        "/v1/../v1/admin/sources",
        "/v1/admin/connections",
        "/metrics",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = exchange(target.feed, request.as_bytes()).await?;
        let is_refused =
            response.starts_with("HTTP/1.1 404 ") || response.starts_with("HTTP/1.1 400 ");
        ensure!(is_refused, "{path}: {response}");
        ensure!(!response.contains("root:"), "{path}: {response}");
    }
    for number in 0..300 {
        let request = format!(
            "GET /p{number}?q={number} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a{number}\r\nX-Forwarded-For: 10.0.0.{number}\r\nConnection: close\r\n\r\n"
        );
        exchange(target.feed, request.as_bytes()).await?;
    }
    let after = series().await?;
    let changed: Vec<&String> = after.symmetric_difference(&before).collect();
    ensure!(changed.is_empty(), "series that came or went: {changed:?}");
    Ok(())
}
