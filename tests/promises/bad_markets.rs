//! Bad market data: each rule drops, flags or passes it in every kind of source, counts it, and
//! subscribers see what the rule says.

use anyhow::{Context, Result};
use serde_json::Value;
use tickcast::market::{Body, TradingState};
use tickcast::protocol::{Control, DataEvent, Encoding, GapCause, ServerMessage};

use crate::harness::{Feed, Tracked, exchange, subscribe};
use crate::publish::post;

/// Publishes lines; returns the report.
async fn publish(feed: &Feed, lines: &[&str]) -> Result<Value> {
    let body = lines.join("\n");
    let (status, report) = post(feed, "application/x-ndjson", "", body.as_bytes()).await?;
    anyhow::ensure!(status == 200, "{status}: {report}");
    Ok(serde_json::from_str(&report)?)
}

fn push(rules: &str) -> String {
    format!(
        "sources: [{{name: in, kind: push, open: true, late: true, crossed: true, stale_after: 1h, rules: {{{rules}}}, \
         instruments: [{{symbol: A}}]}}]"
    )
}

/// Violations of a rule by the only source: flagged, dropped.
async fn violations(feed: &Feed, rule: &str) -> Result<(u64, u64)> {
    let admin = feed.app.admin_address().context("an admin address")?;
    let request = "GET /v1/admin/sources HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let response = exchange(admin, request.as_bytes()).await?;
    let (_, body) = response.split_once("\r\n\r\n").context("a body")?;
    let body: Value = serde_json::from_str(body)?;
    let rules = body["sources"][0]["rules"].as_array().context("rules")?;
    let found = rules.iter().find(|one| one["rule"] == rule);
    let count = |key: &str| found.and_then(|one| one[key].as_u64()).unwrap_or_default();
    let reported = (count("flagged"), count("dropped"));
    // The metric has the same numbers.
    let text = String::from_utf8_lossy(&feed.app.metrics().render()).into_owned();
    let metric = |action: &str| -> u64 {
        let labels = format!("action=\"{action}\",rule=\"{rule}\",");
        let mut lines = text.lines().filter(|line| line.contains(&labels));
        let value = lines
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_default()
    };
    assert_eq!(reported, (metric("flagged"), metric("dropped")), "{rule}");
    Ok(reported)
}

fn trade_prices(events: &[DataEvent]) -> Vec<String> {
    let px = |event: &DataEvent| match &event.body {
        Body::Trade(trade) => Some(trade.px.0.to_string()),
        _ => None,
    };
    events.iter().filter_map(px).collect()
}

async fn trades(feed: &Feed) -> Result<Tracked> {
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["trade:*", "status:*"]))
        .await?;
    Ok(client)
}

/// Prices of the next trades.
async fn next_prices(client: &mut Tracked, count: usize) -> Result<Vec<String>> {
    let mut prices = Vec::new();
    while prices.len() < count {
        if let ServerMessage::Events(events) = client.next().await? {
            prices.extend(trade_prices(&events));
        }
    }
    Ok(prices)
}

