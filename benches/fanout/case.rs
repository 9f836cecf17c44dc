//! The workloads, and one round of one of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tickcast::client::{ClientTls, Trust};
use tickcast::load::{
    LatencySummary, LoadError, ModeMix, Outcome, Plan, Probes, Share, Skew, TopicChoice, Update,
    run, run_with_topics,
};

use crate::calls::{Calls, Tracer};
use crate::flame::Profiler;
use crate::memory::{Memory, MemoryWatch};
use crate::process::{Cpu, Kind, Server};
use crate::setup::Setup;

/// A round in which the client worked for more than this share of its core says nothing.
const CLIENT_BUSY_MAX: f64 = 0.9;
/// Time for which system calls are counted.
const TRACED: Duration = Duration::from_secs(2);
/// Longest time that a round waits for queues to drain.
const DRAIN_MAX: Duration = Duration::from_secs(45);

/// One workload.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) instruments: usize,
    /// Events a second, over all instruments.
    pub(crate) rate: f64,
    pub(crate) connections: usize,
    pub(crate) topics_each: usize,
    pub(crate) servers: &'static [Kind],
    /// More lines of the config.
    pub(crate) config: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) slow: &'static str,
    pub(crate) stalled: &'static str,
    pub(crate) storm: bool,
    /// How long connected sockets say nothing, in milliseconds; then all at once.
    pub(crate) silence_ms: u64,
    /// Time for which clients read nothing after they have subscribed, in milliseconds.
    pub(crate) pause_ms: u64,
    /// Watch the memory of the server until its queues are drained, and after all clients left.
    pub(crate) watches_memory: bool,
    /// Count system calls after each round.
    pub(crate) counts_calls: bool,
    /// Measured time in multiples of that of the other cases: processor time is sampled at 100 Hz.
    pub(crate) longer: u32,
    /// Rounds of the small version; 0: it leaves the case out.
    pub(crate) quick_rounds: usize,
}

impl Case {
    pub(crate) const fn new(name: &'static str, rate: f64, servers: &'static [Kind]) -> Self {
        Self {
            name,
            instruments: 100,
            rate,
            connections: 1000,
            topics_each: 10,
            servers,
            config: "",
            mode: "raw",
            slow: "0%",
            stalled: "0%",
            storm: false,
            silence_ms: 0,
            pause_ms: 0,
            watches_memory: false,
            counts_calls: false,
            longer: 1,
            quick_rounds: 0,
        }
    }

    /// The case with so many rounds in the small version.
    pub(crate) const fn quick(self, quick_rounds: usize) -> Self {
        Self {
            quick_rounds,
            ..self
        }
    }

    /// Deliveries per second that the workload asks for.
    pub(crate) fn asked(&self) -> f64 {
        self.rate * (self.connections * self.topics_each) as f64 / self.instruments as f64
    }

