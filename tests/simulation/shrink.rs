//! Shrinking of a failing plan: fewer steps, fewer clients, fewer kinds of faults.

use crate::plan::Plan;
use crate::world::{Outcome, World};

/// Simulations that a shrink makes at most.
const TRIALS_MAX: usize = 600;

/// A smaller plan that fails too, with its outcome and diary.
pub(crate) fn shrink(plan: &Plan, failed_at: usize) -> (Plan, Outcome) {
    let mut trials = 0;
    let mut smallest = plan.clone();
    smallest.steps.retain(|step| *step <= failed_at);
    let mut fails = |plan: &Plan| {
        trials += 1;
        trials <= TRIALS_MAX && World::run(plan, false).failure.is_some()
    };
    for fault in plan.faults.clone() {
        let mut fewer = smallest.clone();
        fewer.faults.retain(|one| *one != fault);
        if fails(&fewer) {
            smallest = fewer;
        }
    }
    while smallest.clients > 1 {
        let mut fewer = smallest.clone();
        fewer.clients -= 1;
        if !fails(&fewer) {
            break;
        }
        smallest = fewer;
    }
    let mut part = smallest.steps.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < smallest.steps.len() {
            let mut fewer = smallest.clone();
            let end = (at + part).min(fewer.steps.len());
            fewer.steps.drain(at..end);
            if fails(&fewer) {
                smallest = fewer;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    let outcome = World::run(&smallest, true);
    (smallest, outcome)
}
