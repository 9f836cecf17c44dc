//! Hostile texts in requests: they reach neither the structure of the log nor metrics, and secrets
//! reach neither.

use anyhow::{Result, ensure};
use tokio::io::AsyncWriteExt;

use crate::arena::{Target, close_code, connect_from, exchange, frame, market, open, websocket};
use crate::connections::listed;

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_clients_forge_no_log_line_and_no_series() -> Result<()> {
    let target = Target::start_with(&market(""), "export RUST_LOG=debug", "")?;
    let series = async || -> Result<usize> { Ok(target.metrics().await?.lines().count()) };
    let before = series().await?;
    let canary = "secret-canary-4711";
    let (_stream, status) = open(
        connect_from(2, target.feed).await?,
        &format!("User-Agent: a\u{1b}]0;x\u{7}\u{9b}31m\r\nAuthorization: Bearer {canary}\r\n"),
    )
    .await?;
    ensure!(status == 101 || status == 400 || status == 401, "{status}");
    // HTTP allows this control character.
    let (_listed, status) = open(
        connect_from(2, target.feed).await?,
        "User-Agent: b\u{9b}31m\r\n",
    )
    .await?;
    ensure!(status == 101, "{status}");
    listed(&target, &["b?31m"]).await?;
    let mut stream = websocket(&target, 2).await?;
    for text in [
        "{\"op\":\"subscribe\",\"topics\":[\"trade:A\\r\\n2026-11-26T05:00:00Z  INFO forged\",\"trade:\\u001b[31m\"]}",
        "{\"op\":\"x\\n2026-11-26T05:00:00Z  INFO forged\"}",
        "2026-11-26T05:00:00Z  INFO forged\n",
    ] {
        stream.write_all(&frame(0x81, text.as_bytes())).await?;
    }
    let auth = format!("{{\"op\":\"auth\",\"token\":\"{canary}\"}}");
    stream.write_all(&frame(0x81, auth.as_bytes())).await?;
    let reason = [&[3, 0xe8][..], "\r\n2026 INFO forged".as_bytes()].concat();
    stream.write_all(&frame(0x88, &reason)).await?;
    close_code(&mut stream).await?;
    for path in [
        "/%0d%0a2026%20INFO%20forged",
        "/v1/snapshot?topics=trade:A%0aforged",
    ] {
        let request = format!(
            "GET {path}&token={canary} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        exchange(target.feed, request.as_bytes()).await?;
    }
    let log = target.log()?;
    ensure!(log.contains("connected"), "debug lines are written: {log}");
    for line in log.lines() {
        ensure!(!line.starts_with("2026-11-26T05:00:00Z"), "{line}");
        ensure!(
            !line.starts_with("2026 INFO") && !line.starts_with("forged"),
            "{line}"
        );
        let is_plain = |letter: char| !letter.is_control() || letter == '\t';
        ensure!(line.chars().all(is_plain), "{line:?}");
        ensure!(!line.contains(canary), "{line}");
    }
    ensure!(!target.metrics().await?.contains(canary));
    ensure!(series().await? == before, "texts of clients made series");
    Ok(())
}
