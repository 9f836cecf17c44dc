mod outputs;
mod progress;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::token::{Refusal, TokenArguments};
use super::trust::TrustArguments;
use super::{Exit, print_error};
use crate::client::FeedUrl;
use crate::load::{
    Dialect, LoadError, ModeMix, Outcome, Plan, Probes, RawPlan, Share, Skew, Slo, TimePath,
    TopicChoice, compare, run as run_plan, write_table,
};
use crate::protocol::{Encoding, OnSlow};
use crate::topic::TopicName;
use outputs::Outputs;
use progress::Progress;

/// Default of `--topics`.
const DEFAULT_TOPICS: &str = "quote:*";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Feed address: HOST:PORT, or a URL as printed by the server
    #[arg(
        long,
        value_name = "HOST:PORT|URL",
        default_value = "127.0.0.1:8080",
        env = "TICKCAST_CONNECT"
    )]
    connect: FeedUrl,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
    /// Number of connections
    #[arg(long, short = 'c', value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Time over which the connections are opened
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::time)]
    ramp: Duration,
    /// Hold all handshakes back for this long, then send them at once
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = super::time)]
    silence: Duration,
    /// Topics and patterns; each connection subscribes to all, or draws some
    #[arg(long, value_name = "TOPIC", num_args = 1.., value_delimiter = ',', default_value = DEFAULT_TOPICS)]
    topics: Vec<String>,
    /// Topics that each connection draws from --topics
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    topics_per_connection: Option<u32>,
    /// Distribution of drawn topics: uniform, zipf, or zipf:S with exponent S
    #[arg(
        long,
        value_name = "DISTRIBUTION",
        default_value = "uniform",
        requires = "topics_per_connection"
    )]
    draw: Skew,
    /// Wire encoding: msgpack or json
    #[arg(long, default_value = "msgpack", value_parser = encoding)]
    encoding: Encoding,
    /// Delivery mode: raw, conflate, an interval such as 100ms, or a weighted mix such as
    /// raw:80,interval-100ms:20 (trades are always raw)
    #[arg(long, default_value = "raw")]
    mode: ModeMix,
    /// Slow-consumer policy: conflate, gap or disconnect [default: that of each channel]
    #[arg(long, value_parser = on_slow)]
    on_slow: Option<OnSlow>,
    /// Share of slow consumers among the connections
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    slow: Share,
    /// Read rate of a slow consumer, in bytes per second
    #[arg(long, value_name = "BYTES", default_value_t = 10_240, value_parser = clap::value_parser!(u64).range(1..))]
    slow_rate: u64,
    /// Share of connections that never read
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    stalled: Share,
    /// Read nothing for this time after subscribing, then keep up
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = super::time)]
    pause: Duration,
    /// Repeat the pause on all connections at this interval
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = super::time, requires = "pause")]
    pause_every: Duration,
    /// Connections per second that disconnect, reconnect and resume
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    churn: f64,
    /// Disconnect all connections halfway through the test; all reconnect and resume at once
    #[arg(long)]
    storm: bool,
    /// Measured time, after the warm-up
    #[arg(long, short = 'd', value_name = "TIME", default_value = "10s", value_parser = super::time)]
    duration: Duration,
    /// Warm-up excluded from measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = super::time)]
    warmup: Duration,
    /// Random seed of all draws
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that decode all messages, measure latency and verify their ledger: a number, or
    /// all
    #[arg(long, value_name = "N|all", default_value = "10")]
    probes: Probes,
    /// Threads of the tester
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// Busy-poll sockets; steadier latencies, uses a full core per worker
    #[arg(long)]
    spin: bool,
    /// Test another WebSocket server by counting its messages
    #[arg(long, value_name = "URL", conflicts_with_all = ["connect", "topics", "churn", "storm"])]
    raw: Option<String>,
    /// Text message to send once a connection is open; repeatable
    #[arg(long, value_name = "TEXT", requires = "raw")]
    send: Vec<String>,
    /// Path of the timestamp in a message, such as data.0.E; enables latency measurement
    #[arg(long, value_name = "PATH", requires = "raw")]
    timestamp: Option<TimePath>,
    /// Service-level objectives; exit code 1 if one is missed: 'p99<5ms,p99.9<20ms,loss=0'
    #[arg(long, value_name = "OBJECTIVES")]
    slo: Option<Slo>,
    /// Write the results as JSON to FILE, or to standard output without FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Write HDR histograms: PREFIX.hlog (one per second) and PREFIX.hgrm (percentiles)
    #[arg(long, value_name = "PREFIX")]
    hdr: Option<PathBuf>,
    /// Write an HTML report with charts and all figures
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Compare two results written by --json instead of running a test
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"])]
    compare: Option<Vec<PathBuf>>,
}

