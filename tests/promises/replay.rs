//! Recorded files as found in practice: each row is replayed, or rejected with its reason, and the
//! end has a reason.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tickcast::market::Body;
use tickcast::protocol::{Control, DataEvent, Encoding, ServerMessage, SourceChange, SourceState};

use tickcast::replay::{FileReport, ReplayConfig};

use crate::harness::{DEADLINE, Feed, Stopwatch, subscribe};
use crate::terminal::serve_with;

/// Events of a replay at full speed until the end of its source, and that end.
pub(crate) struct Played {
    pub(crate) feed: Feed,
    pub(crate) events: Vec<DataEvent>,
    pub(crate) end: SourceChange,
}

/// Source at full speed, unless `more` sets another speed.
pub(crate) fn source(files: &[PathBuf], more: &str) -> String {
    let speed = if more.contains("speed: ") {
        ""
    } else {
        "speed: max, "
    };
    let files: Vec<String> = files
        .iter()
        .map(|file| format!("{:?}", file.display().to_string()))
        .collect();
    format!(
        "sources: [{{name: tape, kind: replay, {speed}begin: first-subscriber, files: [{}]{more}}}]",
        files.join(", ")
    )
}

pub(crate) async fn play(files: &[PathBuf], more: &str, topics: &[&str]) -> Result<Played> {
    tokio::time::timeout(DEADLINE, play_all(files, more, topics)).await?
}

async fn play_all(files: &[PathBuf], more: &str, topics: &[&str]) -> Result<Played> {
    let feed = Feed::start(&format!(
        "{}\nfanout: {{outbox: 64MiB, behind: 60s}}",
        source(files, more)
    ))
    .await?;
    let mut client = feed.client(Encoding::Json).await?;
    client.subscribe(subscribe(topics)).await?;
    let (mut events, mut end) = (Vec::new(), None);
    while end.is_none() {
        match client.next().await? {
            ServerMessage::Events(more) => events.extend(more),
            ServerMessage::Control(Control::Source(change)) => {
                end = Some(change).filter(|change| change.state == SourceState::Ended);
            }
            ServerMessage::Control(_) => {}
        }
    }
    // `ended` may overtake data; the ledger follows all of it.
    client.ask(tickcast::protocol::Op::Ledger).await?;
    loop {
        match client.next().await? {
            ServerMessage::Events(more) => events.extend(more),
            ServerMessage::Control(Control::Ledger(_)) => break,
            ServerMessage::Control(_) => {}
        }
    }
    let end = end.context("no end of the source received")?;
    Ok(Played { feed, events, end })
}

/// Rows of Binance futures trades, one millisecond apart.
pub(crate) fn rows(from: u64, count: u64) -> String {
    (from..from + count)
        .map(|id| format!("{id},5.0,1,5,{},true\n", 1_723_161_255_342 + id))
        .collect()
}

/// Writes a file into a folder and returns its path.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_get_the_reason_for_the_end_of_a_source() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = rows(0, 2000) + "x\ny\n";
    let file = write(folder.path(), "A-trades-2024-08-08.csv", text)?;
    let played = play(std::slice::from_ref(&file), "", &["trade:*"]).await?;
    assert_eq!((played.end.error, played.events.len()), (None, 2000));
    let played = play(&[file], ", max_bad: 1", &["trade:*"]).await?;
    let error = played
        .end
        .error
        .context("the source ended without an error")?;
    assert!(
        error.contains("max_bad") && error.contains(":2002"),
        "{error}"
    );
    let failed = played.feed.app.failed_sources();
    assert_eq!((failed.len(), &*failed[0].1), (1, &*error));
    Ok(())
}

#[test]
fn a_permanently_failed_source_gives_exit_code_1() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = "1,5.0,1,5,1723161255342,true\n";
    let good = write(folder.path(), "A-trades-2024-08-08.csv", row)?;
    let bad = write(
        folder.path(),
        "B-trades-2024-08-08.csv",
        row.to_owned() + &"x\n".repeat(200),
    )?;
    for (file, code, line) in [(good, 0, "ended"), (bad, 1, "source failed permanently")] {
        let log = folder.path().join("log");
        let file = file.display().to_string();
        let arguments = ["--replay", &file, "--speed", "max"];
        let served = serve_with(&arguments, Stdio::from(std::fs::File::create(&log)?))?;
        let begun = Stopwatch::start();
        while !std::fs::read_to_string(&log)?.contains(line) {
            anyhow::ensure!(begun.elapsed() < DEADLINE, "timeout waiting for {line:?}");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        assert_eq!(served.terminate()?.code(), Some(code), "{file}");
    }
    Ok(())
}

