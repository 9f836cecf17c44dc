use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rust_decimal::Decimal;

use super::log_lines::LogFormat;
use super::{Exit, address, print_error};
use crate::app::{App, ConfigWatch, Operated, Signals, StartError, Stopped, operate};
use crate::clock::Clock;
use crate::config::{Config, Parts, SourceConfig, SourceDetails};
use crate::market::{Price, PriceRules, Symbol};
use crate::replay::{Begin, ReplayConfig, Speed};
use crate::source::sim::{Arrivals, Model, SimConfig, SimInstrument};
use crate::tls::{Certificate, SelfSigned};

/// Default config file; if it does not exist, the built-in config is used.
pub(super) const DEFAULT_CONFIG: &str = "feeds.yaml";
pub(super) const BUILT_IN: &str = include_str!("../../feeds.yaml");
/// Default address of `--self-signed`.
const SELF_SIGNED_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// Pause before a gateway looks again whether the log of its cluster has a record.
const EMPTY_LOG_PAUSE: Duration = Duration::from_millis(50);
/// Time limit at exit for threads that are blocked by a file system.
const THREADS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
#[group(id = "serve")]
pub(super) struct Arguments {
    /// Configuration file [default: feeds.yaml in the current directory, else the built-in market]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen address of the feed
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Serve with TLS and a certificate made for this run, for development
    #[arg(long)]
    self_signed: bool,
    /// Listen address of the feed with TLS [default with --self-signed: 127.0.0.1:8443]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    tls_listen: Option<SocketAddr>,
    /// The certificate of `--self-signed`, made once.
    #[arg(skip)]
    own_certificate: Option<SelfSigned>,
    /// Admin listen address (metrics, health), or off
    #[arg(long, value_name = "HOST:PORT|off")]
    admin: Option<String>,
    /// Number of shard threads, which own the client sockets; auto: one less than the number of
    /// cores
    #[arg(long, value_name = "N|auto", value_parser = super::shards)]
    shards: Option<usize>,
    /// Keep the thread of each shard on one core
    #[arg(long)]
    pin: bool,
    /// Directory in which a stopping server saves its state for the next one
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Log format on standard error
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// Replay these files instead of the config's sources; the format is auto-detected
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "sim_instruments")]
    replay: Vec<PathBuf>,
    /// Replay speed: 0.1 to 1000 times the recorded pace, or max
    #[arg(long, value_name = "N|max", default_value = "1", requires = "replay")]
    speed: String,
    /// Start of the replay
    #[arg(long, value_name = "START", default_value = "now", requires = "replay")]
    replay_start: ReplayStart,
    /// Restart the replay at its end, in a new epoch
    #[arg(long, requires = "replay")]
    replay_loop: bool,
    /// Symbol for replayed files without a symbol
    #[arg(long, value_name = "SYMBOL", requires = "replay")]
    symbol: Option<String>,
    /// Simulate this many instruments (SIM0001, SIM0002, …) instead of the config's sources
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sim_instruments: Option<u32>,
    /// Simulated trades and quotes per second, over all instruments
    #[arg(
        long,
        value_name = "EVENTS_PER_S",
        default_value = "1000",
        requires = "sim_instruments"
    )]
    sim_rate: f64,
    /// Share of trades among simulated events, 0 to 1; the rest are quotes
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "0.5",
        requires = "sim_instruments"
    )]
    sim_trades: f64,
    /// Align simulated event times to this interval; 0 disables
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = super::time, requires = "sim_instruments")]
    sim_every: Duration,
    /// Random seed of the simulation
    #[arg(
        long,
        value_name = "SEED",
        default_value = "1",
        requires = "sim_instruments"
    )]
    sim_seed: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ReplayStart {
    /// At server start
    Now,
    /// With the first subscription to one of its topics
    FirstSubscriber,
}

