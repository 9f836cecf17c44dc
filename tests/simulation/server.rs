//! Server of a simulation: the real bus, log and shards, without threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tickcast::access::{Entitlements, Principal, Roles};
use tickcast::auth::{AuthSettings, Gate, Policy, Scheme};
use tickcast::bus::{Bus, Emitter, InputQueue, RestoredState, SavedState, input_queue};
use tickcast::clock::Clock;
use tickcast::limits::ShardLimits;
use tickcast::log::{DemandSignal, Log, SavedTopic};
use tickcast::market::UnixNanos;
use tickcast::metrics::Metrics;
use tickcast::protocol::Epoch;
use tickcast::shard::simulated::{SimulatedShard, Stepped};
use tickcast::shard::{Command, ShardConfig};
use tokio::sync::oneshot;

use crate::Violation;
use crate::sources::{Source, emit};
use crate::truth::{Truth, TruthReader};

/// Time that passes between the decision of a shard to sleep and the check of it, because each
/// reading of the clock takes some.
const READINGS: Duration = Duration::from_micros(100);

/// Rounds after which the server must sleep if nothing reaches it from outside.
const BUSY_MAX: usize = 3000;

/// Policy without authentication.
fn open_policy() -> Policy {
    Policy {
        settings: AuthSettings::default(),
        scheme: Scheme::None,
        roles: Arc::default(),
    }
}

/// Parts of a running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) clock: Clock,
    bus: Bus,
    queue: InputQueue,
    pub(crate) emitter: Emitter,
    pub(crate) log: Arc<Log>,
    pub(crate) shards: Vec<SimulatedShard>,
    metrics: Arc<Metrics>,
    truth: TruthReader,
    origin: u64,
    /// Shards that drain, until all of their clients have left.
    draining: Option<Vec<oneshot::Receiver<()>>>,
}

/// Settings that need a restart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) shards: usize,
    pub(crate) log_bytes: usize,
}

/// State that a stopped server has saved.
#[derive(Debug)]
pub(crate) struct Left {
    origin: u64,
    bus: SavedState,
    topics: Vec<SavedTopic>,
}

impl Server {
    pub(crate) fn start(
        clock: Clock,
        sizes: Sizes,
        limits: ShardLimits,
        sources: &mut [Source],
        origin: u64,
        restored: RestoredState,
    ) -> Self {
        let epoch = Epoch {
            origin,
            generation: 0,
        };
        let metrics = Arc::new(Metrics::new());
        let log = Log::new(sizes.log_bytes, sizes.shards);
        log.observe();
        let (emitter, queue) = input_queue(1 << 20, clock);
        let specs = sources.iter().map(Source::spec).collect();
        let bus = Bus::new(
            clock,
            Arc::clone(&log),
            Arc::clone(&metrics),
            specs,
            epoch,
            restored,
        );
        let demand: Arc<[Arc<DemandSignal>]> = sources.iter().map(|_| Arc::default()).collect();
        let entitlements = Arc::new(Entitlements {
            roles: Roles::default(),
            without_credentials: Principal::Everyone,
        });
        let shard = |number| {
            let config = ShardConfig {
                clock,
                epoch,
                limits,
                demand: Arc::clone(&demand),
                delay: Duration::ZERO,
                delay_line_bytes: 0,
                entitlements: Arc::clone(&entitlements),
                seats: Arc::default(),
                gate: Gate::new(open_policy()).0,
            };
            let (log, metrics) = (Arc::clone(&log), Arc::clone(&metrics));
            SimulatedShard::new(number, config, log, emitter.clone(), metrics)
        };
        let shards = (0..sizes.shards).map(shard).collect();
        for (at, source) in sources.iter_mut().enumerate() {
            emit(&emitter, at, source.announce_again());
            source.is_down = false;
        }
        Self {
            clock,
            bus,
            queue,
            emitter,
            log,
            shards,
            metrics,
            truth: TruthReader::new(epoch),
            origin,
            draining: None,
        }
    }

    /// Publishes what is queued, up to one batch.
    pub(crate) fn step_bus(&mut self, truth: &mut Truth) -> Result<bool, Violation> {
        let has_published = self.bus.step(&mut self.queue);
        self.truth.read(&self.log, truth)?;
        Ok(has_published)
    }

