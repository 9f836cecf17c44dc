//! Server startup: state, bus, shards, sources, then the listeners.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::certificates::TlsService;
use super::cluster::Membership;
use super::cpus::Pinning;
use super::http_threads::HttpThreads;
use super::keep_time::keep_time;
use super::saved::{open_state_dir, restored_state};
use super::sources::{Sources, spec_of};
use super::watch_memory::watch_memory;
use super::{App, START_TIMEOUT, StartError, auth, entitlements_of, settings_of};
use crate::auth::{Gate, Policy};
use crate::bus::{Bus, Emitter, RestoredState, SavedState, input_queue};
use crate::clock::Clock;
use crate::cluster::Role;
use crate::config::{ADMIN_CONNECTIONS, Config, PUBLISH_WAITS, Scheme, SourceConfig};
use crate::log::{DemandSignal, Log};
use crate::metrics::Metrics;
use crate::protocol::Epoch;
use crate::server::{
    ClientRates, ClusterPart, Listener, MemoryPressure, RequestRate, Server, Settings, TlsEndpoint,
    accept_loop, admin_loop, bind,
};
use crate::shard::{ShardConfig, ShardHandle};
use crate::source::SourceStatus;
use crate::state::StateDir;

/// Running bus with the handles that its readers need.
struct RunningBus {
    emitter: Emitter,
    log: Arc<Log>,
    epoch: Epoch,
    thread: JoinHandle<SavedState>,
}

/// Bound sockets that clients connect to.
struct Listeners {
    feed: Option<TcpListener>,
    tls: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds all listeners; the tasks of `runtime` will accept their connections.
    fn bind(config: &Config, runtime: &Handle) -> Result<Self, StartError> {
        let _registers_with_it = runtime.enter();
        let listen = |address| bind(address).map_err(|error| StartError::Listen { address, error });
        let with_tls = config.tls.as_ref().map(|tls| tls.listen);
        Ok(Self {
            feed: config.listen.map(listen).transpose()?,
            tls: with_tls.map(listen).transpose()?,
            admin: config.admin.map(listen).transpose()?,
        })
    }
}

impl App {
    /// Starts all components; the feed accepts clients when this returns.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let http = HttpThreads::start("http")?;
        let Listeners { feed, tls, admin } = Listeners::bind(config, http.handle())?;
        let policy = read_policy(config).await?;
        let clock = Clock::start();
        let metrics = Arc::new(Metrics::new());
        let tls_service = start_tls(config, tls.as_ref(), &metrics)?;
        let endpoint = tls_service.as_ref().map(|tls| Arc::clone(&tls.endpoint));
        let mut inherited = inherit(config, clock, &metrics)?;
        let membership = Membership::open(config, clock.now(), &metrics);
        let mut cluster = Box::pin(membership).await?;
        let epoch = match &cluster {
            Some(cluster) => cluster.origin,
            None => Epoch::first(inherited.origin()),
        };
        inherited.restored.origin = epoch.origin;
        let part = cluster.as_deref().map(Membership::shared);
        let restored = (epoch, inherited.restored);
        let bus = start_bus(config, clock, &metrics, restored, part.as_ref())?;
        let own_sources = sources_at_start(config);
        let emitter = bus.emitter.clone();
        let mut sources = Sources::new(clock, Arc::clone(&metrics), emitter, own_sources.len());
        let (gate, jobs) = auth::gate(policy);
        let shards = start_shards(config, clock, &bus, &metrics, &sources.demand(), &gate)?;
        if let Some(cluster) = &mut cluster {
            Box::pin(cluster.follow(clock, &bus.emitter)).await?;
        }
        sources.start(own_sources, inherited.positions);
        let settings = settings_of(config, &sources);
        let shared = Shared {
            clock,
            metrics,
            gate,
            listener: main_listener(config, feed.as_ref(), endpoint.as_deref())?,
            tls: endpoint,
            http: http.handle().clone(),
            cluster: part,
        };
        let server = new_server(config, shards, settings, shared);
        auth::spawn(&server, jobs).map_err(StartError::Thread)?;
        let mut app = Self {
            admin: admin
                .as_ref()
                .and_then(|listener| listener.local_addr().ok()),
            server: Arc::clone(&server),
            bus: bus.emitter,
            bus_thread: bus.thread,
            epoch: bus.epoch,
            sources,
            config: config.clone(),
            accepting: None,
            tls: tls_service,
            admin_task: admin
                .map(|listener| server.http.spawn(admin_loop(listener, Arc::clone(&server)))),
            time_keeper: tokio::spawn(keep_time(clock, Arc::clone(&server.metrics))),
            memory_watch: tokio::spawn(watch_memory(Arc::clone(&server), config.queue_bytes)),
            drain: (config.drain_spread, config.drain_deadline),
            state_dir: inherited.state_dir,
            log: bus.log,
            cluster,
            _http: http,
        };
        app.wait_until_ready(clock).await;
        // Clients that connect earlier wait in the listen backlog: a client that resumes after a
        // restart must find its topics.
        if let Some((service, listener)) = app.tls.as_mut().zip(tls) {
            service.accept(listener, Arc::clone(&server));
        }
        app.accepting = feed.map(|feed| app.server.http.spawn(accept_loop(feed, server, None)));
        app.export_bounds().await;
        Ok(app)
    }

    /// Waits until the sources have announced their instruments, for at most [`START_TIMEOUT`].
    pub(super) async fn wait_for(&self, sources: &[(Arc<str>, Arc<SourceStatus>)]) {
        let clock = self.server.clock;
        let deadline = clock.now().plus(START_TIMEOUT);
        while sources.iter().any(|(_, status)| status.is_starting()) && clock.now() < deadline {
            clock
                .sleep_until(clock.now().plus(Duration::from_millis(2)))
                .await;
        }
    }

    async fn wait_until_ready(&self, clock: Clock) {
        let next_poll = || clock.sleep_until(clock.now().plus(Duration::from_millis(2)));
        self.wait_for(&self.server.settings.load_full().sources)
            .await;
        // The announcements of the sources must have passed through the bus to every shard.
        let Some(checkpoint) = self.bus.checkpoint().await else {
            return;
        };
        for shard in self.server.shards_without_delay() {
            while shard
                .catalog()
                .await
                .is_some_and(|catalog| catalog.len() < checkpoint.topics())
            {
                next_poll().await;
            }
        }
    }
}

