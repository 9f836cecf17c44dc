//! Soak test: a server near its limit for hours, with everything that moves memory.
//!
//! Residents stay connected and churn; visitors come each minute, read nothing at first, reconnect
//! all at once in the middle, and leave. Some of them are slow or never read. Memory is compared
//! between the ends of the minutes, where the visitors are gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::clock::Clock;
use tickcast::load::{LoadError, ModeMix, Outcome, Plan, Probes, Share, Skew, TopicChoice, run};

use crate::case::Case;
use crate::process::{Kind, Server};
use crate::setup::Setup;

/// Time at the end of each minute without visitors.
const REST: Duration = Duration::from_secs(6);
/// Part of the rest in which memory is returned before it is measured.
const SETTLE: Duration = Duration::from_secs(4);
/// Memory of the first minutes still grows: buffers, history, the allocator.
const WARMUP_MIN: f64 = 10.0;
/// Largest growth of resident memory in MB per hour.
const SLOPE_MAX: f64 = 1.0;
const MB: f64 = 1e6;

/// Settings of a soak test.
pub(crate) struct Soak {
    pub(crate) time: Duration,
    /// Time from one wave of visitors to the next.
    pub(crate) cycle: Duration,
    pub(crate) events_per_s: f64,
    pub(crate) setup: Setup,
}

/// Memory at the end of a cycle.
#[derive(Debug, Clone, Copy)]
struct Sample {
    hours: f64,
    megabytes: f64,
}

fn plan(server: &Server, soak: &Soak, connections: usize, topics: &[String]) -> Result<Plan> {
    Ok(Plan {
        connections,
        topics: TopicChoice::Draw {
            names: topics.to_vec(),
            each: 10,
            skew: Skew::Uniform,
        },
        modes: "raw:80,interval-100ms:10,conflate:10".parse::<ModeMix>()?,
        slow: "5%".parse()?,
        stalled: "2%".parse()?,
        probes: Probes::Count(5),
        pause: Duration::from_millis(700),
        ramp: Duration::from_millis(500),
        duration: soak.cycle.saturating_sub(REST + Duration::from_secs(3)),
        ..Plan::new(server.address, topics.to_vec())
    })
}

/// Runs the soak test; fails if a ledger does not balance or memory grows.
pub(crate) fn run_soak(soak: &Soak) -> Result<()> {
    let case = Case::new("soak", soak.events_per_s, &[Kind::Tickcast]);
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("soak.yaml");
    std::fs::write(&config, case.yaml(&soak.setup))?;
    let server = Server::start(Kind::Tickcast, &config, &soak.setup.cores)?;
    let topics = case.topics();
    let residents = Plan {
        // After `fanout.stall_timeout` they would be disconnected.
        stalled: Share::default(),
        churn_per_s: 5.0,
        pause_every: soak.cycle,
        duration: soak.time,
        ..plan(&server, soak, 200, &topics)?
    };
    let living = std::thread::Builder::new()
        .name("residents".to_owned())
        .spawn(move || run(&residents, &mut |_| false))?;
    let visitors = Plan {
        churn_per_s: 20.0,
        storm: true,
        ..plan(&server, soak, 800, &topics)?
    };
    let samples = waves(soak, &server, &visitors)?;
    let outcome = living
        .join()
        .map_err(|_panic| anyhow::anyhow!("the residents panicked"))?;
    check_ledgers("residents", outcome)?;
    let unaccounted = server.metric("tickcast_events_unaccounted_total")?;
    ensure!(
        unaccounted.abs() < 0.5,
        "{unaccounted} events unaccounted for"
    );
    judge(&samples)
}

