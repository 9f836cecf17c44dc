//! Publishing with `POST /v1/publish`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tickcast::market::Body;
use tickcast::protocol::{Control, Encoding, Seq, ServerMessage};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Feed, Stopwatch, exchange, subscribe};

const PUSH: &str = "sources: [{name: in, kind: push, open: true, stale_after: 300ms, instruments: [{symbol: A}, {symbol: B, stale_after: 1h}]}]";

pub(crate) async fn post(
    feed: &Feed,
    content_type: &str,
    more: &str,
    body: &[u8],
) -> Result<(u16, String)> {
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{more}\r\n",
        body.len()
    );
    let response =
        crate::harness::exchange(feed.address, &[head.as_bytes(), body].concat()).await?;
    let status = response
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("missing status")?;
    Ok((
        status,
        response
            .split_once("\r\n\r\n")
            .context("the response has a body")?
            .1
            .to_owned(),
    ))
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn valid_lines_are_published_regardless_of_invalid_ones() -> Result<()> {
    let feed = Feed::start(PUSH).await?;
    let mut client = feed.client(Encoding::Json).await?;
    client
        .subscribe(subscribe(&["trade:A", "quote:A", "ticker:A"]))
        .await?;
    let lines = [
        r#"{"ch":"trade","sym":"A","px":"10.50","qty":"2","side":"buy","id":"x1"}"#,
        "",
        r#"{"ch":"quote","sym":"A","bid":"10.00","bidq":"1","ask":"9.00","askq":"1"}"#,
        r#"{"ch":"trade","sym":"NO","px":"1","qty":"1"}"#,
        r#"{"ch":"ticker","sym":"A","px":"1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"-1","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"NaN","qty":"1"}"#,
        r#"{"ch":"trade","sym":"A","px":"1","qty":"0"}"#,
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1","ts":1}"#,
        r#"{"ch":"trade","sym":"A","px":"1","qty":"1","ts":9999999999999999999}"#,
        r#"{"ch":"trade","sym":"A","px":1e0,"qty":"1"}"#,
        "invalid JSON",
        r#"{"ch":"quote","sym":"A","bid":"10.00","bidq":"1","ask":null,"askq":null}"#,
    ];
    let (status, body) = post(
        &feed,
        "application/x-ndjson",
        "",
        lines.join("\n").as_bytes(),
    )
    .await?;
    let report: Value = serde_json::from_str(&body)?;
    assert_eq!(
        (status, &report["accepted"], &report["refused"]),
        (200, &json!(2), &json!(10)),
        "{report}"
    );
    let errors: Vec<(u64, u64)> = report["errors"]
        .as_array()
        .context("missing errors")?
        .iter()
        .map(|error| {
            (
                error["line"].as_u64().unwrap_or(0),
                error["code"].as_u64().unwrap_or(0),
            )
        })
        .collect();
    assert_eq!(
        errors,
        [
            (3, 400),
            (4, 412),
            (5, 412),
            (6, 400),
            (7, 400),
            (8, 400),
            (9, 400),
            (10, 400),
            (11, 400),
            (12, 400)
        ]
    );
    assert!(feed.metric("tickcast_rejected_input_total") >= 10.0);
    let events = client.events(3).await?;
    let trade = events.iter().find_map(|event| match &event.body {
        Body::Trade(trade) => Some((trade.px.0.to_string(), trade.id.text())),
        _ => None,
    });
    assert_eq!(trade, Some(("10.50".into(), "x1".into())));
    assert!(
        events
            .iter()
            .any(|event| matches!(&event.body, Body::Quote(quote) if quote.ask.is_none()))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messagepack_records_are_accepted() -> Result<()> {
    let feed = Feed::start(PUSH).await?;
    let events = json!([{"ch": "trade", "sym": "A", "px": "1", "qty": "2"}, {"ch": "trade", "sym": "A", "px": "1"}]);
    let body = rmp_serde::to_vec_named(&events)?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:A"])).await?;
    let (status, _) = post(&feed, "application/msgpack", "", &body).await?;
    assert_eq!(status, 200);
    assert_eq!(client.events(1).await?[0].seq, Seq(1));
    assert_eq!(
        post(&feed, "application/msgpack", "", b"\xff\xff").await?.0,
        400
    );
    assert_eq!(post(&feed, "text/plain", "", b"x").await?.0, 415);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_token_accepts_only_its_publishers() -> Result<()> {
    // printf %s secret | sha256sum
    let token = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let feed = Feed::start(&format!(
        "sources: [{{name: in, kind: push, token_sha256: {token}, instruments: [{{symbol: A}}]}}]\nlimits: {{publish: 2KiB}}"
    ))
    .await?;
    let line = br#"{"ch":"trade","sym":"A","px":"1","qty":"2"}"#;
    let kind = "application/x-ndjson";
    assert_eq!(post(&feed, kind, "", line).await?.0, 401);
    assert_eq!(
        post(&feed, kind, "Authorization: Bearer wrong\r\n", line)
            .await?
            .0,
        401
    );
    assert_eq!(
        post(
            &feed,
            kind,
            "Authorization: Bearer secret\r\nOrigin: http://evil.example\r\n",
            line
        )
        .await?
        .0,
        403
    );
    assert_eq!(
        post(&feed, kind, "Authorization: Bearer secret\r\n", line)
            .await?
            .0,
        200
    );
    assert_eq!(
        post(
            &feed,
            kind,
            "Authorization: Bearer secret\r\n",
            &[b' '; 4000]
        )
        .await?
        .0,
        413
    );
    // A body of unknown length counts as it arrives.
    let request = format!(
        "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nAuthorization: Bearer secret\r\nTransfer-Encoding: chunked\r\n\r\nfa0\r\n{}\r\n0\r\n\r\n",
        " ".repeat(4000)
    );
    let response = feed.http(&request).await?;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    Ok(())
}

/// Threat 56: behind a reverse proxy all clients have a local address, so a source without a token
/// accepts direct requests only.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_only_direct_local_requests_can_publish() -> Result<()> {
    let line = br#"{"ch":"trade","sym":"A","px":"1","qty":"2"}"#;
    let kind = "application/x-ndjson";
    let open = "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]";
    let feed = Feed::start(open).await?;
    assert_eq!(post(&feed, kind, "", line).await?.0, 200);
    for mark in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Forwarded-Proto: http\r\n",
        "Forwarded: for=127.0.0.1\r\n",
        "Via: 1.1 proxy\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
    ] {
        assert_eq!(post(&feed, kind, mark, line).await?.0, 403, "{mark}");
    }
    let trusting = Feed::start(&format!("trusted_proxies: [127.0.0.1]\n{open}")).await?;
    assert_eq!(
        post(&trusting, kind, "", line).await?.0,
        403,
        "the proxy itself"
    );
    let silent = open.replace("open: true, ", "");
    let error = tickcast::config::Config::parse(&silent, "test")
        .err()
        .context("expected a rejection")?;
    assert!(error.to_string().contains("open: true"), "{error}");
    Ok(())
}

/// Threat 59: slow request bodies occupy no slot, and too slow ones are cut off.
#[tokio::test(flavor = "multi_thread")]
async fn slow_request_bodies_block_nobody() -> Result<()> {
    let feed =
        Feed::start("sources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]")
            .await?;
    let head = "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n";
    let began = Stopwatch::start();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(feed.address).await?;
        stream.write_all(head.as_bytes()).await?;
        // Enough for a quarter of a minute at the minimum rate.
        stream.write_all(&vec![b' '; 200_000]).await?;
        slow.push(stream);
    }
    let line = br#"{"ch":"trade","sym":"A","px":"1","qty":"2"}"#;
    assert_eq!(post(&feed, "application/x-ndjson", "", line).await?.0, 200);
    let took = began.elapsed();
    assert!(took.as_secs() < 12, "the fast publisher took {took:?}");
    drop(slow);
    let response = exchange(feed.address, format!("{head} ").as_bytes()).await?;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert_eq!(feed.counted("handshakes_rejected", "slow_body"), 1);
    Ok(())
}