const BAD: [&str; 6] = [
    r#"{"ch":"trade","sym":"A","px":"100","qty":"1","id":"1"}"#,
    r#"{"ch":"trade","sym":"A","px":"300","qty":"1","id":"2"}"#,
    r#"{"ch":"trade","sym":"A","px":"101","qty":"1","id":"1"}"#,
    r#"{"ch":"quote","sym":"A","bid":"102","bidq":"1","ask":"100","askq":"1"}"#,
    r#"{"ch":"trade","sym":"A","px":"102","qty":"1","id":"3"}"#,
    r#"{"ch":"trade","sym":"A","px":"103","qty":"1","id":"4"}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_drops_flags_or_passes_in_every_kind_of_source() -> Result<()> {
    for (rules, expected, moved, duplicate, crossed) in [
        (
            "",
            vec!["100", "300", "101", "102", "103"],
            (0, 0),
            (0, 0),
            (0, 0),
        ),
        (
            "max_move: 10%, on_move: flag, on_duplicate: flag, on_crossed: flag",
            vec!["100", "300", "101", "102", "103"],
            (1, 0),
            (1, 0),
            (1, 0),
        ),
        (
            "max_move: 10%, on_duplicate: drop, on_crossed: drop",
            vec!["100", "102", "103"],
            (0, 1),
            (0, 1),
            (0, 1),
        ),
    ] {
        let feed = Feed::start(&push(rules)).await?;
        let mut client = trades(&feed).await?;
        let report = publish(&feed, &BAD).await?;
        let dropped = moved.1 + duplicate.1 + crossed.1;
        assert_eq!(report["refused"], dropped, "{report}");
        assert!(dropped == 0 || report.to_string().contains("by the rule `move`"));
        assert_eq!(next_prices(&mut client, expected.len()).await?, expected);
        assert_eq!(violations(&feed, "move").await?, moved);
        assert_eq!(violations(&feed, "duplicate").await?, duplicate);
        assert_eq!(violations(&feed, "crossed").await?, crossed);
        client.ledger().await?;
    }
    // The same rules in a replay.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    let row =
        |id: u64, px: u64, ms: u64| format!("{id},{px},1,1,{},true\n", 1_723_161_255_000 + ms);
    let rows = [
        row(1, 100, 0),
        row(2, 300, 1),
        row(1, 101, 2),
        row(3, 102, 3),
        row(4, 103, 1),
    ];
    std::fs::write(&file, rows.concat())?;
    let feed = Feed::start(&format!(
        "sources: [{{name: tape, kind: replay, begin: first-subscriber, speed: max, files: [{file:?}], \
         rules: {{max_move: 10%, on_duplicate: drop, on_late: flag}}}}]"
    ))
    .await?;
    let mut client = trades(&feed).await?;
    assert_eq!(next_prices(&mut client, 3).await?, ["100", "102", "103"]);
    assert_eq!(violations(&feed, "move").await?, (0, 1));
    assert_eq!(violations(&feed, "duplicate").await?, (0, 1));
    assert_eq!(violations(&feed, "late").await?, (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn off_market_prices_halt_the_instrument_until_the_next_accepted_event() -> Result<()> {
    for (action, state) in [
        ("halt", TradingState::Halted),
        ("stale", TradingState::Stale),
    ] {
        let feed = Feed::start(&push(&format!("max_move: 10%, on_move: {action}"))).await?;
        let mut client = trades(&feed).await?;
        publish(&feed, &BAD[..2]).await?;
        publish(&feed, &BAD[4..5]).await?;
        let mut states = Vec::new();
        while states.len() < 3 {
            if let ServerMessage::Events(events) = client.next().await? {
                let state = |event: &DataEvent| match &event.body {
                    Body::Status(status) => Some(status.state),
                    _ => None,
                };
                states.extend(events.iter().filter_map(state));
            }
        }
        assert_eq!(states, [TradingState::Live, state, TradingState::Live]);
        client.ledger().await?;
        assert_eq!(violations(&feed, "move").await?, (0, 1));
    }
    Ok(())
}

/// NaN, infinite and overlong values are rejected before any rule.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_no_prices_are_rejected_and_counted() -> Result<()> {
    let feed = Feed::start(&push("max_move: 10%")).await?;
    let mut client = trades(&feed).await?;
    let mut reasons = Vec::new();
    for (px, reason) in [
        ("\"NaN\"", "malformed"),
        ("\"Infinity\"", "malformed"),
        ("\"-inf\"", "malformed"),
        ("1e308", "malformed"),
        ("\"1e308\"", "malformed"),
        ("\"0.12345678901234567890123456789012345\"", "malformed"),
        ("\"-1\"", "negative_price"),
        ("\"0\"", "zero_price"),
        ("\"1000000000000001\"", "too_large"),
    ] {
        let line = format!(r#"{{"ch":"trade","sym":"A","px":{px},"qty":"1"}}"#);
        let report = publish(&feed, &[&line]).await?;
        assert_eq!(report["refused"], 1, "{px}: {report}");
        reasons.push(reason);
        let counted = reasons.iter().filter(|known| **known == reason).count();
        assert_eq!(
            feed.counted("rejected_input", reason),
            counted as u64,
            "{px}"
        );
    }
    publish(&feed, &BAD[..1]).await?;
    assert_eq!(next_prices(&mut client, 1).await?, ["100"]);
    client.ledger().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_in_recorded_trade_ids_are_reported() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    let rows =
        [1u64, 2, 3, 7, 8].map(|id| format!("{id},100,1,1,{},true\n", 1_723_161_255_000 + id));
    std::fs::write(&file, rows.concat())?;
    let feed = Feed::start(&format!(
        "sources: [{{name: tape, kind: replay, begin: first-subscriber, speed: max, files: [{file:?}], \
         rules: {{consecutive_ids: true}}}}]"
    ))
    .await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client
        .subscribe(subscribe(&["trade:*", "bar:*:1s"]))
        .await?;
    let mut gaps = Vec::new();
    while gaps.len() < 2 {
        let gap = client.control("a gap", |control| match control {
            Control::Gap(gap) if gap.cause == GapCause::Source => Some(gap.clone()),
            _ => None,
        });
        gaps.push(gap.await?);
    }
    gaps.sort_by_key(|gap| gap.topic.clone());
    let shown: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.topic.as_str(), gap.n, gap.missing))
        .collect();
    assert_eq!(shown, [("bar:A:1s", 0, Some(3)), ("trade:A", 0, Some(3))]);
    assert_eq!((gaps[1].from.0, gaps[1].to.0), (4, 3));
    client.ledger().await?;
    Ok(())
}