fn encoding(text: &str) -> Result<Encoding> {
    Encoding::parse(text).context("expected msgpack or json")
}

fn on_slow(text: &str) -> Result<OnSlow> {
    OnSlow::parse(text).context("expected conflate, gap or disconnect")
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    if let Some([a, b]) = arguments.compare.as_deref() {
        return print_comparison(a, b);
    }
    let plan = match plan(arguments) {
        Ok(plan) => plan,
        Err(error) => {
            print_error(&error.to_string());
            return Ok(Exit::Usage);
        }
    };
    // Checked before the test, not after an hour of it.
    let outputs = match Outputs::open(
        arguments.json.as_deref(),
        arguments.hdr.as_deref(),
        arguments.report.as_deref(),
    ) {
        Ok(outputs) => outputs,
        Err(error) => {
            print_error(&format!("{error:#}"));
            return Ok(Exit::Usage);
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_interrupt(Arc::clone(&stop))?;
    let mut progress = Progress::new(&plan);
    let outcome = run_plan(&plan, &mut |update| {
        progress.show(&update);
        stop.load(Ordering::Relaxed)
    });
    progress.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            outputs.discard();
            return Err(match error {
                LoadError::Client(error) => {
                    super::connect_error(&plan.host, error, &arguments.token)
                }
                LoadError::AuthRequired => {
                    let remedy = arguments.token.remedy(Refusal::Rejected);
                    anyhow::anyhow!("{}: {error}{remedy}", plan.host)
                }
                other => other.into(),
            });
        }
    };
    if arguments.json.as_deref() != Some(Path::new("-")) {
        write_table(&outcome, &mut std::io::stdout().lock()).context("cannot print the summary")?;
    }
    outputs.write(&outcome)?;
    judge(arguments, &outcome)
}

/// First interrupt: ends the test early and prints the measurements so far. Second: exits.
fn stop_on_interrupt(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    if stop.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
            });
        })?;
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    if let Some(error) = arguments
        .topics
        .iter()
        .find_map(|text| TopicName::parse(text).err())
    {
        return Err(error.into());
    }
    if !(0.0..=100_000.0).contains(&arguments.churn) {
        bail!(
            "--churn {}: expected a number from 0 to 100000",
            arguments.churn
        );
    }
    let (host, is_tls, dialect) = match &arguments.raw {
        Some(url) => raw(url, arguments)?,
        None => {
            let url = &arguments.connect;
            (url.host().to_owned(), url.is_tls(), Dialect::Tickcast)
        }
    };
    let names = arguments.topics.clone();
    Ok(Plan {
        host: host.clone(),
        path: arguments.connect.path().to_owned(),
        tls: is_tls.then(|| arguments.trust.read()).transpose()?,
        token: match dialect {
            Dialect::Tickcast => arguments.token.token(),
            Dialect::Raw(_) if arguments.token.is_given() => {
                bail!("--raw presents no token: expected neither --token nor --token-file")
            }
            // The token of the environment is for servers of tickcast alone.
            Dialect::Raw(_) => None,
        },
        dialect,
        connections: arguments.connections as usize,
        ramp: arguments.ramp,
        silence: arguments.silence,
        topics: match arguments.topics_per_connection {
            Some(each) => TopicChoice::Draw {
                names: names.clone(),
                each: each as usize,
                skew: arguments.draw,
            },
            None => TopicChoice::All(names.clone()),
        },
        encoding: arguments.encoding,
        modes: arguments.mode.clone(),
        on_slow: arguments.on_slow,
        slow: arguments.slow,
        slow_bytes_per_s: arguments.slow_rate,
        stalled: arguments.stalled,
        pause: arguments.pause,
        pause_every: arguments.pause_every,
        churn_per_s: arguments.churn,
        storm: arguments.storm,
        duration: arguments.duration,
        warmup: arguments.warmup,
        seed: arguments.seed,
        probes: arguments.probes,
        workers: arguments.workers.into(),
        spin: arguments.spin,
        ..Plan::new(address(&host)?, names)
    })
}