/// Threat 38: a silent symbol becomes stale unless it has its own `stale_after`, and becomes live
/// again.
#[tokio::test(flavor = "multi_thread")]
async fn silence_makes_a_symbol_stale_and_a_price_makes_it_live() -> Result<()> {
    let feed = Feed::start(PUSH).await?;
    let lines = b"{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1\",\"qty\":\"1\"}\n{\"ch\":\"trade\",\"sym\":\"B\",\"px\":\"1\",\"qty\":\"1\"}";
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["status:*"])).await?;
    for _ in 0..2 {
        post(&feed, "application/x-ndjson", "", lines).await?;
        let mut states = Vec::new();
        while states.last().is_none_or(|last: &String| last != "A stale") {
            if let ServerMessage::Events(events) = client.next().await? {
                states.extend(events.iter().filter_map(|event| match &event.body {
                    Body::Status(status) => {
                        Some(format!("{} {}", event.topic.symbol, status.state.name()))
                    }
                    _ => None,
                }));
            }
        }
        assert!(
            states.contains(&"A live".to_owned()) && !states.contains(&"B stale".to_owned()),
            "{states:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_instruments_join_subscribed_patterns() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let header = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";
    let row = |n: u64, symbol: &str| {
        format!(
            "x,{symbol},{},1,{n},buy,1.{n},1\n",
            1_600_000_000_000_000 + n * 1000
        )
    };
    let rows: String = (0..1200)
        .map(|n| row(n, if n < 1100 { "OLD" } else { "NEW" }))
        .collect();
    let file = folder.path().join("t.csv");
    std::fs::write(&file, format!("{header}{rows}"))?;
    let config = format!(
        "sources: [{{name: tape, kind: replay, speed: 10, begin: first-subscriber, files: [{:?}]}}]",
        file.display().to_string()
    );
    let feed = Feed::start(&config).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let response = client.subscribe(subscribe(&["trade:*"])).await?;
    assert_eq!(
        (
            response.count,
            response.ok[0].matched.as_ref().map(|list| list[0].seq)
        ),
        (1, Some(Some(Seq::START)))
    );
    let added = client
        .control("topics", |control| match control {
            Control::Topics(change) => Some(change.added.clone()),
            _ => None,
        })
        .await?;
    assert_eq!(
        added
            .iter()
            .map(|entry| entry.topic.as_str())
            .collect::<Vec<_>>(),
        ["trade:NEW"]
    );
    while client
        .accounts
        .get("trade:NEW")
        .is_none_or(|account| account.head < Seq(100))
    {
        client.next().await?;
    }
    let entries = client.ledger().await?;
    assert_eq!(
        entries
            .iter()
            .map(|entry| (entry.head, entry.lost))
            .collect::<Vec<_>>(),
        [(Seq(1100), 0), (Seq(100), 0)]
    );
    Ok(())
}
