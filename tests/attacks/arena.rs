//! Arena of an attack: a server process, healthy clients with their own accounts, and what the
//! attack cost.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::client::{Accounts, Client};
use tickcast::clock::Clock;
use tickcast::market::UnixNanos;
use tickcast::protocol::{Control, Encoding, Op, ServerMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Maximum time for any step on a shared machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Clock ticks per second in `/proc`.
const TICKS: f64 = 100.0;
/// Memory of a process without clients, which the memory formula does not contain.
pub(crate) const BASE_BYTES: f64 = 256.0 * 1024.0 * 1024.0;

/// Longest turn of a shard, in seconds, on a machine of its own.
pub(crate) const TURN_MAX: f64 = 0.02;

/// True for the long versions of the attacks (`./check --full`).
pub(crate) fn is_full() -> bool {
    std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1")
}

/// Server process under attack.
pub(crate) struct Target {
    child: Child,
    pub(crate) feed: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Feed with TLS, of a server that has one.
    pub(crate) secure: Option<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Drop for Target {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Market of five instruments with 500 events per second, and other sections of a config.
pub(crate) fn market(rest: &str) -> String {
    let instruments: Vec<String> = (1..=5)
        .map(|n| format!("{{symbol: S{n}, start: 100, rate: 100/s, stale_after: 1h}}"))
        .collect();
    format!(
        "sources: [{{name: sim, kind: sim, seed: 7, stale_after: 1h, instruments: [{}]}}]\n{rest}\n",
        instruments.join(", ")
    )
}

impl Target {
    pub(crate) fn start(config: &str) -> Result<Self> {
        Self::start_with(config, "", "")
    }

    /// Starts a server that also listens with TLS.
    pub(crate) fn start_secure(config: &str, before: &str) -> Result<Self> {
        Self::start_with(config, before, "--self-signed --tls-listen 127.0.0.1:0")
    }

    /// Starts a server with further arguments; `before` is run by its shell first, e.g. `ulimit -n
    /// 100`.
    pub(crate) fn start_with(config: &str, before: &str, arguments: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("feeds.yaml");
        std::fs::write(&file, config)?;
        let before = if before.is_empty() { ":" } else { before };
        let script = format!(
            "{before}; exec {} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --config {} {arguments}",
            env!("CARGO_BIN_EXE_tickcast"),
            file.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            // As by default. The first trace of a panic reads the symbols of the program, for a third
            // of a second.
            .env_remove("RUST_BACKTRACE")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let [mut feed, mut secure, mut admin] = [None, None, None];
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            for (address, start) in [
                (&mut feed, "feed     ws://"),
                (&mut secure, "feed     wss://"),
                (&mut admin, "metrics  http://"),
            ] {
                if let Some(rest) = line.trim().strip_prefix(start) {
                    let text = rest.split('/').next().context("an address")?;
                    *address = Some(text.parse()?);
                }
            }
            // The addresses of feeds come first.
            if admin.is_some() {
                break;
            }
        }
        let (Some(feed), Some(admin)) = (feed, admin) else {
            let log = std::fs::read_to_string(folder.path().join("log"))?;
            anyhow::bail!("the server did not start: {log}");
        };
        Ok(Self {
            child,
            feed,
            admin,
            secure,
            folder,
        })
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.log_file())?)
    }

    /// Number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Begins a graceful shutdown.
    pub(crate) fn terminate(&self) -> Result<()> {
        let number = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &number]).status()?;
        ensure!(sent.success(), "no signal was sent");
        Ok(())
    }

    /// Waits for the end of a graceful shutdown.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }

    /// Replaces the config file, which the server notices.
    pub(crate) fn reconfigure(&self, config: &str) -> Result<()> {
        let (file, new) = (
            self.folder.path().join("feeds.yaml"),
            self.folder.path().join("new"),
        );
        std::fs::write(&new, config)?;
        Ok(std::fs::rename(new, file)?)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("a command in parentheses")?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || -> Result<f64> { Ok(fields.next().context("a field")?.parse()?) };
        Ok(Duration::from_secs_f64((ticks()? + ticks()?) / TICKS))
    }

    /// Largest resident memory so far, in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.context("a peak")?.trim().trim_end_matches("kB").trim();
        Ok(kilobytes.parse::<f64>()? * 1024.0)
    }

    pub(crate) async fn metrics(&self) -> Result<String> {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let response = exchange(self.admin, request.as_bytes()).await?;
        ensure!(response.starts_with("HTTP/1.1 200 "), "{response}");
        Ok(response)
    }

    /// Value of a metric: the largest of its labels that contain `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let of_name = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(label))
        };
        let values = text.lines().filter(of_name);
        let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.fold(0.0, f64::max))
    }

    /// Number of refused handshakes for a reason.
    pub(crate) async fn refused(&self, reason: &str) -> Result<f64> {
        self.metric(
            "tickcast_handshakes_rejected_total",
            &format!("reason=\"{reason}\""),
        )
        .await
    }

    /// Waits until a metric has at least a value.
    pub(crate) async fn until(&self, name: &str, label: &str, least: f64) -> Result<()> {
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while self.metric(name, label).await? < least {
                looks.tick().await;
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .with_context(|| format!("timeout waiting for {name} {label} >= {least}"))?
    }

    /// Waits until a metric has at most a value.
    pub(crate) async fn until_at_most(&self, name: &str, label: &str, most: f64) -> Result<()> {
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while self.metric(name, label).await? > most {
                looks.tick().await;
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, waiting)
            .await
            .with_context(|| format!("timeout waiting for {name} {label} <= {most}"))?
    }
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    exchange_over(TcpStream::connect(address).await?, bytes).await
}

