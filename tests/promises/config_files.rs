//! Config files that are missing, special or hostile are rejected by name, and the server keeps
//! running.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::terminal::{Served, TICKCAST, serve_with};

const GOOD: &str = "admin: {metrics_on_feed: true}\nsources: [{name: sim, kind: sim, instruments: [{symbol: A, start: 100}]}]\n";

/// A running server with its config file and its log.
struct Running {
    served: Served,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("feeds.yaml");
        std::fs::write(&file, GOOD)?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let served = serve_with(&["--config", &file.display().to_string()], log.into())?;
        Ok(Self {
            served,
            folder,
            runtime: tokio::runtime::Runtime::new()?,
        })
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, config: &str) -> Result<()> {
        std::fs::File::create(self.path("feeds.yaml"))?.write_all(config.as_bytes())?;
        self.send_sighup()
    }

    fn send_sighup(&self) -> Result<()> {
        let signalled = Command::new("kill")
            .args(["-HUP", &self.served.id().to_string()])
            .status()?;
        ensure!(signalled.success());
        Ok(())
    }

    /// Waits until the metrics contain a line.
    fn metric(&self, wanted: &str) -> Result<()> {
        let address: SocketAddr = self.served.address.parse()?;
        let asking = async {
            let request =
                format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            loop {
                let response = crate::harness::exchange(address, request.as_bytes()).await?;
                if response.lines().any(|line| line == wanted) {
                    return anyhow::Ok(());
                }
                tokio::task::yield_now().await;
            }
        };
        self.runtime
            .block_on(crate::harness::deadline(asking))
            .with_context(|| wanted.to_owned())?
    }

    /// Waits until the log contains a text.
    fn until_log(&self, wanted: &str) -> Result<()> {
        let looking = async {
            let mut looks = tokio::time::interval(std::time::Duration::from_millis(10));
            while !self.log()?.contains(wanted) {
                looks.tick().await;
            }
            anyhow::Ok(())
        };
        self.runtime
            .block_on(crate::harness::deadline(looking))
            .with_context(|| format!("{wanted} is missing in {:?}", self.log()))?
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path("log"))?)
    }
}

fn replay(files: &[&Path]) -> String {
    let files: Vec<_> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    format!("sources: [{{name: tape, kind: replay, files: {files:?}}}]\n")
}

/// Exit code and standard error of a command.
fn run(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(TICKCAST).args(arguments).output()?;
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

#[test]
fn check_and_serve_report_every_missing_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let text = format!(
        "sources:\n  - {{name: one, kind: replay, files: [\"{}\", \"{}\"]}}\n  - {{name: two, kind: replay, files: [\"{}\"]}}\n",
        path("a.csv").display(),
        path("b.csv").display(),
        path("c*.csv").display(),
    );
    let file = path("feeds.yaml").display().to_string();
    std::fs::write(&file, text)?;
    let mut stderr = Vec::new();
    for arguments in [
        &["check", &file][..],
        &["serve", "--config", &file, "--listen", "127.0.0.1:0"],
    ] {
        let (code, text) = run(arguments)?;
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        for wanted in ["source one", "a.csv", "b.csv", "source two", "c*.csv"] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
        stderr.push(text);
    }
    assert_eq!(stderr[0], stderr[1], "check and serve agree");
    Ok(())
}

#[test]
fn a_reload_with_a_missing_or_special_file_is_rejected() -> Result<()> {
    let running = Running::start()?;
    let fifo = running.path("fifo.csv");
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    for (file, wanted) in [
        (running.path("none.csv"), "No such file"),
        (fifo, "a FIFO"),
        (
            "/dev/zero".into(),
            "a device where a regular file is expected",
        ),
    ] {
        running.write(&replay(&[&file]))?;
        running.until_log(&file.display().to_string())?;
        ensure!(running.log()?.contains(wanted), "{}", running.log()?);
    }
    running.metric("tickcast_config_reload_failed 1")?;
    running.metric("tickcast_source_up{source=\"sim\"} 1")?;
    running.write(GOOD)?;
    running.metric("tickcast_config_reload_failed 0")?;
    assert!(running.served.terminate()?.success());
    Ok(())
}

#[test]
fn a_config_that_is_a_fifo_or_too_large_or_too_deep_is_rejected_without_harm() -> Result<()> {
    let running = Running::start()?;
    let file = running.path("feeds.yaml");
    running.write(&"- ".repeat(20_000))?;
    running.until_log("at most 64 levels")?;
    running.write(&format!("{GOOD}#{}", "x".repeat(1 << 20)))?;
    running.until_log("at most 1024 KiB")?;
    std::fs::remove_file(&file)?;
    ensure!(Command::new("mkfifo").arg(&file).status()?.success());
    running.send_sighup()?;
    running.until_log("a FIFO where a regular file is expected")?;
    let path = file.display().to_string();
    let (code, stderr) = run(&["check", &path])?;
    assert!(code == Some(2) && stderr.contains("a FIFO"), "{stderr}");
    assert!(running.served.terminate()?.success());
    Ok(())
}
