//! Simulation of a cluster: publishers and gateways with a simulated log between them. One seed
//! decides everything that happens.
//!
//! Bus, follower, claim, uplink and repair are the real ones. The log has the rules of the stream
//! in NATS; time is virtual, and everything runs in one thread. `TICKCAST_SIM_SEED` and
//! `TICKCAST_SIM_SEEDS` choose the seeds as for the simulation of a server.

mod log;
mod network;
mod plan;
mod server;
mod sources;
mod store;
mod task;
mod truth;
mod world;

use plan::Plan;
use world::{Outcome, World};

use crate::{Violation, number};

/// Report of a failed seed.
fn report(plan: &Plan, outcome: &Outcome) -> String {
    let Some(violation) = &outcome.violation else {
        return String::new();
    };
    let diary: Vec<&str> = outcome.diary.iter().map(String::as_str).collect();
    format!(
        "seed {}: {violation}\n{:?}\n{}\nTICKCAST_SIM_SEED={} runs it again",
        plan.seed,
        plan.faults,
        diary.join("\n"),
        plan.seed
    )
}

/// Runs a plan. Tasks that store checkpoints are started in a runtime and never run.
fn run(plan: &Plan) -> Result<Outcome, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Violation::new(error.to_string()))?;
    let _entered = runtime.enter();
    Ok(World::run(plan))
}

#[test]
fn a_seed_gives_the_same_records_every_time() -> Result<(), Violation> {
    for seed in 1..=4 {
        let plan = Plan::of(seed)?;
        let (first, second) = (run(&plan)?, run(&plan)?);
        assert!(first.records > 0 && first.told > 0, "seed {seed} is idle");
        assert_eq!(
            (first.digest, first.records, first.steps),
            (second.digest, second.records, second.steps),
            "seed {seed}"
        );
    }
    Ok(())
}

#[test]
fn every_promise_of_the_log_holds_for_every_seed() -> Result<(), Violation> {
    let (first, seeds) = match number("TICKCAST_SIM_SEED") {
        Some(seed) => (seed, 1),
        None if std::env::var("TICKCAST_FULL").is_ok_and(|full| full == "1") => (1, 10_000),
        None => (1, number("TICKCAST_SIM_SEEDS").unwrap_or(80)),
    };
    let (mut records, mut told, mut steps) = (0, 0, 0);
    for seed in first..first + seeds {
        let plan = Plan::of(seed)?;
        let outcome = run(&plan)?;
        records += outcome.records;
        told += outcome.told;
        steps += outcome.steps;
        assert!(
            outcome.violation.is_none(),
            "after {} seeds and {steps} steps: {}",
            seed - first + 1,
            report(&plan, &outcome)
        );
    }
    assert!(records > 0 && told > 0);
    eprintln!("{seeds} seeds, {steps} steps, {records} records, {told} confirmed pushes");
    Ok(())
}
