//! Log lines: text from files can neither forge a line nor reach the terminal, in either format.

use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::harness::{DEADLINE, Stopwatch};
use crate::replay::{TARDIS, tardis, write};
use crate::terminal::serve_with;

const FORGED: &str = "2026-11-26T05:00:00.000000Z  INFO all is well";

/// Log of a server that replays a file with a hostile name and hostile cells until its source
/// fails.
fn log_of_a_hostile_file(format: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let mut text = TARDIS.to_owned() + &tardis("b", "A", 0, "5.0", "1");
    // CR LF ends the line although a quote is open; ESC, NEL, and a character that reverses the
    // text direction.
    text.extend(["b,A,\"1735689600000000\r\n", FORGED, "\",1,1,buy,5.0,1\n"]);
    text += "b,A,1735689600000000,1,1,\"\u{1b}]0;title\u{7}\u{85}\u{202e}up\",5.0,1\n";
    text.extend(["b,A,", &"x".repeat(100_000), ",1,1,buy,5.0,1\n"]);
    text += &"bad\n".repeat(200);
    let name = format!("a\r\n{FORGED}\u{1b}[31m.csv");
    let file = write(folder.path(), &name, text)?.display().to_string();
    let log = folder.path().join("log");
    let arguments = ["--replay", &file, "--speed", "max", "--log-format", format];
    let served = serve_with(&arguments, Stdio::from(std::fs::File::create(&log)?))?;
    let begun = Stopwatch::start();
    while !std::fs::read_to_string(&log)?.contains("source failed permanently") {
        anyhow::ensure!(
            begun.elapsed() < DEADLINE,
            "timeout waiting for the log line"
        );
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    served.terminate()?;
    Ok(std::fs::read_to_string(&log)?)
}

#[test]
fn external_text_cannot_forge_log_lines_in_either_format() -> Result<()> {
    for format in ["human", "json"] {
        let log = log_of_a_hostile_file(format)?;
        let is_hostile = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!log.contains(is_hostile), "{format}: {log:?}");
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines.iter().all(|line| line.len() < 4000), "{format}");
        assert!(
            !lines
                .iter()
                .any(|line| line.starts_with("2026-11-26T05:00:00.0000")),
            "{format}: {log}"
        );
        let skipped = |line: &&&str| line.contains("row skipped") && line.contains("\"side\"");
        let side = lines
            .iter()
            .find(skipped)
            .context("no line for the skipped row")?;
        if format == "human" {
            assert!(side.contains("\\u{1b}]0;title"), "{side}");
            continue;
        }
        for line in &lines {
            let value: Value = serde_json::from_str(line).with_context(|| (*line).to_owned())?;
            for key in ["timestamp", "level", "message", "target"] {
                assert!(value[key].is_string(), "{line}");
            }
        }
        let value: Value = serde_json::from_str(side)?;
        assert_eq!(
            (&value["level"], &value["line"]),
            (&"WARN".into(), &5.into())
        );
        // The value is exact, so programs can find the file.
        let file = value["file"].as_str().context("no file account")?;
        assert!(
            file.ends_with(&format!("a\r\n{FORGED}\u{1b}[31m.csv")),
            "{file}"
        );
    }
    Ok(())
}
