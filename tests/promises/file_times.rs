//! Times in recorded files: every format is parsed or rejected by name, and an outlier does not
//! stop the replay.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Result;
use tickcast::config::Config;

use crate::harness::{DEADLINE, Feed, Stopwatch};
use crate::replay::{TARDIS, accounts, play, source, tardis, write};
use crate::terminal::serve_with;

/// 600 rows over 0.6 s of 2025, among them one of 1970, one of 2500 and one of 2026.
fn with_outliers() -> String {
    let mut text = TARDIS.to_owned();
    for ms in 0..600 {
        text += &tardis("b", "A", ms, "5.0", "1");
        let outlier = match ms {
            200 => "1000000",
            300 => "16725225600000001",
            400 => "1767225600000000",
            _ => continue,
        };
        text.extend(["b,A,", outlier, ",1,x,buy,9.0,1\n"]);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn time_outliers_are_rejected_and_other_rows_replayed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "a.csv", with_outliers())?;
    for speed in ["1", "max"] {
        let more = format!(", speed: {speed}");
        let played = play(std::slice::from_ref(&file), &more, &["trade:*"]).await?;
        assert_eq!((played.events.len(), &played.end.error), (600, &None));
        let report = &accounts(&played)[0];
        assert_eq!((report.rows, report.skipped["time_band"]), (603, 3));
    }
    // The config can admit such rows.
    let more = ", earliest_time: \"1970-01-01T00:00:00Z\", max_time_step: 36500d";
    let played = play(&[file], more, &["trade:*"]).await?;
    assert_eq!(accounts(&played)[0].skipped["time_band"], 1);
    Ok(())
}

#[test]
fn a_rejected_time_is_logged_with_its_row_and_bound() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = write(folder.path(), "a.csv", with_outliers())?;
    let (log, file) = (folder.path().join("log"), file.display().to_string());
    let arguments = ["--replay", &file, "--speed", "max"];
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
    let refused: Vec<&str> = logged
        .lines()
        .filter(|line| line.contains("row skipped"))
        .collect();
    assert_eq!(refused.len(), 3, "{logged}");
    for (line, row, parts) in [
        (0, 203, ["1970-01-12T13:46:40Z", "1990-01-01T00:00:00Z"]),
        (1, 304, ["16725225600000001", "1970 to 2499"]),
        (2, 405, ["2026-01-01T00:00:00Z", "86400s"]),
    ] {
        let logged = refused[line];
        assert!(
            logged.contains("a.csv") && logged.contains("time_band"),
            "{logged}"
        );
        assert!(logged.contains(&format!("line={row}")), "{logged}");
        assert!(parts.iter().all(|part| logged.contains(part)), "{logged}");
    }
    Ok(())
}

async fn times(text: &str, name: &str, more: &str) -> Result<Vec<u64>> {
    let folder = tempfile::tempdir()?;
    let file: PathBuf = write(folder.path(), name, text)?;
    let played = play(&[file], more, &["trade:*"]).await?;
    assert_eq!(played.end.error, None);
    accounts(&played);
    let millis = |nanos: u64| nanos / 1_000_000;
    let events = played.events.iter();
    Ok(events.map(|event| millis(event.body.ts().0)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_parsed_in_the_zone_and_format_of_the_file() -> Result<()> {
    // 2021-12-01T10:00:00.123 in New York, and a minute later.
    let expected = [1_638_370_800_123, 1_638_370_860_123];
    let columns = "columns: {time: time, price: px, qty: qty}, symbol: A";
    for (first, second, keys) in [
        (
            "2021-12-01T23:00:00.123+08:00",
            "2021-12-01T15:01:00.123Z",
            "",
        ),
        (
            "20211201 100000123",
            "20211201 100100123",
            "timezone: \"-05:00\", ",
        ),
        (
            "2021.12.01T10:00:00.123",
            "2021.12.01 10:01:00.123",
            "timezone: America/New_York, ",
        ),
        (
            "01.12.2021 10:00:00.123",
            "01.12.2021 10:01:00.123",
            "timezone: America/New_York, time_format: \"%d.%m.%Y %H:%M:%S%.f\", ",
        ),
    ] {
        let text = format!("time,px,qty\n{first},5.0,1\n{second},5.0,1\n");
        let more = format!(", {keys}{columns}");
        assert_eq!(times(&text, "a.csv", &more).await?, expected, "{first}");
        // The same without a header, with column numbers.
        let text = text.trim_start_matches("time,px,qty\n");
        let more = format!(", {keys}columns: {{time: 1, price: 2, qty: 3}}, symbol: A");
        assert_eq!(times(text, "a.csv", &more).await?, expected, "{first}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn times_without_an_offset_are_rejected_with_the_required_key() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "time,px,qty\n2021.12.01 10:00:00,5.0,1\n".to_owned();
    let file = write(folder.path(), "a.csv", text)?;
    for max_bad in [0, 100] {
        let more = format!(
            ", symbol: A, max_bad: {max_bad}, columns: {{time: time, price: px, qty: qty}}"
        );
        let feed = Feed::start(&source(std::slice::from_ref(&file), &more)).await?;
        feed.until("the source has failed", |feed| {
            !feed.app.failed_sources().is_empty()
        })
        .await?;
        let error = feed.app.failed_sources()[0].1.to_string();
        assert!(error.contains("`timezone: UTC`"), "{error}");
    }
    Ok(())
}

#[test]
fn invalid_time_zones_and_formats_are_config_errors() {
    for (key, hint) in [
        ("timezone: Mars/Olympus", "America/New_York"),
        ("timezone: \"+99:00\"", "-05:00"),
        ("time_format: \"%H:%M\"", "%d.%m.%Y"),
        ("time_format: today", "%d.%m.%Y"),
        ("earliest_time: yesterday", "2026-01-31T09:30:00Z"),
        ("max_time_step: \"0\"", "a duration"),
    ] {
        let text = format!("sources: [{{name: t, kind: replay, files: [a.csv], {key}}}]");
        let error = Config::parse(&text, "test").expect_err(key).to_string();
        assert!(error.contains(hint), "{error}");
    }
}
