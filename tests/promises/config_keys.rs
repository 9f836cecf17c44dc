//! Effects of config keys that no other test covers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::market::{Body, UnixNanos};
use tickcast::protocol::{DataEvent, Encoding, Mode, OnSlow, ServerMessage, Subscribe};

use crate::handshake::status;
use crate::harness::{Feed, Stopwatch, market, subscribe, wish};
use crate::publish::post;

/// Events of a feed's topics, from the first on.
async fn events(feed: &Feed, topics: &[&str], count: usize) -> Result<Vec<DataEvent>> {
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(topics)).await?;
    client.events(count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_instruments_have_the_ticks_lots_sizes_spreads_and_shares_of_the_config()
-> Result<()> {
    let feed = Feed::start(
        "sources: [{name: sim, kind: sim, instruments: [{symbol: A, start: 500, tick_size: 0.25, \
         lot_size: 5, size: 4, spread: 6, rate: 4000/s, trades: 0.8}]}]",
    )
    .await?;
    let tick: rust_decimal::Decimal = "0.25".parse()?;
    let (mut trades, mut quotes, mut volume, mut spreads) = (0.0, 0.0, 0.0, 0.0);
    for event in events(&feed, &["trade:A", "quote:A"], 8_000).await? {
        match event.body {
            Body::Trade(trade) => {
                ensure!((trade.px.0 % tick).is_zero(), "{trade:?}");
                let lots = f64::try_from(trade.qty.0)? / 5.0;
                ensure!(lots.fract().abs() < 1e-9 && lots > 0.5, "{trade:?}");
                trades += 1.0;
                volume += lots;
            }
            Body::Quote(quote) => {
                let (bid, ask) = quote.bid.zip(quote.ask).context("the quote lacks a side")?;
                let spread = ask.px.0 - bid.px.0;
                ensure!((bid.px.0 % tick).is_zero() && (ask.px.0 % tick).is_zero());
                quotes += 1.0;
                spreads += f64::try_from(spread / tick)?;
            }
            other => anyhow::bail!("{other:?}"),
        }
    }
    let share: f64 = trades / (trades + quotes);
    ensure!((0.77..0.83).contains(&share), "share of trades: {share}");
    let (size, spread): (f64, f64) = (volume / trades, spreads / quotes);
    ensure!((2.0..8.0).contains(&size), "lots per trade: {size}");
    ensure!((3.0..9.0).contains(&spread), "ticks of spread: {spread}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_times_are_multiples_of_every() -> Result<()> {
    let feed = Feed::start(
        "sources: [{name: sim, kind: sim, every: 20ms, instruments: [{symbol: A, start: 10, rate: 500/s}]}]",
    )
    .await?;
    for event in events(&feed, &["trade:A", "quote:A"], 200).await? {
        ensure!(event.body.ts().0 % 20_000_000 == 0, "{event:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flush_window_collects_events_into_fewer_messages() -> Result<()> {
    let feed = Feed::start(&market(20, 4_000, "fanout: {flush_window: 50ms}")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["quote:*"])).await?;
    client.events(100).await?;
    let begun = Stopwatch::start();
    let (mut messages, mut seen) = (0, 0);
    while seen < 3_000 {
        if let ServerMessage::Events(events) = client.next().await? {
            messages += 1;
            seen += events.len();
        }
    }
    // A message contains at least the events of a window, except the first message.
    let windows = begun.elapsed().as_millis() / 50 + 2;
    ensure!(
        messages <= windows,
        "{messages} messages in {windows} windows"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_client_that_does_not_read_is_dropped_after_the_close_timeout() -> Result<()> {
    let rest = "session: {close_timeout: 200ms}\nfanout: {outbox: 64KiB, behind: 1s, unsent: 8KiB}";
    let feed = Feed::start(&market(2, 20_000, rest)).await?;
    let mut client = feed.small_client(Encoding::Msgpack).await?;
    client
        .subscribe(Subscribe {
            wish: wish(Mode::Raw, Some(OnSlow::Disconnect)),
            ..subscribe(&["trade:*"])
        })
        .await?;
    feed.until("a close", |feed| {
        feed.metric("tickcast_connections_closed_total") >= 1.0
    })
    .await?;
    let closed = Stopwatch::start();
    feed.until("the connection is closed", |feed| {
        feed.metric("tickcast_connections") < 1.0
    })
    .await?;
    // The default is 30 s.
    let waited = closed.elapsed();
    ensure!(waited < Duration::from_secs(15), "{waited:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn late_allows_published_events_older_than_their_predecessor() -> Result<()> {
    let now = tickcast::clock::Clock::start().now().0;
    let lines = [now, now - 1_000_000_000].map(|ts| {
        format!(r#"{{"ch":"trade","sym":"A","px":"1","qty":"1","side":"buy","ts":{ts}}}"#)
    });
    for (key, accepted) in [("late: true", 2), ("late: false", 1)] {
        let feed = Feed::start(&format!(
            "sources: [{{name: in, kind: push, open: true, {key}, instruments: [{{symbol: A}}]}}]"
        ))
        .await?;
        let body = lines.join("\n");
        let (_, report) = post(&feed, "application/x-ndjson", "", body.as_bytes()).await?;
        let report: serde_json::Value = serde_json::from_str(&report)?;
        ensure!(report["accepted"] == accepted, "{key}: {report}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_of_an_instrument_begins_at_its_offset() -> Result<()> {
    let feed = Feed::start(
        "sources: [{name: in, kind: push, open: true, instruments: [{symbol: A, session: 22h}]}]",
    )
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["ticker:A"])).await?;
    let day = Duration::from_secs(86_400);
    let midnight = tickcast::clock::Clock::start().now().minus(day * 2);
    let midnight = midnight.0 - midnight.0 % day.as_nanos() as u64;
    let at = |minutes: u64| UnixNanos(midnight + minutes * 60_000_000_000);
    let trades = [21 * 60, 21 * 60 + 59, 22 * 60, 22 * 60 + 1].map(|minutes| {
        let ts = at(minutes).0;
        format!(r#"{{"ch":"trade","sym":"A","px":"1","qty":"1","side":"buy","ts":{ts}}}"#)
    });
    let body = trades.join("\n");
    let (code, report) = post(&feed, "application/x-ndjson", "", body.as_bytes()).await?;
    ensure!(code == 200, "{report}");
    // Ticker of the batch: two trades of the current session, two of the previous one.
    let event = client.events(1).await?.remove(0);
    let Body::Ticker(ticker) = &event.body else {
        anyhow::bail!("{event:?}")
    };
    ensure!(ticker.n == 2, "{ticker:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_origins_can_open_the_feed() -> Result<()> {
    let feed = Feed::start(&market(1, 10, "allowed_origins: [https://app.example.com]")).await?;
    for (origin, expected) in [
        ("https://app.example.com", 101),
        ("https://app.example.com.evil", 403),
        ("http://app.example.com", 403),
        ("http://localhost:5173", 403),
    ] {
        let with_origin = |good: &str| format!("{good}Origin: {origin}\r\n");
        let (code, response) = status(&feed, with_origin).await?;
        ensure!(code == expected, "{origin}: {response}");
    }
    Ok(())
}

/// Names of this process's threads with the CPUs that they may use.
fn affinities() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.map(|rest| rest.trim().to_owned())
        };
        found.extend(value("Name:").zip(value("Cpus_allowed_list:")));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_shards_stay_on_one_core_each() -> Result<()> {
    // No other test has so many shards; their last ones are pinned.
    let shards = 5;
    let before = rustix::thread::sched_getaffinity(None)?;
    let _feed = Feed::start(&market(1, 10, &format!("shards: {shards}\npin: true"))).await?;
    let all = affinities()?;
    let is_one = |cpus: &str| cpus.parse::<usize>().is_ok();
    let (last, name) = (shards - 1, format!("shard-{}", shards - 1));
    let pinned = all.iter().find(|(thread, _)| *thread == name);
    let (_, cpus) = pinned.with_context(|| format!("no thread shard-{last} in {all:?}"))?;
    assert!(is_one(cpus), "shard-{last} may run on {cpus}");
    let own = rustix::thread::sched_getaffinity(None)?;
    assert_eq!(
        own.count(),
        before.count(),
        "of the thread that started them"
    );
    Ok(())
}
