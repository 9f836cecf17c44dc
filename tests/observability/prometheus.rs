//! A real Prometheus that scrapes a real server.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tickcast::app::App;
use tickcast::clock::Clock;
use tickcast::config::Config;
use tickcast::tls::SelfSigned;

/// Maximum time for any step on a shared machine.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn path(inside: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(inside)
}

/// True if a program is installed; required under `./check`, which installs it.
pub(crate) fn is_installed(program: &str) -> Result<bool> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join(program).exists());
    let found = found || Path::new(program).exists();
    anyhow::ensure!(
        found || std::env::var_os("TICKCAST_CHECK").is_none(),
        "{program} is missing, although ./check installs it"
    );
    if !found {
        eprintln!("skipped: {program} is not installed; ./check installs it");
    }
    Ok(found)
}

/// Runs the tests one after the other, because they measure.
pub(crate) fn exclusive() -> MutexGuard<'static, ()> {
    static EXCLUSIVE: Mutex<()> = Mutex::new(());
    EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Body of a GET response.
pub(crate) fn get(address: SocketAddr, target: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response
        .split_once("\r\n\r\n")
        .context("malformed HTTP response")?
        .1
        .to_owned())
}

/// Polls until a value is available.
pub(crate) fn until<T>(what: &str, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let clock = Clock::start();
    let begun = clock.now();
    loop {
        if let Some(value) = poll()? {
            return Ok(value);
        }
        if clock.now().since(begun) > DEADLINE {
            bail!("timeout after {DEADLINE:?}: {what}");
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// A server and its runtime.
pub(crate) struct Feed {
    pub(crate) app: Option<App>,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Feed {
    pub(crate) fn start(config: &str) -> Result<Self> {
        let text = format!("listen: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\n{config}");
        let mut config = Config::parse(&text, "test").with_context(|| text.clone())?;
        // Panels on certificates have data.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.use_self_signed(any, SelfSigned::new()?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let app = runtime.block_on(App::start(&config))?;
        let (address, admin) = (
            app.address(),
            app.admin_address()
                .context("the admin listener is enabled")?,
        );
        Ok(Self {
            app: Some(app),
            runtime,
            address,
            admin,
        })
    }
}

/// Prometheus process.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Scales minutes and hours of the rules down to seconds, so that a test need not wait for them.
pub(crate) fn scaled_down(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (slow, fast) in [
        ("5m", "4s"),
        ("30m", "6s"),
        ("1h", "5s"),
        ("6h", "8s"),
        ("10m", "8s"),
        ("1m", "4s"),
    ] {
        text = text.replace(&format!("[{slow}]"), &format!("[{fast}]"));
    }
    text.lines()
        .map(|line| {
            if line.trim_start().starts_with("for: ") {
                "        for: 1s"
            } else {
                line
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

impl Prometheus {
    /// Scrapes twice a second with the project's own config and scaled-down rules.
    pub(crate) fn start(admin: SocketAddr) -> Result<Self> {
        Self::start_with(&[admin])
    }

    /// Scrapes several servers.
    pub(crate) fn start_with(servers: &[SocketAddr]) -> Result<Self> {
        let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
        let folder = tempfile::tempdir()?;
        let file = |name: &str| std::fs::read_to_string(path("dashboards/prometheus").join(name));
        let config = file("prometheus.yml")?
            .replace("tickcast:8081", &servers.join("\", \""))
            .replace("scrape_interval: 5s", "scrape_interval: 500ms")
            .replace("evaluation_interval: 15s", "evaluation_interval: 500ms")
            .replace("scrape_timeout: 4s", "scrape_timeout: 500ms");
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        for name in ["rules.yml", "alerts.yml"] {
            std::fs::write(folder.path().join(name), scaled_down(&file(name)?))?;
        }
        // If another process takes the port meanwhile, the start fails with an error.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .args(["--query.lookback-delta=5s", "--log.level=error"])
            .stdout(Stdio::null())
            .spawn()?;
        let prometheus = Self {
            child,
            address,
            _folder: folder,
        };
        until("Prometheus is ready", || {
            Ok(get(prometheus.address, "/-/ready")
                .ok()
                .filter(|text| text.contains("Ready")))
        })?;
        Ok(prometheus)
    }

    /// Current values of a query.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(byte.into());
            } else {
                write!(encoded, "%{byte:02X}")?;
            }
        }
        let response: Value = serde_json::from_str(&get(
            self.address,
            &format!("/api/v1/query?query={encoded}"),
        )?)?;
        anyhow::ensure!(response["status"] == "success", "{query}: {response}");
        let value = |one: &Value| {
            let number = one["value"][1]
                .as_str()
                .and_then(|text| text.parse().ok())
                .context("expected a number")?;
            Ok((one["metric"].clone(), number))
        };
        response["data"]["result"]
            .as_array()
            .context("expected a vector")?
            .iter()
            .map(value)
            .collect()
    }

    /// Waits until an alert fires and returns its labels.
    pub(crate) fn alert(&self, name: &str) -> Result<Value> {
        until(&format!("{name} fires"), || {
            Ok(self
                .query(&format!(
                    "ALERTS{{alertname=\"{name}\",alertstate=\"firing\"}}"
                ))?
                .pop()
                .map(|(labels, _)| labels))
        })
    }

    /// Alerts that fire now.
    pub(crate) fn firing(&self) -> Result<Vec<String>> {
        let firing = self.query("ALERTS{alertstate=\"firing\"}")?;
        Ok(firing
            .iter()
            .map(|(labels, _)| labels["alertname"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}
