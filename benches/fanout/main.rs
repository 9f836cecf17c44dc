//! The fan-out against the kernel's limit and against what one writes first, on the same events:
//! `cargo bench --bench fanout`.
//!
//! Each server runs in a process of its own, pinned to one core, with the same generator (simulator
//! and bus) beside it; the tester runs on the other core. Rounds are interleaved; medians and
//! spreads are printed, and written as JSON. `-- --rounds 5 --seconds 5 --only fast,flat_out --json
//! FILE --markdown FILE`; `--quick` is the small version that `./check` runs.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod bare;
mod calls;
mod case;
mod figures;
mod flame;
mod generator;
mod memory;
mod naive;
mod process;
mod report;
mod setup;
mod soak;
mod talk;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use tickcast::config::Config;

use case::{Case, Round};
use figures::{Figure, Found};
use process::Kind;
use setup::{Cores, Setup};
use soak::{Soak, run_soak};

#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds of each server and case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that are measured in each
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Only cases whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the figures go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the tables go as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Profile each case and server once by perf, instead of measuring: folded stacks, flame graphs
    /// and a summary go into this folder
    #[arg(long, value_name = "FOLDER")]
    flame: Option<PathBuf>,
    /// Shards of tickcast; more than one need as many cores and two more
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Pin each shard to a core
    #[arg(long)]
    pin: bool,
    /// Short rounds of the cases that matter most; fails where two runs miss a figure by a
    /// factor of two
    #[arg(long)]
    quick: bool,
    /// Soak test of so many minutes instead of the cases
    #[arg(long, value_name = "MINUTES")]
    soak: Option<f64>,
    /// Seconds from one wave of clients of the soak test to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    cycle: f64,
    /// Events per second of the soak test: about 80 % of what one core of ours delivers
    #[arg(long, value_name = "EVENTS", default_value_t = 64_000.0)]
    rate: f64,
    /// Be a server of this kind instead
    #[arg(long, hide = true)]
    serve: Option<String>,
    #[arg(hide = true)]
    config: Option<PathBuf>,
    /// What cargo passes to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

const BOTH: &[Kind] = &[Kind::Tickcast, Kind::Bare];
const ALL: &[Kind] = &[Kind::Tickcast, Kind::Bare, Kind::Naive];
const WITH_TLS: &[Kind] = &[Kind::Tickcast, Kind::Tls, Kind::Bare, Kind::Naive];
const OWN_AND_TLS: &[Kind] = &[Kind::Tickcast, Kind::Tls];
const OWN: &[Kind] = &[Kind::Tickcast];
/// What 9,500 connections need of the config.
const MANY: &str = "limits: {connections: 20000}";

/// With 9,500 connections.
fn with_many_connections(case: Case) -> Case {
    Case {
        connections: 9_500,
        config: MANY,
        ..case
    }
}

fn cases() -> Vec<Case> {
    // 500 events/s to 100 subscribers each, whoever and whatever else there is.
    let growth = |name, connections, instruments, topics_each, servers| Case {
        longer: 3,
        connections,
        instruments,
        topics_each,
        config: MANY,
        ..Case::new(name, 500.0, servers)
    };
    // Memory at the highest rate that every client keeps up with.
    let memory = |name, pause_ms| Case {
        pause_ms,
        watches_memory: true,
        ..Case::new(name, 80_000.0, OWN).quick(1)
    };
    let all_at_once = |name, silence_ms| Case {
        silence_ms,
        ..with_many_connections(Case::new(name, 10.0, OWN).quick(1))
    };
    vec![
        Case {
            instruments: 1,
            connections: 1,
            topics_each: 1,
            counts_calls: true,
            ..Case::new("lone", 100.0, BOTH).quick(2)
        },
        Case::new("calm", 500.0, ALL).quick(2),
        Case::new("busy", 2_000.0, WITH_TLS).quick(3),
        Case::new("dense", 10_000.0, BOTH),
        Case::new("fast", 80_000.0, ALL).quick(3),
        // As much for each client as in `fast`, and few enough clients for a tester that decrypts.
        Case {
            connections: 400,
            ..Case::new("encrypted", 80_000.0, OWN_AND_TLS).quick(2)
        },
        Case::new("flat_out", 320_000.0, BOTH),
        Case {
            mode: "conflate",
            ..Case::new("conflate", 80_000.0, OWN).quick(2)
        },
        Case {
            instruments: 1,
            topics_each: 1,
            ..Case::new("broadcast", 100.0, BOTH)
        },
        growth("few", 100, 10, 10, BOTH),
        growth("many", 9_500, 950, 10, BOTH).quick(2),
        with_many_connections(Case::new("wide", 50_000.0 * 100.0 / 95_000.0, BOTH)),
        growth("10_topics", 1_000, 10, 1, OWN),
        growth("10000_topics", 1_000, 10_000, 1_000, OWN),
        Case {
            config: "fanout: {flush_window: 20ms}",
            ..Case::new("window", 2_000.0, OWN)
        },
        Case {
            slow: "10%",
            stalled: "10%",
            ..Case::new("stalled", 500.0, OWN)
        },
        Case {
            storm: true,
            longer: 1,
            ..growth("storm", 9_500, 950, 10, OWN)
        },
        all_at_once("idle", 0),
        all_at_once("handshakes", 500),
        memory("prompt", 0),
        memory("burst", 700),
    ]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(kind), Some(config)) = (&arguments.serve, &arguments.config) {
        return serve(kind, config);
    }
    let (measured, settle) = if arguments.quick {
        (1.5, 4.0)
    } else {
        (arguments.seconds, 10.0)
    };
    let setup = Setup {
        measured: Duration::from_secs_f64(measured),
        settle: Duration::from_secs_f64(settle),
        shards: arguments.shards,
        pin: arguments.pin,
        cores: Cores::take(arguments.shards)?,
    };
    if let Some(minutes) = arguments.soak {
        return run_soak(&Soak {
            time: Duration::from_secs_f64(minutes * 60.0),
            cycle: Duration::from_secs_f64(arguments.cycle),
            events_per_s: arguments.rate,
            setup,
        });
    }
    if !calls::is_available() {
        println!("strace is not installed: system calls are not counted");
    }
    let wanted = |case: &Case| match (arguments.quick, arguments.only.is_empty()) {
        (true, _) => case.quick_rounds > 0,
        (_, true) => true,
        _ => arguments
            .only
            .iter()
            .any(|only| case.name.contains(only.as_str())),
    };
    if let Some(folder) = &arguments.flame {
        return profile(cases().into_iter().filter(wanted), &setup, folder);
    }
    let shown: Vec<Case> = cases().into_iter().filter(wanted).collect();
    let found = measure_all(&shown, &arguments, &setup)?;
    let figures = figures::figures(&found);
    report::print_figures(&figures);
    if let Some(path) = &arguments.json {
        report::write_json(path, &found, &setup)?;
    }
    if let Some(path) = &arguments.markdown {
        let text = report::markdown(&shown, &found, &figures);
        std::fs::write(path, text)?;
    }
    if arguments.quick {
        require_soundness(&figures, &found, || measure_all(&shown, &arguments, &setup))?;
    }
    Ok(())
}

