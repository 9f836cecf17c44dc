//! The workloads, and one round of one of them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tickcast::load::{Outcome, Plan, Probes, Share, Skew, TopicChoice, Update, run, run_unscouted};

use crate::process::{Cpu, Kind, Server};

/// A round in which the client worked for more than this share of its core says nothing.
const CLIENT_BUSY_MAX: f64 = 0.9;

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
    pub(crate) slow: &'static str,
    pub(crate) stalled: &'static str,
    pub(crate) storm: bool,
    /// How long connected sockets say nothing, in milliseconds; then all at once.
    pub(crate) silence_ms: u64,
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
            slow: "0%",
            stalled: "0%",
            storm: false,
            silence_ms: 0,
        }
    }

    /// Deliveries per second that the workload asks for.
    pub(crate) fn asked(&self) -> f64 {
        self.rate * (self.connections * self.topics_each) as f64 / self.instruments as f64
    }

    pub(crate) fn yaml(&self) -> String {
        let rate = self.rate / self.instruments as f64;
        let head = format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: off}}\nshards: 1\n{}\nsources:\n  - name: sim\n    kind: sim\n    seed: 7\n    every: 1003us\n    stale_after: 1h\n    instruments:\n",
            self.config
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

    fn plan(&self, server: &Server, time: Duration, round: u64) -> Result<(Plan, Vec<String>)> {
        let topics: Vec<String> = (0..self.instruments)
            .map(|n| format!("quote:S{n}"))
            .collect();
        let plan = Plan {
            connections: self.connections,
            silence: Duration::from_millis(self.silence_ms),
            ramp: Duration::from_micros(if self.silence_ms > 0 { 50 } else { 200 })
                * self.connections as u32,
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
            spin: true,
            storm: self.storm,
            ledger: false,
            ..Plan::new(server.address, topics.clone())
        };
        Ok((plan, topics))
    }

    /// Serves the workload and measures it once.
    pub(crate) fn round(
        &self,
        kind: Kind,
        config: &Path,
        time: Duration,
        round: u64,
    ) -> Result<Round> {
        let server = Server::start(kind, config)?;
        let (memory_before, _) = server.memory()?;
        let (mut plan, topics) = self.plan(&server, time, round)?;
        let mut costs: Vec<(Cpu, Cpu)> = Vec::new();
        let mut memory = (0, 0);
        let mut watch = |update: Update<'_>| {
            if matches!(update, Update::Measuring | Update::Closing) {
                costs.extend(server.cpu());
                memory = server.memory().unwrap_or_default();
            }
            false
        };
        let outcome = if kind == Kind::Tickcast {
            // What nobody else has is checked as well: every ledger.
            plan.ledger = true;
            run(&plan, &mut watch)
        } else {
            run_unscouted(&plan, &topics, &mut watch)
        };
        let outcome = outcome.with_context(|| format!("{} against {}", self.name, kind.name()))?;
        let [(served_before, made_before), (served, made)] = costs[..] else {
            anyhow::bail!("the server ended before the round did")
        };
        Ok(Round::new(
            &outcome,
            served.since(served_before),
            made.since(made_before),
            memory_before,
            memory,
        ))
    }
}

/// What one round came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) delivered_per_s: f64,
    /// Processor seconds of the serving thread for a million deliveries.
    pub(crate) user_per_million: f64,
    pub(crate) system_per_million: f64,
    /// Processor seconds a second of the generator's threads.
    pub(crate) generator: f64,
    /// From publishing to receipt, in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    /// From due to publishing, in microseconds, the 99th percentile.
    pub(crate) lag_p99_us: f64,
    /// Messages for a delivery.
    pub(crate) messages_each: f64,
    /// Resident at the end.
    pub(crate) memory_bytes: u64,
    /// Resident at its highest.
    pub(crate) memory_peak_bytes: u64,
    /// What was added for a connection.
    pub(crate) memory_each: f64,
    pub(crate) storm_s: Option<f64>,
    pub(crate) client_busy: f64,
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
        let us = |ns: u64| ns as f64 / 1e3;
        Self {
            delivered_per_s: outcome.delivered_per_s(),
            user_per_million: serving.user / millions,
            system_per_million: serving.system / millions,
            generator: generating.all() / outcome.measured_s,
            p50_us: outcome.published.map_or(0.0, |latency| us(latency.p50)),
            p99_us: outcome.published.map_or(0.0, |latency| us(latency.p99)),
            p99_9_us: outcome.published.map_or(0.0, |latency| us(latency.p99_9)),
            lag_p99_us: outcome.generator_lag.map_or(0.0, |latency| us(latency.p99)),
            messages_each: outcome.tally.messages as f64 / outcome.tally.delivered.max(1) as f64,
            memory_bytes,
            memory_peak_bytes,
            memory_each: memory_bytes.saturating_sub(memory_before) as f64
                / outcome.connections.max(1) as f64,
            storm_s: outcome.storm_s,
            client_busy: outcome.busy_share,
            void: outcome.busy_share > CLIENT_BUSY_MAX,
            failures: outcome.failures.clone(),
        }
    }

    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.user_per_million + self.system_per_million
    }
}
