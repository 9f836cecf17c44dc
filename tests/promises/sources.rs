//! Sources: compressed files, several files, recorded timing, and isolation of failures.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use tickcast::bus::Emit;
use tickcast::market::{Body, TradingState, UnixNanos};
use tickcast::protocol::{Control, Encoding, Op, ServerMessage, SourceState};
use tickcast::source::sim::{Hours, Market};

use crate::harness::{Feed, Stopwatch, subscribe};

fn rows(from: u64, count: u64, step_ms: u64) -> String {
    (0..count)
        .map(|n| {
            format!(
                "{},100.5,1,1,{},true\n",
                from + n,
                1_723_161_255_000 + (from + n) * step_ms
            )
        })
        .collect()
}

fn replay(files: &[PathBuf], more: &str) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|file| format!("{:?}", file.display().to_string()))
        .collect();
    format!(
        "sources: [{{name: tape, kind: replay, begin: first-subscriber, files: [{}]{more}}}]",
        files.join(", ")
    )
}

/// Ids of all trades, in the order of receipt.
async fn ids(config: &str, count: usize) -> Result<Vec<String>> {
    let feed = Feed::start(config).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["trade:*"])).await?;
    let events = client.events(count).await?;
    let id = |body: &Body| match body {
        Body::Trade(trade) => trade.id.text(),
        _ => String::new(),
    };
    Ok(events.iter().map(|event| id(&event.body)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_are_replayed_like_plain_ones() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = rows(0, 3000, 1);
    let path = |end: &str| folder.path().join(format!("A-trades-2024-08-08.{end}"));
    std::fs::write(path("csv"), &text)?;
    let mut gzip = flate2::write::GzEncoder::new(
        std::fs::File::create(path("csv.gz"))?,
        flate2::Compression::fast(),
    );
    gzip.write_all(text.as_bytes())?;
    gzip.finish()?;
    std::fs::write(path("csv.zst"), zstd::encode_all(text.as_bytes(), 1)?)?;
    let mut packed = zip::ZipWriter::new(std::fs::File::create(path("zip"))?);
    packed.start_file(
        "A-trades-2024-08-08.csv",
        zip::write::SimpleFileOptions::default(),
    )?;
    packed.write_all(text.as_bytes())?;
    packed.finish()?;
    let plain = ids(&replay(&[path("csv")], ", speed: max"), 3000).await?;
    for end in ["csv.gz", "csv.zst", "zip"] {
        assert!(
            ids(&replay(&[path(end)], ", speed: max"), 3000).await? == plain,
            "{end}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_are_merged_by_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = |id: u64| format!("{id},100.5,1,1,{},true\n", 1_723_161_255_000 + id);
    // Of one symbol, because events of different topics have no defined order.
    for (day, rest) in [("08", 0), ("09", 1)] {
        let text: String = (0..2000).filter(|id| id % 2 == rest).map(line).collect();
        std::fs::write(
            folder.path().join(format!("A-trades-2024-08-{day}.csv")),
            text,
        )?;
    }
    let came = ids(
        &replay(&[folder.path().join("*.csv")], ", speed: max"),
        2000,
    )
    .await?;
    assert!(came == (0..2000).map(|id| id.to_string()).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_the_recorded_timing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    std::fs::write(&file, rows(0, 40, 250))?;
    let begun = Stopwatch::start();
    ids(&replay(std::slice::from_ref(&file), ", speed: 10"), 40).await?;
    assert!(
        begun.elapsed().as_millis() >= 39 * 25,
        "39 steps of 250 ms, ten times as fast, took {:?}",
        begun.elapsed()
    );
    Ok(())
}

/// Threats 38 and 43: a failed source is restarted repeatedly, without effect on others.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_source_is_restarted_without_affecting_others() -> Result<()> {
    let feed = Feed::start(
        "sources:\n  - {name: sim, kind: sim, instruments: [{symbol: A, start: 100, rate: 1000/s}]}\n  - {name: gone, kind: replay, files: [/nowhere/x.csv]}",
    )
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(&["trade:A"])).await?;
    feed.until("restarts", |feed| {
        feed.metric("tickcast_source_restarts_total") >= 3.0
    })
    .await?;
    client.events(200).await?;
    client.ledger().await?;
    assert!(
        feed.get("/readyz")
            .await?
            .contains("source gone has failed"),
        "the failed source is not named"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_source_is_reported_and_its_symbols_become_stale() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    std::fs::write(&file, rows(0, 10, 1))?;
    let feed = Feed::start(&replay(std::slice::from_ref(&file), ", speed: max")).await?;
    let mut client = feed.client(Encoding::Msgpack).await?;
    client.subscribe(subscribe(&["status:A"])).await?;
    let (mut ended, mut states) = (false, Vec::new());
    while !(ended && states.last() == Some(&TradingState::Stale)) {
        match client.next().await? {
            ServerMessage::Control(Control::Source(change)) => {
                ended |= (change.name.as_str(), change.state) == ("tape", SourceState::Ended);
            }
            ServerMessage::Events(events) => {
                states.extend(events.iter().filter_map(|event| match &event.body {
                    Body::Status(status) => Some(status.state),
                    _ => None,
                }));
            }
            ServerMessage::Control(_) => {}
        }
    }
    assert_eq!(states, [TradingState::Live, TradingState::Stale]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_subscribes_after_the_end_of_a_source_is_notified_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("A-trades-2024-08-08.csv");
    std::fs::write(&file, rows(0, 10, 1))?;
    let feed = Feed::start(&replay(std::slice::from_ref(&file), ", speed: max")).await?;
    let mut early = feed.client(Encoding::Msgpack).await?;
    early.subscribe(subscribe(&["trade:A"])).await?;
    let ended = |control: &Control| match control {
        Control::Source(change) if change.state == SourceState::Ended => Some(change.name.clone()),
        _ => None,
    };
    early.control("the end of the source", ended).await?;
    for encoding in Encoding::ALL {
        let mut late = feed.client(encoding).await?;
        late.subscribe(subscribe(&["status:A"])).await?;
        late.control("the end of the source", ended).await?;
        late.subscribe(subscribe(&["trade:A"])).await?;
        late.client.request(Op::Ping { t: 1 }).await?;
        let mut again = None;
        let is_answered = |control: &Control| {
            again = again.take().or_else(|| ended(control));
            matches!(control, Control::Pong(_)).then_some(())
        };
        late.control("pong", is_answered).await?;
        assert_eq!(again, None, "one notification for one end");
    }
    Ok(())
}

#[test]
fn outside_its_hours_an_instrument_is_closed_and_silent() -> Result<()> {
    let text = "sources: [{name: s, kind: sim, instruments: [{symbol: A, start: 100, rate: 1/s, hours: {open: \"09:30\", close: \"10:00\", utc_offset: \"-05:00\"}}]}]";
    let config = tickcast::config::Config::parse(text, "test")?;
    let Some(tickcast::config::SourceDetails::Sim(sim)) = config
        .sources
        .into_iter()
        .next()
        .map(|source| source.details)
    else {
        anyhow::bail!("expected a simulated source")
    };
    let start = UnixNanos::parse_utc("2026-01-16T14:00:00Z")?;
    let hours: Hours = sim.instruments[0]
        .hours
        .clone()
        .ok_or_else(|| anyhow::anyhow!("hours"))?;
    let mut market = Market::new(&sim, start);
    let mut events = Vec::new();
    market.advance(
        UnixNanos::parse_utc("2026-01-19T14:59:00Z")?,
        &mut events,
        usize::MAX,
    );
    let mut changes = Vec::new();
    for event in &events {
        match event {
            Emit::Trade(_, trade) => assert!(hours.is_open(trade.ts)),
            Emit::Quote(_, quote) => assert!(hours.is_open(quote.ts)),
            Emit::Trading(_, state, _) => changes.push(*state),
            _ => {}
        }
    }
    let (closed, live) = (TradingState::Closed, TradingState::Live);
    assert_eq!(
        changes,
        [closed, live, closed, live],
        "expected Friday's opening and close, and Monday's opening"
    );
    Ok(())
}

/// Correlation of the two instruments' moves over whole seconds, from an hour of quotes.
fn correlation(closeness: f64) -> Result<f64> {
    let one = |name: &str| {
        format!(
            "{{symbol: {name}, start: 1000, rate: 5/s, trades: 0, model: {{gbm: {{volatility: 2}}}}, factor: {{f: {closeness}}}}}"
        )
    };
    let text = format!(
        "sources: [{{name: s, kind: sim, seed: 3, instruments: [{}, {}]}}]",
        one("A"),
        one("B")
    );
    let config = tickcast::config::Config::parse(&text, "test")?;
    let Some(tickcast::config::SourceDetails::Sim(sim)) = config
        .sources
        .into_iter()
        .next()
        .map(|source| source.details)
    else {
        anyhow::bail!("expected a simulated source")
    };
    let start = UnixNanos::parse_utc("2026-01-16T14:00:00Z")?;
    let mut market = Market::new(&sim, start);
    let (mut last, mut series) = ([0.0f64; 2], [Vec::new(), Vec::new()]);
    for second in 1..=3600u64 {
        let mut events = Vec::new();
        market.advance(
            UnixNanos(start.0 + second * 1_000_000_000),
            &mut events,
            usize::MAX,
        );
        for event in events {
            if let Emit::Quote(at, quote) = event {
                last[at as usize] = quote
                    .bid
                    .map_or(0.0, |level| level.px.0.to_string().parse().unwrap_or(0.0));
            }
        }
        (0..2).for_each(|at| series[at].push(last[at]));
    }
    let moves = |series: &[f64]| {
        series[60..]
            .windows(2)
            .map(|pair| (pair[1] / pair[0]).ln())
            .collect::<Vec<f64>>()
    };
    let (a, b) = (moves(&series[0]), moves(&series[1]));
    let product = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    Ok(product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt())
}

#[test]
fn instruments_with_a_common_factor_are_correlated() -> Result<()> {
    let (apart, together) = (correlation(0.0)?, correlation(0.95)?);
    assert!(
        apart.abs() < 0.1 && together > 0.5,
        "correlation {apart} without a factor, {together} with one"
    );
    Ok(())
}
