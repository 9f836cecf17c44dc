//! Events as `serve` has them: the simulator and the bus on threads of their own, and the log that
//! they write to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tickcast::bus::{Bus, RestoredState, SourceSpec, input_queue};
use tickcast::clock::Clock;
use tickcast::config::{Config, SourceDetails};
use tickcast::log::{Batch, DemandSignal, Log, Next, SourceId};
use tickcast::metrics::Metrics;
use tickcast::protocol::Epoch;
use tickcast::source::sim::Sim;
use tickcast::source::{SourceTask, supervise};

/// The generator's end of the log.
pub(crate) struct Generator {
    pub(crate) log: Arc<Log>,
    next: u64,
}

/// Starts the config's simulated source and a bus for it.
pub(crate) fn start(config: &Config) -> Result<Generator> {
    let source = config.sources.first().context("the config has a source")?;
    let SourceDetails::Sim(sim) = source.details.clone() else {
        anyhow::bail!("the source is simulated")
    };
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let log = Log::new(config.log_bytes, 1);
    let (emitter, queue) = input_queue(config.queue_bytes, clock);
    let spec = SourceSpec {
        name: Arc::clone(&source.name),
        stale_after: source.stale_after,
        is_present: true,
    };
    let bus = Bus::new(
        clock,
        Arc::clone(&log),
        Arc::clone(&metrics),
        vec![spec],
        Epoch {
            origin: 1,
            generation: 0,
        },
        RestoredState::default(),
    );
    std::thread::Builder::new()
        .name("bus".to_owned())
        .spawn(move || bus.run(queue))?;
    let task = SourceTask {
        name: Arc::clone(&source.name),
        clock,
        metrics: Arc::clone(&metrics),
        emitter: emitter.of(SourceId(0)),
        demand: Arc::new(DemandSignal::default()),
        stale_after: Duration::from_secs(3600),
        status: Arc::default(),
        stop: tokio::sync::watch::channel(false).1,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("generator".to_owned())
        .spawn(move || runtime.block_on(supervise(task, Box::new(Sim::new(sim, None)))))?;
    Ok(Generator { log, next: 0 })
}

impl Generator {
    /// The next batch, where its number is below `head`. A reader that was overrun goes on with the
    /// newest: these servers have no ledger.
    pub(crate) fn next_before(&mut self, head: u64) -> Option<Arc<Batch>> {
        while self.next < head {
            match self.log.read(self.next) {
                Next::Batch(batch) => {
                    self.next += 1;
                    return Some(batch);
                }
                Next::Empty => return None,
                Next::Overrun => self.next = self.log.head().saturating_sub(1),
            }
        }
        None
    }
}
