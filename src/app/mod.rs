//! Wiring: the only place that knows every part. Starting has an order, and stopping has it backwards.

mod bounds;
mod keep_time;
mod reload;
mod saved;
mod sources;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

pub use reload::Reloaded;

use crate::bus::{Bus, Emitter, RestoredState, SavedState, input_queue};
use crate::clock::Clock;
use crate::config::{ADMIN_CONNECTIONS, Config};
use crate::log::{DemandSignal, Log};
use crate::metrics::Metrics;
use crate::protocol::Epoch;
use crate::server::{Listener, RequestRate, Server, Settings, accept_loop, admin_loop, bind};
use crate::shard::{Command, ShardConfig, ShardHandle};
use crate::source::SourceStatus;
use crate::source::replay::FileReport;
use crate::state::{State, StateDir};
use keep_time::keep_time;
use saved::{inherit, open_state_dir};
use sources::{Sources, spec_of};

/// How long a start or a reload waits for sources to tell their instruments.
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
    /// The folder for the state can't be used.
    #[error("can't use the folder {}: {error}; it is state_dir", folder.display())]
    State {
        /// Which one.
        folder: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct App {
    server: Arc<Server>,
    admin: Option<SocketAddr>,
    bus: Emitter,
    bus_thread: std::thread::JoinHandle<SavedState>,
    epoch: Epoch,
    sources: Sources,
    /// As it holds now.
    config: Config,
    /// Accepting clients, and answering operators.
    accepting: Option<JoinHandle<()>>,
    admin_task: Option<JoinHandle<()>>,
    /// Brings the clock back to the wall clock.
    time_keeper: JoinHandle<()>,
    drain: (Duration, Duration),
    state_dir: Option<StateDir>,
}

/// Outcome of a server's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// In order.
    Complete,
    /// Its state, which `state_dir` asks for, is not saved.
    WithoutState,
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
        let state_dir = config
            .state_dir
            .as_deref()
            .map(|folder| open_state_dir(folder, clock, &metrics))
            .transpose()?;
        let (state_dir, left) = state_dir.map_or((None, None), |(dir, left)| (Some(dir), left));
        let (heritage, mut places) = left.map_or_else(
            || (RestoredState::default(), Vec::new()),
            |left| inherit(*left, config),
        );
        let origin = if heritage.origin == 0 {
            rand::random()
        } else {
            heritage.origin
        };
        let epoch = Epoch {
            origin,
            generation: 0,
        };
        let log = Log::new(config.log_bytes, config.shards);
        let (emitter, queue) = input_queue(config.queue_bytes, clock);
        let specs = config.sources.iter().map(spec_of).collect();
        let bus = Bus::new(
            clock,
            Arc::clone(&log),
            Arc::clone(&metrics),
            specs,
            epoch,
            heritage,
        )
        .limit_instruments(config.instruments_max);
        let thread = std::thread::Builder::new().name("bus".to_owned());
        let run = move || {
            let _fatal = crate::fatal::FatalPanic("bus");
            bus.run(queue)
        };
        let bus_thread = thread.spawn(run).map_err(StartError::Thread)?;

        let mut sources = Sources::new(
            clock,
            Arc::clone(&metrics),
            emitter.clone(),
            config.sources.len(),
        );
        let shards = start_shards(
            config,
            clock,
            epoch,
            &log,
            &emitter,
            &metrics,
            &sources.demand(),
        )?;
        places.resize(config.sources.len(), None);
        for (source, place) in config.sources.iter().zip(places) {
            sources.start(source.clone(), place);
        }
        let server = Arc::new(Server {
            clock,
            shards,
            metrics,
            settings: ArcSwap::from_pointee(settings_of(config, &sources)),
            publish_turns: Semaphore::new(crate::config::PUBLISHES_AT_ONCE),
            body_bytes: Arc::default(),
            http_turns: Arc::new(Semaphore::new(config.http_requests)),
            http_rate: RequestRate::default(),
            admin_turns: Semaphore::new(ADMIN_CONNECTIONS),
            listener: Listener::new(address),
            connections: Arc::new(AtomicUsize::new(0)),
            sockets: Arc::new(AtomicUsize::new(0)),
            dealt: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
        });
        let mut app = Self {
            admin: admin
                .as_ref()
                .and_then(|listener| listener.local_addr().ok()),
            server: Arc::clone(&server),
            bus: emitter,
            bus_thread,
            epoch,
            sources,
            config: config.clone(),
            accepting: None,
            admin_task: admin
                .map(|listener| tokio::spawn(admin_loop(listener, Arc::clone(&server)))),
            time_keeper: tokio::spawn(keep_time(clock, Arc::clone(&server.metrics))),
            drain: (config.drain_spread, config.drain_deadline),
            state_dir,
        };
        app.wait_until_ready(clock).await;
        // Who comes before waits in the backlog: a client that goes on after a restart must find its topics.
        app.accepting = Some(tokio::spawn(accept_loop(feed, server)));
        app.show_bounds().await;
        Ok(app)
    }

    /// Waits until sources have told their instruments, for a while.
    async fn wait_for(&self, sources: &[(Arc<str>, Arc<SourceStatus>)]) {
        let clock = self.server.clock;
        let patience = clock.now().plus(START_PATIENCE);
        while sources.iter().any(|(_, status)| status.is_starting()) && clock.now() < patience {
            clock
                .sleep_until(clock.now().plus(Duration::from_millis(2)))
                .await;
        }
    }

    async fn wait_until_ready(&self, clock: Clock) {
        let a_moment = || clock.sleep_until(clock.now().plus(Duration::from_millis(2)));
        self.wait_for(&self.server.settings.load_full().sources)
            .await;
        // What the sources told must have come through the bus to every shard.
        let Some(checkpoint) = self.bus.checkpoint().await else {
            return;
        };
        for shard in &self.server.shards {
            while shard
                .catalog()
                .await
                .is_some_and(|catalog| catalog.len() < checkpoint.topics())
            {
                a_moment().await;
            }
        }
    }

    /// Where the feed listens.
    pub fn address(&self) -> SocketAddr {
        self.server.listener.address
    }

    /// Where operators look.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// All counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.server.metrics
    }

    /// The sources that have failed for good, each with the reason.
    pub fn failed_sources(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let settings = self.server.settings.load();
        let failed = settings.sources.iter();
        failed
            .filter_map(|(name, status)| Some((Arc::clone(name), status.failure()?)))
            .collect()
    }

    /// The accounts of the files that a replay plays now.
    pub fn file_reports(&self, source: &str) -> Vec<FileReport> {
        let settings = self.server.settings.load();
        let found = settings.sources.iter().find(|(name, _)| &**name == source);
        found.map_or_else(Vec::new, |(_, status)| {
            status.files().iter().map(|file| file.report()).collect()
        })
    }

    /// How many instruments and topics there are now.
    pub async fn sizes(&self) -> (usize, usize) {
        let Some(catalog) = self.server.shards[0].catalog().await else {
            return (0, 0);
        };
        (catalog.instruments().len(), catalog.len())
    }

    /// Not ready → `bye` with a slot for each client → flush → close → what is to be kept; ends by the deadline.
    pub async fn stop(self) -> Stopped {
        let (spread, deadline) = self.drain;
        self.server.is_draining.store(true, Ordering::Relaxed);
        self.server.metrics.draining.set(1);
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        let mut gone = Vec::new();
        let of = self.server.shards.len();
        for (turn, shard) in self.server.shards.iter().enumerate() {
            let (done, drained) = oneshot::channel();
            shard
                .send(Command::Drain {
                    spread,
                    turn,
                    of,
                    done,
                })
                .await;
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
        let sources = self.sources.stop().await;
        self.bus.stop().await;
        self.time_keeper.abort();
        let bus_thread = self.bus_thread;
        let remains = tokio::task::spawn_blocking(move || bus_thread.join()).await;
        if let Some(admin) = self.admin_task {
            admin.abort();
        }
        let Some(dir) = self.state_dir else {
            return Stopped::Complete;
        };
        let Ok(Ok(remains)) = remains else {
            tracing::error!(
                "the bus failed, so no state is left; the next start begins a new epoch"
            );
            return Stopped::WithoutState;
        };
        let (reply, saved) = oneshot::channel();
        self.server.shards[0].send(Command::Save(reply)).await;
        let Ok(topics) = saved.await else {
            tracing::error!(
                "a shard was overrun, so no state is left; the next start begins a new epoch"
            );
            return Stopped::WithoutState;
        };
        let count = topics.len();
        let now = self.server.clock.moment();
        let state = State::new(now.wall, self.epoch.origin, remains, sources, topics);
        match tokio::task::spawn_blocking(move || dir.leave(&state, &now)).await {
            Ok(Ok(())) => {
                tracing::info!(topics = count, "the state is left for the next one");
                return Stopped::Complete;
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the state can't be left; the next start begins a new epoch");
            }
            Err(error) => tracing::error!(%error, "the state was not left; this is a bug"),
        }
        Stopped::WithoutState
    }

    /// The clock that all parts go by.
    pub fn clock(&self) -> Clock {
        self.server.clock
    }
}

fn start_shards(
    config: &Config,
    clock: Clock,
    epoch: Epoch,
    log: &Arc<Log>,
    bus: &Emitter,
    metrics: &Arc<Metrics>,
    demand: &Arc<[Arc<DemandSignal>]>,
) -> Result<Vec<ShardHandle>, StartError> {
    let shard_config = ShardConfig {
        clock,
        epoch,
        limits: config.limits,
        demand: Arc::clone(demand),
    };
    let start = |number| {
        let started = crate::shard::spawn(
            number,
            shard_config.clone(),
            Arc::clone(log),
            bus.clone(),
            Arc::clone(metrics),
        );
        started
            .map(|(handle, _thread)| handle)
            .map_err(StartError::Thread)
    };
    (0..config.shards).map(start).collect()
}

/// What handshakes and HTTP go by that a reload may change.
fn settings_of(config: &Config, sources: &Sources) -> Settings {
    Settings::of(
        config,
        sources.publishers(),
        sources.statuses(),
        sources.publisher_statuses(),
    )
}
