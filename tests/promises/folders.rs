//! Folders and files as downloaded: recordings are replayed, and other files are logged once.

use std::process::Stdio;

use anyhow::{Context, Result};
use tickcast::market::Body;

use crate::harness::{DEADLINE, Stopwatch};
use crate::replay::{TARDIS, accounts, gzip, play, rows, symbols, tardis, write};
use crate::terminal::serve_with;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_replays_its_recordings() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    let deeper = path.join("2024/08");
    std::fs::create_dir_all(&deeper)?;
    std::fs::create_dir_all(path.join(".cache"))?;
    write(path, "A-trades-2024-08-08.csv", rows(0, 100))?;
    write(
        &deeper,
        "A-trades-2024-08-09.csv.gz",
        gzip(&rows(100, 100))?,
    )?;
    write(
        &deeper,
        "A-trades-2024-08-09.csv.gz.CHECKSUM",
        "0123  A-trades\n",
    )?;
    // Days without trades: an empty file, an empty archive, a file with a header only.
    write(path, "A-trades-2024-08-10.csv", "")?;
    write(path, "A-trades-2024-08-11.csv.gz", gzip("")?)?;
    write(path, "tardis_2024-08-12.csv", TARDIS)?;
    write(path, "README.md", "# A\n")?;
    write(path, "notes.txt", "bought at the dip\n")?;
    write(path, "A.parquet", "PAR1\u{15}")?;
    write(&path.join(".cache"), "B-trades-2024-08-08.csv", rows(0, 5))?;
    let played = play(&[path.to_owned()], "", &["trade:*"]).await?;
    assert_eq!((played.events.len(), &played.end.error), (200, &None));
    let reports = accounts(&played);
    let read: Vec<u64> = reports.iter().map(|report| report.rows).collect();
    assert_eq!(
        (read, symbols(&played)),
        (vec![100, 100, 0], vec!["A".to_owned()])
    );
    Ok(())
}

#[test]
fn skipped_files_of_a_folder_are_logged_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    std::fs::create_dir(&data)?;
    write(&data, "A-trades-2024-08-08.csv", rows(0, 3))?;
    let others = ["A.csv.CHECKSUM", "empty.csv", "README.md", "A.parquet"];
    for (name, text) in others.into_iter().zip(["0123", "", "# A", "PAR1\u{15}"]) {
        write(&data, name, text)?;
    }
    let (log, data) = (folder.path().join("log"), data.display().to_string());
    let arguments = ["--replay", &data, "--speed", "max"];
    let served = serve_with(&arguments, Stdio::from(std::fs::File::create(&log)?))?;
    let begun = Stopwatch::start();
    let logged = loop {
        let logged = std::fs::read_to_string(&log)?;
        if logged.contains("file replayed") {
            break logged;
        }
        anyhow::ensure!(begun.elapsed() < DEADLINE, "timeout; log: {logged}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    };
    served.terminate()?;
    for name in others {
        let lines = logged.lines().filter(|line| line.contains(name)).count();
        assert_eq!(lines, 1, "{name}: {logged}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quoted_header_with_a_comma_shifts_no_column() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text =
        "\"Time, UTC\",\"Price, USD\",Note,Size\n1735689600,5.25,\"a, b\",2\n1735689601,5.50,,3\n";
    let file = write(folder.path(), "a.csv", text)?;
    let more = ", symbol: A, columns: {time: \"Time, UTC\", price: \"Price, USD\", qty: Size}";
    let played = play(&[file], more, &["trade:*"]).await?;
    let trades: Vec<(String, String)> = played
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Trade(trade) => Some((trade.px.0.to_string(), trade.qty.0.to_string())),
            _ => None,
        })
        .collect();
    let own = |px: &str, qty: &str| (px.to_owned(), qty.to_owned());
    assert_eq!(trades, [own("5.25", "2"), own("5.50", "3")]);
    accounts(&played);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_sides_are_rejected_rather_than_ignored() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let words = ["b", "s", "B", "S", "bid", "ask", "1", "-1", "up", "unknown"];
    let mut text = "t,px,qty,side\n".to_owned();
    for (at, word) in (0..).zip(words) {
        let time: u64 = 1_735_689_600 + at;
        text.extend([time.to_string().as_str(), ",5.0,1,", word, "\n"]);
    }
    let file = write(folder.path(), "a.csv", text)?;
    let more = ", symbol: A, columns: {time: t, price: px, qty: qty, side: side}";
    let played = play(&[file], more, &["trade:*"]).await?;
    let sides: Vec<&str> = played
        .events
        .iter()
        .filter_map(|event| match &event.body {
            Body::Trade(trade) => Some(trade.side.name()),
            _ => None,
        })
        .collect();
    assert_eq!(
        sides,
        [
            "buy", "sell", "buy", "sell", "buy", "sell", "buy", "sell", "none"
        ]
    );
    assert_eq!(accounts(&played)[0].skipped["side"], 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbol_too_long_with_its_venue_invalidates_only_its_rows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (venue, long) = ("v".repeat(40), "S".repeat(40));
    let mut text = TARDIS.to_owned();
    for ms in 0..1500 {
        let symbol = if ms % 3 == 0 { &long } else { "A" };
        text += &tardis(&venue, symbol, ms, "5.0", "1");
    }
    // Two venues, so both symbols get their venue prefix.
    text += &tardis("w", "A", 1500, "5.0", "1");
    let file = write(folder.path(), "a.csv", text)?;
    let played = play(&[file], ", venue: always", &["trade:*"]).await?;
    assert_eq!((played.events.len(), &played.end.error), (1001, &None));
    let report = accounts(&played).pop().context("no file account")?;
    assert_eq!((report.rows, report.skipped["symbol"]), (1501, 500));
    Ok(())
}
