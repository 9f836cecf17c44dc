//! Real recorded markets, replayed over the socket: counts, sums, first and last values match the
//! reference facts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use serde_json::Value;
use tickcast::market::{Aggressor, Body, Trade};
use tickcast::protocol::{Control, DataEvent, Encoding, Seq, ServerMessage, SourceState};

use crate::harness::{Feed, subscribe};

/// Folder of recordings; `None` with a message if it is missing.
fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("TICKCAST_DATA")
        .map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    if folder.join("facts.json").exists() {
        return Some(folder);
    }
    eprintln!(
        "skipped: no recordings at {} (set TICKCAST_DATA to a folder with facts.json)",
        folder.display()
    );
    None
}

fn facts(folder: &Path, file: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("facts.json"))?)?;
    Ok(all[file]["facts"].clone())
}

/// Replays files at full speed, and returns all received events.
async fn replayed(files: &[PathBuf], columns: &str, topics: &[&str]) -> Result<Vec<DataEvent>> {
    let files: Vec<String> = files
        .iter()
        .map(|file| format!("{:?}", file.display().to_string()))
        .collect();
    let source = format!(
        "{{name: tape, kind: replay, speed: max, begin: first-subscriber, files: [{}]{columns}}}",
        files.join(", ")
    );
    let feed = Feed::start(&format!(
        "sources: [{source}]\nfanout: {{outbox: 512MiB, behind: 60s}}\nbus: {{log: 1GiB}}"
    ))
    .await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    let response = client.subscribe(subscribe(topics)).await?;
    assert!(response.err.is_empty(), "{response:?}");
    let mut events = Vec::new();
    loop {
        match client.next().await? {
            ServerMessage::Events(more) => events.extend(more),
            ServerMessage::Control(Control::Source(change))
                if change.state == SourceState::Ended =>
            {
                break;
            }
            ServerMessage::Control(_) => {}
        }
    }
    // `ended` may overtake data; the ledger follows all of it, and must agree.
    client.ask(tickcast::protocol::Op::Ledger).await?;
    loop {
        match client.next().await? {
            ServerMessage::Events(more) => events.extend(more),
            ServerMessage::Control(Control::Ledger(_)) => break,
            ServerMessage::Control(_) => {}
        }
    }
    assert_eq!((client.accounts.lost, client.accounts.merged), (0, 0));
    Ok(events)
}

fn trades(events: &[DataEvent], symbol: &str) -> Vec<Trade> {
    let of_symbol = events
        .iter()
        .filter(|event| event.topic.symbol.as_str() == symbol);
    let trades = of_symbol.filter_map(|event| match &event.body {
        Body::Trade(trade) => Some(trade.clone()),
        _ => None,
    });
    trades.collect()
}

/// Compares count, sums, extremes and aggressors with the facts of a file.
fn check_trades(trades: &[Trade], facts: &Value, what: &str) -> Result<()> {
    let text = |key: &str| facts[key].as_str().map(str::to_owned);
    let sum = |value: fn(&Trade) -> Decimal| trades.iter().map(value).sum::<Decimal>().to_string();
    assert_eq!(
        Some(trades.len() as u64),
        facts["trades"].as_u64(),
        "{what}: trades"
    );
    assert_eq!(
        Some(sum(|trade| trade.qty.0)),
        text("sum_qty"),
        "{what}: sum of quantities"
    );
    let notional: Decimal = sum(|trade| trade.px.0 * trade.qty.0).parse()?;
    assert_eq!(
        Some(notional),
        text("sum_price_x_qty").map(|sum| sum.parse()).transpose()?,
        "{what}: sum of price times quantity"
    );
    let px = |pick: fn(Decimal, Decimal) -> Decimal| {
        trades
            .iter()
            .map(|trade| trade.px.0)
            .reduce(pick)
            .map(|px| px.to_string())
    };
    assert_eq!(
        (px(Decimal::min), px(Decimal::max)),
        (text("min_price"), text("max_price")),
        "{what}: extremes"
    );
    let buys = trades
        .iter()
        .filter(|trade| trade.side == Aggressor::Buy)
        .count() as u64;
    assert_eq!(
        Some(buys),
        facts["taker_buys"].as_u64(),
        "{what}: taker buys"
    );
    Ok(())
}

