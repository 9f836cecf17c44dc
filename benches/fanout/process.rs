//! A server in a process of its own, pinned to one core, and what that process costs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::setup::Cores;

/// Ticks of `/proc/*/stat` a second.
const TICKS_PER_S: f64 = 100.0;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tickcast,
    /// tickcast, and clients that connect with TLS.
    Tls,
    Bare,
    Naive,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tickcast => "tickcast",
            Self::Tls => "tls",
            Self::Bare => "bare",
            Self::Naive => "naive",
        }
    }
}

/// True for the threads that own sockets; all others belong to the generator.
pub(crate) fn is_serving(thread: &str) -> bool {
    thread.starts_with("shard") || thread.starts_with("server")
}

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
        }
    }
    pub(crate) fn all(self) -> f64 {
        self.user + self.system
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Address for clients, with or without TLS.
    pub(crate) feed: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(kind: Kind, config: &Path, cores: &Cores) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", &cores.server_list()]);
        match kind {
            Kind::Tickcast => command
                .arg(env!("CARGO_BIN_EXE_tickcast"))
                .arg("serve")
                .arg("--config")
                .arg(config),
            Kind::Tls => command
                .arg(env!("CARGO_BIN_EXE_tickcast"))
                .args(["serve", "--self-signed", "--tls-listen", "127.0.0.1:0"])
                .arg("--config")
                .arg(config),
            _ => command
                .arg(std::env::current_exe()?)
                .args(["--serve", kind.name()])
                .arg(config),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("taskset is of util-linux")?;
        let lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let (mut address, mut with_tls) = (None, None);
        for line in lines {
            let line = line?;
            let parsed = |scheme| line.split(scheme).nth(1)?.split('/').next()?.parse().ok();
            address = address.or_else(|| parsed("ws://"));
            with_tls = with_tls.or_else(|| parsed("wss://"));
            if line.contains("files") {
                break;
            }
        }
        let address =
            address.with_context(|| format!("{} ended before it listened", kind.name()))?;
        let feed = match kind {
            Kind::Tls => with_tls.context("no address with TLS")?,
            _ => address,
        };
        Ok(Self {
            child,
            address,
            feed,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far: of the threads that serve, and of the others, which generate.
    pub(crate) fn cpu(&self) -> Result<(Cpu, Cpu)> {
        let (mut serving, mut generating) = (Cpu::default(), Cpu::default());
        for (name, cpu) in self.threads()? {
            let sum = if is_serving(&name) {
                &mut serving
            } else {
                &mut generating
            };
            sum.user += cpu.user;
            sum.system += cpu.system;
        }
        Ok((serving, generating))
    }

    /// Ids of the threads that serve.
    pub(crate) fn serving_threads(&self) -> Result<Vec<u32>> {
        let mut threads = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?;
            if is_serving(&std::fs::read_to_string(task.path().join("comm"))?) {
                threads.push(task.file_name().to_string_lossy().parse()?);
            }
        }
        Ok(threads)
    }

    fn threads(&self) -> Result<BTreeMap<String, Cpu>> {
        let mut threads = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread may end while it is looked at.
            let Ok(stat) = std::fs::read_to_string(task?.path().join("stat")) else {
                continue;
            };
            let (name, rest) = stat.rsplit_once(") ").context("a stat line")?;
            let name = name
                .split_once('(')
                .context("a thread's name")?
                .1
                .to_owned();
            let fields: Vec<&str> = rest.split(' ').collect();
            let ticks = |at: usize| {
                fields
                    .get(at)
                    .and_then(|field| field.parse::<f64>().ok())
                    .unwrap_or(0.0)
                    / TICKS_PER_S
            };
            let cpu: &mut Cpu = threads.entry(name).or_default();
            cpu.user += ticks(11);
            cpu.system += ticks(12);
        }
        Ok(threads)
    }

    /// Value of a metric without labels; only tickcast has any.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let mut stream = TcpStream::connect(self.address)?;
        let host = self.address;
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.with_context(|| format!("no metric {name} in {text:.200}"))?;
        Ok(value.parse()?)
    }

    /// Memory now, and at its highest, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim_start_matches(':')
                .trim()
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        };
        Ok((
            kib("VmRSS").unwrap_or(0) * 1024,
            kib("VmHWM").unwrap_or(0) * 1024,
        ))
    }
}
