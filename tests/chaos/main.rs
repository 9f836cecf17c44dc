//! Chaos: a server process whose sources, files, clock and clients fail at random, by one seed.
//!
//! Every connection keeps strict accounts: each loss is named, and the ledger of the server agrees.
//! Over all runs of the server, an epoch and a sequence number never mean two different events.
//! `TICKCAST_SEED` repeats a run as far as the scheduler of the system allows; `./check --full`
//! runs for half an hour.

mod client;
mod process;
mod truth;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tickcast::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use client::{Totals, World};
use process::{Addresses, Folder, Server};
use truth::Truth;

const CLIENTS: u64 = 12;
const DAILY: Duration = Duration::from_secs(30);
const FULL: Duration = Duration::from_secs(1800);

/// Faults of the server and its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Stop and start with the saved state.
    Restart,
    /// End without warning, and start.
    Crash,
    /// Stop, flip a bit of the saved state, and start.
    DamagedState,
    /// Stop, cut the saved state, and start.
    CutState,
    /// Pause of the whole process.
    Pause,
    /// Reload with another set of sources and limits.
    Reload,
    /// Reload with an invalid file.
    InvalidReload,
    /// Reload with a recording that is no recording.
    BrokenRecording,
    /// Step of the wall clock.
    ClockStep,
    /// New certificate.
    Certificate,
    /// Certificate file that is none.
    InvalidCertificate,
    /// Publish requests with invalid bytes.
    Garbage,
    /// Publish requests with valid events.
    Publish,
}

const FAULTS: [Fault; 13] = [
    Fault::Restart,
    Fault::Crash,
    Fault::DamagedState,
    Fault::CutState,
    Fault::Pause,
    Fault::Reload,
    Fault::InvalidReload,
    Fault::BrokenRecording,
    Fault::ClockStep,
    Fault::Certificate,
    Fault::InvalidCertificate,
    Fault::Garbage,
    Fault::Publish,
];

/// The server and everything that happens to it.
struct Conductor {
    folder: Folder,
    server: Option<Server>,
    addresses: Addresses,
    rng: ChaCha8Rng,
    /// Actions so far, for the report of a failure.
    done: Vec<String>,
    version: u32,
}

impl Conductor {
    fn start(seed: u64) -> Result<Self> {
        let folder = Folder::new()?;
        std::fs::create_dir(folder.file("state"))?;
        std::fs::write(folder.file("tape.csv"), recording(500))?;
        // The format of its first lines is right.
        let broken = [recording(5).as_bytes(), &[0xff; 4096]].concat();
        std::fs::write(folder.file("broken.csv"), broken)?;
        std::fs::write(folder.file("feeds.yaml"), config(&folder, 0, "tape.csv"))?;
        folder.renew_certificate()?;
        let any_port = ([127, 0, 0, 1], 0).into();
        let at = Addresses {
            plain: any_port,
            tls: any_port,
        };
        let server = Server::start(&folder, at)?;
        Ok(Self {
            addresses: server.addresses,
            server: Some(server),
            folder,
            rng: ChaCha8Rng::seed_from_u64(seed),
            done: Vec::new(),
            version: 0,
        })
    }

    fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("the server runs")
    }

    async fn inject(&mut self, fault: Fault) -> Result<()> {
        self.done.push(format!("{fault:?}"));
        match fault {
            Fault::Restart => {
                let status = self.take_server()?.stop()?;
                ensure!(status.success(), "a graceful stop ended with {status}");
                self.restart()?;
            }
            Fault::Crash => {
                self.take_server()?.crash()?;
                self.restart()?;
            }
            Fault::DamagedState | Fault::CutState => {
                self.take_server()?.stop()?;
                self.damage_state(fault)?;
                self.restart()?;
            }
            Fault::Pause => {
                let pause = Duration::from_millis(self.rng.random_range(50..1500));
                self.server()?.signal("-STOP")?;
                tokio::time::sleep(pause).await;
                self.server()?.signal("-CONT")?;
            }
            Fault::Reload => {
                self.version += 1;
                self.reload(&config(&self.folder, self.version, "tape.csv"))?;
            }
            Fault::BrokenRecording => {
                self.version += 1;
                self.reload(&config(&self.folder, self.version, "broken.csv"))?;
            }
            Fault::InvalidReload => {
                let text = config(&self.folder, self.version, "tape.csv");
                let invalid = [
                    text.replace("topics: ", "topics: x"),
                    text.replace("sources:", "sources: ["),
                    "[".repeat(5000),
                    String::new(),
                ];
                let chosen = self.rng.random_range(0..invalid.len());
                self.reload(&invalid[chosen])?;
            }
            Fault::ClockStep => {
                let seconds = self.rng.random_range(-7200..7200);
                self.folder.step_wall_clock(seconds)?;
            }
            Fault::Certificate => self.folder.renew_certificate()?,
            Fault::InvalidCertificate => {
                std::fs::write(self.folder.file("cert.pem"), "-----BEGIN")?;
            }
            Fault::Garbage => {
                let mut body = vec![0; self.rng.random_range(1..20_000)];
                self.rng.fill(&mut body[..]);
                self.publish(&body).await;
            }
            Fault::Publish => {
                let mut body = String::new();
                for n in 0..self.rng.random_range(1..50) {
                    let _infallible = writeln!(
                        body,
                        r#"{{"ch":"trade","sym":"P1","px":"{}.5","qty":"1"}}"#,
                        100 + n
                    );
                }
                self.publish(body.as_bytes()).await;
            }
        }
        Ok(())
    }

    fn take_server(&mut self) -> Result<Server> {
        self.server.take().context("the server runs")
    }

    fn restart(&mut self) -> Result<()> {
        // An invalid file on disk would keep the server from starting, as it should.
        let text = config(&self.folder, self.version, "tape.csv");
        std::fs::write(self.folder.file("feeds.yaml"), text)?;
        self.folder.renew_certificate()?;
        self.server = Some(Server::start(&self.folder, self.addresses)?);
        Ok(())
    }

    fn reload(&mut self, config: &str) -> Result<()> {
        std::fs::write(self.folder.file("feeds.yaml"), config)?;
        self.server()?.signal("-HUP")
    }

    fn damage_state(&mut self, fault: Fault) -> Result<()> {
        for file in std::fs::read_dir(self.folder.file("state"))? {
            let path = file?.path();
            let mut bytes = std::fs::read(&path)?;
            if bytes.is_empty() {
                continue;
            }
            let at = self.rng.random_range(0..bytes.len());
            if fault == Fault::CutState {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            std::fs::write(&path, bytes)?;
        }
        Ok(())
    }

    /// Publishes a body; the server may refuse it, or be gone.
    async fn publish(&self, body: &[u8]) {
        let head = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let exchange = async {
            let mut stream = TcpStream::connect(self.addresses.plain).await?;
            stream.write_all(&request).await?;
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await
        };
        // A refusal and a reset are both fine; a hanging server is noticed by its clients.
        let _response = timeout(Duration::from_secs(5), exchange).await;
    }
}

