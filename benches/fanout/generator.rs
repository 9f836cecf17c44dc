//! Events as `serve` has them: the simulator and the bus on threads of their own, and the log that
//! they write to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tickcast::bus::{Bus, RestoredState, SourceSpec, input_queue};
use tickcast::clock::Clock;
use tickcast::config::{Config, SourceDetails};
use tickcast::log::{Batch, Catalog, DemandSignal, Log, Next, SourceId};
use tickcast::metrics::Metrics;
use tickcast::protocol::Epoch;
use tickcast::source::sim::Sim;
use tickcast::source::{SourceTask, supervise};

/// The generator's end of the log.
pub(crate) struct Generator {
    pub(crate) log: Arc<Log>,
    /// All instruments.
    pub(crate) catalog: Arc<Catalog>,
    next: u64,
}

/// Longest time until all instruments are announced.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the config's simulated source and a bus for it, and waits for all instruments.
pub(crate) fn start(config: &Config) -> Result<Generator> {
    let source = config.sources.first().context("the config has a source")?;
    let SourceDetails::Sim(sim) = source.details.clone() else {
        anyhow::bail!("the source is simulated")
    };
    let instruments = sim.instruments.len();
    let (clock, metrics) = (Clock::start(), Arc::new(Metrics::new()));
    let log = Log::new(config.log_bytes, 1);
    let (emitter, queue) = input_queue(config.queue_bytes, clock);
    let spec = SourceSpec {
        name: Arc::clone(&source.name),
        stale_after: source.stale_after,
        is_present: true,
        config: bytes::Bytes::new(),
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
        screen: None,
        faults: Vec::new(),
        seed: 1,
        emits_positions: false,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    // A task of the runtime's worker, as in `serve`: the future of `block_on` would be woken by one
    // more switch of threads.
    runtime.spawn(supervise(task, Box::new(Sim::new(sim, None))));
    std::thread::Builder::new()
        .name("generator".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    let mut generator = Generator {
        log,
        catalog: Arc::default(),
        next: 0,
    };
    let begun = clock.now();
    while generator.catalog.instruments().len() < instruments {
        ensure!(
            clock.now().since(begun) < PATIENCE,
            "the source announced too few instruments"
        );
        let head = generator.log.head();
        match generator.next_before(head) {
            Some(batch) => generator.catalog = Arc::clone(&batch.catalog),
            None => std::thread::yield_now(),
        }
    }
    Ok(generator)
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
