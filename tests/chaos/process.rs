//! The server as a process: started, stopped, killed and paused.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Library that changes the wall clock of a process.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Folder with the files of the server.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("wall_clock"), "+0\n")?;
        Ok(Self { folder })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Complete standard error of all runs.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.file("log"))?)
    }

    /// Writes a new certificate with its key.
    pub(crate) fn renew_certificate(&self) -> Result<()> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        std::fs::write(self.file("key.pem"), made.signing_key.serialize_pem())?;
        Ok(std::fs::write(self.file("cert.pem"), made.cert.pem())?)
    }

    /// True if the wall clock of the server can be stepped.
    pub(crate) fn has_wall_clock() -> bool {
        Path::new(FAKETIME).exists()
    }

    /// Steps the wall clock of the server: its difference from that of the machine, in seconds.
    pub(crate) fn step_wall_clock(&self, seconds: i64) -> Result<()> {
        Ok(std::fs::write(
            self.file("wall_clock"),
            format!("{seconds:+}\n"),
        )?)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) addresses: Addresses,
}

/// Addresses of a server, which keeps them over restarts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Server {
    /// Starts a server with the files of the folder; waits until it listens.
    pub(crate) fn start(folder: &Folder, at: Addresses) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.file("log"))?;
        Self::start_with(folder, at, log)
    }

    fn start_with(folder: &Folder, at: Addresses, log: File) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tickcast"));
        command
            .args(["serve", "--admin", "off"])
            .args(["--listen", &at.plain.to_string()])
            .args(["--tls-listen", &at.tls.to_string()])
            .arg("--config")
            .arg(folder.file("feeds.yaml"))
            .arg("--state-dir")
            .arg(folder.file("state"))
            .stdout(Stdio::piped())
            .stderr(log);
        if Folder::has_wall_clock() {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME_TIMESTAMP_FILE", folder.file("wall_clock"))
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let mut banner = String::new();
        while !banner.contains("files") {
            let Some(line) = lines.next() else {
                let log = std::fs::read_to_string(folder.file("log"))?;
                let reason = log.lines().last().unwrap_or_default();
                bail!("the server ended before it listened: {reason}");
            };
            banner.push_str(&line?);
            banner.push('\n');
        }
        let addresses = Addresses {
            plain: address(&banner, "ws://")?,
            tls: address(&banner, "wss://")?,
        };
        Ok(Self { child, addresses })
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args([signal, &id]).status()?;
        Ok(())
    }

    /// True unless the process has ended by itself.
    pub(crate) fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Stops it gracefully.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.signal("-TERM")?;
        Ok(self.child.wait()?)
    }

    /// Ends it without warning.
    pub(crate) fn crash(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn address(banner: &str, scheme: &str) -> Result<SocketAddr> {
    let behind = banner.split(scheme).nth(1);
    let address = behind.and_then(|rest| rest.split('/').next());
    Ok(address.context("missing address")?.parse()?)
}
