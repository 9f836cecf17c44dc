use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config_file::{ConfigReader, ConfigWatch};
use super::log_lines::LogFormat;
use super::{Exit, address, complain};
use crate::app::{App, Reloaded, Stopped};
use crate::config::{Config, SourceConfig, SourceDetails};
use crate::market::{Price, PriceRules, Symbol};
use crate::source::replay::{Begin, ReplayConfig, Speed};
use crate::source::sim::{Arrivals, Model, SimConfig, SimInstrument};

/// Without `--config` and without this file, the default market that is built in is served.
const DEFAULT_CONFIG: &str = "feeds.yaml";
const BUILT_IN: &str = include_str!("../../feeds.yaml");
/// Time for a reload that is under way to end once the server is to stop.
const RELOAD_PATIENCE: Duration = Duration::from_secs(3);
/// Time for threads that a file system holds up, at the end of the process.
const THREADS_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
#[group(id = "serve")]
pub(super) struct Arguments {
    /// The config file [default: feeds.yaml here, else the built-in market]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the feed listens
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Where operators look, or off
    #[arg(long, value_name = "HOST:PORT|off")]
    admin: Option<String>,
    /// Threads that own clients' sockets
    #[arg(long, value_name = "N|auto", value_parser = super::shards)]
    shards: Option<usize>,
    /// Where a stopping server leaves its state for the next one
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// How log lines on standard error are written
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// Replay these files instead of the config's sources; their form is found out by looking
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "sim_instruments")]
    replay: Vec<PathBuf>,
    /// How fast: 0.1 to 1000 times the recorded time, or max
    #[arg(long, value_name = "N|max", default_value = "1", requires = "replay")]
    speed: String,
    /// When the replay begins
    #[arg(long, value_name = "WHEN", default_value = "now", requires = "replay")]
    replay_start: ReplayStart,
    /// Begin the replay again at its end, in a new epoch
    #[arg(long, requires = "replay")]
    replay_loop: bool,
    /// The symbol of replayed files that tell none
    #[arg(long, value_name = "SYMBOL", requires = "replay")]
    symbol: Option<String>,
    /// Simulate so many instruments (SIM0001, SIM0002, …) instead of the config's sources
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sim_instruments: Option<u32>,
    /// Their trades and quotes a second, over all of them
    #[arg(
        long,
        value_name = "EVENTS_PER_S",
        default_value = "1000",
        requires = "sim_instruments"
    )]
    sim_rate: f64,
    /// The share of trades among them; the others are quotes
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "0.5",
        requires = "sim_instruments"
    )]
    sim_trades: f64,
    /// Have events come together at multiples of this time; 0: each at a time of its own
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = super::time, requires = "sim_instruments")]
    sim_every: Duration,
    /// Their seed
    #[arg(
        long,
        value_name = "S",
        default_value = "1",
        requires = "sim_instruments"
    )]
    sim_seed: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ReplayStart {
    Now,
    FirstSubscriber,
}

impl Arguments {
    /// The config's file; `None`: the built-in market is served.
    fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| {
            Path::new(DEFAULT_CONFIG)
                .exists()
                .then(|| DEFAULT_CONFIG.into())
        })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    // Before the file is read: a change right after that is seen too.
    let watch = ConfigWatch::start(arguments.file()).context("can't start a thread")?;
    let config = match load(arguments) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
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
            "the limit of open files is too low for limits.connections; raise it (ulimit -n, LimitNOFILE) or lower limits.connections"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    let exit = runtime.block_on(serve(arguments, &config, watch, files));
    runtime.shutdown_timeout(THREADS_PATIENCE);
    exit
}

fn start_logging(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| "info".into());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && super::wants_colors())
        .with_writer(std::io::stderr)
        .event_format(format);
    // A program that uses the library may have set its own before.
    let _set_before = lines.try_init();
}

/// The config, with what the arguments say instead, whose files are there; the error is the whole text to print.
fn load(arguments: &Arguments) -> Result<Config, String> {
    let loaded = arguments.file().map_or_else(
        || Config::parse(BUILT_IN, "the built-in feeds.yaml"),
        |file| Config::load(&file),
    );
    let mut config = loaded.map_err(|error| error.to_string())?;
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.state_dir = arguments.state_dir.clone().or(config.state_dir);
    config.shards = arguments.shards.unwrap_or(config.shards);
    match arguments.admin.as_deref() {
        None => {}
        Some("off") => config.admin = None,
        Some(text) => {
            config.admin =
                Some(address(text).map_err(|error| format!("--admin {text}: {error}, or off"))?);
        }
    }
    if !arguments.replay.is_empty() {
        config.sources = vec![replay_source(arguments)?];
    }
    if let Some(instruments) = arguments.sim_instruments {
        config.sources = vec![sim_source(instruments, arguments)?];
    }
    config.probe_files().map_err(|error| error.to_string())?;
    Ok(config)
}

