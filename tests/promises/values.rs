//! Symbols, prices, quantities and times as sources write them.

use std::path::Path;

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use serde_json::Value;
use tickcast::bus::Emit;
use tickcast::market::{Body, UnixNanos};
use tickcast::protocol::{DataEvent, Encoding};
use tickcast::source::sim::Market;

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
        "sources: [{{name: in, kind: push, open: true, instruments: {}}}]",
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

/// Prices of trades and bids, in the order in which they came.
fn prices(events: &[DataEvent]) -> Vec<String> {
    let price = |event: &DataEvent| match &event.body {
        Body::Trade(trade) => Some(format!("trade {}", trade.px.0)),
        Body::Quote(quote) => quote.bid.map(|bid| format!("bid {}", bid.px.0)),
        _ => None,
    };
    let mut prices: Vec<String> = events.iter().filter_map(price).collect();
    prices.sort();
    prices
}

/// The same events through a push source and a replay, under the same keys.
#[tokio::test(flavor = "multi_thread")]
async fn one_rule_for_prices_holds_for_every_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("t.csv");
    let header = "t,s,kind,px,qty,bid,bq,ask,aq\n";
    std::fs::write(
        &file,
        format!(
            "{header}1600000001,A,T,1,1,,,,\n1600000002,A,T,-1,1,,,,\n1600000003,A,T,0,1,,,,\n\
             1600000004,A,Q,,,-2,1,5,1\n1600000005,A,Q,,,0.0,1,5,1\n1600000006,A,Q,,,6,1,5,1\n1600000007,A,T,1,1,,,,\n"
        ),
    )?;
    let lines = [
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"-1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"0","qty":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"-2","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"0.0","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"quote","sym":"A","bid":"6","bidq":"1","ask":"5","askq":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1"}"#,
    ]
    .join("\n");
    let columns = ", columns: {time: t, symbol: s, type: kind, trade: T, quote: Q, price: px, qty: qty, bid: bid, bid_qty: bq, ask: ask, ask_qty: aq}";
    let all = [
        (", crossed: false", vec![]),
        (", crossed: true", vec!["bid 6"]),
        (
            ", crossed: false, zero_prices: true",
            vec!["bid 0.0", "trade 0"],
        ),
        (
            ", crossed: false, negative_prices: true",
            vec!["bid -2", "bid 0.0", "trade -1", "trade 0"],
        ),
    ];
    for (keys, more) in all {
        let mut wanted: Vec<String> = more.into_iter().map(str::to_owned).collect();
        wanted.extend(["trade 1".to_owned(), "trade 1".to_owned()]);
        wanted.sort();
        let feed = Feed::start(&format!(
            "sources: [{{name: in, kind: push, open: true{keys}, instruments: [{{symbol: A}}]}}]"
        ))
        .await?;
        let mut client = feed.client(Encoding::Json).await?;
        client.subscribe(subscribe(&["trade:A", "quote:A"])).await?;
        let report = publish(&feed, &lines).await?;
        assert_eq!(report["accepted"], wanted.len(), "{keys}: {report}");
        assert_eq!(
            prices(&client.events(wanted.len()).await?),
            wanted,
            "push{keys}"
        );
        let feed = Feed::start(&replay(&file, &format!("{keys}{columns}"))).await?;
        let mut client = feed.client(Encoding::Json).await?;
        client.subscribe(subscribe(&["trade:A", "quote:A"])).await?;
        assert_eq!(
            prices(&client.events(wanted.len()).await?),
            wanted,
            "replay{keys}"
        );
    }
    Ok(())
}

#[test]
fn a_simulation_keeps_to_the_same_rules() -> Result<()> {
    let low = |keys: &str, start: &str| -> Result<(Decimal, bool)> {
        let text = format!(
            "sources: [{{name: s, kind: sim{keys}, instruments: [{{symbol: A, start: \"{start}\", tick_size: 1, spread: 3, rate: 1000/s}}]}}]"
        );
        let config = tickcast::config::Config::parse(&text, "test")?;
        let tickcast::config::SourceDetails::Sim(sim) = &config.sources[0].details else {
            anyhow::bail!("no simulation");
        };
        let mut market = Market::new(sim, UnixNanos(0));
        let mut emitted = Vec::new();
        market.advance(UnixNanos(10_000_000_000), &mut emitted, usize::MAX);
        let quotes = emitted.iter().filter_map(|emit| match emit {
            Emit::Quote(_, quote) => Some(quote),
            _ => None,
        });
        let lowest = quotes
            .clone()
            .filter_map(|quote| quote.bid.map(|bid| bid.px.0))
            .min();
        Ok((
            lowest.context("quotes")?,
            quotes.clone().any(tickcast::market::Quote::is_crossed),
        ))
    };
    assert_eq!(low("", "1")?, (Decimal::ONE, false));
    assert_eq!(low(", zero_prices: true", "1")?, (Decimal::ZERO, false));
    assert!(low(", negative_prices: true", "-5")?.0 < Decimal::ZERO);
    assert!(low(", crossed: true", "100")?.1);
    assert!(low("", "-5").is_err());
    Ok(())
}

#[test]
fn descriptions_have_no_format_characters() {
    let config = |description: &str| {
        let text = format!(
            "sources: [{{name: in, kind: push, open: true, instruments: [{{symbol: A, description: \"{description}\"}}]}}]"
        );
        tickcast::config::Config::parse(&text, "test")
    };
    assert!(config("Crude oil, été 原油").is_ok());
    for bad in [
        "\u{202e}evil\u{202c}",
        "a\u{200b}b",
        "\u{feff}a",
        "a\u{2028}b",
    ] {
        let error = config(bad)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("format characters"), "{bad:?}: {error}");
    }
}
