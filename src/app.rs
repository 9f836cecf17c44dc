//! Wiring: the only place that knows every part. Starting has an order, and stopping has it backwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::bus::{Bus, Emitter, Log, SourceId, SourceSpec, input_queue};
use crate::clock::Clock;
use crate::config::{Config, SourceConfig, SourceDetails};
use crate::metrics::Metrics;
use crate::protocol::Epoch;
use crate::server::{Publishers, PushSource, Server, accept_loop, admin_loop, bind};
use crate::shard::{Command, ShardConfig, ShardHandle};
use crate::source::push::{Push, PushInlet};
use crate::source::replay::{Begin, Replay};
use crate::source::sim::Sim;
use crate::source::{Gate, Source, SourceTask, supervise};

/// Publish requests that are held in memory at once.
const PUBLISHES_AT_ONCE: usize = 4;
/// How long starting waits for sources to tell their instruments.
const START_PATIENCE: Duration = Duration::from_millis(1500);

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// A thread can't be started.
    #[error("can't start a thread: {0}")]
    Thread(std::io::Error),
}

/// A running server.
#[derive(Debug)]
pub struct App {
    server: Arc<Server>,
    admin: Option<SocketAddr>,
    bus: Emitter,
    tasks: Vec<JoinHandle<()>>,
    accepting: JoinHandle<()>,
    drain: (Duration, Duration),
}

impl App {
    /// Starts everything; the feed answers when this returns.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let listen = |address| bind(address).map_err(|error| StartError::Listen { address, error });
        let feed = listen(config.listen)?;
        let admin = config.admin.map(listen).transpose()?;
        let address = feed.local_addr().unwrap_or(config.listen);

        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new());
        let epoch = Epoch { origin: rand::random(), turn: 0 };
        let log = Log::new(config.log_bytes, config.shards);
        let (emitter, queue) = input_queue(config.queue_bytes, clock);
        let spec = |source: &SourceConfig| SourceSpec {
            name: Arc::clone(&source.name),
            stale_after: source.stale_after,
            is_present: !matches!(source.details, SourceDetails::Replay(_)),
        };
        let specs: Vec<_> = config.sources.iter().map(spec).collect();
        let bus = Bus::new(clock, Arc::clone(&log), Arc::clone(&metrics), specs, epoch);
        let thread = std::thread::Builder::new().name("bus".to_owned());
        let run = move || {
            let _fatal = crate::fatal::FatalPanic("bus");
            bus.run(queue);
        };
        thread.spawn(run).map_err(StartError::Thread)?;

        let gates: Arc<[Arc<Gate>]> = config.sources.iter().map(|_| Arc::default()).collect();
        let shards = start_shards(config, clock, epoch, &log, &emitter, &metrics, &gates)?;
        let (tasks, publishers, sources_started) = start_sources(config, clock, &emitter, &metrics, &gates);
        let server = Arc::new(Server {
            clock,
            shards,
            metrics,
            publishers,
            listen: address,
            connections_max: config.connections_max,
            connections: Arc::new(AtomicUsize::new(0)),
            sockets: Arc::new(AtomicUsize::new(0)),
            dealt: AtomicUsize::new(0),
            handshake_timeout: config.handshake_timeout,
            notsent_bytes: config.unsent_bytes,
            user_timeout: config.drop_after,
            sources_started,
            is_draining: AtomicBool::new(false),
        });
        let accepting = tokio::spawn(accept_loop(feed, Arc::clone(&server)));
        let mut app = Self {
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            server: Arc::clone(&server),
            bus: emitter,
            tasks,
            accepting,
            drain: (config.drain_spread, config.drain_deadline),
        };
        app.tasks.extend(admin.map(|listener| tokio::spawn(admin_loop(listener, server))));
        app.wait_until_ready(clock).await;
        let (_, topics) = app.sizes().await;
        app.server.metrics.memory_bound.set(config.memory_formula(topics).0 as i64);
        Ok(app)
    }

    async fn wait_until_ready(&self, clock: Clock) {
        let patience = clock.now().plus(START_PATIENCE);
        let a_moment = || clock.sleep_until(clock.now().plus(Duration::from_millis(2)));
        while !self.server.is_ready() && clock.now() < patience {
            a_moment().await;
        }
        // What the sources told must have come through the bus to every shard.
        let Some(checkpoint) = self.bus.checkpoint().await else { return };
        for shard in &self.server.shards {
            while shard.catalog().await.is_some_and(|catalog| catalog.len() < checkpoint.topics()) {
                a_moment().await;
            }
        }
    }

    /// Where the feed listens.
    pub fn address(&self) -> SocketAddr {
        self.server.listen
    }

    /// Where operators look.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// All counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.server.metrics
    }

    /// How many instruments and topics there are now.
    pub async fn sizes(&self) -> (usize, usize) {
        let Some(catalog) = self.server.shards[0].catalog().await else { return (0, 0) };
        (catalog.instruments().len(), catalog.len())
    }

    /// Not ready → `bye` with a slot for each client → flush → close; ends by the deadline.
    pub async fn stop(self) {
        let (spread, deadline) = self.drain;
        self.server.is_draining.store(true, Ordering::Relaxed);
        self.server.metrics.draining.set(1);
        self.accepting.abort();
        let mut gone = Vec::new();
        let of = self.server.shards.len();
        for (turn, shard) in self.server.shards.iter().enumerate() {
            let (done, drained) = oneshot::channel();
            shard.send(Command::Drain { spread, turn, of, done }).await;
            gone.push(drained);
        }
        let all = async {
            for drained in gone {
                // A shard that has ended has no clients left.
                let _ended = drained.await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("some clients were still there at the deadline");
        }
        for task in &self.tasks {
            task.abort();
        }
        self.bus.stop().await;
    }
}

