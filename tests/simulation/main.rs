//! Simulation of the whole server: one seed decides everything that happens.
//!
//! Bus, log, shards, sessions and outboxes are the real ones. Time is virtual, sockets are in
//! memory and accept any number of bytes or none, and everything runs in one thread without a
//! runtime. It begins behind the HTTP handshake, where a shard adopts a socket.
//!
//! `TICKCAST_SIM_SEED=n` runs one seed, `TICKCAST_SIM_SEEDS=n` the first n. `TICKCAST_SIM_SHRINK=0`
//! reports a failure without shrinking it.

mod client;
mod cluster;
mod net;
mod plan;
mod rest;
mod rng;
mod scenarios;
mod schedule;
mod server;
mod shrink;
mod sources;
mod truth;
mod world;

use std::fmt;

use plan::Plan;
use world::{Outcome, World};

/// A broken promise.
#[derive(Debug, Clone)]
pub(crate) struct Violation(String);

impl Violation {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Steps of a seed.
const STEPS: usize = 2000;

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Report of a failed seed, with its smallest plan.
fn report(plan: &Plan, outcome: &Outcome) -> String {
    let Some(failure) = &outcome.failure else {
        return String::new();
    };
    if std::env::var("TICKCAST_SIM_SHRINK").is_ok_and(|shrinks| shrinks == "0") {
        return format!("seed {}: {}", plan.seed, failure.violation);
    }
    let (smallest, again) = shrink::shrink(plan, failure.step);
    let (at, text) = again
        .failure
        .as_ref()
        .map_or((0, String::new()), |failure| {
            (failure.step, failure.violation.to_string())
        });
    let diary: Vec<String> = again.diary.into_iter().collect();
    format!(
        "seed {} failed at step {}: {}\nshrunk to {} steps, {} clients, {:?}: at step {at}: {text}\n{}\nTICKCAST_SIM_SEED={} runs it again",
        plan.seed,
        failure.step,
        failure.violation,
        smallest.steps.len(),
        smallest.clients,
        smallest.faults,
        diary.join("\n"),
        plan.seed
    )
}

#[test]
fn a_seed_gives_the_same_bytes_every_time() {
    for seed in 1..=5 {
        let plan = Plan::of(seed, STEPS);
        let (first, second) = (World::run(&plan, false), World::run(&plan, true));
        assert!(
            first.events > 0 && first.messages > 0,
            "seed {seed} is idle"
        );
        assert_eq!(
            (first.digest, first.events, first.messages),
            (second.digest, second.events, second.messages),
            "seed {seed}"
        );
    }
}

#[test]
fn every_promise_holds_on_the_wire_for_every_seed() {
    let (first, seeds) = match number("TICKCAST_SIM_SEED") {
        Some(seed) => (seed, 1),
        None if std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1") => (1, 10_000),
        None => (1, number("TICKCAST_SIM_SEEDS").unwrap_or(500)),
    };
    let (mut steps, mut events, mut messages) = (0, 0, 0);
    for seed in first..first + seeds {
        let plan = Plan::of(seed, STEPS);
        let outcome = World::run(&plan, false);
        (steps, events, messages) = (
            steps + outcome.steps,
            events + outcome.events,
            messages + outcome.messages,
        );
        assert!(
            outcome.failure.is_none(),
            "after {steps} steps: {}",
            report(&plan, &outcome)
        );
    }
    assert!(events > 0 && messages > 0);
    eprintln!("{seeds} seeds, {steps} steps, {events} events published, {messages} messages read");
}
