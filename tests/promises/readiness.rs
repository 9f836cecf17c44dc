//! The server is ready once every source has started or failed; a failed source is named and delays
//! no other.

use std::path::Path;

use anyhow::{Context, Result};
use tickcast::config::Config;

use crate::harness::{Feed, deadline};

/// Push source next to a replay of a file.
fn config(file: &Path, rest: &str) -> String {
    format!(
        "sources:\n  - {{name: in, kind: push, open: true, instruments: [{{symbol: P}}]}}\n  - {{name: tape, kind: replay, files: [\"{}\"]}}\n{rest}\n",
        file.display()
    )
}

async fn ready(feed: &Feed) -> Result<(bool, String)> {
    let response = feed
        .http("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("malformed HTTP response")?;
    Ok((head.starts_with("HTTP/1.1 200 "), body.to_owned()))
}

/// Waits until `/readyz` names the failed source.
async fn failed_source_named(feed: &Feed) -> Result<(bool, String)> {
    let asking = async {
        loop {
            let (is_ready, body) = ready(feed).await?;
            if body.contains("source tape has failed") {
                return Ok((is_ready, body));
            }
            tokio::task::yield_now().await;
        }
    };
    deadline(asking).await?
}

async fn publish(feed: &Feed) -> Result<String> {
    let line = r#"{"ch":"trade","sym":"P","px":"1","qty":"1"}"#;
    feed.http(&format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n{line}",
        line.len()
    ))
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_source_is_named_and_does_not_delay_readiness() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let broken = folder.path().join("broken.csv");
    std::fs::write(&broken, "this,is,no\nformat,we,know\n")?;
    // A permanent failure, and a repeated one.
    for file in [&broken, &folder.path().join("none.csv")] {
        let mut feed = Feed::start(&config(file, "")).await?;
        let (is_ready, body) = failed_source_named(&feed).await?;
        assert!(is_ready && body.starts_with("ok\n"), "{body}");
        assert!(
            body.contains(&file.display().to_string()),
            "the reason is missing: {body}"
        );
        let response = publish(&feed).await?;
        assert!(response.contains(r#""accepted":1"#), "{response}");
        // A failed source in `ready.require` prevents readiness.
        let text = config(file, "ready: {require: [tape]}\nlisten: 127.0.0.1:0");
        feed.app.reload(&Config::parse(&text, "test")?).await;
        let (is_ready, body) = failed_source_named(&feed).await?;
        assert!(!is_ready && body.starts_with("not ready\n"), "{body}");
        let response = publish(&feed).await?;
        assert!(response.contains(r#""accepted":1"#), "{response}");
        feed.app.stop().await;
    }
    Ok(())
}
