//! The clients of the README run unchanged, with stock libraries and their default limits.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::Stopwatch;
use crate::terminal::{Served, serve};

/// Code block of the README in a language, with the feed's address.
fn block(language: &str) -> Result<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```").skip(1).step_by(2);
    let found = blocks
        .filter_map(|block| block.strip_prefix(language))
        .find(|block| block.contains("/v1/feed"));
    Ok(found
        .with_context(|| format!("README.md has no client in {language}"))?
        .trim()
        .to_owned())
}

/// True if the program is installed; fails under `./check`, which installs it.
fn is_installed(program: &Path) -> Result<bool> {
    if program.exists() {
        return Ok(true);
    }
    anyhow::ensure!(
        std::env::var_os("TICKCAST_CHECK").is_none(),
        "{} is not there, though ./check installs it",
        program.display()
    );
    eprintln!(
        "skipped: {} is not there; ./check installs it",
        program.display()
    );
    Ok(false)
}

/// Runs a client until its output matches, and returns the output.
fn run_until(client: &mut Command, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let mut child = client
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let begun = Stopwatch::start();
    let mut lines = String::new();
    let mut out = std::io::BufReader::new(child.stdout.take().context("stdout is piped")?);
    while !wanted(&lines) && begun.elapsed() < Duration::from_secs(30) {
        if std::io::BufRead::read_line(&mut out, &mut lines)? == 0 {
            break;
        }
    }
    child.kill()?;
    let errors = std::io::read_to_string(child.stderr.take().context("stdout is piped")?)?;
    child.wait()?;
    assert!(
        wanted(&lines),
        "the client printed {lines:?} and reported {errors}"
    );
    Ok(lines)
}

fn run_against_a_market(language: &str, file: &str, program: &Path) -> Result<()> {
    if !is_installed(program)? {
        return Ok(());
    }
    let served = serve(&["--config", "feeds.yaml"])?;
    let code = block(language)?.replace("127.0.0.1:8080", &served.address);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join(file), code)?;
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.deps");
    let libraries = folder.path().join("node_modules");
    std::os::unix::fs::symlink(deps.join("node_modules"), libraries)?;
    let mut client = Command::new(program);
    client.arg(file).current_dir(folder.path());
    let lines = run_until(&mut client, |lines| lines.lines().count() >= 30)?;
    assert!(lines.contains("BTC-USD"), "{lines}");
    Ok(())
}

/// Bytes from the server after which the first connection is cut: the snapshots and some events.
const CUT_AFTER_BYTES: u64 = 20_000;

/// TCP relay that cuts its first connection and no other; returns its address.
fn cutting_relay(server: String) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut limit = CUT_AFTER_BYTES;
        for client in listener.incoming() {
            let (mut client, mut server) = (client?, TcpStream::connect(&server)?);
            let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
            std::thread::spawn(move || -> std::io::Result<()> {
                let relayed = std::io::copy(&mut (&mut server).take(limit), &mut client);
                client.shutdown(Shutdown::Both)?;
                server.shutdown(Shutdown::Both)?;
                relayed.map(|_| ())
            });
            limit = u64::MAX;
        }
        Ok(())
    });
    Ok(address)
}

#[test]
fn the_client_of_the_python_guide_resumes_after_a_disconnect() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("tests/.deps/python/bin/python");
    if !is_installed(&python)? {
        return Ok(());
    }
    let served = serve(&["--config", "feeds.yaml"])?;
    let code = include_str!("../../docs/clients/resume.py");
    let code = code.replace("127.0.0.1:8080", &cutting_relay(served.address.clone())?);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("resume.py");
    std::fs::write(&file, code)?;
    let resumed = |lines: &str| {
        let subscribed = lines.lines().filter(|line| line.ends_with(" resumed"));
        subscribed
            .skip(1)
            .any(|line| line == "subscribed to 24 topics, 24 resumed")
    };
    let lines = run_until(Command::new(python).arg(file), resumed)?;
    assert!(!lines.contains("lost"), "{lines}");
    Ok(())
}

#[test]
fn the_client_of_the_rust_guide_resumes_after_a_disconnect() -> Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_tickcast"))
        .with_file_name("examples")
        .join("subscribe");
    if !program.exists() {
        anyhow::ensure!(
            std::env::var_os("TICKCAST_CHECK").is_none(),
            "{} is not there, though cargo test builds it",
            program.display()
        );
        eprintln!("skipped: plain `cargo test` builds {}", program.display());
        return Ok(());
    }
    let served = serve(&["--config", "feeds.yaml"])?;
    let address = cutting_relay(served.address.clone())?;
    let resumed = |lines: &str| lines.contains("recovered: Some(true)");
    run_until(Command::new(program).arg(address), resumed)?;
    Ok(())
}

/// Runs a program of `tests/page/` in Node against a market, once in each encoding.
fn runs_in_node(program: &str, serving: &[&str]) -> Result<()> {
    runs_in_node_with(program, serving, &[])
}

/// Like [`runs_in_node`], with further arguments for the program.
fn runs_in_node_with(program: &str, serving: &[&str], more: &[&str]) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("tests/.deps/node_modules/ws").exists() {
        anyhow::ensure!(
            std::env::var_os("TICKCAST_CHECK").is_none(),
            "the package ws is missing, although ./check installs it"
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
            .args(more)
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

/// Reconnects, resumes without a gap and balances its ledger, in both encodings.
#[test]
fn the_browser_client_resumes_in_node_and_agrees_with_the_ledger() -> Result<()> {
    runs_in_node("client.mjs", &["--config", "feeds.yaml"])
}

/// Frames of many events each, and a handler that throws in the middle of one.
#[test]
fn a_throwing_handler_affects_neither_the_account_nor_other_handlers() -> Result<()> {
    runs_in_node(
        "handlers.mjs",
        &["--sim-instruments", "50", "--sim-every", "200ms"],
    )
}

/// Renews its token, resumes after its end, and reports the reasons of refusals, in both encodings.
#[test]
fn the_browser_client_presents_and_renews_its_token() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("feeds.yaml");
    let text = crate::auth::with_jwt(folder.path(), ", failures_per_minute: 1000")?;
    std::fs::write(&config, text)?;
    let config = config.display().to_string();
    let secret = std::fs::read_to_string(folder.path().join("secret"))?;
    runs_in_node_with("token_client.mjs", &["--config", &config], &[&secret])
}

/// Code block of a guide that presents a token.
fn block_with_token(page: &str, language: &str) -> Result<String> {
    let blocks = page.split("```").skip(1).step_by(2);
    let mut found = blocks.filter_map(|block| block.strip_prefix(language));
    let found = found.find(|block| block.contains("TICKCAST_TOKEN"));
    Ok(found.context("a block with a token")?.trim().to_owned())
}

