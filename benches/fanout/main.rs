//! The fan-out against the kernel's limit and against what one writes first, on the same events:
//! `cargo bench --bench fanout`.
//!
//! Each server runs in a process of its own, pinned to one core, with the same generator (simulator
//! and bus) beside it; the tester runs on the other core. Rounds are interleaved; medians and
//! spreads are printed, and written as JSON. `-- --rounds 5 --seconds 5 --only fast,flat_out --json
//! FILE`; `--quick` is the small version that `./check` runs.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod bare;
mod case;
mod generator;
mod naive;
mod process;
mod report;
mod talk;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use tickcast::config::Config;

use case::{Case, Round};
use process::Kind;

/// Where the tester runs.
const CLIENT_CORE: usize = 1;

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
    /// Short rounds of the cases that matter most; fails where a figure is missed by a factor of
    /// two
    #[arg(long)]
    quick: bool,
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
const OWN: &[Kind] = &[Kind::Tickcast];
/// What 9,500 connections need of the config.
const MANY: &str = "limits: {connections: 20000}";

fn cases() -> Vec<Case> {
    // 500 events/s to 100 subscribers each, whoever and whatever else there is.
    let growth = |name, connections, instruments, topics_each| Case {
        connections,
        instruments,
        topics_each,
        config: MANY,
        ..Case::new(name, 500.0, OWN)
    };
    vec![
        Case::new("calm", 500.0, ALL),
        Case::new("busy", 2_000.0, ALL),
        Case::new("dense", 10_000.0, BOTH),
        Case::new("fast", 80_000.0, ALL),
        Case::new("flat_out", 320_000.0, BOTH),
        Case {
            instruments: 1,
            topics_each: 1,
            ..Case::new("broadcast", 100.0, BOTH)
        },
        Case {
            connections: 9_500,
            config: MANY,
            ..Case::new("many", 50_000.0 * 100.0 / 95_000.0, BOTH)
        },
        Case {
            config: "fanout: {flush_window: 20ms}",
            ..Case::new("window", 2_000.0, OWN)
        },
        Case {
            slow: "10%",
            stalled: "10%",
            ..Case::new("stalled", 500.0, OWN)
        },
        growth("100_connections", 100, 10, 10),
        growth("9500_connections", 9_500, 950, 10),
        growth("10_topics", 1_000, 10, 1),
        growth("10000_topics", 1_000, 10_000, 1_000),
        Case {
            connections: 9_500,
            config: MANY,
            ..Case::new("idle", 10.0, OWN)
        },
        Case {
            connections: 9_500,
            config: MANY,
            silence_ms: 500,
            ..Case::new("handshakes", 10.0, OWN)
        },
        Case {
            storm: true,
            ..growth("storm", 9_500, 950, 10)
        },
    ]
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(kind), Some(config)) = (&arguments.serve, &arguments.config) {
        return serve(kind, config);
    }
    let mut cpus = CpuSet::new();
    cpus.set(CLIENT_CORE);
    sched_setaffinity(None, &cpus).context("the bench needs two cores")?;
    let (rounds, time) = if arguments.quick {
        (3, 1.5)
    } else {
        (arguments.rounds, arguments.seconds)
    };
    let wanted = |case: &Case| match (arguments.quick, arguments.only.is_empty()) {
        (true, _) => ["calm", "busy", "fast"].contains(&case.name),
        (_, true) => true,
        _ => arguments
            .only
            .iter()
            .any(|only| case.name.contains(only.as_str())),
    };
    let mut found = BTreeMap::new();
    for case in cases().iter().filter(|case| wanted(case)) {
        let all = measure(case, rounds, Duration::from_secs_f64(time))?;
        report::print_case(case, &all);
        found.insert(case.name, all);
    }
    let missed = report::print_figures(&found);
    if let Some(path) = &arguments.json {
        report::write_json(path, &found)?;
    }
    if arguments.quick && !missed.is_empty() {
        anyhow::bail!("missed by a factor of two: {}", missed.join(", "));
    }
    Ok(())
}

/// The rounds of a case, its servers in turn.
fn measure(case: &Case, rounds: usize, time: Duration) -> Result<BTreeMap<Kind, Vec<Round>>> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("bench.yaml");
    std::fs::write(&config, case.yaml())?;
    let mut all: BTreeMap<Kind, Vec<Round>> = BTreeMap::new();
    for round in 0..rounds {
        for kind in case.servers {
            all.entry(*kind)
                .or_default()
                .push(case.round(*kind, &config, time, round as u64)?);
        }
    }
    Ok(all)
}

fn serve(kind: &str, config: &Path) -> Result<()> {
    let config = Config::load(config)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut out = std::io::stdout();
    write!(out, "ws://{}/\nfiles\n", listener.local_addr()?)?;
    out.flush()?;
    drop(rlimit::increase_nofile_limit(u64::MAX));
    match kind {
        "bare" => bare::serve(&config, listener),
        "naive" => naive::serve(&config, listener),
        other => anyhow::bail!("no server {other}"),
    }
}