fn replay_source(arguments: &Arguments) -> Result<SourceConfig, String> {
    let speed = Speed::parse(&arguments.speed)
        .ok_or_else(|| format!("--speed {}: write 0.1 to 1000, or max", arguments.speed))?;
    let symbol = arguments
        .symbol
        .as_deref()
        .map(Symbol::new)
        .transpose()
        .map_err(|error| format!("--symbol: {error}"))?;
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
    Ok(SourceConfig {
        name: "replay".into(),
        stale_after: Duration::from_secs(60),
        details: SourceDetails::Replay(replay),
    })
}

fn sim_source(instruments: u32, arguments: &Arguments) -> Result<SourceConfig, String> {
    if !(arguments.sim_rate > 0.0 && arguments.sim_rate <= 1e8) {
        return Err(format!(
            "--sim-rate {}: write a number above 0, up to 100000000",
            arguments.sim_rate
        ));
    }
    if !(0.0..=1.0).contains(&arguments.sim_trades) {
        return Err(format!(
            "--sim-trades {}: write a share from 0 to 1",
            arguments.sim_trades
        ));
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
        // Rare events are no silence.
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
    Ok(SourceConfig {
        name: "sim".into(),
        stale_after: Duration::from_secs(60),
        details: SourceDetails::Sim(sim),
    })
}

/// The signals that stop the server.
struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("can't listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("can't listen for SIGTERM")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    mut watch: ConfigWatch,
    files: u64,
) -> Result<Exit> {
    let mut stops = Stops::new()?;
    let mut hangup = signal(SignalKind::hangup()).context("can't listen for SIGHUP")?;
    let mut app = App::start(config).await?;
    announce(config, &app, files).await?;
    let keeps_state = config.state_dir.is_some();
    let mut reader = ConfigReader::new();
    loop {
        tokio::select! {
            () = stops.next() => break,
            _ = hangup.recv() => {}
            () = watch.changed() => {}
        }
        let again = arguments.clone();
        let read = tokio::select! {
            read = reader.read(move || load(&again)) => read,
            () = stops.next() => break,
        };
        let reloading = reload(read, &mut app);
        tokio::pin!(reloading);
        tokio::select! {
            () = &mut reloading => {}
            () = stops.next() => {
                // To its end, so that no source is left half-way.
                let _late = tokio::time::timeout(RELOAD_PATIENCE, reloading).await;
                break;
            }
        }
    }
    let failed = app.failed_sources();
    tracing::info!("stopping; a second signal stops at once");
    let stopped = tokio::select! {
        stopped = app.stop() => stopped,
        () = stops.next() => Stopped::WithoutState,
    };
    for (name, error) in &failed {
        tracing::error!(source = &**name, %error, "this source had failed");
    }
    let is_complete = stopped == Stopped::Complete || !keeps_state;
    Ok(if is_complete && failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// Takes up a config that was read again; a wrong one changes nothing. Said first, counted afterwards.
async fn reload(read: Result<Config, String>, app: &mut App) {
    let outcome = match read {
        Ok(config) => {
            let Reloaded {
                taken,
                needs_restart,
            } = app.reload(&config).await;
            let taken = if taken.is_empty() {
                "nothing new".to_owned()
            } else {
                taken.join(", ")
            };
            tracing::info!(taken, "the config was read again");
            if !needs_restart.is_empty() {
                tracing::warn!(keys = needs_restart.join(", "), "these wait for a restart");
            }
            "taken"
        }
        Err(why) => {
            for problem in why.lines() {
                tracing::error!(problem, "the config is refused; the one before goes on");
            }
            "refused"
        }
    };
    app.metrics().reloads.with_label_values(&[outcome]).inc();
    app.metrics()
        .reload_failed
        .set((outcome == "refused").into());
}

async fn announce(config: &Config, app: &App, files: u64) -> Result<()> {
    let (instruments, topics) = app.sizes().await;
    let (address, sources) = (app.address(), config.sources.len());
    let metrics = app
        .admin_address()
        .or((config.metrics_on_feed && address.ip().is_loopback()).then_some(address));
    let metrics = metrics.map_or("off".to_owned(), |address| {
        format!("http://{address}/metrics")
    });
    let memory_mib = config.memory_formula(topics).0.div_ceil(1 << 20);
    let text = format!(
        "tickcast {}\n  feed     ws://{address}/v1/feed\n  web      http://{address}/\n  metrics  {metrics}\n  health   http://{address}/healthz  http://{address}/readyz\n  market   {instruments} instruments, {topics} topics, {sources} sources, {} shards\n  memory   {memory_mib} MiB at most by the limits of this config (operations guide, Memory)\n  files    {files} may be open at once\n",
        env!("CARGO_PKG_VERSION"),
        config.shards,
    );
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("can't print where the feed is")
}