/// Server whose clients present the key `desk.canary`, and its folder.
fn serve_with_key() -> Result<(Served, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("feeds.yaml");
    let hash = crate::auth::sha256("canary");
    let auth = format!(
        "roles: {{reader: {{topics: [\"*\"]}}}}\n\
         auth: {{scheme: keys, keys: [{{id: desk, sha256: {hash}, role: reader}}]}}"
    );
    std::fs::write(&config, crate::harness::market(2, 200, &auth))?;
    let served = serve(&["--config", &config.display().to_string()])?;
    Ok((served, folder))
}

/// Output of a client with some data of the first instrument.
fn has_data(lines: &str) -> bool {
    lines.lines().count() >= 10 && lines.contains("S1")
}

#[test]
fn the_clients_of_the_guides_present_their_token() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (python, deps) = (
        root.join("tests/.deps/python/bin/python"),
        root.join("tests/.deps/node_modules"),
    );
    if !is_installed(&python)? || !is_installed(&deps.join("ws"))? {
        return Ok(());
    }
    let (served, folder) = serve_with_key()?;
    let write = |name: &str, page: &str, language: &str| -> Result<()> {
        let code = block_with_token(page, language)?.replace("127.0.0.1:8080", &served.address);
        Ok(std::fs::write(folder.path().join(name), code)?)
    };
    write(
        "client.py",
        include_str!("../../docs/clients/python.md"),
        "python",
    )?;
    write(
        "client.mjs",
        include_str!("../../docs/client.md"),
        "javascript",
    )?;
    let module = root.join("dashboards/trading");
    for name in ["tickcast.js", "vendor"] {
        std::os::unix::fs::symlink(module.join(name), folder.path().join(name))?;
    }
    std::fs::write(folder.path().join("package.json"), r#"{"type": "module"}"#)?;
    std::os::unix::fs::symlink(deps, folder.path().join("node_modules"))?;
    for (program, file) in [
        (python.as_path(), "client.py"),
        (Path::new("node"), "client.mjs"),
    ] {
        let mut client = Command::new(program);
        client.arg(file).current_dir(folder.path());
        client.env("TICKCAST_TOKEN", "desk.canary");
        run_until(&mut client, has_data)?;
    }
    let example = Path::new(env!("CARGO_BIN_EXE_tickcast")).with_file_name("examples");
    let example = example.join("subscribe");
    if example.exists() {
        let token = folder.path().join("token");
        std::fs::write(&token, "desk.canary\n")?;
        let mut client = Command::new(example);
        client.arg(&served.address).arg(token);
        run_until(&mut client, has_data)?;
    }
    Ok(())
}

#[test]
fn the_python_client_of_the_readme_runs_unchanged() -> Result<()> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.deps/python/bin/python");
    run_against_a_market("python", "client.py", &python)
}

#[test]
fn the_javascript_client_of_the_readme_runs_unchanged() -> Result<()> {
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
