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
    /// Sends a signal, e.g. `-STOP`.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let id = self.child.id().to_string();
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

/// Folder and NATS server of a cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    nats: Option<Process>,
    nats_address: SocketAddr,
}

/// The NATS server, where `./check` has installed it; `None` outside of it.
pub(crate) fn nats_server() -> Result<Option<PathBuf>> {
    let installed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.deps/python/bin/nats-server");
    if installed.exists() {
        return Ok(Some(installed));
    }
    ensure!(
        std::env::var_os("TICKCAST_CHECK").is_none(),
        "nats-server is not installed"
    );
    eprintln!("skipped: nats-server is not installed; ./check installs it");
    Ok(None)
}

impl Cluster {
    /// Starts a NATS server; `None` where there is none.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(program) = nats_server()? else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let nats = start_nats(&program, folder.path(), any)?;
        Ok(Some(Self {
            nats_address: nats.address,
            nats: Some(nats),
            folder,
        }))
    }

    /// Ends the NATS server without warning.
    pub(crate) fn crash_nats(&mut self) -> Result<()> {
        self.nats.take().context("NATS is running")?.crash()
    }

    /// Starts the NATS server again, at its address and with its files.
    pub(crate) fn restart_nats(&mut self) -> Result<()> {
        let program = nats_server()?.context("it was there")?;
        self.nats = Some(start_nats(&program, self.folder.path(), self.nats_address)?);
        Ok(())
    }

    /// Copies the files of the NATS server, which does not run.
    pub(crate) fn save_nats_files(&self) -> Result<()> {
        ensure!(self.nats.is_none(), "NATS is running");
        copy(&self.nats_files(), &self.saved_files())
    }

    /// Puts the copied files back: NATS has forgotten what it has stored since. Without a copy, it
    /// has forgotten everything.
    pub(crate) fn set_back_nats_files(&self) -> Result<()> {
        ensure!(self.nats.is_none(), "NATS is running");
        std::fs::remove_dir_all(self.nats_files())?;
        if self.saved_files().exists() {
            copy(&self.saved_files(), &self.nats_files())?;
        }
        Ok(())
    }

    fn nats_files(&self) -> PathBuf {
        self.folder.path().join("jetstream")
    }

    fn saved_files(&self) -> PathBuf {
        self.folder.path().join("saved")
    }

    /// Starts a publisher with these sources.
    pub(crate) fn publisher(&self, node: &str, sources: &str) -> Result<Process> {
        self.configure(node, PUBLISHER, &format!("sources: {sources}\n"))?;
        self.server(node)
    }

    /// Starts a publisher with these sources and lease.
    pub(crate) fn with_lease(&self, node: &str, sources: &str, lease: &str) -> Result<Process> {
        let cluster = PUBLISHER.replace("lease: 500ms", &format!("lease: {lease}"));
        self.configure(node, &cluster, &format!("sources: {sources}\n"))?;
        self.server(node)
    }

    /// Starts a publisher with these sources and checkpoints.
    pub(crate) fn checkpointing(
        &self,
        node: &str,
        sources: &str,
        checkpoints: &str,
    ) -> Result<Process> {
        let cluster = format!("{PUBLISHER}, checkpoints: {{{checkpoints}}}");
        self.configure(node, &cluster, &format!("sources: {sources}\n"))?;
        self.server(node)
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
        self.configure(node, &cluster, &format!("sources: {sources}\n{rest}"))?;
        self.server(node)
    }

    /// Starts a gateway with more sections of the config.
    pub(crate) fn gateway_with(&self, node: &str, rest: &str) -> Result<Process> {
        self.configure(node, GATEWAY, rest)?;
        self.server(node)
    }

    /// Starts a server without a cluster.
    pub(crate) fn standalone(&self, name: &str, rest: &str) -> Result<Process> {
        let config = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{rest}");
        std::fs::write(self.config_file(name), config)?;
        self.server(name)
    }

    /// Sends a signal to the NATS server.
    pub(crate) fn signal_nats(&self, signal: &str) -> Result<()> {
        let nats = self.nats.as_ref().context("NATS is running")?;
        nats.signal(signal)
    }

    /// Replaces the sources in the config of a publisher.
    pub(crate) fn replace_sources(&self, node: &str, sources: &str) -> Result<()> {
        self.configure(node, PUBLISHER, &format!("sources: {sources}\n"))
    }

    /// Starts a gateway.
    pub(crate) fn gateway(&self, node: &str) -> Result<Process> {
        self.configure(node, GATEWAY, "")?;
        self.server(node)
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
        let client = async_nats::connect(self.nats_address.to_string()).await?;
        Ok(jetstream::new(client))
    }

    fn config_file(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.yaml"))
    }

    /// Config of a publisher with these sources.
    pub(crate) fn publisher_config(&self, sources: &str) -> String {
        self.config("a", PUBLISHER, &format!("sources: {sources}\n"))
    }

    fn config(&self, node: &str, cluster: &str, rest: &str) -> String {
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nshards: 1\n\
             cluster: {{{cluster}, node: {node}, nats: {{urls: [\"nats://{}\"]}}}}\n{rest}",
            self.nats_address
        )
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

fn start_nats(program: &Path, folder: &Path, at: SocketAddr) -> Result<Process> {
    let ports = folder.join("ports");
    std::fs::create_dir_all(&ports)?;
    let port = if at.port() == 0 {
        "-1".to_owned()
    } else {
        at.port().to_string()
    };
    let log = folder.join("nats.log");
    let child = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port, "-js"])
        .arg("--store_dir")
        .arg(folder.join("jetstream"))
        .arg("--ports_file_dir")
        .arg(&ports)
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()?;
    let file = ports.join(format!("nats-server_{}.ports", child.id()));
    let mut nats = Process {
        child,
        address: at,
        admin: at,
        log,
    };
    nats.address = wait_for("address of NATS", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let address = text.split("nats://").nth(1);
        Ok(address.and_then(|rest| rest.split('"').next()?.parse().ok()))
    })?;
    nats.logs("Server is ready")?;
    Ok(nats)
}