/// Id, price and quantity of the first and the last row, by column.
fn check_ends(trades: &[Trade], facts: &Value, columns: [usize; 3], what: &str) -> Result<()> {
    for (row, trade) in [("first_row", trades.first()), ("last_row", trades.last())] {
        let cells: Vec<&str> = facts[row]
            .as_str()
            .context("missing row in the facts")?
            .split(',')
            .collect();
        let trade = trade.context("missing trades")?;
        let own = [
            trade.id.text(),
            trade.px.0.to_string(),
            trade.qty.0.to_string(),
        ];
        assert_eq!(
            own.each_ref().map(String::as_str),
            columns.map(|at| cells[at]),
            "{what}: {row}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn binance_trade_dumps_match_their_reference_facts() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    for (file, symbol) in [
        (
            "binance_dump/derived_spot_BTCUSDT-trades-2024-08-08.csv.gz",
            "BTCUSDT",
        ),
        (
            "binance_dump/derived_spot_DENTUSDT-aggTrades-2021-04-05.csv.gz",
            "DENTUSDT",
        ),
        (
            "binance_dump/derived_spot_us_ETHUSDT-trades.csv.gz",
            "ETHUSDT",
        ),
        (
            "binance_dump/derived_usdm_BTCUSDT-trades-2024-08-08.csv.gz",
            "BTCUSDT",
        ),
        (
            "binance_dump/derived_usdm_SUSHIUSDT-aggTrades-2021-07-22.csv.gz",
            "SUSHIUSDT",
        ),
    ] {
        let facts = facts(&folder, file)?;
        let trades = trades(
            &replayed(&[folder.join(file)], "", &[&format!("trade:{symbol}")]).await?,
            symbol,
        );
        check_trades(&trades, &facts, file)?;
        check_ends(&trades, &facts, [0, 1, 2], file)?;
        let first: u64 = facts["first_T"]
            .as_str()
            .context("missing first_T in the facts")?
            .parse()?;
        let nanos = if first > 100_000_000_000_000 {
            first * 1_000
        } else {
            first * 1_000_000
        };
        assert_eq!(trades[0].ts.0, nanos, "{file}: the first time");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tardis_files_match_their_reference_facts() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    let file = "tardis/binance-futures_trades_2020-02-22_BTCUSDT.csv.gz";
    let trades = trades(
        &replayed(&[folder.join(file)], "", &["trade:BTCUSDT"]).await?,
        "BTCUSDT",
    );
    check_trades(&trades, &facts(&folder, file)?, file)?;
    check_ends(&trades, &facts(&folder, file)?, [4, 6, 7], file)?;
    for (file, rows) in [
        (
            "tardis/binance-futures_quotes_2020-02-22_BTCUSDT.csv.gz",
            9999,
        ),
        (
            "tardis/binance-futures_book_snapshot_5_2020-09-01_BTCUSDT.csv",
            10,
        ),
    ] {
        let events = replayed(&[folder.join(file)], "", &["quote:BTCUSDT"]).await?;
        let facts = facts(&folder, file)?;
        assert_eq!(
            (events.len(), facts["rows"].as_u64()),
            (rows, Some(rows as u64)),
            "{file}"
        );
        let Some(Body::Quote(last)) = events.last().map(|event| &event.body) else {
            anyhow::bail!("expected a quote")
        };
        let (bid, ask) = (
            last.bid.context("the quote has no bid")?,
            last.ask.context("the quote has no ask")?,
        );
        let wanted = |key: &str, old: &str| {
            facts["final"][key]
                .as_str()
                .or(facts[old].as_str())
                .map(str::to_owned)
        };
        assert_eq!(
            (Some(bid.px.0.to_string()), Some(ask.px.0.to_string())),
            (wanted("bid", "final_bid"), wanted("ask", "final_ask")),
            "{file}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn binance_book_tickers_match_their_reference_facts() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    let file = "binance_dump/derived_usdm_BTCUSDT-bookTicker-2024-08-08.csv.gz";
    let facts = facts(&folder, file)?;
    let events = replayed(&[folder.join(file)], "", &["quote:BTCUSDT"]).await?;
    assert_eq!(Some(events.len() as u64), facts["rows"].as_u64());
    let quotes = events.iter().filter_map(|event| match &event.body {
        Body::Quote(quote) => Some((quote.bid?.px.0, quote.ask?.px.0)),
        _ => None,
    });
    let (bids, asks): (Vec<_>, Vec<_>) = quotes.unzip();
    assert_eq!(
        bids.iter().min().map(ToString::to_string).as_deref(),
        facts["min_bid"].as_str()
    );
    assert_eq!(
        asks.iter().max().map(ToString::to_string).as_deref(),
        facts["max_ask"].as_str()
    );
    let Some(Body::Quote(last)) = events.last().map(|event| &event.body) else {
        anyhow::bail!("expected a quote")
    };
    let (bid, ask) = (
        last.bid.context("the quote has no bid")?,
        last.ask.context("the quote has no ask")?,
    );
    let (bid_qty, ask_qty) = (
        bid.qty.context("the side has no size")?,
        ask.qty.context("the side has no size")?,
    );
    let own = [bid.px.0, bid_qty.0, ask.px.0, ask_qty.0].map(|value| value.to_string());
    assert_eq!(
        own.as_slice(),
        [1, 2, 3, 4]
            .map(|at| facts["final"][at].as_str().unwrap_or_default())
            .as_slice()
    );
    Ok(())
}

const DEMO: &str = "demo/binance_6inst_trades_quotes_20240808.csv.gz";
const DEMO_COLUMNS: &str = ", columns: {time: recv_ns, symbol: symbol, venue: venue, type: kind, trade: T, quote: Q, price: price, qty: qty, side: taker_side, id: id, bid: bid_px, bid_qty: bid_qty, ask: ask_px, ask_qty: ask_qty}";

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tape_matches_its_reference_facts() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    let facts = facts(&folder, DEMO)?;
    let events = replayed(&[folder.join(DEMO)], DEMO_COLUMNS, &["trade:*", "quote:*"]).await?;
    assert_eq!(Some(events.len() as u64), facts["rows"].as_u64());
    for (name, expected) in facts["trades"]
        .as_object()
        .context("missing trades by instrument")?
    {
        check_trades(&trades(&events, &name.replace(':', ".")), expected, name)?;
    }
    let mut quotes: HashMap<String, u64> = HashMap::new();
    for event in events
        .iter()
        .filter(|event| matches!(event.body, Body::Quote(_)))
    {
        *quotes.entry(event.topic.symbol.to_string()).or_default() += 1;
    }
    for (name, expected) in facts["quotes"]
        .as_object()
        .context("missing quotes by instrument")?
    {
        assert_eq!(
            quotes.get(&name.replace(':', ".")).copied(),
            expected.as_u64(),
            "{name}"
        );
    }
    Ok(())
}

/// The same trades from three sources: the dump, the tape, and a Tardis file made from the dump.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_trades_are_replayed_from_every_format() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    let dump = folder.join("binance_dump/derived_spot_BTCUSDT-trades-2024-08-08.csv.gz");
    let from_dump = trades(&replayed(&[dump], "", &["trade:BTCUSDT"]).await?, "BTCUSDT");
    let tape = replayed(
        &[folder.join(DEMO)],
        DEMO_COLUMNS,
        &["trade:binance-spot.BTCUSDT"],
    )
    .await?;
    let from_tape = trades(&tape, "binance-spot.BTCUSDT");
    let made = tempfile::tempdir()?;
    let file = made.path().join("binance_trades_2024-08-08_BTCUSDT.csv");
    let row = |trade: &Trade| {
        let micros = trade.ts.0 / 1000;
        format!(
            "binance,BTCUSDT,{micros},{micros},{},{},{},{}\n",
            trade.id.text(),
            trade.side.name(),
            trade.px.0,
            trade.qty.0
        )
    };
    let rows: String = from_dump.iter().map(row).collect();
    std::fs::write(
        &file,
        format!("exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n{rows}"),
    )?;
    let from_tardis = trades(&replayed(&[file], "", &["trade:BTCUSDT"]).await?, "BTCUSDT");
    let what = |trades: &[Trade]| -> Vec<_> {
        trades
            .iter()
            .map(|trade| {
                (
                    trade.id.text(),
                    trade.px.0.to_string(),
                    trade.qty.0.to_string(),
                    trade.side.name(),
                )
            })
            .collect()
    };
    assert_eq!(from_dump.len(), 9757);
    assert!(
        what(&from_dump) == what(&from_tape),
        "the tape differs from the dump"
    );
    assert!(
        what(&from_dump) == what(&from_tardis),
        "the Tardis file differs from the dump"
    );
    Ok(())
}

/// Bars of the bus equal a plain fold over the rows of the file.
#[tokio::test(flavor = "multi_thread")]
async fn bars_equal_a_plain_fold_over_the_rows() -> Result<()> {
    let Some(folder) = recordings() else {
        return Ok(());
    };
    let file = folder.join("binance_dump/derived_usdm_BTCUSDT-trades-2024-08-08.csv.gz");
    let events = replayed(
        &[file],
        "",
        &[
            "trade:BTCUSDT",
            "bar:BTCUSDT:1s",
            "bar:BTCUSDT:1m",
            "bar:BTCUSDT:5m",
            "ticker:BTCUSDT",
        ],
    )
    .await?;
    let trades = trades(&events, "BTCUSDT");
    for (interval, seconds) in [("1s", 1u64), ("1m", 60), ("5m", 300)] {
        let mut folded: Vec<(u64, [Decimal; 4], Decimal, u64)> = Vec::new();
        for trade in &trades {
            let start = trade.ts.0 / 1_000_000_000 / seconds * seconds;
            let px = trade.px.0;
            match folded.last_mut() {
                Some((last, ohlc, vol, n)) if *last == start => {
                    *ohlc = [ohlc[0], ohlc[1].max(px), ohlc[2].min(px), px];
                    (*vol, *n) = (*vol + trade.qty.0, *n + 1);
                }
                _ => folded.push((start, [px; 4], trade.qty.0, 1)),
            }
        }
        let made: Vec<_> = events
            .iter()
            .filter(|event| event.topic.channel.param() == Some(interval))
            .filter_map(|event| match &event.body {
                Body::Bar(bar) if bar.done => {
                    let ohlc = [bar.open.0, bar.high.0, bar.low.0, bar.close.0];
                    Some((bar.start.0 / 1_000_000_000, ohlc, bar.vol.0, bar.n))
                }
                _ => None,
            })
            .collect();
        assert!(!made.is_empty());
        assert_eq!(
            made.len(),
            folded.len() - 1,
            "all bars but the open last one ({interval})"
        );
        assert!(made == folded[..made.len()], "{interval}");
    }
    let Some(Body::Ticker(ticker)) = events
        .iter()
        .rev()
        .map(|event| &event.body)
        .find(|body| matches!(body, Body::Ticker(_)))
    else {
        anyhow::bail!("expected a ticker")
    };
    let vol: Decimal = trades.iter().map(|trade| trade.qty.0).sum();
    assert_eq!((ticker.n, ticker.vol.0), (trades.len() as u64, vol));
    let vwap = trades
        .iter()
        .map(|trade| trade.px.0 * trade.qty.0)
        .sum::<Decimal>()
        / vol;
    assert_eq!(ticker.vwap.to_string(), format!("{:.8}", vwap.round_dp(8)));
    Ok(())
}

/// Invariant 10, for replays: two runs are equal except for `tx` and epoch, and a loop begins a new
/// epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_repeats_its_events_and_a_loop_begins_a_new_epoch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("BTCUSDT-trades-2024-08-08.csv");
    let rows: String = (0..500u64)
        .map(|n| {
            format!(
                "{n},100.{:02},1,1,{},true\n",
                n % 90,
                1_723_161_255_000 + n * 7
            )
        })
        .collect();
    std::fs::write(&file, rows)?;
    let topics = ["trade:*", "ticker:*", "bar:*:1s"];
    let key = |event: &DataEvent| (event.topic.to_string(), event.seq, event.body.clone());
    // By topic: the order between topics depends on the turns of a shard.
    let by_topic = |events: &[DataEvent]| {
        let mut keys: Vec<_> = events.iter().map(key).collect();
        keys.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        keys
    };
    let one = by_topic(&replayed(std::slice::from_ref(&file), "", &topics).await?);
    let two = by_topic(&replayed(std::slice::from_ref(&file), "", &topics).await?);
    assert!(one.len() > 500 && one == two);
    let source = format!(
        "{{name: t, kind: replay, loop: true, speed: 10, begin: first-subscriber, files: [{:?}]}}",
        file.display().to_string()
    );
    let feed = Feed::start(&format!("sources: [{source}]")).await?;
    let mut client = feed.client(Encoding::Json).await?;
    let epoch = client.subscribe(subscribe(&topics)).await?.ok[0]
        .matched
        .as_ref()
        .and_then(|list| list[0].epoch.clone());
    let renewed = client
        .control("a snapshot of the new epoch", |control| match control {
            Control::Snapshot(snapshot)
                if snapshot.topic == "trade:BTCUSDT" && Some(&snapshot.epoch) != epoch.as_ref() =>
            {
                Some(snapshot.seq)
            }
            _ => None,
        })
        .await?;
    assert_eq!(renewed, Seq::START);
    client.events(200).await?;
    client.ledger().await?;
    Ok(())
}

/// Threats of invalid lines: they are counted, logged and skipped; too many stop the source, and
/// its topics become stale.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_lines_are_skipped_up_to_max_bad() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    std::fs::write(
        &file,
        "1,5.0,1,5,1723161255342,true\nx\n2,NaN,1,5,1723161255343,true\n3,5.5,2,11,1723161255344,false\n",
    )?;
    let events = replayed(std::slice::from_ref(&file), ", max_bad: 2", &["trade:A"]).await?;
    assert_eq!(
        trades(&events, "A")
            .iter()
            .map(|trade| trade.id.text())
            .collect::<Vec<_>>(),
        ["1", "3"]
    );
    let source = format!(
        "{{name: t, kind: replay, max_bad: 1, files: [{:?}]}}",
        file.display().to_string()
    );
    let feed = Feed::start(&format!("sources: [{source}]")).await?;
    feed.until("the source has stopped", |feed| {
        feed.metric("tickcast_rejected_input_total") >= 2.0
    })
    .await?;
    assert_eq!(feed.get("/healthz").await?, "ok\n");
    Ok(())
}
