//! Commands, as people and scripts run them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::Stopwatch;

pub(crate) const TICKCAST: &str = env!("CARGO_BIN_EXE_tickcast");

pub(crate) fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(TICKCAST).args(arguments).output()?)
}

/// A served feed; stopped when it is dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    pub(crate) banner: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Served {
    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the server gracefully; returns its exit status.
    pub(crate) fn terminate(mut self) -> Result<std::process::ExitStatus> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        Ok(self.child.wait()?)
    }
}

/// Like [`serve`]; also returns its standard error up to the start.
pub(crate) fn serve_with_stderr(arguments: &[&str]) -> Result<(Served, String)> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let served = serve_with(arguments, std::fs::File::create(&log)?.into())?;
    Ok((served, std::fs::read_to_string(log)?))
}

/// Starts `serve`, on a free port by default, and reads the addresses that it prints.
pub(crate) fn serve(arguments: &[&str]) -> Result<Served> {
    serve_with(arguments, Stdio::null())
}

pub(crate) fn serve_with(arguments: &[&str], errors: Stdio) -> Result<Served> {
    let any_port: &[&str] = if arguments.contains(&"--listen") {
        &[]
    } else {
        &["--listen", "127.0.0.1:0"]
    };
    let mut child = Command::new(TICKCAST)
        .args(["serve", "--admin", "off"])
        .args(any_port)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let mut banner = String::new();
    while !banner.contains("files") {
        banner.push_str(
            &lines
                .next()
                .context("the server ended before it listened")??,
        );
        banner.push('\n');
    }
    let address = banner
        .split("ws://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .context("missing address")?
        .to_owned();
    Ok(Served {
        child,
        address,
        banner,
    })
}

#[test]
fn serve_listens_within_two_seconds_and_prints_its_addresses() -> Result<()> {
    let begun = Stopwatch::start();
    let served = serve(&["--config", "feeds.yaml"])?;
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(2) || cfg!(debug_assertions) && took < Duration::from_secs(4),
        "{took:?}"
    );
    for wanted in [
        "feed ",
        "metrics ",
        "health ",
        "24 instruments",
        "1 source, ",
        "MiB with this config",
    ] {
        assert!(
            served.banner.contains(wanted),
            "{wanted} is missing in {}",
            served.banner
        );
    }
    Ok(())
}

#[test]
fn tail_prints_events_as_json_lines_and_as_a_table() -> Result<()> {
    let served = serve(&[
        "--sim-instruments",
        "3",
        "--sim-rate",
        "500",
        "--sim-seed",
        "5",
    ])?;
    let output = run(&[
        "tail",
        "--connect",
        &served.address,
        "--json",
        "--topics",
        "trade:*,quote:SIM0001",
        "--count",
        "20",
    ])?;
    let text = String::from_utf8(output.stdout)?;
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(
        events
            .iter()
            .filter(|event| event["ch"].is_string())
            .count(),
        20
    );
    assert!(events.iter().any(|event| event["op"] == "subscribed"));
    let output = run(&[
        "tail",
        "--connect",
        &served.address,
        "--topics",
        "ticker:*",
        "--mode",
        "100ms",
        "--count",
        "3",
    ])?;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout)?.contains("ticker:SIM0001"));
    Ok(())
}

#[test]
fn tail_prints_events_only_or_as_csv_from_any_url_of_the_server() -> Result<()> {
    let served = serve(&["--sim-instruments", "3", "--sim-rate", "500"])?;
    let feed = format!("ws://{}/v1/feed", served.address);
    let page = format!("http://{}/", served.address);
    let output = run(&[
        "tail",
        "--connect",
        &feed,
        "--json",
        "--events",
        "--no-snapshot",
        "--topics",
        "trade:*,quote:*",
        "--count",
        "20",
    ])?;
    let text = String::from_utf8(output.stdout)?;
    assert_eq!(text.lines().count(), 20, "only events are printed");
    let output = Command::new(TICKCAST)
        .env("TICKCAST_CONNECT", &page)
        .args([
            "tail",
            "--format",
            "csv",
            "--topics",
            "trade:*,quote:*",
            "--count",
            "20",
        ])
        .output()?;
    let mut reader = csv::Reader::from_reader(&output.stdout[..]);
    let headers = reader.headers()?.clone();
    let column = |name: &str| headers.iter().position(|header| header == name);
    let (ch, px, bid) = (column("ch"), column("px"), column("bid"));
    let rows = reader.into_records().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(rows.len(), 20);
    for row in rows {
        let cell = |at: Option<usize>| {
            row.get(at.context("missing column")?)
                .context("missing cell")
        };
        let is_trade = cell(ch)? == "trade";
        assert!(
            !cell(if is_trade { px } else { bid })?.is_empty(),
            "{row:?}"
        );
        assert!(cell(if is_trade { bid } else { px })?.is_empty(), "{row:?}");
    }
    Ok(())
}

