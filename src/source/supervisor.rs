//! Source supervisor: restarts with exponential backoff and full jitter, and detection of silence.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rand::RngExt;
use tokio::sync::watch;

use super::faults::{FaultSpec, Injector};
use super::rules::Screen;
use super::{Output, Source, SourceError, SourceStatus};
use crate::bus::{Emit, Emitter};
use crate::clock::Clock;
use crate::log::DemandSignal;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::SourceState;

/// Maximum delay of the first restart; the maximum doubles with each further restart.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Start timeout: a source that has not announced its instruments by then is reported as failed
/// until it does, since a file system may hang.
const START_MAX: Duration = Duration::from_secs(10);
/// Run time after which the restart delay is reset to [`FIRST_RETRY`].
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Parameters of a supervised source.
#[derive(Debug)]
pub struct SourceTask {
    /// Name of the source in the config.
    pub name: Arc<str>,
    /// Clock shared by the whole server.
    pub clock: Clock,
    /// Server metrics.
    pub metrics: Arc<Metrics>,
    /// Connection to the bus.
    pub emitter: Emitter,
    /// Signal that is raised by the first subscriber.
    pub demand: Arc<DemandSignal>,
    /// Time without a watermark after which the source is silent.
    pub stale_after: Duration,
    /// Status of the source, for readiness checks and operators.
    pub status: Arc<SourceStatus>,
    /// True once the source must stop.
    pub stop: watch::Receiver<bool>,
    /// Rules for bad market data, if any apply.
    pub screen: Option<Screen>,
    /// Scheduled faults.
    pub faults: Vec<FaultSpec>,
    /// Seed of the random choices of faults.
    pub seed: u64,
    /// True if other servers must be able to go on with the source.
    pub emits_positions: bool,
}

/// Runs a source until it ends, fails permanently, receives a stop request, or the bus stops.
/// Returns its checkpoint, if it can resume.
pub async fn supervise(task: SourceTask, mut source: Box<dyn Source>) -> Option<Vec<u8>> {
    let alive = Arc::new(AtomicU64::new(0));
    let mut out = Output {
        clock: task.clock,
        metrics: Arc::clone(&task.metrics),
        name: Arc::clone(&task.name),
        demand: Arc::clone(&task.demand),
        emitter: task.emitter.clone(),
        screen: task.screen.clone(),
        faults: Injector::new(&task.faults, task.seed, Arc::clone(&task.status.faults)),
        announced: HashMap::new(),
        alive: Arc::clone(&alive),
        status: Arc::clone(&task.status),
        stop: task.stop.clone(),
        position_due: task.emits_positions.then(UnixNanos::default),
    };
    let watch = watch_silence(&task, &alive);
    tokio::select! {
        () = keep_running(&task, &mut *source, &mut out) => {}
        () = watch => {}
        () = watch_start(&task) => {}
    }
    out.finish().await;
    source.place()
}

async fn keep_running(task: &SourceTask, source: &mut dyn Source, out: &mut Output) {
    let up = task.metrics.source_up.with_label_values(&[&*task.name]);
    let mut retry = FIRST_RETRY;
    loop {
        let begun = task.clock.now();
        up.set(1);
        let ended = std::panic::AssertUnwindSafe(source.run(out))
            .catch_unwind()
            .await;
        let ended = ended.unwrap_or_else(|_reported_by_the_panic_hook| {
            Err(SourceError::Failed("panicked; this is a bug".to_owned()))
        });
        up.set(0);
        out.alive.store(0, Ordering::Relaxed);
        let error = match ended {
            Ok(()) => {
                tracing::info!(source = &*task.name, "source ended");
                return report_state(task, SourceState::Ended).await;
            }
            Err(SourceError::Stopped) => return,
            Err(SourceError::Final(error)) => {
                tracing::error!(source = &*task.name, error, "source failed permanently");
                let error: Arc<str> = error.into();
                task.status.fail(Arc::clone(&error));
                task.emitter.emit(&mut vec![Emit::Failed(error)]).await;
                return;
            }
            Err(SourceError::Failed(error)) => error,
        };
        if task.clock.now().since(begun) >= STABLE_AFTER {
            retry = FIRST_RETRY;
        }
        let wait = retry.mul_f64(rand::rng().random());
        tracing::warn!(
            source = &*task.name,
            error,
            "source failed; restarting in {wait:?}"
        );
        task.status.retry(&error);
        report_state(task, SourceState::Reconnecting).await;
        task.metrics.source_restarts.inc();
        tokio::select! {
            () = task.clock.sleep_until(task.clock.now().plus(wait)) => {}
            () = out.stopping() => return,
        }
        retry = (retry * 2).min(LONGEST_RETRY);
        if out.emit(&mut vec![Emit::StartOver]).await.is_err() {
            return;
        }
    }
}

async fn report_state(task: &SourceTask, state: SourceState) {
    task.emitter.emit(&mut vec![Emit::State(state)]).await;
}

/// Reports a source that does not start in time; never returns.
async fn watch_start(task: &SourceTask) {
    task.clock
        .sleep_until(task.clock.now().plus(START_MAX))
        .await;
    if task.status.is_starting() {
        let error = format!("not started within {} s", START_MAX.as_secs());
        tracing::warn!(source = &*task.name, error, "source is slow to start");
        task.status.overdue(&error);
    }
    std::future::pending::<()>().await;
}

/// Reports when a started source becomes silent as a whole, and when it resumes.
async fn watch_silence(task: &SourceTask, alive: &AtomicU64) {
    let mut is_stale = None;
    loop {
        task.clock
            .sleep_until(task.clock.now().plus(task.stale_after / 4))
            .await;
        let last = UnixNanos(alive.load(Ordering::Relaxed));
        if last == UnixNanos::default() {
            // Not started, or its failure has been reported.
            is_stale = None;
            continue;
        }
        let silent = task.clock.now().since(last) >= task.stale_after;
        if is_stale.replace(silent) != Some(silent) {
            report_state(
                task,
                if silent {
                    SourceState::Stale
                } else {
                    SourceState::Live
                },
            )
            .await;
        }
    }
}