impl Arguments {
    /// Config file; `None`: the built-in config is used.
    fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            Path::new(DEFAULT_CONFIG)
                .exists()
                .then(|| DEFAULT_CONFIG.into())
        })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let arguments = &with_own_certificate(arguments)?;
    // Started before the file is read, so that no later change is missed.
    let watch = ConfigWatch::start(arguments.file()).context("cannot start a thread")?;
    let config = match load(arguments) {
        Ok(config) => config,
        Err(error) => {
            print_error(&error.to_string());
            return Ok(Exit::Usage);
        }
    };
    start_logging(arguments.log_format);
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0);
    let needed = config.files_needed() as u64;
    if files < needed {
        tracing::warn!(
            limit = files,
            needed,
            "open-file limit too low for limits.connections; raise it (ulimit -n, LimitNOFILE) or lower limits.connections"
        );
    }
    warn_of_open_listeners(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let exit = runtime.block_on(async {
        match config.parts() {
            None => {
                let signals = Signals::listen().context("cannot listen for signals")?;
                let app = App::start(&config).await?;
                announce(&config, &app, None, files).await?;
                let again = arguments.clone();
                Box::pin(serve(&config, app, signals, watch, move || load(&again))).await
            }
            Some(parts) => Box::pin(serve_parts(arguments, parts, watch, files)).await,
        }
    });
    runtime.shutdown_timeout(THREADS_TIMEOUT);
    exit
}

/// Arguments with the certificate that they ask for, which must be the same after each reload.
fn with_own_certificate(arguments: &Arguments) -> Result<Arguments> {
    let own_certificate = arguments.self_signed.then(SelfSigned::new);
    Ok(Arguments {
        own_certificate: own_certificate.transpose()?,
        ..arguments.clone()
    })
}

/// Warns if everybody who reaches a port has access.
fn warn_of_open_listeners(config: &Config) {
    if !config.auth.is_open() {
        return;
    }
    let is_exposed = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let tls = config.tls.as_ref().map(|tls| tls.listen);
    for listen in config.listen.into_iter().chain(tls).filter(is_exposed) {
        tracing::warn!(
            %listen,
            "no authentication (auth.scheme: none): everybody who reaches this address sees the feed"
        );
    }
    if let Some(admin) = config.admin.filter(is_exposed) {
        tracing::warn!(
            %admin,
            "no authentication (auth.scheme: none): everybody who reaches this address sees metrics and clients"
        );
    }
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| "info".into());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && super::wants_colors())
        .with_writer(std::io::stderr)
        .event_format(format);
    // A program that embeds the library may have installed a subscriber already.
    let _set_before = lines.try_init();
}

/// Loads the config, applies the arguments and checks the files that it names. The error is the
/// complete text to print.
fn load(arguments: &Arguments) -> Result<Config> {
    let loaded = arguments.file().map_or_else(
        || Config::parse(BUILT_IN, "the built-in feeds.yaml"),
        |file| Config::load(&file),
    );
    let mut config = loaded?;
    config.listen = arguments.listen.or(config.listen);
    let configured = config.tls.as_ref().map(|tls| tls.listen);
    let with_tls = arguments.tls_listen.or(configured);
    if let Some(own) = &arguments.own_certificate {
        config.use_self_signed(with_tls.unwrap_or(SELF_SIGNED_LISTEN), own.clone());
    } else if let (Some(tls), Some(listen)) = (&mut config.tls, with_tls) {
        tls.listen = listen;
    } else if arguments.tls_listen.is_some() {
        bail!(
            "--tls-listen: expected also --self-signed, or certificates in section tls of the config"
        );
    }
    config.state_dir = arguments.state_dir.clone().or(config.state_dir);
    config.shards = arguments.shards.unwrap_or(config.shards);
    config.pin |= arguments.pin;
    match arguments.admin.as_deref() {
        None => {}
        Some("off") => config.admin = None,
        Some(text) => {
            config.admin =
                Some(address(text).map_err(|error| anyhow!("--admin {text}: {error}, or off"))?);
        }
    }
    if !arguments.replay.is_empty() {
        config.sources = vec![replay_source(arguments)?];
    }
    if let Some(instruments) = arguments.sim_instruments {
        config.sources = vec![sim_source(instruments, arguments)?];
    }
    config.probe_files()?;
    Ok(config)
}