/// Sources that start with the server; those of a cluster start once the server leads it.
fn sources_at_start(config: &Config) -> &[SourceConfig] {
    if config.cluster.is_some() {
        &[]
    } else {
        &config.sources
    }
}

/// State of the last server.
#[derive(Default)]
struct Inherited {
    state_dir: Option<StateDir>,
    restored: RestoredState,
    /// Resume position of each source.
    positions: Vec<Option<Vec<u8>>>,
}

impl Inherited {
    /// Origin of the epochs: that of the last server, if it has left a state.
    fn origin(&self) -> u64 {
        match self.restored.origin {
            0 => rand::random(),
            origin => origin,
        }
    }
}

fn inherit(config: &Config, clock: Clock, metrics: &Metrics) -> Result<Inherited, StartError> {
    let Some(folder) = config.state_dir.as_deref() else {
        return Ok(Inherited::default());
    };
    let (dir, saved) = open_state_dir(folder, clock, metrics)?;
    let (restored, positions) = saved.map_or_else(
        || (RestoredState::default(), Vec::new()),
        |saved| restored_state(*saved, config),
    );
    Ok(Inherited {
        state_dir: Some(dir),
        restored,
        positions,
    })
}

/// Parts of a server that other components share.
struct Shared {
    clock: Clock,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
    listener: Listener,
    tls: Option<Arc<TlsEndpoint>>,
    http: Handle,
    cluster: Option<ClusterPart>,
}

/// State of a server whose sources are starting.
fn new_server(
    config: &Config,
    shards: Vec<ShardHandle>,
    settings: Settings,
    shared: Shared,
) -> Arc<Server> {
    let Shared {
        clock,
        metrics,
        gate,
        listener,
        tls,
        http,
        cluster,
    } = shared;
    Arc::new(Server {
        clock,
        shards,
        metrics,
        settings: ArcSwap::from_pointee(settings),
        publish_permits: Semaphore::new(crate::config::PUBLISHES_AT_ONCE),
        publish_waits: Arc::new(Semaphore::new(PUBLISH_WAITS)),
        body_bytes: Arc::default(),
        http_requests: config.http_requests,
        http_permits: Arc::new(Semaphore::new(config.http_requests)),
        http_rate: RequestRate::default(),
        client_rates: ClientRates::default(),
        admin_permits: Semaphore::new(ADMIN_CONNECTIONS),
        admission: Arc::default(),
        memory: MemoryPressure::default(),
        refusals: Server::new_refusals(),
        gate,
        listener,
        tls,
        http,
        cluster,
        connections: Arc::new(AtomicUsize::new(0)),
        sockets: Arc::new(AtomicUsize::new(0)),
        assigned: AtomicUsize::new(0),
        is_draining: AtomicBool::new(false),
    })
}

