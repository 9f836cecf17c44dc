//! Figures of a cluster on one machine, with real NATS servers: how fast the log is appended to, what
//! it adds to the latency, how long takeovers and starts last, and what a second gateway adds.
//!
//!     cargo bench --bench cluster
//!     cargo bench --bench cluster -- --only append,latency --seconds 5

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod append;
mod boot;
mod capacity;
mod cores;
mod failover;
mod latency;
#[path = "../../tests/cluster/nats.rs"]
#[expect(dead_code, reason = "the tests of the cluster use the rest")]
mod nats;
#[path = "../../tests/cluster/process.rs"]
#[expect(dead_code, reason = "the tests of the cluster use the rest")]
mod process;
mod readers;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use process::Cluster;
use report::Report;

/// NATS servers of a case, and when they write to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Engine {
    name: &'static str,
    servers: usize,
    sync: &'static str,
}

const ONE: Engine = Engine {
    name: "1 NATS server",
    servers: 1,
    sync: nats::SYNC,
};
const THREE: Engine = Engine {
    name: "3 NATS servers",
    servers: 3,
    sync: nats::SYNC,
};
const THREE_ALWAYS: Engine = Engine {
    name: "3 NATS servers, sync always",
    servers: 3,
    sync: "always",
};
const ENGINES: [Engine; 3] = [ONE, THREE, THREE_ALWAYS];

impl Engine {
    fn start(self) -> Result<Cluster> {
        let started = Cluster::with_nats(self.servers, self.sync)?;
        started.context("nats-server is not installed; ./check installs it")
    }
}

#[derive(Debug, Parser)]
struct Arguments {
    /// Only cases whose names contain one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds that are measured in each round
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Rounds of each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Minutes of 20,000 events/s that the log contains when a gateway starts
    #[arg(long, default_value_t = 5.0)]
    boot_minutes: f64,
    /// Where the table goes as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Time and rounds of all cases.
#[derive(Debug, Clone, Copy)]
struct Span {
    measured: Duration,
    rounds: usize,
}

type Case = fn(Span, &mut Report) -> Result<()>;

const CASES: [(&str, Case); 5] = [
    ("append", append::run),
    ("latency", latency::run),
    ("failover", failover::run),
    ("capacity", capacity::run),
    ("readers", readers::run),
];

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let is_wanted = |name: &str| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|part| name.contains(part.as_str()))
    };
    let span = Span {
        measured: Duration::from_secs_f64(arguments.seconds),
        rounds: arguments.rounds,
    };
    let mut report = Report::default();
    for (name, case) in CASES {
        if is_wanted(name) {
            case(span, &mut report).context(name)?;
        }
    }
    if is_wanted("boot") {
        let written = Duration::from_secs_f64(arguments.boot_minutes * 60.0);
        boot::run(written, &mut report).context("boot")?;
    }
    if let Some(file) = arguments.markdown {
        std::fs::write(file, report.markdown())?;
    }
    Ok(())
}