/// Sends bytes over a connection and reads until the other side closes.
pub(crate) async fn exchange_over(mut stream: TcpStream, bytes: &[u8]) -> Result<String> {
    // A refused client may find its connection closed.
    let _sent = stream.write_all(bytes).await;
    let mut response = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut response)).await?;
    // A reset after the response is an end too.
    if response.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// Connection from another loopback address: 127.0.0.`host`.
pub(crate) async fn connect_from(host: u8, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(Ipv4Addr::new(127, 0, 0, host)), 0).into())?;
    Ok(socket.connect(to).await?)
}

/// Handshake with further header lines.
pub(crate) fn handshake(lines: &str) -> String {
    format!(
        "GET /v1/feed?encoding=json HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// Sends a handshake; returns the connection behind the head of the response, and its status.
pub(crate) async fn open(mut stream: TcpStream, lines: &str) -> Result<(TcpStream, u16)> {
    let _sent = stream.write_all(handshake(lines).as_bytes()).await;
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, reading).await??;
    let status = head.get(9..12).context("a status")?;
    Ok((stream, std::str::from_utf8(status)?.parse()?))
}

/// Open WebSocket from 127.0.0.`host`, as a plain socket.
pub(crate) async fn websocket(target: &Target, host: u8) -> Result<TcpStream> {
    let (stream, status) = open(connect_from(host, target.feed).await?, "").await?;
    ensure!(status == 101, "{status}");
    Ok(stream)
}

/// Frame of a client with a mask of zeros.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = match length {
        0..126 => vec![first, 0x80 | length as u8],
        126..0x1_0000 => [&[first, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, 0xff][..], &(length as u64).to_be_bytes()].concat(),
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Reads the frames of the server up to its close frame; returns the code, or 0 if the connection
/// ended without one.
pub(crate) async fn close_code(stream: &mut TcpStream) -> Result<u16> {
    let reading = async {
        loop {
            let Ok(first) = stream.read_u8().await else {
                return 0;
            };
            let length = match stream.read_u8().await {
                Ok(126) => stream.read_u16().await.map(u64::from),
                Ok(127) => stream.read_u64().await,
                Ok(length) => Ok(length.into()),
                Err(error) => Err(error),
            };
            let mut payload = vec![0; length.unwrap_or(0) as usize];
            if stream.read_exact(&mut payload).await.is_err() {
                return 0;
            }
            if let (0x88, [high, low, ..]) = (first, &payload[..]) {
                return u16::from_be_bytes([*high, *low]);
            }
        }
    };
    Ok(tokio::time::timeout(DEADLINE, reading).await?)
}

/// Latency of an event in nanoseconds, with the phase in which it was received.
pub(crate) type Latency = (usize, u64);

/// Healthy clients beside an attack.
pub(crate) struct Healthy {
    is_over: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<Vec<Latency>>>>,
}

impl Healthy {
    /// Connects clients from addresses of their own and subscribes them to everything.
    pub(crate) async fn start(target: &Target) -> Result<Self> {
        let (is_over, phase) = (Arc::default(), Arc::default());
        let mut clients = Vec::new();
        for (host, encoding) in [(201, Encoding::Json), (202, Encoding::Msgpack)] {
            let stream = connect_from(host, target.feed).await?;
            let mut client = Client::over(stream, encoding).await?;
            client.subscribe(&["trade:*", "quote:*"]).await?;
            let (is_over, phase) = (Arc::clone(&is_over), Arc::clone(&phase));
            clients.push(tokio::spawn(async move {
                serve(client, &is_over, &phase).await
            }));
        }
        Ok(Self {
            is_over,
            phase,
            clients,
        })
    }

    /// Begins a phase, with which latencies are marked from now on.
    pub(crate) fn begin(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Ends the clients; returns their latencies. Fails if a ledger does not balance or an event was
    /// lost.
    pub(crate) async fn end(self) -> Result<Vec<Latency>> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for client in self.clients {
            latencies.extend(tokio::time::timeout(DEADLINE, client).await???);
        }
        ensure!(!latencies.is_empty(), "no event was delivered");
        Ok(latencies)
    }
}

/// The 99th percentile of latencies.
pub(crate) fn p99(latencies: impl Iterator<Item = u64>) -> Result<Duration> {
    let mut latencies: Vec<u64> = latencies.collect();
    latencies.sort_unstable();
    let p99 = latencies.get(latencies.len() * 99 / 100);
    Ok(Duration::from_nanos(*p99.context("no latencies")?))
}

/// Reads until the attack is over, then compares the ledgers; returns the latencies.
async fn serve(
    mut client: Client,
    is_over: &AtomicBool,
    phase: &AtomicUsize,
) -> Result<Vec<Latency>> {
    let (clock, mut accounts, mut latencies) = (Clock::start(), Accounts::default(), Vec::new());
    let mut is_asked = false;
    loop {
        let message = tokio::time::timeout(DEADLINE, client.next()).await??;
        accounts.take(&message)?;
        match &message {
            ServerMessage::Events(events) => {
                let now = clock.now();
                let phase = phase.load(Ordering::Relaxed);
                let latency = |tx: UnixNanos| (phase, now.0.saturating_sub(tx.0));
                latencies.extend(events.iter().map(|event| latency(event.tx)));
            }
            ServerMessage::Control(Control::Ledger(ledger)) => {
                let lost: u64 = ledger.topics.iter().map(|topic| topic.lost).sum();
                ensure!(lost == 0, "{lost} events of a healthy client were lost");
                return Ok(latencies);
            }
            ServerMessage::Control(Control::Bye(bye)) => {
                anyhow::bail!("a healthy client was closed: {bye:?}")
            }
            ServerMessage::Control(_) => {}
        }
        if !is_asked && is_over.load(Ordering::Relaxed) {
            is_asked = true;
            client.request(Op::Ledger).await?;
        }
    }
}

/// Bounds and metrics of an attack.
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    /// Metric that must grow, with a part of its labels.
    pub(crate) metric: (&'a str, &'a str),
}

