//! Keeps a source running: restart with backoff and full jitter, silence noticed and told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use rand::RngExt;
use tokio::sync::watch;

use super::{Output, Source, SourceError, SourceStatus};
use crate::bus::{Emit, Emitter};
use crate::clock::Clock;
use crate::log::DemandSignal;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::SourceState;

/// The first restart comes within this time, each further one within twice the one before.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// A source that has not announced its instruments by then counts as failed until it does: a file system may hang.
const START_MAX: Duration = Duration::from_secs(10);
/// A source that ran so long begins again with [`FIRST_RETRY`].
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Parameters of a supervised source.
#[derive(Debug)]
pub struct SourceTask {
    /// Its name in the config.
    pub name: Arc<str>,
    /// The clock of the whole server.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Its way to the bus.
    pub emitter: Emitter,
    /// Opens when somebody listens.
    pub demand: Arc<DemandSignal>,
    /// After how long without a time mark it counts as silent.
    pub stale_after: Duration,
    /// Its condition, for readiness checks and operators.
    pub status: Arc<SourceStatus>,
    /// Becomes true when it is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Runs a source until it ends, fails for good, is told to stop, or the bus stops. Returns the place from which it could go on.
pub async fn supervise(task: SourceTask, mut source: Box<dyn Source>) -> Option<Vec<u8>> {
    let alive = Arc::new(AtomicU64::new(0));
    let mut out = Output {
        clock: task.clock,
        metrics: Arc::clone(&task.metrics),
        name: Arc::clone(&task.name),
        demand: Arc::clone(&task.demand),
        emitter: task.emitter.clone(),
        announced: HashMap::new(),
        alive: Arc::clone(&alive),
        status: Arc::clone(&task.status),
        stop: task.stop.clone(),
    };
    let watch = watch_silence(&task, &alive);
    tokio::select! {
        () = keep_running(&task, &mut *source, &mut out) => {}
        () = watch => {}
        () = watch_start(&task) => {}
    }
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
        let ended = ended.unwrap_or_else(|_told_by_the_panic_hook| {
            Err(SourceError::Failed("panicked; this is a bug".to_owned()))
        });
        up.set(0);
        out.alive.store(0, Ordering::Relaxed);
        let error = match ended {
            Ok(()) => {
                tracing::info!(source = &*task.name, "source ended");
                return tell(task, SourceState::Ended).await;
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
        tell(task, SourceState::Reconnecting).await;
        task.metrics.source_restarts.inc();
        tokio::select! {
            () = task.clock.sleep_until(task.clock.now().plus(wait)) => {}
            () = out.stopping() => return,
        }
        retry = (retry * 2).min(LONGEST_RETRY);
        task.emitter.emit(&mut vec![Emit::StartOver]).await;
    }
}

async fn tell(task: &SourceTask, state: SourceState) {
    task.emitter.emit(&mut vec![Emit::State(state)]).await;
}

/// Notes a source that does not start in time; never ends.
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

/// Tells when a source that had begun falls silent as a whole, and when it is back.
async fn watch_silence(task: &SourceTask, alive: &AtomicU64) {
    let mut is_stale = None;
    loop {
        task.clock
            .sleep_until(task.clock.now().plus(task.stale_after / 4))
            .await;
        let last = UnixNanos(alive.load(Ordering::Relaxed));
        if last == UnixNanos::default() {
            // Not begun, or failed and told so.
            is_stale = None;
            continue;
        }
        let silent = task.clock.now().since(last) >= task.stale_after;
        if is_stale.replace(silent) != Some(silent) {
            tell(
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
