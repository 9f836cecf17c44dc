//! Synchronization of the server clock with the wall clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::clock::{Clock, Followed};
use crate::metrics::Metrics;

const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Skew that is reported as a step of the wall clock.
const STEP_NANOS: i64 = 1_000_000_000;

/// Follows the wall clock until the task is aborted.
pub(super) async fn keep_time(clock: Clock, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(FOLLOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = 0;
    loop {
        ticks.tick().await;
        if let Some(followed) = clock.follow_wall() {
            report(&metrics, followed, before);
            before = if followed.stepped { 0 } else { followed.skew };
        }
    }
}

/// Records the skew, and logs a step if the skew changed by at least [`STEP_NANOS`] since the last
/// call.
fn report(metrics: &Metrics, followed: Followed, before: i64) {
    let skew = followed.skew as f64 / 1e9;
    let left = if followed.stepped { 0.0 } else { skew };
    metrics.clock_skew.set(left);
    let change = followed.skew.saturating_sub(before);
    if change >= STEP_NANOS {
        metrics.clock_steps.with_label_values(&["forward"]).inc();
        tracing::warn!(
            seconds = skew,
            stepped = followed.stepped,
            "wall clock stepped forward; the server clock follows"
        );
    } else if change <= -STEP_NANOS {
        metrics.clock_steps.with_label_values(&["back"]).inc();
        tracing::warn!(
            seconds = skew,
            "wall clock stepped back; the server clock runs 10 % slower until they agree"
        );
    }
}