pub(crate) const TARDIS: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n";

/// Row of a Tardis file, `ms` after the start of 2025.
pub(crate) fn tardis(venue: &str, symbol: &str, ms: u64, price: &str, amount: &str) -> String {
    let ts = 1_735_689_600_000_000 + ms * 1000;
    format!("{venue},{symbol},{ts},{ts},{ms},buy,{price},{amount}\n")
}

/// Asserts for every file: rows read = events emitted + rows skipped.
pub(crate) fn accounts(played: &Played) -> Vec<FileReport> {
    let reports = played.feed.app.file_reports("tape");
    for report in &reports {
        let skipped: u64 = report.skipped.values().sum();
        let events = report.trades + report.quotes;
        assert_eq!(
            (report.rows, report.waiting),
            (events + skipped, 0),
            "{report:?}"
        );
    }
    let events: u64 = reports
        .iter()
        .map(|report| report.trades + report.quotes)
        .sum();
    assert_eq!(events, played.events.len() as u64);
    reports
}

pub(crate) fn gzip(text: &str) -> Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes())?;
    Ok(packed.finish()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_quote_invalidates_only_its_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = |ms: u64| {
        let amount = if ms == 10 { "\"1" } else { "1" };
        tardis("b", "A", ms, "5.0", amount)
    };
    let text: String = (0..3000).map(row).collect();
    let file = write(folder.path(), "a.csv", TARDIS.to_owned() + &text)?;
    let played = play(&[file], "", &["trade:*"]).await?;
    assert_eq!((played.events.len(), &played.end.error), (2999, &None));
    let report = &accounts(&played)[0];
    assert_eq!((report.rows, report.skipped["quote"]), (3000, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_an_event_or_is_skipped_with_a_reason() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut text = TARDIS.to_owned();
    for ms in 0..900u64 {
        text += &match ms % 9 {
            0 => tardis("b", "A", ms, "5.0", "0.0"),
            1 => TARDIS.to_owned(),
            2 => tardis("b", &"X".repeat(90), ms, "5.0", "1"),
            3 => tardis("b", "A", ms, "-5.0", "1"),
            _ => tardis("b", "A", ms, "5.0", "1"),
        };
    }
    text += "x\n";
    text += &tardis("b", "A", 900, "5.0", "1").replace("buy", "up");
    text += "b,A,soon,1,1,buy,5.0,1\n";
    let file = write(folder.path(), "a.csv", text)?;
    let played = play(&[file], "", &["trade:*"]).await?;
    assert_eq!((played.events.len(), &played.end.error), (500, &None));
    let report = &accounts(&played)[0];
    let skipped: Vec<(&str, u64)> = report.skipped.iter().map(|(why, n)| (&**why, *n)).collect();
    let expected = [
        ("header", 100),
        ("malformed", 1),
        ("negative_price", 100),
        ("side", 1),
        ("symbol", 100),
        ("time", 1),
        ("zero_quantity", 100),
    ];
    assert_eq!((report.rows, &skipped[..]), (903, &expected[..]));
    assert!((played.feed.metric("tickcast_replay_rows_total") - 903.0).abs() < 0.5);
    let admin = played
        .feed
        .app
        .admin_address()
        .context("the admin listener is enabled")?;
    let request = b"GET /v1/admin/sources HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let response = crate::harness::exchange(admin, request).await?;
    assert!(response.contains("\"zero_quantity\":100"), "{response}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_rows_before_a_damaged_or_truncated_tail_are_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = |ms: u64| {
        tardis(
            "b",
            "A",
            ms,
            &format!("{}.{:03}", ms * 7 % 97 + 1, ms * 31 % 997),
            "1",
        )
    };
    let text: String = (0..5000).map(row).collect();
    let packed = gzip(&(TARDIS.to_owned() + &text))?;
    let mut damaged = packed.clone();
    let tail = damaged.len() - 6;
    damaged[tail..].fill(0);
    let cut = &packed[..packed.len() * 7 / 10];
    let zst = zstd::encode_all((TARDIS.to_owned() + &text).as_bytes(), 1)?;
    for (name, content, least) in [
        ("damaged.csv.gz", &damaged[..], 5000),
        ("cut.csv.gz", cut, 1000),
        ("cut.csv.zst", &zst[..zst.len() - 10], 0),
    ] {
        let file = write(folder.path(), name, content)?;
        let other = write(
            folder.path(),
            "other.csv",
            TARDIS.to_owned() + &tardis("b", "A", 9999, "1", "1"),
        )?;
        let played = play(&[file, other], "", &["trade:*"]).await?;
        assert!(
            played.events.len() > least,
            "{name}: {}",
            played.events.len()
        );
        let error = played
            .end
            .error
            .clone()
            .context("the source ended without an error")?;
        assert!(
            error.contains(name) && error.contains("damaged or truncated"),
            "{error}"
        );
        accounts(&played);
    }
    Ok(())
}

fn zip(entries: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut packed = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in entries {
        let options = zip::write::SimpleFileOptions::default();
        if name.ends_with('/') {
            packed.add_directory(*name, options)?;
        } else {
            packed.start_file(*name, options)?;
            packed.write_all(text.as_bytes())?;
        }
    }
    Ok(packed.finish()?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_recordings_of_a_zip_are_replayed_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = zip(&[
        ("data/", ""),
        ("__MACOSX/._A-trades-2024-08-08.csv", "\0\u{5}"),
        ("data/A-trades-2024-08-08.csv", &rows(0, 1500)),
        ("data/A-trades-2024-08-08.csv.CHECKSUM", "x"),
        ("data/A-trades-2024-08-09.csv", &rows(1500, 1500)),
    ])?;
    let file = write(folder.path(), "A-trades-2024.zip", archive)?;
    let played = play(&[file], "", &["trade:*"]).await?;
    let ids: Vec<String> = played
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Trade(trade) => Some(trade.id.text()),
            _ => None,
        })
        .collect();
    assert!(ids == (0..3000).map(|id| id.to_string()).collect::<Vec<_>>());
    assert_eq!(accounts(&played).len(), 2);
    let none = zip(&[("data/", ""), ("data/notes.md", "x")])?;
    let file = write(folder.path(), "none.zip", none)?;
    let wrong = ReplayConfig::of(vec![file]).probe();
    assert!(
        wrong[0].to_string().contains("data/notes.md"),
        "{}",
        wrong[0]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_first_file_is_replayed_in_time_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text: String = (0..2000)
        .rev()
        .map(|n| tardis("b", "A", n * 1000, "5.0", "1"))
        .collect();
    let file = write(folder.path(), "a.csv", TARDIS.to_owned() + &text)?;
    let played = play(&[file], "", &["trade:*"]).await?;
    assert!(played.events.is_sorted_by_key(|event| event.body.ts()));
    assert_eq!(accounts(&played)[0].trades, 2000);
    Ok(())
}

pub(crate) fn symbols(played: &Played) -> Vec<String> {
    let mut all: Vec<String> = played
        .events
        .iter()
        .map(|event| event.topic.symbol.to_string())
        .collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn two_markets_never_share_a_topic() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let early: String = (0..3000)
        .map(|ms| tardis("x", "A", ms, "5.0", "1"))
        .collect();
    let late = tardis("y", "A", 3000, "9.0", "1");
    let file = write(folder.path(), "a.csv", TARDIS.to_owned() + &early + &late)?;
    let files = [file];
    for rule in ["auto", "never", "z"] {
        let played = play(&files, &format!(", venue: {rule}"), &["trade:*"]).await?;
        let error = played.end.error.clone().unwrap_or_default();
        assert!(
            error.contains("at two venues, x and y") && error.contains("venue: always"),
            "{error}"
        );
        let symbol = if rule == "z" { "z.A" } else { "A" };
        assert_eq!(
            (symbols(&played), played.events.len()),
            (vec![symbol.to_owned()], 3000)
        );
    }
    let played = play(&files, ", venue: always", &["trade:*"]).await?;
    assert_eq!(
        (symbols(&played), &played.end.error),
        (vec!["x.A".to_owned(), "y.A".to_owned()], &None)
    );
    // Spot and futures of the same name are distinguished by the format of the files.
    let spot = write(
        folder.path(),
        "A-trades-2024-08-08.csv",
        "1,5.0,1,5,1723161255342,true,true\n",
    )?;
    let futures = write(folder.path(), "A-trades-2024-08-09.csv", rows(0, 3))?;
    let played = play(&[spot, futures], "", &["trade:*"]).await?;
    assert_eq!(symbols(&played), ["binance-futures.A", "binance.A"]);
    Ok(())
}