fn address(host: &str) -> Result<SocketAddr> {
    let found = host
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next());
    found.with_context(|| {
        format!("invalid address {host}: expected HOST:PORT, e.g. 127.0.0.1:8080 or localhost:8080")
    })
}

/// Host, TLS and the rest of `ws://host[:port]/path` or `wss://host[:port]/path`.
fn raw(url: &str, arguments: &Arguments) -> Result<(String, bool, Dialect)> {
    let (rest, is_tls) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => {
            bail!("--raw {url}: expected ws://HOST:PORT/PATH or wss://HOST:PORT/PATH")
        }
    };
    let (host, path) = rest
        .find('/')
        .map_or((rest, "/"), |slash| rest.split_at(slash));
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        bail!(
            "--raw {}: expected a path without spaces and control characters",
            url.escape_debug()
        );
    }
    let host = if host
        .rsplit(']')
        .next()
        .is_some_and(|after| after.contains(':'))
    {
        host.to_owned()
    } else {
        format!("{host}:{}", if is_tls { 443 } else { 80 })
    };
    let plan = RawPlan {
        path: path.to_owned(),
        send: arguments.send.clone(),
        timestamp: arguments.timestamp.clone(),
    };
    Ok((host, is_tls, Dialect::Raw(plan)))
}

fn judge(arguments: &Arguments, outcome: &Outcome) -> Result<Exit> {
    let mut exit = match outcome {
        _ if outcome.interrupted => Exit::Interrupted,
        _ if outcome.is_sound() => Exit::Ok,
        _ => Exit::Failed,
    };
    let Some(slo) = &arguments.slo else {
        return Ok(exit);
    };
    let mut out = std::io::stderr().lock();
    for verdict in slo.judge(outcome) {
        let word = if verdict.holds { "met" } else { "MISSED" };
        writeln!(
            out,
            "  slo: {} {word}, measured {}",
            verdict.objective, verdict.measured_text
        )?;
        if !verdict.holds && exit == Exit::Ok {
            exit = Exit::Failed;
        }
    }
    if outcome.void.is_some() && exit == Exit::Ok {
        writeln!(out, "  slo: not met, the run is invalid")?;
        exit = Exit::Failed;
    }
    Ok(exit)
}

fn read_outcome(path: &Path) -> Result<Outcome> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "invalid results {}: expected a file written by --json",
            path.display()
        )
    })
}

fn print_comparison(a: &Path, b: &Path) -> Result<Exit> {
    let rows = compare(&read_outcome(a)?, &read_outcome(b)?);
    if rows.is_empty() {
        bail!(
            "no figure to compare: {} and {} have none in common",
            a.display(),
            b.display()
        );
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<16}{:>18}{:>18}{:>10}",
        "",
        a.display(),
        b.display(),
        "b / a"
    )?;
    for row in rows {
        let ratio = if row.a > 0.0 {
            format!("{:.2} ×", row.b / row.a)
        } else {
            "–".to_owned()
        };
        writeln!(
            out,
            "{:<16}{:>18.1}{:>18.1}{ratio:>10}",
            row.name, row.a, row.b
        )?;
    }
    Ok(Exit::Ok)
}
