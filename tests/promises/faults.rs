//! Fault injection: clients are told the truth about every kind of fault, and their accounts
//! balance.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tickcast::market::{Body, TradeId, TradingState};
use tickcast::protocol::{
    Control, DataEvent, Encoding, Gap, GapCause, Mode, OnSlow, ServerMessage, SourceState,
    Subscribe,
};

use crate::harness::{Feed, Tracked, exchange, subscribe, wish};

const MARKET: &str = "sources: [{name: sim, kind: sim, seed: 7, stale_after: 1s, instruments: [\
    {symbol: BTC-USD, start: 100, rate: 400/s}, {symbol: ETH-USD, start: 10, rate: 100/s}]}]";

/// Sends a request to the admin address; returns status and body.
async fn admin(feed: &Feed, request: &str, body: &str) -> Result<(u16, String)> {
    let address: SocketAddr = feed.app.admin_address().context("an admin address")?;
    let request = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let response = exchange(address, request.as_bytes()).await?;
    let status = response.split(' ').nth(1).context("a status")?.parse()?;
    let (_, body) = response.split_once("\r\n\r\n").context("a body")?;
    Ok((status, body.to_owned()))
}

/// Injects a fault into `sim`; returns the server's description of it.
async fn inject(feed: &Feed, fault: &str) -> Result<Value> {
    let body = format!(r#"{{"source":"sim",{fault}}}"#);
    let (status, body) = admin(feed, "POST /v1/admin/faults", &body).await?;
    ensure!(status == 200, "{status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

async fn subscribed(feed: &Feed, encoding: Encoding, request: Subscribe) -> Result<Tracked> {
    let mut client = feed.client(encoding).await?;
    let answer = client.subscribe(request).await?;
    ensure!(answer.err.is_empty(), "{:?}", answer.err);
    Ok(client)
}

fn source_gap(message: &ServerMessage) -> Option<&Gap> {
    match message {
        ServerMessage::Control(Control::Gap(gap)) if gap.cause == GapCause::Source => Some(gap),
        _ => None,
    }
}

fn trade_id(event: &DataEvent) -> Option<u64> {
    match &event.body {
        Body::Trade(trade) => match trade.id {
            TradeId::Number(id) => Some(id),
            _ => None,
        },
        _ => None,
    }
}

/// A raw subscriber sees the gap between the events around the hole, with the number that the
/// source missed.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_events_are_reported_as_a_gap_of_the_source() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    for encoding in [Encoding::Json, Encoding::Msgpack] {
        let request = subscribe(&["trade:BTC-USD"]);
        let mut client = subscribed(&feed, encoding, request).await?;
        let last = client.events(20).await?;
        let last = last.last().context("events")?;
        let mut before = Some((last.seq, trade_id(last).context("an id")?));
        let fault = inject(&feed, r#""kind":"drop","symbols":"BTC-*","count":9"#).await?;
        assert_eq!(
            (&fault["kind"], &fault["instruments"]),
            (&"drop".into(), &1.into())
        );
        let mut after = None;
        let mut gap: Option<Gap> = None;
        while after.is_none() {
            let message = client.next().await?;
            if let Some(found) = source_gap(&message) {
                gap = Some(found.clone());
            }
            if let ServerMessage::Events(events) = &message {
                for event in events {
                    if gap.is_some() {
                        after = after.or_else(|| Some((event.seq, trade_id(event)?)));
                    } else {
                        before = Some((event.seq, trade_id(event).context("an id")?));
                    }
                }
            }
        }
        let (gap, before, after) = (
            gap.context("a gap")?,
            before.context("a trade before")?,
            after.context("a trade after")?,
        );
        assert_eq!((gap.to, gap.from, gap.n), (before.0, after.0, 0));
        assert_eq!(
            after.0,
            before.0.next(),
            "no event of the server is missing"
        );
        assert_eq!(gap.missing, Some(after.1 - before.1 - 1));
        client.events(20).await?;
        let ledger = client.ledger().await?;
        assert_eq!((ledger[0].lost, ledger[0].merged), (0, 0));
    }
    let missed = feed.metric("tickcast_source_missed_events_total") as u64;
    assert_eq!(missed, 18, "trades and quotes of two faults");
    Ok(())
}

/// Every topic that the missed data concerns reports the gap, in every mode.
#[tokio::test(flavor = "multi_thread")]
async fn every_concerned_topic_reports_the_gap_of_the_source() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    let concerned = [
        "quote:BTC-USD",
        "ticker:BTC-USD",
        "bar:BTC-USD:1s",
        "bar:BTC-USD:1m",
    ];
    for (mode, encoding) in [
        (Mode::Raw, Encoding::Json),
        (Mode::Conflate, Encoding::Msgpack),
        (Mode::Interval(100), Encoding::Json),
    ] {
        let others = ["status:BTC-USD", "quote:ETH-USD", "ticker:ETH-USD"];
        let request = Subscribe {
            wish: wish(mode, Some(OnSlow::Conflate)),
            ..subscribe(&[&concerned[..], &others[..]].concat())
        };
        let mut client = subscribed(&feed, encoding, request).await?;
        client.events(20).await?;
        inject(&feed, r#""kind":"drop","symbols":"BTC-USD","count":40"#).await?;
        let mut topics: Vec<String> = Vec::new();
        while topics.len() < concerned.len() {
            let found = client
                .until("a gap", |message| source_gap(message).cloned())
                .await?;
            assert!(concerned.contains(&found.topic.as_str()), "{found:?}");
            if !topics.contains(&found.topic) {
                topics.push(found.topic);
            }
        }
        client.events(50).await?;
        for account in client.ledger().await? {
            assert_eq!(account.lost, 0, "{account:?}");
        }
    }
    Ok(())
}

fn has_state(event: &DataEvent, wanted: TradingState) -> bool {
    matches!(&event.body, Body::Status(status) if status.state == wanted)
}

/// Waits until an instrument has this status.
async fn status(client: &mut Tracked, wanted: TradingState) -> Result<()> {
    client
        .until("a status", |message| match message {
            ServerMessage::Events(events) => {
                let is_there = events.iter().any(|event| has_state(event, wanted));
                is_there.then_some(())
            }
            ServerMessage::Control(_) => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instrument_is_stale_and_then_reports_what_it_missed() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    let request = subscribe(&["status:BTC-USD", "trade:BTC-USD", "trade:ETH-USD"]);
    let mut client = subscribed(&feed, Encoding::Json, request).await?;
    client.events(20).await?;
    inject(&feed, r#""kind":"freeze","symbols":"BTC-USD","for":"2s""#).await?;
    status(&mut client, TradingState::Stale).await?;
    // Events of different topics have no common order.
    let (mut gap, mut is_live) = (None, false);
    while gap.is_none() || !is_live {
        let message = client.next().await?;
        gap = gap.or_else(|| source_gap(&message).cloned());
        if let ServerMessage::Events(events) = &message {
            is_live |= events
                .iter()
                .any(|event| has_state(event, TradingState::Live));
        }
    }
    let gap = gap.context("a gap")?;
    assert_eq!(gap.topic, "trade:BTC-USD");
    assert!(gap.missing.is_some_and(|missing| missing > 100), "{gap:?}");
    client.ledger().await?;
    Ok(())
}

/// A client with strict accounts that subscribes to everything.
async fn everything(feed: &Feed) -> Result<Tracked> {
    let topics = ["trade:*", "quote:*", "ticker:*", "bar:*:1s", "status:*"];
    let mut client = subscribed(feed, Encoding::Msgpack, subscribe(&topics)).await?;
    client.events(50).await?;
    Ok(client)
}

/// Reads until the events of BTC-USD contain what a fault does.
async fn seen(client: &mut Tracked, is_effect: impl Fn(&[DataEvent]) -> bool) -> Result<()> {
    let mut all: Vec<DataEvent> = Vec::new();
    while !is_effect(&all) {
        ensure!(all.len() < 100_000, "the fault was not seen");
        let ServerMessage::Events(events) = client.next().await? else {
            continue;
        };
        let of_symbol = |event: &DataEvent| event.topic.symbol.as_str() == "BTC-USD";
        all.extend(events.into_iter().filter(of_symbol));
    }
    Ok(())
}

fn trades(events: &[DataEvent]) -> Vec<(u64, u64, f64)> {
    let trade = |event: &DataEvent| match &event.body {
        Body::Trade(trade) => {
            let px = trade.px.0.to_string().parse().unwrap_or_default();
            Some((trade_id(event)?, trade.ts.0, px))
        }
        _ => None,
    };
    events.iter().filter_map(trade).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn each_kind_of_fault_is_seen_as_documented() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    let mut client = everything(&feed).await?;
    let on_btc = |kind: &str| format!(r#""kind":"{kind}","symbols":"BTC-USD","for":"300ms""#);
    inject(&feed, &on_btc("duplicate")).await?;
    seen(&mut client, |events| {
        let trades = trades(events);
        trades.windows(2).any(|two| two[0].0 == two[1].0)
    })
    .await?;
    inject(&feed, &on_btc("reorder")).await?;
    seen(&mut client, |events| {
        let trades = trades(events);
        let is_back = |two: &[(u64, u64, f64)]| two[1].0 < two[0].0 && two[1].1 < two[0].1;
        trades.windows(2).any(is_back)
    })
    .await?;
    inject(&feed, &on_btc("cross")).await?;
    seen(&mut client, |events| {
        let is_crossed =
            |event: &DataEvent| matches!(&event.body, Body::Quote(quote) if quote.is_crossed());
        events.iter().any(is_crossed)
    })
    .await?;
    inject(&feed, &format!(r#"{},"size":"1""#, on_btc("spike"))).await?;
    seen(&mut client, |events| {
        trades(events).iter().any(|(_, _, px)| *px > 150.0)
    })
    .await?;
    inject(&feed, &format!(r#"{},"step":"-1h""#, on_btc("clock"))).await?;
    seen(&mut client, |events| {
        let is_old = |event: &DataEvent| {
            let ts = trades(std::slice::from_ref(event));
            ts.iter()
                .any(|(_, ts, _)| event.tx.0 - ts > 3_000_000_000_000)
        };
        events.iter().any(is_old)
    })
    .await?;
    inject(&feed, &on_btc("drop")).await?;
    client
        .until("a gap", |message| source_gap(message).cloned())
        .await?;
    inject(&feed, r#""kind":"freeze","for":"2s""#).await?;
    let mut state = async |wanted| {
        client
            .control("a state of the source", |control| match control {
                Control::Source(change) => (change.state == wanted).then_some(()),
                _ => None,
            })
            .await
    };
    state(SourceState::Stale).await?;
    state(SourceState::Live).await?;
    let epoch = client.welcome.epoch.clone();
    inject(&feed, r#""kind":"restart""#).await?;
    client
        .control("a snapshot of a new epoch", |control| match control {
            Control::Snapshot(snapshot) => {
                (snapshot.topic == "trade:BTC-USD" && snapshot.epoch != epoch).then_some(())
            }
            _ => None,
        })
        .await?;
    client.events(100).await?;
    for account in client.ledger().await? {
        assert_eq!(account.lost, 0, "{account:?}");
    }
    for kind in [
        "drop",
        "duplicate",
        "reorder",
        "freeze",
        "cross",
        "spike",
        "clock",
        "restart",
    ] {
        assert_eq!(feed.counted("injected_faults", kind), 1, "{kind}");
    }
    assert_eq!(feed.metric("tickcast_events_unaccounted_total") as u64, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scheduled_faults_follow_the_config() -> Result<()> {
    let config = MARKET.replace(
        "instruments:",
        "faults: [{kind: drop, symbols: ETH-USD, at: 200ms, every: 1s, jitter: 100ms, for: 1s, count: 3}], instruments:",
    );
    let feed = Feed::start(&config).await?;
    let mut client = everything(&feed).await?;
    for _ in 0..3 {
        let of_trades = |message: &ServerMessage| {
            let gap = source_gap(message)?;
            (gap.topic == "trade:ETH-USD" || gap.topic == "quote:ETH-USD").then_some(())
        };
        client.until("a scheduled gap", of_trades).await?;
    }
    client.ledger().await?;
    let (_, listed) = admin(&feed, "GET /v1/admin/faults", "").await?;
    let listed: Value = serde_json::from_str(&listed)?;
    assert_eq!(listed["faults"][0]["origin"], "config");
    assert_eq!(listed["faults"][0]["every_ms"], 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one sequential scenario")]
async fn faults_are_injected_listed_and_ended_on_command() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    let mut client = everything(&feed).await?;
    let fault = inject(&feed, r#""kind":"freeze","symbols":"BTC-*","for":"1h""#).await?;
    let id = fault["id"].as_u64().context("an id")?;
    status(&mut client, TradingState::Stale).await?;
    let (_, listed) = admin(&feed, "GET /v1/admin/faults", "").await?;
    let listed: Value = serde_json::from_str(&listed)?;
    assert_eq!(listed["faults"][0]["state"], "active");
    let end = format!("DELETE /v1/admin/faults?source=sim&id={id}");
    assert_eq!(admin(&feed, &end, "").await?.0, 200);
    status(&mut client, TradingState::Live).await?;
    let (_, listed) = admin(&feed, "GET /v1/admin/faults", "").await?;
    assert_eq!(listed, r#"{"faults":[]}"#);
    assert_eq!(admin(&feed, &end, "").await?.0, 404);
    for (wrong, status, text) in [
        ("{", 400, "invalid JSON"),
        (
            r#"{"source":"sim","kind":"drop","what":1}"#,
            400,
            "unknown field",
        ),
        (r#"{"source":"no","kind":"drop"}"#, 404, "unknown source"),
        (
            r#"{"source":"sim","kind":"melt"}"#,
            400,
            "expected one of drop",
        ),
        (
            r#"{"source":"sim","kind":"drop","symbols":"X-*"}"#,
            400,
            "no instrument",
        ),
        (
            r#"{"source":"sim","kind":"drop","symbols":"a b"}"#,
            400,
            "invalid `symbols`",
        ),
        (
            r#"{"source":"sim","kind":"drop","for":"5"}"#,
            400,
            "invalid `for`",
        ),
        (
            r#"{"source":"sim","kind":"drop","share":"2"}"#,
            400,
            "invalid `share`",
        ),
        (
            r#"{"source":"sim","kind":"spike","size":"-1"}"#,
            400,
            "invalid `size`",
        ),
        (
            r#"{"source":"sim","kind":"clock","step":"x"}"#,
            400,
            "invalid `step`",
        ),
    ] {
        let answer = admin(&feed, "POST /v1/admin/faults", wrong).await?;
        assert!(
            answer.0 == status && answer.1.contains(text),
            "{wrong}: {answer:?}"
        );
    }
    // A page of another origin cannot inject faults.
    let address = feed.app.admin_address().context("an admin address")?;
    let body = r#"{"source":"sim","kind":"restart"}"#;
    for (header, status) in [
        ("Content-Type: text/plain", 415),
        (
            "Content-Type: application/json\r\nOrigin: http://evil.example",
            403,
        ),
    ] {
        let request = format!(
            "POST /v1/admin/faults HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(address, request.as_bytes()).await?;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    assert_eq!(admin(&feed, "PUT /v1/admin/faults", "").await?.0, 405);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_on_command_need_the_permission_of_the_config() -> Result<()> {
    let feed = Feed::start(&format!("faults: {{admin: off}}\n{MARKET}")).await?;
    let body = r#"{"source":"sim","kind":"restart"}"#;
    let (status, text) = admin(&feed, "POST /v1/admin/faults", body).await?;
    assert!(
        status == 403 && text.contains("faults.admin"),
        "{status}: {text}"
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    std::fs::write(&file, "1,100.5,1,1,1723161255000,true\n")?;
    let replay = format!(
        "sources: [{{name: tape, kind: replay, begin: first-subscriber, files: [{file:?}]}}]"
    );
    let body = r#"{"source":"tape","kind":"restart"}"#;
    for (admin_faults, expected) in [("sim", 403), ("all", 200)] {
        let config = format!("faults: {{admin: {admin_faults}}}\n{replay}");
        let feed = Feed::start(&config).await?;
        let started = |feed: &Feed| feed.metric("tickcast_topics") > 0.0;
        feed.until("the recording", started).await?;
        let (status, text) = admin(&feed, "POST /v1/admin/faults", body).await?;
        assert_eq!(status, expected, "{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_injects_lists_and_ends_faults() -> Result<()> {
    let feed = Feed::start(MARKET).await?;
    let mut client = everything(&feed).await?;
    let address = feed.app.admin_address().context("an admin address")?;
    let fault = async |arguments: &[&str]| -> Result<(bool, String)> {
        let mut command = std::process::Command::new(crate::terminal::TICKCAST);
        let admin = address.to_string();
        command
            .arg("fault")
            .args(arguments)
            .args(["--admin", &admin]);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(text)?))
    };
    let (ok, text) = fault(&["freeze", "BTC-USD", "--for", "1h"]).await?;
    assert!(
        ok && text.starts_with("sim#1 freeze BTC-USD (1 instruments)"),
        "{text}"
    );
    status(&mut client, TradingState::Stale).await?;
    let (ok, text) = fault(&["list"]).await?;
    assert!(ok && text.contains("active, 3600000 ms"), "{text}");
    let (ok, text) = fault(&["end", "--id", "1"]).await?;
    assert!(ok && text.starts_with("sim#1"), "{text}");
    status(&mut client, TradingState::Live).await?;
    let (ok, text) = fault(&["drop", "XRP-*"]).await?;
    assert!(
        !ok && text.contains("no instrument of the source matches"),
        "{text}"
    );
    let (ok, text) = fault(&["melt"]).await?;
    assert!(!ok && text.contains("expected drop, duplicate"), "{text}");
    Ok(())
}
