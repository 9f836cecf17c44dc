//! Symbols, prices, quantities and times as sources write them.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tickcast::protocol::Encoding;

use crate::harness::{Feed, subscribe};

const TARDIS: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";

/// Publishes lines and returns the report.
async fn publish(feed: &Feed, lines: &str) -> Result<Value> {
    let (status, report) =
        crate::publish::post(feed, "application/x-ndjson", "", lines.as_bytes()).await?;
    anyhow::ensure!(status == 200, "{status}: {report}");
    Ok(serde_json::from_str(&report)?)
}

fn replay(file: &Path, more: &str) -> String {
    format!(
        "sources: [{{name: tape, kind: replay, speed: max, begin: first-subscriber, files: [{:?}]{more}}}]",
        file.display().to_string()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn symbols_of_every_script_travel_through_every_door() -> Result<()> {
    let symbols = ["币安人生USDT", "^GSPC", "ES=F", "@107", "a\"b\\c", "été"];
    let instruments: Vec<Value> = symbols
        .iter()
        .map(|symbol| serde_json::json!({"symbol": symbol}))
        .collect();
    let feed = Feed::start(&format!(
        "sources: [{{name: in, kind: push, instruments: {}}}]",
        serde_json::to_string(&instruments)?
    ))
    .await?;
    let mut clients = vec![
        feed.client(Encoding::Json).await?,
        feed.client(Encoding::Msgpack).await?,
    ];
    let topics: Vec<String> = symbols
        .iter()
        .map(|symbol| format!("trade:{symbol}"))
        .collect();
    for client in &mut clients {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let answer = client.subscribe(subscribe(&names)).await?;
        assert_eq!((answer.ok.len(), answer.err), (symbols.len(), Vec::new()));
    }
    let lines: Vec<String> = symbols
        .iter()
        .map(|symbol| {
            serde_json::json!({"ch": "trade", "sym": symbol, "px": "1", "qty": "1"}).to_string()
        })
        .collect();
    let answer = publish(&feed, &lines.join("\n")).await?;
    assert_eq!(answer["accepted"], symbols.len(), "{answer}");
    for client in &mut clients {
        let mut came: Vec<String> = client
            .events(symbols.len())
            .await?
            .iter()
            .map(|event| event.topic.to_string())
            .collect();
        came.sort();
        let mut wanted = topics.clone();
        wanted.sort();
        assert_eq!(came, wanted);
    }
    let percent: String = "币安人生USDT"
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let snapshot = serde_json::from_str::<Value>(
        &feed
            .get(&format!("/v1/snapshot?topics=trade:{percent}"))
            .await?,
    )?;
    assert_eq!(snapshot["ok"][0]["topic"], "trade:币安人生USDT");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn venue_spellings_are_mapped_and_listed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("t.csv");
    let spellings = [
        "BTCF0:USTF0",
        "AAPL  240119C00150000",
        "^GSPC",
        "BTC/USDT:USDT",
    ];
    let rows: String = spellings
        .iter()
        .enumerate()
        .map(|(n, symbol)| format!("x,{symbol},{},1,{n},buy,9,1\n", 1_760_054_400_000_000 + n))
        .collect();
    std::fs::write(&file, format!("{TARDIS}{rows}"))?;
    let feed = Feed::start(&replay(&file, "")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:*"])).await?;
    let mut came: Vec<String> = client
        .events(4)
        .await?
        .iter()
        .map(|event| event.topic.symbol.to_string())
        .collect();
    came.sort();
    let wanted = [
        "AAPL~20~20240119C00150000",
        "BTC/USDT~3AUSDT",
        "BTCF0~3AUSTF0",
        "^GSPC",
    ];
    assert_eq!(came, wanted);
    let listed = serde_json::from_str::<Value>(&feed.get("/v1/instruments").await?)?;
    let spelled: Vec<&str> = listed["instruments"]
        .as_array()
        .context("instruments")?
        .iter()
        .filter_map(|one| one["venue_symbol"].as_str())
        .collect();
    assert_eq!(
        spelled,
        ["AAPL  240119C00150000", "BTC/USDT:USDT", "BTCF0:USTF0"]
    );
    Ok(())
}
