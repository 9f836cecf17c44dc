//! Recorded files as people have them: each row that was read is played, or refused by name, and the end says why.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use tickcast::protocol::{Control, DataEvent, Encoding, ServerMessage, SourceChange, SourceState};

use crate::harness::{DEADLINE, Feed, Stopwatch, subscribe};
use crate::terminal::serve_with;

/// Everything that came of a replay at full speed until its source ended, and how it ended.
pub(crate) struct Played {
    pub(crate) feed: Feed,
    pub(crate) events: Vec<DataEvent>,
    pub(crate) end: SourceChange,
}

pub(crate) fn source(files: &[PathBuf], more: &str) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|file| format!("{:?}", file.display().to_string()))
        .collect();
    format!(
        "sources: [{{name: tape, kind: replay, speed: max, begin: first-subscriber, files: [{}]{more}}}]",
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
    // `ended` may overtake data; the ledger comes after all of it.
    client.ask(tickcast::protocol::Op::Ledger).await?;
    loop {
        match client.next().await? {
            ServerMessage::Events(more) => events.extend(more),
            ServerMessage::Control(Control::Ledger(_)) => break,
            ServerMessage::Control(_) => {}
        }
    }
    let end = end.context("an end")?;
    Ok(Played { feed, events, end })
}

/// Rows of Binance futures trades, a millisecond apart.
pub(crate) fn rows(from: u64, count: u64) -> String {
    (from..from + count)
        .map(|id| format!("{id},5.0,1,5,{},true\n", 1_723_161_255_342 + id))
        .collect()
}

/// Writes a file into a folder, and returns its path.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, content)?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_of_an_end_is_told_to_subscribers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = rows(0, 2000) + "x\ny\n";
    let file = write(folder.path(), "A-trades-2024-08-08.csv", text)?;
    let played = play(std::slice::from_ref(&file), "", &["trade:*"]).await?;
    assert_eq!((played.end.error, played.events.len()), (None, 2000));
    let played = play(&[file], ", max_bad: 1", &["trade:*"]).await?;
    let error = played.end.error.context("an error")?;
    assert!(
        error.contains("max_bad") && error.contains(":2002"),
        "{error}"
    );
    let failed = played.feed.app.failed_sources();
    assert_eq!((failed.len(), &*failed[0].1), (1, &*error));
    Ok(())
}

#[test]
fn a_server_whose_source_failed_for_good_exits_with_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = "1,5.0,1,5,1723161255342,true\n";
    let good = write(folder.path(), "A-trades-2024-08-08.csv", row)?;
    let bad = write(
        folder.path(),
        "B-trades-2024-08-08.csv",
        row.to_owned() + &"x\n".repeat(200),
    )?;
    for (file, code, line) in [(good, 0, "ended"), (bad, 1, "stopped for good")] {
        let log = folder.path().join("log");
        let file = file.display().to_string();
        let arguments = ["--replay", &file, "--speed", "max"];
        let served = serve_with(&arguments, Stdio::from(std::fs::File::create(&log)?))?;
        let begun = Stopwatch::start();
        while !std::fs::read_to_string(&log)?.contains(line) {
            anyhow::ensure!(begun.elapsed() < DEADLINE, "waited in vain for {line:?}");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
        assert_eq!(served.terminate()?.code(), Some(code), "{file}");
    }
    Ok(())
}