fn replay_source(arguments: &Arguments) -> Result<SourceConfig> {
    let speed = Speed::parse(&arguments.speed).ok_or_else(|| {
        anyhow!(
            "--speed {}: expected a number from 0.1 to 1000, or max",
            arguments.speed
        )
    })?;
    let symbol = arguments
        .symbol
        .as_deref()
        .map(Symbol::new)
        .transpose()
        .map_err(|error| anyhow!("--symbol: {error}"))?;
    let replay = ReplayConfig {
        speed,
        repeat: arguments.replay_loop,
        begin: match arguments.replay_start {
            ReplayStart::Now => Begin::Now,
            ReplayStart::FirstSubscriber => Begin::FirstSubscriber,
        },
        symbol,
        ..ReplayConfig::of(arguments.replay.clone())
    };
    let details = SourceDetails::Replay(replay);
    Ok(SourceConfig::new(
        "replay",
        Duration::from_secs(60),
        details,
    ))
}

fn sim_source(instruments: u32, arguments: &Arguments) -> Result<SourceConfig> {
    if !(arguments.sim_rate > 0.0 && arguments.sim_rate <= 1e8) {
        bail!(
            "--sim-rate {}: expected a number above 0, up to 100000000",
            arguments.sim_rate
        );
    }
    if !(0.0..=1.0).contains(&arguments.sim_trades) {
        bail!(
            "--sim-trades {}: expected a number from 0 to 1",
            arguments.sim_trades
        );
    }
    let rate = arguments.sim_rate / f64::from(instruments);
    let one = |number: u32| SimInstrument {
        symbol: Symbol::new(&format!("SIM{number:04}")).expect("letters and digits"),
        prices: PriceRules::default(),
        description: String::new(),
        start: Price(Decimal::new(10_000, 2)),
        tick_size: Decimal::new(1, 2),
        lot_size: Decimal::ONE,
        size_lots: 10.0,
        spread_ticks: 2.0,
        rate,
        trades: arguments.sim_trades,
        model: Model::Gbm { volatility: 0.3 },
        arrivals: Arrivals::Poisson,
        factor: None,
        session_start: Duration::ZERO,
        hours: None,
        // Sparse events are not stale.
        stale_after: Some(Duration::from_secs_f64((60.0 / rate).clamp(60.0, 1e9))),
    };
    let sim = SimConfig {
        seed: arguments.sim_seed,
        start: None,
        history: Duration::ZERO,
        every: arguments.sim_every,
        factors: Vec::new(),
        instruments: (1..=instruments).map(one).collect(),
    };
    let details = SourceDetails::Sim(sim);
    Ok(SourceConfig::new("sim", Duration::from_secs(60), details))
}