#[test]
fn tail_fails_if_its_output_cannot_be_written() -> Result<()> {
    let served = serve(&["--sim-instruments", "3", "--sim-rate", "500"])?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = Command::new(TICKCAST)
        .args(["tail", "--connect", &served.address, "--json"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr)?;
    assert!(
        errors.contains("cannot write to standard output: no space left on device"),
        "{errors}"
    );
    Ok(())
}

/// Reads trades until one is found; fails if the sequence has a hole.
fn check_trades(
    lines: &mut impl Iterator<Item = std::io::Result<String>>,
    last: &mut Option<u64>,
    wanted: u64,
) -> Result<()> {
    let mut found = 0;
    while found < wanted {
        let line = lines.next().context("the stream ended")??;
        let message: serde_json::Value = serde_json::from_str(&line)?;
        let Some(seq) = message["seq"].as_u64() else {
            continue;
        };
        if let Some(before) = last.replace(seq) {
            assert_eq!(seq, before + 1, "{line}");
        }
        found += 1;
    }
    Ok(())
}

#[test]
fn tail_reconnects_after_a_restart_and_resumes_without_a_hole() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().display().to_string();
    let with = |listen: &str| {
        serve(&[
            "--sim-instruments",
            "1",
            "--sim-rate",
            "200",
            "--sim-trades",
            "1",
            "--state-dir",
            &state,
            "--listen",
            listen,
        ])
    };
    let first = with("127.0.0.1:0")?;
    let address = first.address.clone();
    let mut child = Command::new(TICKCAST)
        .args([
            "tail",
            "--json",
            "--events",
            "--no-snapshot",
            "--topics",
            "trade:*",
        ])
        .args(["--connect", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let mut last = None;
    check_trades(&mut lines, &mut last, 50)?;
    assert!(first.terminate()?.success());
    let _second = with(&address)?;
    check_trades(&mut lines, &mut last, 100)?;
    child.kill()?;
    let errors = String::from_utf8(child.wait_with_output()?.stderr)?;
    assert!(errors.contains("reconnected"), "{errors}");
    Ok(())
}

#[test]
fn a_pipe_that_is_closed_early_is_not_a_failure() -> Result<()> {
    let served = serve(&["--sim-instruments", "3", "--sim-rate", "500"])?;
    for arguments in [
        &["check", "--keys"][..],
        &["man"],
        &["tail", "--json", "--connect", &served.address],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = Command::new(TICKCAST)
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()?
            .wait_with_output()?;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}

#[test]
fn failed_connections_are_reported_in_one_sentence() -> Result<()> {
    for command in [
        &["tail", "--connect"][..],
        &["load", "--connect"],
        &["top"],
        &["ready"],
    ] {
        let output = run(&[command, &["127.0.0.1:1"]].concat())?;
        assert_eq!(
            String::from_utf8(output.stderr)?,
            "tickcast: cannot connect to 127.0.0.1:1: connection refused; is the server running?\n",
            "{command:?}"
        );
    }
    Ok(())
}

#[test]
fn exit_codes_distinguish_outcomes() -> Result<()> {
    let code = |arguments: &[&str]| run(arguments).map(|output| output.status.code());
    assert_eq!(code(&["check", "feeds.yaml"])?, Some(0));
    assert_eq!(code(&["check", "no-such-file.yaml"])?, Some(2));
    assert_eq!(code(&["tail", "--mode", "fast"])?, Some(2));
    assert_eq!(code(&["tail", "--topics", "nonsense"])?, Some(2));
    assert_eq!(code(&["tail", "--connect", "127.0.0.1:1"])?, Some(1));
    assert_eq!(code(&["serve", "--speed", "2"])?, Some(2));
    assert_eq!(code(&["--help"])?, Some(0));
    assert_eq!(code(&["completions", "bash"])?, Some(0));
    Ok(())
}

#[test]
fn check_reports_every_problem_with_its_location() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("wrong.yaml");
    std::fs::write(
        &file,
        "listen: nowhere\nbus: {queue: 5}\nsources: []\nsurces: []\n",
    )?;
    let name = file.display().to_string();
    let output = run(&["check", &name])?;
    let text = String::from_utf8(output.stderr)?;
    for wanted in [
        ":1:9: listen: invalid value \"nowhere\": expected host:port",
        ":2:14: bus.queue",
        ":3:1: sources: expected at least one source",
        ":4:1: surces: unknown key; did you mean sources?",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    Ok(())
}

#[test]
fn check_and_serve_report_a_problem_without_a_location_by_its_file() -> Result<()> {
    let output = run(&["check", "no-such-file.yaml"])?;
    let text = String::from_utf8(output.stderr)?;
    assert!(
        text.starts_with("tickcast: no-such-file.yaml: ") && !text.contains("0:0"),
        "{text}"
    );
    let output = run(&["check", "--json", "no-such-file.yaml"])?;
    assert_eq!(output.status.code(), Some(2));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["valid"], false);
    assert!(report["problems"][0]["line"].is_null(), "{report}");
    let output = run(&["check", "--json", "feeds.yaml"])?;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert!(
        report["valid"] == true && report["sources"] == 1,
        "{report}"
    );
    Ok(())
}

#[test]
fn versions_manual_pages_and_config_keys_are_available() -> Result<()> {
    for arguments in [&["-V"][..], &["--version"], &["version"]] {
        let output = run(arguments)?;
        let stdout = String::from_utf8(output.stdout)?;
        assert_eq!(
            stdout.trim(),
            concat!("tickcast ", env!("CARGO_PKG_VERSION"))
        );
    }
    let page = String::from_utf8(run(&["man"])?.stdout)?;
    assert!(page.contains(".TH tickcast 1"), "{page}");
    let folder = tempfile::tempdir()?;
    let path = folder.path().display().to_string();
    assert!(run(&["man", &path])?.status.success());
    assert!(folder.path().join("tickcast-tail.1").exists());
    // The same syntax in a config and on the command line.
    let config = folder.path().join("feeds.yaml");
    std::fs::write(
        &config,
        "listen: localhost:0\nshards: auto\nsources: [{name: in, kind: push, open: true, instruments: [{symbol: A}]}]\n",
    )?;
    assert_eq!(
        run(&["check", &config.display().to_string()])?
            .status
            .code(),
        Some(0)
    );
    serve(&[
        "--listen",
        "localhost:0",
        "--shards",
        "auto",
        "--sim-instruments",
        "1",
    ])?;
    Ok(())
}

#[test]
fn sigterm_exits_with_code_0() -> Result<()> {
    let mut served = serve(&["--sim-instruments", "1"])?;
    let killed = Command::new("kill")
        .args(["-TERM", &served.child.id().to_string()])
        .status()?;
    assert!(killed.success());
    assert_eq!(served.child.wait()?.code(), Some(0));
    Ok(())
}

#[test]
fn ready_and_top_report_on_a_running_server() -> Result<()> {
    let mut served = Command::new(TICKCAST)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--sim-instruments",
            "3",
            "--log-format",
            "json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(served.stdout.take().context("stdout is piped")?).lines();
    let metrics = loop {
        let line = lines
            .next()
            .context("the server ended before it listened")??;
        if let Some(at) = line.trim_start().strip_prefix("metrics  http://") {
            break at.trim_end_matches("/metrics").to_owned();
        }
    };
    assert_eq!(run(&["ready", &metrics])?.status.code(), Some(0));
    let top = run(&["top", &metrics, "--once"])?;
    let stdout = String::from_utf8(top.stdout)?;
    assert!(
        top.status.success() && stdout.contains("published/s") && stdout.contains("ADDRESS"),
        "{stdout}"
    );
    let published = stdout
        .split("published/s ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .context("missing rate")?;
    assert_ne!(published, "0", "{stdout}");
    let json = run(&["top", &metrics, "--json"])?;
    let look: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    assert!(
        look["published_per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0)
            && look["connections"]["connections"].is_array(),
        "{look}"
    );
    // Its log lines are JSON.
    let stop = Command::new("kill")
        .args(["-TERM", &served.id().to_string()])
        .status()?;
    assert!(stop.success());
    let ended = served.wait_with_output()?;
    for line in String::from_utf8(ended.stderr)?.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert!(
            line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    assert_eq!(run(&["ready", &metrics])?.status.code(), Some(1));
    assert_eq!(run(&["top", &metrics, "--once"])?.status.code(), Some(1));
    Ok(())
}