fn start_tls(
    config: &Config,
    listener: Option<&TcpListener>,
    metrics: &Arc<Metrics>,
) -> Result<Option<TlsService>, StartError> {
    let Some((tls, listener)) = config.tls.as_ref().zip(listener) else {
        return Ok(None);
    };
    let address = listener.local_addr().unwrap_or(tls.listen);
    let listener = Listener::new(address, Scheme::Https);
    let listener = listener.behind_proxy_protocol(config.proxy_protocol);
    TlsService::start(tls, listener, metrics).map(Some)
}

/// Listener of the feed without TLS; if there is none, that with TLS.
fn main_listener(
    config: &Config,
    feed: Option<&TcpListener>,
    endpoint: Option<&TlsEndpoint>,
) -> Result<Listener, StartError> {
    let plain = feed.and_then(|feed| feed.local_addr().ok());
    let plain = plain.map(|address| Listener::new(address, Scheme::Http));
    let listener = plain.or_else(|| endpoint.map(|endpoint| endpoint.listener.clone()));
    let listener = listener.ok_or(StartError::NoAddress)?;
    Ok(listener.behind_proxy_protocol(config.proxy_protocol))
}

/// Reads the keys of the authentication, on a thread that a file system may block.
pub(super) async fn read_policy(config: &Config) -> Result<Policy, StartError> {
    let config = config.clone();
    let read = tokio::task::spawn_blocking(move || config.auth_policy());
    match read.await {
        Ok(policy) => Ok(policy?),
        Err(panicked) => Err(StartError::Thread(panicked.into())),
    }
}

fn start_bus(
    config: &Config,
    clock: Clock,
    metrics: &Arc<Metrics>,
    (epoch, restored): (Epoch, RestoredState),
    cluster: Option<&ClusterPart>,
) -> Result<RunningBus, StartError> {
    let publisher = cluster.filter(|cluster| cluster.role == Role::Publisher);
    let uplinks = usize::from(publisher.is_some());
    let readers = config.shards + config.roles.delays().len() + uplinks;
    let log = Log::new(config.log_bytes, readers);
    let (emitter, queue) = input_queue(config.queue_bytes, clock);
    let specs = sources_at_start(config).iter().map(spec_of).collect();
    let mut bus = Bus::new(
        clock,
        Arc::clone(&log),
        Arc::clone(metrics),
        specs,
        epoch,
        restored,
    )
    .limit_instruments(config.instruments_max);
    if let Some(cluster) = publisher {
        bus = bus.stand_by(cluster.status.derive_mismatches());
    }
    let run = move || {
        let _fatal = crate::fatal::FatalPanic("bus");
        bus.run(queue)
    };
    let thread = std::thread::Builder::new().name("bus".to_owned());
    Ok(RunningBus {
        emitter,
        log,
        epoch,
        thread: thread.spawn(run).map_err(StartError::Thread)?,
    })
}

fn start_shards(
    config: &Config,
    clock: Clock,
    bus: &RunningBus,
    metrics: &Arc<Metrics>,
    demand: &Arc<[Arc<DemandSignal>]>,
    gate: &Arc<Gate>,
) -> Result<Vec<ShardHandle>, StartError> {
    let shard_config = ShardConfig {
        clock,
        epoch: bus.epoch,
        limits: config.limits,
        demand: Arc::clone(demand),
        delay: Duration::ZERO,
        delay_line_bytes: config.delay_line_bytes,
        entitlements: Arc::new(entitlements_of(config)),
        seats: Arc::default(),
        gate: Arc::clone(gate),
    };
    let spawn_delayed = |number, delay| {
        let delayed = ShardConfig {
            delay,
            ..shard_config.clone()
        };
        crate::shard::spawn(
            number,
            delayed,
            Arc::clone(&bus.log),
            bus.emitter.clone(),
            Arc::clone(metrics),
        )
    };
    let spawn = |number| spawn_delayed(number, Duration::ZERO);
    let pinning = config.pin.then(|| Pinning::new(config.shards)).transpose();
    let pinning = pinning.map_err(StartError::Thread)?;
    let start = |number| {
        let started = match &pinning {
            Some(pinning) => pinning.start(number, || spawn(number)),
            None => spawn(number),
        };
        started
            .map(|(handle, _thread)| handle)
            .map_err(StartError::Thread)
    };
    // The shards of delayed views come last.
    let delays = (config.shards..).zip(config.roles.delays());
    let delayed = delays.map(|(number, delay)| {
        let started = spawn_delayed(number, delay).map_err(StartError::Thread);
        started.map(|(handle, _thread)| handle)
    });
    (0..config.shards).map(start).chain(delayed).collect()
}