/// Waves of visitors until the time is over, with the memory after each.
#[expect(
    clippy::disallowed_methods,
    reason = "memory is returned by time, not by an event"
)]
fn waves(soak: &Soak, server: &Server, visitors: &Plan) -> Result<Vec<Sample>> {
    let clock = Clock::start();
    let begun = clock.now();
    let mut samples = Vec::new();
    println!(
        "  {:>7}{:>14}{:>8}{:>8}{:>10}{:>10}{:>12}{:>12}{:>10}",
        "minute", "deliveries/s", "core", "gen", "p99 ms", "resumed", "merged", "peak MB", "RSS MB"
    );
    let cycles = (soak.time.as_secs_f64() / soak.cycle.as_secs_f64()).floor() as u32;
    for cycle in 0..cycles {
        let (before, made_before) = server.cpu()?;
        let started = clock.now();
        let outcome = check_ledgers("visitors", run(visitors, &mut |_| false))?;
        let (served, made) = server.cpu()?;
        let took = clock.now().since(started).as_secs_f64();
        std::thread::sleep(SETTLE);
        let (memory, peak) = server.memory()?;
        let at = clock.now().since(begun);
        samples.push(Sample {
            hours: at.as_secs_f64() / 3600.0,
            megabytes: memory as f64 / MB,
        });
        println!(
            "  {:>7.1}{:>14.0}{:>8.2}{:>8.2}{:>10.1}{:>10}{:>12}{:>12.1}{:>10.1}",
            at.as_secs_f64() / 60.0,
            outcome.delivered_per_s(),
            served.since(before).all() / took,
            made.since(made_before).all() / took,
            outcome
                .published
                .map_or(f64::NAN, |latency| latency.p99 as f64 / 1e6),
            outcome.tally.recovered,
            outcome.ledger.map_or(0, |ledger| ledger.merged),
            peak as f64 / MB,
            memory as f64 / MB,
        );
        let next = begun.plus(soak.cycle * (cycle + 1));
        std::thread::sleep(next.since(clock.now()));
    }
    Ok(samples)
}

fn check_ledgers(who: &str, outcome: Result<Outcome, LoadError>) -> Result<Outcome> {
    let outcome = outcome.with_context(|| format!("the {who}"))?;
    ensure!(outcome.is_sound(), "{who}: {:?}", outcome.failures);
    let ledger = outcome.ledger.context("ledgers were requested")?;
    ensure!(
        ledger.connections == outcome.connections as u64,
        "{who}: {} ledgers of {}",
        ledger.connections,
        outcome.connections
    );
    Ok(outcome)
}

/// Least-squares slope, and its standard error.
fn slope(samples: &[Sample]) -> (f64, f64) {
    let n = samples.len() as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|sample| sample.hours), mean(|sample| sample.megabytes));
    let spread: f64 = samples
        .iter()
        .map(|sample| (sample.hours - x).powi(2))
        .sum();
    let common: f64 = samples
        .iter()
        .map(|sample| (sample.hours - x) * (sample.megabytes - y))
        .sum();
    let slope = common / spread;
    let left: f64 = samples
        .iter()
        .map(|sample| (sample.megabytes - y - slope * (sample.hours - x)).powi(2))
        .sum();
    (slope, (left / (n - 2.0) / spread).sqrt())
}

/// Fails where memory grows faster than allowed, by more than the samples scatter: a run of minutes
/// finds a leak of megabytes, a run of hours one of kilobytes.
fn judge(samples: &[Sample]) -> Result<()> {
    let all = samples.last().map_or(0.0, |last| last.hours * 60.0);
    let warmup = WARMUP_MIN.min(all * 0.4);
    let late: Vec<Sample> = samples
        .iter()
        .copied()
        .filter(|sample| sample.hours * 60.0 > warmup)
        .collect();
    ensure!(
        late.len() >= 3,
        "too short: {} cycles after the first {warmup:.0} minutes",
        late.len()
    );
    let (slope, error) = slope(&late);
    println!(
        "  ledgers balance; RSS grows by {slope:.2} ± {error:.2} MB/h after the first {warmup:.0} minutes (target ≤ {SLOPE_MAX})"
    );
    // Two standard errors; more where few samples estimate the error themselves.
    let margin = error * (2.0 + 6.0 / (late.len() as f64 - 2.0));
    ensure!(
        slope - margin <= SLOPE_MAX,
        "RSS grows by {slope:.2} ± {error:.2} MB/h"
    );
    Ok(())
}