    pub(crate) fn yaml(&self, setup: &Setup) -> String {
        let rate = self.rate / self.instruments as f64;
        let head = format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: off, metrics_on_feed: true}}\nshards: {}\npin: {}\n{}\nsources:\n  - name: sim\n    kind: sim\n    seed: 7\n    every: 1003us\n    stale_after: 1h\n    instruments:\n",
            setup.shards, setup.pin, self.config
        );
        let one = |n| {
            format!(
                "      - {{symbol: S{n}, start: \"100\", rate: {rate}/s, trades: 0, stale_after: 30d}}\n"
            )
        };
        (0..self.instruments)
            .map(one)
            .fold(head, |text, line| text + &line)
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        (0..self.instruments)
            .map(|n| format!("quote:S{n}"))
            .collect()
    }

    fn plan(
        &self,
        kind: Kind,
        server: &Server,
        setup: &Setup,
        time: Duration,
        round: u64,
    ) -> Result<(Plan, Vec<String>)> {
        let topics = self.topics();
        let plan = Plan {
            connections: self.connections,
            silence: Duration::from_millis(self.silence_ms),
            ramp: Duration::from_micros(if self.silence_ms > 0 { 50 } else { 200 })
                * self.connections as u32,
            modes: self.mode.parse::<ModeMix>()?,
            pause: Duration::from_millis(self.pause_ms),
            topics: TopicChoice::Draw {
                names: topics.clone(),
                each: self.topics_each,
                skew: Skew::Uniform,
            },
            duration: time,
            warmup: Duration::from_secs(1),
            seed: round,
            probes: Probes::Count(10),
            slow: self.slow.parse::<Share>()?,
            stalled: self.stalled.parse::<Share>()?,
            workers: setup.cores.tester.len(),
            spin: true,
            storm: self.storm,
            ledger: false,
            tls: (kind == Kind::Tls)
                .then(|| ClientTls::new(&Trust::Any))
                .transpose()?,
            ..Plan::new(server.feed, topics.clone())
        };
        Ok((plan, topics))
    }

    /// Serves the workload and measures it once.
    pub(crate) fn round(
        &self,
        kind: Kind,
        config: &Path,
        setup: &Setup,
        round: u64,
    ) -> Result<Round> {
        let server = Server::start(kind, config, &setup.cores)?;
        let mut watch = self
            .watches_memory
            .then(|| MemoryWatch::begin(&server, setup.settle))
            .transpose()?;
        let (memory_before, _) = server.memory()?;
        let time = if self.watches_memory {
            DRAIN_MAX + setup.settle
        } else {
            setup.measured * self.longer
        };
        let (plan, topics) = self.plan(kind, &server, setup, time, round)?;
        let mut costs: Vec<(Cpu, Cpu)> = Vec::new();
        let mut memory = (0, 0);
        let mut failed = None;
        let outcome = test(kind, &plan, &topics, &mut |update| {
            if matches!(update, Update::Measuring | Update::Closing) {
                costs.extend(server.cpu());
                memory = server.memory().unwrap_or_default();
            }
            match watch.as_mut().map(|watch| watch.take(&server, &update)) {
                None => false,
                Some(Ok(is_over)) => is_over,
                Some(Err(error)) => {
                    failed = Some(error);
                    true
                }
            }
        });
        let outcome = outcome.with_context(|| format!("{} against {}", self.name, kind.name()))?;
        if let Some(error) = failed {
            return Err(error);
        }
        let [(served_before, made_before), (served, made)] = costs[..] else {
            anyhow::bail!("the server ended before the round did")
        };
        let mut round = Round::new(
            &outcome,
            served.since(served_before),
            made.since(made_before),
            memory_before,
            memory,
        );
        round.memory = watch.map(|watch| watch.finish(&server)).transpose()?;
        if round
            .memory
            .is_some_and(|memory| memory.drained_s.is_none())
        {
            println!("    {}: the queues were not drained in time", self.name);
            round.void = true;
        }
        if self.counts_calls {
            let fan_out = self.asked() / self.rate;
            round.calls = calls_per_event(kind, &plan, &topics, &server, fan_out)?;
        }
        Ok(round)
    }

    /// Profiles the serving threads in a round of its own; the summary in Markdown.
    pub(crate) fn profile(
        &self,
        kind: Kind,
        config: &Path,
        setup: &Setup,
        folder: &Path,
    ) -> Result<String> {
        let server = Server::start(kind, config, &setup.cores)?;
        let (plan, topics) = self.plan(kind, &server, setup, setup.measured, 0)?;
        let title = format!("{}, {}", self.name, kind.name());
        let base = folder.join(format!("{}-{}", self.name, kind.name()));
        let mut profiler = None;
        test(kind, &plan, &topics, &mut |update| {
            match update {
                Update::Measuring => {
                    let threads = server.serving_threads();
                    profiler = Some(threads.and_then(|list| Profiler::attach(&list, &base)));
                }
                Update::Closing => {
                    profiler = profiler
                        .take()
                        .map(|profiler| profiler.and_then(Profiler::detach));
                }
                _ => {}
            }
            false
        })?;
        profiler.context("the test was measured")??.write(&title)
    }
}

