//! NATS servers of a cluster: one, or several that keep the log together.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::process::{Process, wait_for};

/// Interval at which NATS writes its files to the disk, as the deployment files set it.
pub(crate) const SYNC: &str = "1s";

/// A NATS server: running, or with the ports and files that it had.
#[derive(Debug)]
struct Node {
    process: Option<Process>,
    clients: SocketAddr,
    /// Address for the other NATS servers; `None` if it is the only one.
    routes: Option<SocketAddr>,
}

/// The NATS servers of a cluster.
#[derive(Debug)]
pub(crate) struct Nats {
    program: PathBuf,
    folder: PathBuf,
    /// Interval at which the servers write their files to the disk, or `always`.
    sync: String,
    /// Section `authorization` of their config; empty: everybody may do everything.
    users: String,
    nodes: Vec<Node>,
}

/// The program, where `./check` has installed it; `None` outside of it.
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

impl Nats {
    /// Starts this number of servers with their files in `folder`; `None` where the program is not
    /// installed.
    pub(crate) fn start(
        folder: &Path,
        count: usize,
        sync: &str,
        users: &str,
    ) -> Result<Option<Self>> {
        let Some(program) = nats_server()? else {
            return Ok(None);
        };
        let mut nats = Self {
            program,
            folder: folder.to_owned(),
            sync: sync.to_owned(),
            users: users.to_owned(),
            nodes: Vec::new(),
        };
        for routes in routes(count)? {
            nats.nodes.push(Node {
                process: None,
                clients: SocketAddr::from(([127, 0, 0, 1], 0)),
                routes,
            });
        }
        for at in 0..count {
            nats.restart(at)?;
        }
        nats.wait_until_usable()?;
        Ok(Some(nats))
    }

    /// Several servers take streams once they all know their leader.
    fn wait_until_usable(&self) -> Result<()> {
        if self.nodes.len() == 1 {
            return Ok(());
        }
        for node in &self.nodes {
            let process = node.process()?;
            process.logs("metadata leader")?;
        }
        Ok(())
    }

    /// Number of servers.
    pub(crate) const fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Address of the first server for clients.
    pub(crate) fn address(&self) -> SocketAddr {
        self.nodes[0].clients
    }

    /// Addresses of all servers, as a list in YAML.
    pub(crate) fn urls(&self) -> String {
        let url = |node: &Node| format!("\"nats://{}\"", node.clients);
        let urls: Vec<String> = self.nodes.iter().map(url).collect();
        format!("[{}]", urls.join(", "))
    }

    /// Folder with the streams of a server.
    pub(crate) fn files(&self, at: usize) -> PathBuf {
        self.folder.join(format!("nats-{at}"))
    }

    /// Process of a server.
    pub(crate) fn process(&self, at: usize) -> Result<&Process> {
        self.nodes[at].process()
    }

    /// The server with this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        (0..self.nodes.len()).find(|at| name == format!("nats-{at}"))
    }

    /// Ends a server without warning.
    pub(crate) fn crash(&mut self, at: usize) -> Result<()> {
        let process = self.nodes[at].process.take();
        process.context("NATS is running")?.crash()
    }

    /// Starts a server, at its addresses and with its files if it ran before.
    pub(crate) fn restart(&mut self, at: usize) -> Result<()> {
        let name = format!("nats-{at}");
        let ports = self.folder.join("ports");
        std::fs::create_dir_all(&ports)?;
        let file = self.folder.join(format!("{name}.conf"));
        std::fs::write(&file, self.config(at, &ports))?;
        let log = self.folder.join(format!("{name}.log"));
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        let written = ports.join(format!("nats-server_{}.ports", child.id()));
        let node = &mut self.nodes[at];
        let mut process = Process::new(child, node.clients, log);
        node.clients = wait_for("address of NATS", || {
            let text = std::fs::read_to_string(&written).unwrap_or_default();
            let address = text.split("nats://").nth(1);
            Ok(address.and_then(|rest| rest.split('"').next()?.parse().ok()))
        })?;
        process.address = node.clients;
        // Several servers are ready once they have found each other.
        if self.nodes.len() == 1 {
            process.logs("Server is ready")?;
        }
        self.nodes[at].process = Some(process);
        Ok(())
    }

    fn config(&self, at: usize, ports: &Path) -> String {
        let node = &self.nodes[at];
        let port = match node.clients.port() {
            // Any free one.
            0 => -1,
            port => i32::from(port),
        };
        let others = self.nodes.iter().filter_map(|other| other.routes);
        let others = others.filter(|other| Some(*other) != node.routes);
        let urls: Vec<String> = others.map(|at| format!("\"nats://{at}\"")).collect();
        let urls = urls.join(", ");
        let cluster = node.routes.map_or_else(String::new, |own| {
            format!("cluster {{ name: test, listen: \"{own}\", routes: [{urls}] }}\n")
        });
        format!(
            "server_name: nats-{at}\nhost: 127.0.0.1\nport: {port}\nports_file_dir: \"{}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: \"{}\" }}\n{cluster}{}",
            ports.display(),
            self.files(at).display(),
            self.sync,
            self.users,
        )
    }
}

impl Node {
    fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("NATS is running")
    }
}

/// Addresses that are free now, for the connections between several servers.
fn routes(count: usize) -> Result<Vec<Option<SocketAddr>>> {
    if count == 1 {
        return Ok(vec![None]);
    }
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let bound: Vec<TcpListener> = (0..count).map(bind).collect::<std::io::Result<_>>()?;
    let address = |listener: &TcpListener| listener.local_addr().map(Some);
    Ok(bound.iter().map(address).collect::<std::io::Result<_>>()?)
}