/// Config with simulated, recorded and pushed prices; each version differs.
fn config(folder: &Folder, version: u32, tape: &str) -> String {
    let second = if version.is_multiple_of(2) {
        ", {symbol: S2, start: 50, rate: 40/s, stale_after: 1h}"
    } else {
        ""
    };
    format!(
        "session: {{heartbeat: 250ms}}
drain: {{deadline: 3s, spread: 200ms}}
fanout: {{behind: 700ms, outbox: {outbox}KiB}}
tls: {{listen: 127.0.0.1:0, certificate: {certificate}, key: {key}}}
limits: {{topics: {topics}, requests_per_s: 50}}
sources:
  - {{name: sim, kind: sim, seed: 7, stale_after: 1h, history: 1m, instruments: [{{symbol: S1, start: 100, rate: 100/s, stale_after: 1h}}{second}]}}
  - {{name: tape, kind: replay, files: [\"{tape}\"], loop: true, speed: 1, venue: never}}
  - {{name: in, kind: push, open: true, late: true, instruments: [{{symbol: P1, price_scale: 1, qty_scale: 0}}]}}
",
        outbox = 64 + version % 7 * 16,
        topics = 100 + version,
        tape = folder.file(tape).display(),
        certificate = folder.file("cert.pem").display(),
        key = folder.file("key.pem").display(),
    )
}

/// Trades in a format of recordings, fifty a second.
fn recording(trades: u64) -> String {
    let mut text = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n".to_owned();
    for n in 0..trades {
        let time = 1_700_000_000_000_000 + n * 20_000;
        let _infallible = writeln!(
            text,
            "binance,T1,{time},{time},{n},buy,{}.25,0.5",
            200 + n % 9
        );
    }
    text
}

fn is_full() -> bool {
    std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1")
}

fn seed() -> Result<u64> {
    match std::env::var("TICKCAST_SEED") {
        Ok(text) => Ok(text.parse()?),
        Err(_) if is_full() => Ok(rand::rng().random()),
        Err(_) => Ok(1),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_loss_is_named_and_no_number_means_two_events() -> Result<()> {
    let seed = seed()?;
    let duration = if is_full() { FULL } else { DAILY };
    let mut conductor = Conductor::start(seed)?;
    let (server, watched) = watch::channel(Some(conductor.addresses));
    let world = World {
        truth: Arc::new(Truth::default()),
        totals: Arc::new(Totals::default()),
        server: watched,
    };
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client::run(number, seed, world.clone()));
    }
    let clock = Clock::start();
    let end = clock.now().plus(duration);
    while clock.now() < end && world.truth.failures().is_empty() {
        let pause = Duration::from_millis(conductor.rng.random_range(100..1500));
        tokio::time::sleep(pause).await;
        let fault = FAULTS[conductor.rng.random_range(0..FAULTS.len())];
        let injected = conductor.inject(fault).await;
        injected.with_context(|| context(seed, &conductor))?;
        let is_alive = conductor.server()?.is_alive()?;
        ensure!(is_alive, "the server died; {}", context(seed, &conductor));
    }
    server.send(None)?;
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let failures = world.truth.failures();
    ensure!(
        failures.is_empty(),
        "{failures:#?}\n{}",
        context(seed, &conductor)
    );
    let log = conductor.folder.log()?;
    for sign in ["panicked", "this is a bug"] {
        let found = log.lines().find(|line| line.contains(sign));
        ensure!(found.is_none(), "{found:?}; {}", context(seed, &conductor));
    }
    check_totals(&world, &conductor)
}

fn context(seed: u64, conductor: &Conductor) -> String {
    format!(
        "TICKCAST_SEED={seed}; actions: {}",
        conductor.done.join(" ")
    )
}

/// A run in which nothing happened proves nothing.
fn check_totals(world: &World, conductor: &Conductor) -> Result<()> {
    let totals = &world.totals;
    eprintln!(
        "chaos: {} faults, {} events, {totals:?}",
        conductor.done.len(),
        world.truth.events()
    );
    for (name, counter) in [
        ("connections", &totals.connections),
        ("connections over TLS", &totals.over_tls),
        ("ledgers", &totals.ledgers),
        ("recovered topics", &totals.recovered),
        ("topics that started over", &totals.started_over),
        ("stalls", &totals.stalls),
    ] {
        ensure!(counter.load(Ordering::Relaxed) > 0, "no {name}");
    }
    Ok(())
}