/// Runs a test against a server; ledgers are requested from tickcast, as no other has any.
fn test(
    kind: Kind,
    plan: &Plan,
    topics: &[String],
    watch: &mut dyn FnMut(Update<'_>) -> bool,
) -> Result<Outcome, LoadError> {
    if matches!(kind, Kind::Tickcast | Kind::Tls) {
        let ledger = true;
        run(
            &Plan {
                ledger,
                ..plan.clone()
            },
            watch,
        )
    } else {
        run_with_topics(plan, topics, watch)
    }
}

/// System calls per event, in a test of its own: a traced server is slower. The tester does not
/// spin, because the tracer shares its core.
fn calls_per_event(
    kind: Kind,
    plan: &Plan,
    topics: &[String],
    server: &Server,
    fan_out: f64,
) -> Result<Option<Calls>> {
    let plan = Plan {
        spin: false,
        duration: TRACED,
        ..plan.clone()
    };
    let mut tracer = None;
    let outcome = test(kind, &plan, topics, &mut |update| {
        match update {
            Update::Measuring => tracer = Some(Tracer::attach(server.id())),
            Update::Closing => {
                tracer = tracer.take().map(|tracer| tracer.and_then(Tracer::detach));
            }
            _ => {}
        }
        false
    })?;
    let calls = tracer
        .context("the test was measured")?
        .and_then(|tracer| tracer.count());
    let events_per_s = outcome.delivered_per_s() / fan_out;
    match calls {
        Ok(calls) => Ok(Some(Calls {
            serving: calls.serving / events_per_s,
            other: calls.other / events_per_s,
        })),
        // Where processes may not be traced, everything else is measured.
        Err(error) => {
            println!("  system calls were not counted: {error:#}");
            Ok(None)
        }
    }
}

/// Percentiles of a latency in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
}

impl Latency {
    fn new(summary: Option<LatencySummary>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        summary.map_or_else(Self::default, |summary| Self {
            p50: us(summary.p50),
            p99: us(summary.p99),
            p99_9: us(summary.p99_9),
        })
    }
}

/// Results of one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) delivered: u64,
    pub(crate) delivered_per_s: f64,
    /// Processor seconds of the serving thread in user mode.
    pub(crate) user_s: f64,
    /// Processor seconds of the serving thread for a million deliveries.
    pub(crate) user_per_million: f64,
    pub(crate) system_per_million: f64,
    /// Processor seconds a second of the serving threads.
    pub(crate) serving: f64,
    /// Processor seconds a second of the generator's threads.
    pub(crate) generator: f64,
    /// From the time at which events were due to receipt.
    pub(crate) due: Latency,
    /// From publication to receipt.
    pub(crate) published: Latency,
    /// From due to publication.
    pub(crate) lag: Latency,
    /// Messages for a delivery.
    pub(crate) messages_each: f64,
    /// Resident at the end.
    pub(crate) memory_bytes: u64,
    /// Resident at its highest.
    pub(crate) memory_peak_bytes: u64,
    /// Added for each connection.
    pub(crate) memory_each: f64,
    pub(crate) memory: Option<Memory>,
    /// System calls per event.
    pub(crate) calls: Option<Calls>,
    pub(crate) storm_s: Option<f64>,
    pub(crate) client_busy: f64,
    /// Lateness of the tester's own wake-ups, in microseconds, the 99th percentile.
    pub(crate) client_late: f64,
    pub(crate) void: bool,
    pub(crate) failures: Vec<String>,
}

impl Round {
    fn new(
        outcome: &Outcome,
        serving: Cpu,
        generating: Cpu,
        memory_before: u64,
        (memory_bytes, memory_peak_bytes): (u64, u64),
    ) -> Self {
        let millions = outcome.tally.delivered as f64 / 1e6;
        Self {
            delivered: outcome.tally.delivered,
            user_s: serving.user,
            delivered_per_s: outcome.delivered_per_s(),
            user_per_million: serving.user / millions,
            system_per_million: serving.system / millions,
            serving: serving.all() / outcome.measured_s,
            generator: generating.all() / outcome.measured_s,
            due: Latency::new(outcome.due),
            published: Latency::new(outcome.published),
            lag: Latency::new(outcome.generator_lag),
            messages_each: outcome.tally.messages as f64 / outcome.tally.delivered.max(1) as f64,
            memory_bytes,
            memory_peak_bytes,
            memory_each: memory_bytes.saturating_sub(memory_before) as f64
                / outcome.connections.max(1) as f64,
            memory: None,
            calls: None,
            storm_s: outcome.storm_s,
            client_busy: outcome.busy_share,
            client_late: Latency::new(outcome.wake_up_lateness).p99,
            void: outcome.busy_share > CLIENT_BUSY_MAX,
            failures: outcome.failures.clone(),
        }
    }

    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.user_per_million + self.system_per_million
    }
}