/// The rounds of all cases.
fn measure_all<'a>(shown: &'a [Case], arguments: &Arguments, setup: &Setup) -> Result<Found<'a>> {
    let mut found = BTreeMap::new();
    for case in shown {
        let rounds = if arguments.quick {
            case.quick_rounds
        } else {
            arguments.rounds
        };
        let all = measure(case, rounds, setup)?;
        report::print_case(case, &all);
        found.insert(case.name, all);
    }
    Ok(found)
}

/// Fails on any failure of a round, and on a figure that is far off in two runs: machines are
/// shared, and other programs can slow one down for a whole run.
fn require_soundness<'a>(
    figures: &[Figure],
    found: &Found<'_>,
    measure_again: impl FnOnce() -> Result<Found<'a>>,
) -> Result<()> {
    fail_on_failures(found)?;
    let mut missed = far_off(figures);
    if missed.is_empty() {
        return Ok(());
    }
    println!("far off, so all is measured again: {}", missed.join(", "));
    let found = measure_again()?;
    let figures = figures::figures(&found);
    report::print_figures(&figures);
    fail_on_failures(&found)?;
    // A figure that the second run cannot judge remains missed.
    missed.retain(|what| {
        let again = figures.iter().find(|figure| figure.what == *what);
        again.is_none_or(Figure::is_far_off)
    });
    if !missed.is_empty() {
        anyhow::bail!("missed by a factor of two, twice: {}", missed.join(", "));
    }
    Ok(())
}

/// Figures that are missed by a factor of two beyond doubt.
fn far_off(figures: &[Figure]) -> Vec<&'static str> {
    figures
        .iter()
        .filter(|figure| figure.is_far_off() && figure.doubt.is_none())
        .map(|figure| figure.what)
        .collect()
}

/// An unbalanced ledger is always an error.
fn fail_on_failures(found: &Found<'_>) -> Result<()> {
    let rounds = found.values().flat_map(BTreeMap::values).flatten();
    let failures: Vec<_> = rounds.flat_map(|round| &round.failures).collect();
    if let Some(first) = failures.first() {
        anyhow::bail!("{} failures, such as: {first}", failures.len());
    }
    Ok(())
}

/// Profiles of cases; naive is no server to learn from.
fn profile(cases: impl Iterator<Item = Case>, setup: &Setup, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut text = String::new();
    for case in cases {
        let config = folder.join("bench.yaml");
        std::fs::write(&config, case.yaml(setup))?;
        for kind in case.servers.iter().filter(|kind| **kind != Kind::Naive) {
            let summary = case.profile(*kind, &config, setup, folder)?;
            println!("{summary}");
            text = text + &summary + "\n";
        }
    }
    Ok(std::fs::write(folder.join("summary.md"), text)?)
}

/// The rounds of a case, its servers in turn.
fn measure(case: &Case, rounds: usize, setup: &Setup) -> Result<BTreeMap<Kind, Vec<Round>>> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("bench.yaml");
    std::fs::write(&config, case.yaml(setup))?;
    let mut all: BTreeMap<Kind, Vec<Round>> = BTreeMap::new();
    for round in 0..rounds {
        for kind in case.servers {
            all.entry(*kind)
                .or_default()
                .push(case.round(*kind, &config, setup, round as u64)?);
        }
    }
    Ok(all)
}

fn serve(kind: &str, config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    let generator = generator::start(&config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = std::io::stdout();
    write!(out, "ws://{}/\nfiles\n", listener.local_addr()?)?;
    out.flush()?;
    drop(rlimit::increase_nofile_limit(u64::MAX));
    match kind {
        "bare" => bare::serve(generator, listener),
        "naive" => naive::serve(generator, listener),
        other => anyhow::bail!("no server {other}"),
    }
}