/// Runs a server until it is stopped.
async fn serve(
    config: &Config,
    app: App,
    signals: Signals,
    watch: ConfigWatch,
    load: impl Fn() -> Result<Config> + Clone + Send + 'static,
) -> Result<Exit> {
    let Operated { stopped, failed } = Box::pin(operate(app, signals, watch, load)).await;
    for (name, error) in &failed {
        tracing::error!(source = &**name, %error, "source failed");
    }
    let is_complete = match stopped {
        Stopped::Complete => true,
        Stopped::WithoutState => config.state_dir.is_none(),
        Stopped::OutOfCluster => false,
    };
    Ok(if is_complete && failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// Runs a publisher and a gateway, until one of them ends, and then stops the other.
async fn serve_parts(
    arguments: &Arguments,
    parts: Parts,
    watch: ConfigWatch,
    files: u64,
) -> Result<Exit> {
    let Parts { publisher, gateway } = parts;
    let listen = || Signals::listen().context("cannot listen for signals");
    let (for_publisher, for_gateway) = (listen()?, listen()?);
    let stoppers = [for_publisher.stopper(), for_gateway.stopper()];
    let has_ended = AtomicBool::new(false);
    let end = || {
        has_ended.store(true, Ordering::Relaxed);
        for stopper in &stoppers {
            stopper.stop();
        }
    };
    let app = App::start(&publisher).await?;
    let metrics = app.admin_address();
    let publishing = async {
        let again = arguments.clone();
        let load = move || {
            let config = load(&again)?;
            Ok(config.parts().map_or(config, |parts| parts.publisher))
        };
        let ended = serve(&publisher, app, for_publisher, watch, load).await;
        end();
        ended
    };
    let serving = async {
        let watch = ConfigWatch::start(arguments.file()).context("cannot start a thread")?;
        let Some(app) = start_gateway(&gateway, &has_ended).await? else {
            return Ok(Exit::Failed);
        };
        announce(&gateway, &app, metrics, files).await?;
        let again = arguments.clone();
        let load = move || {
            let config = load(&again)?;
            Ok(config.parts().map_or(config, |parts| parts.gateway))
        };
        serve(&gateway, app, for_gateway, watch, load).await
    };
    let serving = async {
        let ended = serving.await;
        end();
        ended
    };
    let (publishing, serving) = tokio::join!(Box::pin(publishing), Box::pin(serving));
    Ok(match (publishing?, serving?) {
        (Exit::Ok, Exit::Ok) => Exit::Ok,
        _ => Exit::Failed,
    })
}

/// Starts a gateway once the log has a record; `None` if the publisher has ended.
async fn start_gateway(config: &Config, has_ended: &AtomicBool) -> Result<Option<App>> {
    let clock = Clock::start();
    loop {
        match Box::pin(App::start(config)).await {
            Err(StartError::EmptyLog) if !has_ended.load(Ordering::Relaxed) => {
                clock.sleep_until(clock.now().plus(EMPTY_LOG_PAUSE)).await;
            }
            Err(StartError::EmptyLog) => return Ok(None),
            started => return Ok(Some(started?)),
        }
    }
}

/// Prints addresses and sizes; `publisher`: address of the metrics of the other part.
async fn announce(
    config: &Config,
    app: &App,
    publisher: Option<SocketAddr>,
    files: u64,
) -> Result<()> {
    let (instruments, topics) = app.sizes().await;
    let address = app.address();
    let metrics = app
        .admin_address()
        .or((config.metrics_on_feed && address.ip().is_loopback()).then_some(address));
    let metrics = metrics.map_or("off".to_owned(), |address| {
        format!("http://{address}/metrics")
    });
    let publisher = publisher.map_or_else(String::new, |address| {
        format!("\n  metrics  http://{address}/metrics (publisher)")
    });
    let memory_mib = config.memory_formula(topics).0.div_ceil(1 << 20);
    let text = format!(
        "tickcast {}\n{}  metrics  {metrics}{publisher}\n  market   {}, {}, {}, {}\n  memory   up to {memory_mib} MiB with this config (see Memory in the operations guide)\n  files    up to {files} open files\n",
        env!("CARGO_PKG_VERSION"),
        addresses(config, app),
        counted(instruments, "instrument"),
        counted(topics, "topic"),
        counted(config.sources.len(), "source"),
        counted(config.shards, "shard"),
    );
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print the addresses")
}

/// Addresses for clients, without TLS, then with TLS.
fn addresses(config: &Config, app: &App) -> String {
    let plain = config.listen.map(|_| ("", app.address()));
    let with_tls = app.tls_address().map(|address| ("s", address));
    let lines = |(s, address)| {
        format!(
            "  feed     ws{s}://{address}/v1/feed\n  web      http{s}://{address}/\n  health   http{s}://{address}/healthz  http{s}://{address}/readyz\n"
        )
    };
    let certificate = config.tls.as_ref().map(|tls| &tls.files.certificate);
    let fingerprint = match certificate {
        Some(Certificate::SelfSigned(own)) => {
            format!(
                "  sha-256  {} (self-signed certificate)\n",
                own.fingerprint()
            )
        }
        _ => String::new(),
    };
    plain
        .into_iter()
        .chain(with_tls)
        .map(lines)
        .collect::<String>()
        + &fingerprint
}

/// Number with its noun, in the plural unless it is one.
pub(super) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
