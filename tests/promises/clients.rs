//! The clients of the README run as they stand there, with stock libraries and their default limits.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::Stopwatch;
use crate::terminal::serve;

/// The README's code block of that language which names the feed's address.
fn block(language: &str) -> Result<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```").skip(1).step_by(2);
    let found = blocks
        .filter_map(|block| block.strip_prefix(language))
        .find(|block| block.contains("/v1/feed"));
    Ok(found
        .with_context(|| format!("README.md has a client in {language}"))?
        .trim()
        .to_owned())
}

fn run_against_a_market(language: &str, file: &str, program: &Path) -> Result<()> {
    if !program.exists() {
        anyhow::ensure!(
            std::env::var_os("TICKCAST_CHECK").is_none(),
            "{} is not there, though ./check installs it",
            program.display()
        );
        eprintln!(
            "skipped: {} is not there; ./check installs it",
            program.display()
        );
        return Ok(());
    }
    let served = serve(&["--config", "feeds.yaml"])?;
    let code = block(language)?.replace("127.0.0.1:8080", &served.address);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(file), code)?;
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.deps");
    let libraries = folder.path().join("node_modules");
    std::os::unix::fs::symlink(deps.join("node_modules"), libraries)?;
    let mut child = Command::new(program)
        .arg(file)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let begun = Stopwatch::start();
    let mut lines = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().context("piped")?);
    while lines.lines().count() < 30 && begun.elapsed() < Duration::from_secs(30) {
        if std::io::BufRead::read_line(&mut out, &mut lines)? == 0 {
            break;
        }
    }
    child.kill()?;
    let errors = std::io::read_to_string(child.stderr.take().context("piped")?)?;
    child.wait()?;
    assert!(
        lines.lines().count() >= 30,
        "it printed {lines:?} and said {errors}"
    );
    assert!(lines.contains("BTC-USD"), "{lines}");
    Ok(())
}

/// Runs a program of `tests/page/` in Node against a market, once in each encoding.
fn runs_in_node(program: &str, serving: &[&str]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("tests/.deps/node_modules/ws").exists() {
        anyhow::ensure!(
            std::env::var_os("TICKCAST_CHECK").is_none(),
            "the package ws is not there, though ./check installs it"
        );
        eprintln!("skipped: the package ws is not there; ./check installs it");
        return Ok(());
    }
    let served = serve(serving)?;
    for encoding in ["msgpack", "json"] {
        let mut node = Command::new("node");
        let ran = node
            .arg(root.join("tests/page").join(program))
            .args([served.address.as_str(), encoding])
            .output()?;
        assert_eq!(
            String::from_utf8_lossy(&ran.stdout),
            "well\n",
            "{encoding}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
    }
    Ok(())
}

/// Reconnects, resumes without a hole, keeps to its account, in both encodings.
#[test]
fn the_browsers_client_resumes_in_node_and_counts_as_the_server_does() -> Result<()> {
    runs_in_node("client.mjs", &["--config", "feeds.yaml"])
}

/// Frames of many events each, and a handler that throws in the middle of them.
#[test]
fn a_handler_that_throws_disturbs_neither_the_account_nor_other_handlers() -> Result<()> {
    runs_in_node(
        "handlers.mjs",
        &["--sim-instruments", "50", "--sim-every", "200ms"],
    )
}

#[test]
fn the_readmes_python_client_runs_as_it_stands() -> Result<()> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.deps/python/bin/python");
    run_against_a_market("python", "client.py", &python)
}

#[test]
fn the_readmes_javascript_client_runs_as_it_stands() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let node = std::env::split_paths(&path)
        .map(|folder| folder.join("node"))
        .find(|file| file.exists());
    run_against_a_market(
        "javascript",
        "client.mjs",
        &node.unwrap_or_else(|| "node".into()),
    )
}