pub(crate) const REFUSED: &str = "tickcast_handshakes_rejected_total";
pub(crate) const CLOSED: &str = "tickcast_connections_closed_total";
pub(crate) const REQUEST_ERRORS: &str = "tickcast_request_errors_total";

/// Runs an attack beside healthy clients and checks what it cost: their ledgers balance, the
/// processor time and memory are bounded, no thread has panicked, and a metric names it.
pub(crate) async fn attack<F: Future<Output = Result<()>>>(
    target: &Target,
    expected: Expected<'_>,
    run: impl FnOnce() -> F,
) -> Result<()> {
    let healthy = Healthy::start(target).await?;
    let (metric, label) = expected.metric;
    let before = target.metric(metric, label).await?;
    let (clock, cpu) = (Clock::start(), target.cpu()?);
    let begun = clock.now();
    run().await.with_context(|| expected.name.to_owned())?;
    let (time, cpu) = (clock.now().since(begun), target.cpu()?.saturating_sub(cpu));
    let latencies = healthy.end().await;
    let latencies = latencies.with_context(|| expected.name.to_owned())?;
    let p99 = p99(latencies.into_iter().map(|(_, latency)| latency))?;
    let after = target.metric(metric, label).await?;
    ensure!(
        after > before,
        "{}: {metric} {label} did not grow",
        expected.name
    );
    let turn = target
        .metric("tickcast_shard_turn_duration_max_seconds", "")
        .await?;
    let peak = target.peak_bytes()?;
    let bound = target.metric("tickcast_memory_bound_bytes", "").await? + BASE_BYTES;
    let megabytes = peak / 1024.0 / 1024.0;
    eprintln!(
        "{}: {:.0} ms of processor per second, longest turn {:.1} ms, peak {megabytes:.0} MiB, p99 {:.1} ms",
        expected.name,
        cpu.as_secs_f64() / time.as_secs_f64() * 1e3,
        turn * 1e3,
        p99.as_secs_f64() * 1e3,
    );
    // A shared machine interrupts a turn for longer than any request takes.
    let longest = if is_full() { TURN_MAX } else { TURN_MAX * 25.0 };
    ensure!(turn < longest, "{}: a turn of {turn} s", expected.name);
    ensure!(peak < bound, "{}: {megabytes:.0} MiB", expected.name);
    let log = target.log()?;
    let is_provoked = metric == "tickcast_panics_total";
    ensure!(
        is_provoked || !log.contains("panicked"),
        "{}: {log}",
        expected.name
    );
    Ok(())
}