    /// Makes a turn of a shard unless it sleeps, and then has overlooked nothing.
    pub(crate) fn step_shard(&mut self, at: usize) -> Result<Stepped, Violation> {
        let shard = &mut self.shards[at];
        let stepped = shard.step();
        if let Stepped::Asleep(_) = stepped
            && let Some(overlooked) = shard.overlooked(self.clock.now().minus(READINGS))
        {
            return Err(Violation::new(format!(
                "shard {at} sleeps over {overlooked}"
            )));
        }
        Ok(stepped)
    }

    /// Runs the bus and all shards until they sleep. Returns the time at which the first one is
    /// due.
    pub(crate) fn run(&mut self, truth: &mut Truth) -> Result<Option<UnixNanos>, Violation> {
        for _ in 0..BUSY_MAX {
            let mut is_busy = self.step_bus(truth)?;
            let mut due: Option<UnixNanos> = None;
            for at in 0..self.shards.len() {
                match self.step_shard(at)? {
                    Stepped::Turned => is_busy = true,
                    Stepped::Asleep(at) => due = due.into_iter().chain(at).min(),
                }
            }
            if !is_busy {
                return Ok(due);
            }
        }
        Err(Violation::new("the server is busy for ever"))
    }

    /// Applies other limits.
    pub(crate) fn tune(&self, limits: ShardLimits, sources: usize) {
        let demand: Arc<[Arc<DemandSignal>]> = (0..sources).map(|_| Arc::default()).collect();
        for shard in &self.shards {
            let (done, _answer) = oneshot::channel();
            shard.send(Command::Tune {
                limits,
                demand: Arc::clone(&demand),
                done,
            });
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Begins a graceful shutdown.
    pub(crate) fn drain(&mut self, spread: Duration) {
        let of = self.shards.len();
        let mut drained = Vec::new();
        for (turn, shard) in self.shards.iter().enumerate() {
            let (done, all_left) = oneshot::channel();
            shard.send(Command::Drain {
                spread,
                turn,
                of,
                done,
            });
            drained.push(all_left);
        }
        self.draining = Some(drained);
    }

    /// True if all clients have left a server that drains.
    pub(crate) fn is_drained(&mut self) -> bool {
        let drained = self.draining.as_mut();
        drained.is_some_and(|all| all.iter_mut().all(|one| one.try_recv().is_ok()))
            || (self.draining.is_some() && self.shards.iter().all(|shard| shard.connections() == 0))
    }

    /// True if a shard was overrun.
    pub(crate) fn is_overrun(&self) -> bool {
        self.metrics.overruns.get() > 0
    }

    /// Events that are missing from the ledgers, by the server's own count.
    pub(crate) fn unaccounted(&self) -> u64 {
        self.metrics.unaccounted.get()
    }

    /// Stops the server and returns its state, unless shard 0 has been overrun.
    pub(crate) fn stop(mut self, truth: &mut Truth) -> Result<Option<Left>, Violation> {
        while self.step_bus(truth)? {}
        let (reply, mut saved) = oneshot::channel();
        self.shards[0].send(Command::Save(reply));
        for _ in 0..1000 {
            if self.step_shard(0)? != Stepped::Turned {
                break;
            }
        }
        let Self { bus, origin, .. } = self;
        Ok(saved.try_recv().ok().map(|topics| Left {
            origin,
            bus: bus.into_saved(),
            topics,
        }))
    }
}

impl Left {
    /// State for the next server, by its sources: their numbers in this one, and whether they
    /// continue or start over.
    pub(crate) fn restore(self, sources: &[(usize, bool)]) -> (u64, RestoredState) {
        let Self {
            origin,
            bus,
            topics,
        } = self;
        let by_number = |at: usize| bus.times.get(at).copied().unwrap_or_default();
        let topics = topics.into_iter().chain(bus.carried_over);
        let topics: HashMap<String, SavedTopic> =
            topics.map(|saved| (saved.topic.clone(), saved)).collect();
        let restored = RestoredState {
            origin,
            tx: bus.tx,
            sources: sources
                .iter()
                .map(|(at, is_resumed)| is_resumed.then(|| by_number(*at)))
                .collect(),
            instruments: bus
                .instruments
                .into_iter()
                .map(|saved| (saved.symbol.clone(), saved))
                .collect(),
            topics,
        };
        (origin, restored)
    }
}
