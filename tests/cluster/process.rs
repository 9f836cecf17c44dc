//! Processes of a cluster on this machine: NATS servers, publishers and gateways.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::{self, Context};
use tickcast::clock::Clock;

use super::nats::{Nats, SYNC};

/// Maximum wait for anything that a process does.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks at a file or a process.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `look` finds something.
#[expect(
    clippy::disallowed_methods,
    reason = "another process and its files give no event to wait for"
)]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let clock = Clock::start();
    let until = clock.now().plus(DEADLINE);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(clock.now() < until, "no {what} within {DEADLINE:?}");
        std::thread::sleep(POLL);
    }
}

/// A child process, which ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Address of the metrics; of NATS, that of its clients.
    pub(crate) admin: SocketAddr,
    log: PathBuf,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Process {
    /// A process with the same address for everything.
    pub(crate) const fn new(child: Child, address: SocketAddr, log: PathBuf) -> Self {
        Self {
            child,
            address,
            admin: address,
            log,
        }
    }

    /// Number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, e.g. `-STOP`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let id = self.id().to_string();
        ensure!(Command::new("kill").args([signal, &id]).status()?.success());
        Ok(())
    }

    /// Ends the process without warning.
    pub(crate) fn crash(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops the process gracefully.
    pub(crate) fn stop(mut self) -> Result<ExitStatus> {
        self.signal("-TERM")?;
        Ok(self.child.wait()?)
    }

    /// Waits until the process ends by itself.
    pub(crate) fn ended(&mut self) -> Result<ExitStatus> {
        wait_for("end of the process", || Ok(self.child.try_wait()?))
    }

    /// True if the process has ended.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Log of the process so far.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn logs(&self, text: &str) -> Result<()> {
        let found = wait_for(text, || {
            let log = std::fs::read_to_string(&self.log)?;
            Ok(log.contains(text).then_some(()))
        });
        found.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }
}

const PUBLISHER: &str = "role: publisher, lease: 500ms, stale_after: 500ms, buffer: 4MiB, log: {replicas: 1, bytes: 64MiB}";
const GATEWAY: &str = "role: gateway, stale_after: 500ms";

/// Folder and NATS servers of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    pub(crate) nats: Nats,
}

impl Cluster {
    /// Starts a NATS server; `None` where there is none.
    pub(crate) fn start() -> Result<Option<Self>> {
        Self::with_nats(1, SYNC)
    }