fn start_shards(
    config: &Config,
    clock: Clock,
    epoch: Epoch,
    log: &Arc<Log>,
    bus: &Emitter,
    metrics: &Arc<Metrics>,
    gates: &Arc<[Arc<Gate>]>,
) -> Result<Vec<ShardHandle>, StartError> {
    let shard_config = ShardConfig {
        clock,
        epoch,
        outbox: config.outbox,
        history: config.history,
        limits: config.limits,
        heartbeat: config.heartbeat,
        ping_after: config.ping_after,
        drop_after: config.drop_after,
        message_timeout: config.message_timeout,
        flush_window: config.flush_window,
        gates: Arc::clone(gates),
    };
    let start = |number| {
        let started = crate::shard::spawn(number, shard_config.clone(), Arc::clone(log), bus.clone(), Arc::clone(metrics));
        started.map(|(handle, _thread)| handle).map_err(StartError::Thread)
    };
    (0..config.shards).map(start).collect()
}

fn start_sources(
    config: &Config,
    clock: Clock,
    emitter: &Emitter,
    metrics: &Arc<Metrics>,
    gates: &Arc<[Arc<Gate>]>,
) -> (Vec<JoinHandle<()>>, Publishers, Vec<Arc<AtomicBool>>) {
    let mut publishers =
        Publishers { sources: Vec::new(), body_bytes_max: config.publish_bytes_max, turns: Semaphore::new(PUBLISHES_AT_ONCE) };
    let (mut tasks, mut all_started) = (Vec::new(), Vec::new());
    for (at, source) in config.sources.iter().enumerate() {
        let own = emitter.of(SourceId(at as u16));
        let gate = Arc::clone(&gates[at]);
        let running: Box<dyn Source> = match &source.details {
            SourceDetails::Sim(sim) => Box::new(Sim::new(sim.clone())),
            SourceDetails::Replay(replay) => {
                if replay.begin == Begin::Now {
                    gate.open();
                }
                Box::new(Replay::new(replay.clone()))
            }
            SourceDetails::Push { instruments, rules, token_sha256 } => {
                let inlet = PushInlet::new(instruments, *rules, own.clone());
                publishers.sources.push(Arc::new(PushSource { token_sha256: *token_sha256, inlet }));
                Box::new(Push::new(instruments.clone()))
            }
        };
        let started = Arc::new(AtomicBool::new(false));
        all_started.push(Arc::clone(&started));
        let task = SourceTask {
            name: Arc::clone(&source.name),
            clock,
            metrics: Arc::clone(metrics),
            emitter: own,
            gate,
            stale_after: source.stale_after,
            started,
        };
        tasks.push(tokio::spawn(supervise(task, running)));
    }
    (tasks, publishers, all_started)
}