    /// Starts this number of NATS servers, all of which keep the log.
    pub(crate) fn with_nats(count: usize, sync: &str) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let nats = Nats::start(folder.path(), count, sync, "")?;
        Ok(nats.map(|nats| Self { folder, nats }))
    }

    /// Starts a NATS server with this section `authorization`.
    pub(crate) fn with_users(users: &str) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let nats = Nats::start(folder.path(), 1, SYNC, users)?;
        Ok(nats.map(|nats| Self { folder, nats }))
    }

    /// Keys of section `cluster.nats` of a server with a user and a password.
    pub(crate) fn login(&self, user: &str, password: &str) -> Result<String> {
        let file = self.folder.path().join(format!("{user}.password"));
        std::fs::write(&file, password)?;
        Ok(format!("user: {user}, password_file: {}", file.display()))
    }

    /// Ends the NATS server without warning.
    pub(crate) fn crash_nats(&mut self) -> Result<()> {
        self.nats.crash(0)
    }

    /// Starts the NATS server again, at its address and with its files.
    pub(crate) fn restart_nats(&mut self) -> Result<()> {
        self.nats.restart(0)
    }

    /// Ends the NATS server, copies its files, and starts it again.
    pub(crate) fn save_nats(&mut self) -> Result<()> {
        self.crash_nats()?;
        copy(&self.nats.files(0), &self.saved_files())?;
        self.restart_nats()
    }

    /// Ends the NATS server, puts the copied files back, and starts it again: it has forgotten what it
    /// has stored since. Without a copy, it has forgotten everything.
    pub(crate) fn set_back_nats(&mut self) -> Result<()> {
        self.crash_nats()?;
        std::fs::remove_dir_all(self.nats.files(0))?;
        if self.saved_files().exists() {
            copy(&self.saved_files(), &self.nats.files(0))?;
        }
        self.restart_nats()
    }

    fn saved_files(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    /// Starts a publisher with these sources.
    pub(crate) fn publisher(&self, node: &str, sources: &str) -> Result<Process> {
        self.member(node, PUBLISHER, &format!("sources: {sources}\n"))
    }

    /// Starts a publisher with these sources and lease.
    pub(crate) fn with_lease(&self, node: &str, sources: &str, lease: &str) -> Result<Process> {
        let cluster = PUBLISHER.replace("lease: 500ms", &format!("lease: {lease}"));
        self.member(node, &cluster, &format!("sources: {sources}\n"))
    }

    /// Starts a publisher with these sources and checkpoints.
    pub(crate) fn checkpointing(
        &self,
        node: &str,
        sources: &str,
        checkpoints: &str,
    ) -> Result<Process> {
        let cluster = format!("{PUBLISHER}, checkpoints: {{{checkpoints}}}");
        self.member(node, &cluster, &format!("sources: {sources}\n"))
    }

    /// Starts a publisher with these sources, more keys of section `cluster`, and more sections.
    pub(crate) fn publisher_with(
        &self,
        node: &str,
        sources: &str,
        keys: &str,
        rest: &str,
    ) -> Result<Process> {
        let cluster = format!("{PUBLISHER}, {keys}");
        self.member(node, &cluster, &format!("sources: {sources}\n{rest}"))
    }

    /// Starts a gateway with more sections of the config.
    pub(crate) fn gateway_with(&self, node: &str, rest: &str) -> Result<Process> {
        self.member(node, GATEWAY, rest)
    }

    /// Starts a server without a cluster.
    pub(crate) fn standalone(&self, name: &str, rest: &str) -> Result<Process> {
        let config = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{rest}");
        std::fs::write(self.config_file(name), config)?;
        self.server(name)
    }

    /// Sends a signal to the NATS server.
    pub(crate) fn signal_nats(&self, signal: &str) -> Result<()> {
        self.nats.process(0)?.signal(signal)
    }

    /// Replaces the sources in the config of a publisher.
    pub(crate) fn replace_sources(&self, node: &str, sources: &str) -> Result<()> {
        self.configure(node, PUBLISHER, &format!("sources: {sources}\n"))
    }

    /// Starts a gateway.
    pub(crate) fn gateway(&self, node: &str) -> Result<Process> {
        self.member(node, GATEWAY, "")
    }

    /// Exit code and output of `tickcast cluster status` with the config of a node.
    pub(crate) fn status(&self, node: &str) -> Result<(Option<i32>, String)> {
        self.command(node, &["status"])
    }

    /// Exit code and output of a command of `tickcast cluster` with the config of a node.
    pub(crate) fn command(&self, node: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let output = Command::new(env!("CARGO_BIN_EXE_tickcast"))
            .arg("cluster")
            .args(arguments)
            .arg("--config")
            .arg(self.config_file(node))
            .output()?;
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        Ok((output.status.code(), text))
    }

    /// Starts a gateway whose history has an age.
    pub(crate) fn gateway_with_history(&self, node: &str, age: &str) -> Result<Process> {
        self.configure(
            node,
            GATEWAY,
            &format!("bus: {{history: {{age: {age}}}}}\n"),
        )?;
        self.server(node)
    }

    /// Streams of the NATS server.
    pub(crate) async fn jetstream(&self) -> Result<Context> {
        let client = async_nats::connect(self.nats.address().to_string()).await?;
        Ok(jetstream::new(client))
    }

    fn config_file(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.yaml"))
    }

    /// Config of a publisher with these sources.
    pub(crate) fn publisher_config(&self, sources: &str) -> String {
        self.config("a", PUBLISHER, &format!("sources: {sources}\n"))
    }

    /// Config with these keys of section `cluster` and more sections.
    pub(crate) fn config(&self, node: &str, cluster: &str, rest: &str) -> String {
        let nats = if cluster.contains("nats:") {
            String::new()
        } else {
            format!("nats: {{urls: {}}}", self.nats.urls())
        };
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nshards: 1\n\
             cluster: {{{}, node: {node}, {nats}}}\n{rest}",
            cluster.replace("replicas: 1", &format!("replicas: {}", self.nats.count())),
        )
    }

    /// Starts a server with these keys of section `cluster` and more sections of the config.
    pub(crate) fn member(&self, node: &str, cluster: &str, rest: &str) -> Result<Process> {
        self.configure(node, cluster, rest)?;
        self.server(node)
    }

    fn configure(&self, node: &str, cluster: &str, rest: &str) -> Result<()> {
        let config = self.config(node, cluster, rest);
        Ok(std::fs::write(self.config_file(node), config)?)
    }

    fn server(&self, node: &str) -> Result<Process> {
        let log = self.folder.path().join(format!("{node}.log"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_tickcast"))
            .arg("serve")
            .arg("--config")
            .arg(self.config_file(node))
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut feed = None;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            let Some(rest) = line.split("http://").nth(1) else {
                continue;
            };
            let address = rest.split('/').next().unwrap_or_default();
            let address = address.parse()?;
            // The address of the metrics comes last.
            let Some(feed) = feed else {
                feed = Some(address);
                continue;
            };
            if line.contains("/metrics") {
                return Ok(Process {
                    child,
                    address: feed,
                    admin: address,
                    log,
                });
            }
        }
        child.wait()?;
        bail!("{node} ended: {}", std::fs::read_to_string(&log)?)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cannot copy {}", from.display());
    Ok(())
}
