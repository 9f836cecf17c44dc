//! Servers of a simulated cluster: publishers with the real bus, follower, claim and uplink, and
//! gateways with the real bus and follower.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tickcast::bus::{Bus, InputQueue, Leading, RestoredState, input_queue};
use tickcast::clock::Clock;
use tickcast::cluster::{
    ClusterSettings, ClusterStatus, Command, FollowError, Follower, LeadError, Leave, LogStore,
    Role, Uplink, UplinkParts, find_start,
};
use tickcast::log::{Log, LogItem, Pace};
use tickcast::metrics::Metrics;
use tickcast::protocol::Epoch;
use tokio::sync::{Notify, mpsc, oneshot};

use super::sources;
use super::store::{SharedLog, SimulatedStore};
use super::task::Task;
use super::truth::digest_of;
use crate::Violation;
use crate::rng::Rng;

/// Memory of the log of a server.
const LOG_BYTES: usize = 8 << 20;
/// Memory of the queue of a bus.
const QUEUE_BYTES: usize = 1 << 20;
/// Steps of a bus after which it must have nothing to do.
const BUSY_MAX: usize = 10_000;

/// Reason for which a server has ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The log is empty.
    NoLog,
    /// It has handed the log over.
    Left,
    Follow(FollowError),
    Lead(LeadError),
}

impl From<FollowError> for End {
    fn from(error: FollowError) -> Self {
        Self::Follow(error)
    }
}

/// Parts of a server that its tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Number of the server, which is also its name.
    pub(crate) node: usize,
    pub(crate) clock: Clock,
    pub(crate) log: SharedLog,
    pub(crate) status: Arc<ClusterStatus>,
    pub(crate) pace: Arc<Pace>,
    settings: ClusterSettings,
    reconnected: Arc<Notify>,
    ring: Arc<Log>,
    bus: RefCell<Option<(Bus, InputQueue)>>,
    /// Tasks that a task has started.
    started: RefCell<Vec<Task>>,
    commands: RefCell<Option<mpsc::Sender<Command>>>,
    /// True while sources may emit.
    emits: Cell<bool>,
    ended: RefCell<Option<End>>,
    pushes: Rc<Cell<u64>>,
}

impl Shared {
    /// Waits; returns false if sources must stop.
    pub(crate) async fn sleep(&self, time: Duration) -> bool {
        self.clock.sleep_until(self.clock.now().plus(time)).await;
        self.emits.get()
    }

    /// Number of the next pushed trade.
    pub(crate) fn next_push(&self) -> u64 {
        self.pushes.set(self.pushes.get() + 1);
        self.pushes.get()
    }

    fn start(&self, task: impl Future<Output = ()> + 'static) {
        self.started.borrow_mut().push(Task::new(task));
    }

    fn store(&self) -> Arc<dyn LogStore> {
        let (log, reconnected) = (self.log.clone(), Arc::clone(&self.reconnected));
        let (node, clock) = (self.node, self.clock);
        Arc::new(SimulatedStore::new(
            node,
            log,
            clock,
            &self.settings,
            reconnected,
        ))
    }
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shared: Rc<Shared>,
    tasks: Vec<Task>,
    is_publisher: bool,
    /// Checksum of the last record with items that a gateway has published.
    pub(crate) position: u64,
    pub(crate) is_frozen: bool,
}

/// Everything that a new server needs.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) log: SharedLog,
    pub(crate) settings: ClusterSettings,
    pub(crate) pushes: Rc<Cell<u64>>,
    /// Origin of the epochs of a new log.
    pub(crate) origin: u64,
    /// True while sources may emit.
    pub(crate) emits: bool,
}

impl Server {
    pub(crate) fn new(
        node: usize,
        is_publisher: bool,
        surroundings: &Surroundings,
        rng: Rng,
    ) -> Self {
        let Surroundings {
            clock,
            log,
            settings,
            pushes,
            origin,
            emits,
        } = surroundings.clone();
        let role = if is_publisher { "publisher" } else { "gateway" };
        let metrics = Arc::new(Metrics::new());
        let ring = Log::new(LOG_BYTES, 1);
        ring.observe();
        let shared = Rc::new(Shared {
            node,
            clock,
            log,
            status: Arc::new(ClusterStatus::new(metrics.add_cluster(role))),
            pace: Arc::new(Pace::new(usize::MAX / 2, usize::MAX)),
            settings: ClusterSettings {
                node: node.to_string(),
                role: if is_publisher {
                    Role::Publisher
                } else {
                    Role::Gateway
                },
                ..settings
            },
            reconnected: Arc::default(),
            ring,
            bus: RefCell::default(),
            started: RefCell::default(),
            commands: RefCell::default(),
            emits: Cell::new(emits),
            ended: RefCell::default(),
            pushes,
        });
        let own = Rc::clone(&shared);
        let life = async move {
            let ended = if is_publisher {
                publish(&own, metrics, origin, rng).await
            } else {
                follow(&own, metrics).await
            };
            own.ended.replace(Some(match ended {
                Ok(end) | Err(end) => end,
            }));
        };
        Self {
            shared,
            tasks: vec![Task::new(life)],
            is_publisher,
            position: 0,
            is_frozen: false,
        }
    }

    /// Lets one task or the bus go on; returns false if none can.
    pub(crate) fn turn(&mut self, rng: &mut Rng) -> bool {
        if self.is_frozen {
            return false;
        }
        if rng.chance(50) && self.step_bus() {
            return true;
        }
        self.tasks.append(&mut self.shared.started.borrow_mut());
        let ready: Vec<usize> = (0..self.tasks.len())
            .filter(|at| self.tasks[*at].is_ready())
            .collect();
        if ready.is_empty() {
            return self.step_bus();
        }
        self.tasks[*rng.pick(&ready)].poll();
        true
    }

    fn step_bus(&self) -> bool {
        let mut bus = self.shared.bus.borrow_mut();
        bus.as_mut().is_some_and(|(bus, queue)| bus.step(queue))
    }

    /// Checks that a gateway has published what was committed, and a standby derived it.
    pub(crate) fn check(&mut self) -> Result<(), Violation> {
        let node = self.shared.node;
        if self.shared.status.derive_mismatches().get() > 0 {
            return Err(Violation::new(format!(
                "server {node} derives other events"
            )));
        }
        let batches = self.shared.ring.observe();
        if self.is_publisher {
            return Ok(());
        }
        let log = self.shared.log.lock();
        for batch in batches {
            let Some(digest) = digest_of(batch.items.iter()) else {
                continue;
            };
            if let Some(next) = log.truth.follow(self.position, digest) {
                self.position = next;
                continue;
            }
            // A gateway reports its sources while it hears nothing.
            let is_report = |item: &LogItem| matches!(item, LogItem::Source { .. });
            if !batch.items.iter().all(is_report) {
                return Err(Violation::new(format!(
                    "gateway {node} publishes what was not committed behind its position: {:?}",
                    batch.items
                )));
            }
        }
        Ok(())
    }

    /// Reason for which it has ended, if it has.
    pub(crate) fn end(&self) -> Option<End> {
        self.shared.ended.take()
    }

    /// Notes that its connection is back.
    pub(crate) fn reconnect(&self) {
        self.shared.reconnected.notify_one();
    }

    pub(crate) fn stop_sources(&self) {
        self.shared.emits.set(false);
    }

    /// Lets the leader hand the log over; returns false if the server does not lead.
    pub(crate) fn hand_over(&self) -> bool {
        let Some(commands) = self.shared.commands.borrow().clone() else {
            return false;
        };
        self.stop_sources();
        for _ in 0..BUSY_MAX {
            if !self.step_bus() {
                break;
            }
        }
        let shared = Rc::clone(&self.shared);
        self.shared.start(async move {
            let (done, is_done) = oneshot::channel();
            let leave = Command::Leave(Leave { state: None, done });
            if commands.send(leave).await.is_ok() && is_done.await.is_ok() {
                shared.ended.replace(Some(End::Left));
            }
        });
        true
    }
}

/// Creates the bus of a server.
fn bus_of(
    shared: &Shared,
    metrics: Arc<Metrics>,
    epoch: Epoch,
) -> (Bus, InputQueue, tickcast::bus::Emitter) {
    let (emitter, queue) = input_queue(QUEUE_BYTES, shared.clock);
    let ring = Arc::clone(&shared.ring);
    let bus = Bus::new(
        shared.clock,
        ring,
        metrics,
        Vec::new(),
        epoch,
        RestoredState::default(),
    );
    (bus, queue, emitter)
}

/// Life of a publisher.
async fn publish(
    shared: &Rc<Shared>,
    metrics: Arc<Metrics>,
    origin: u64,
    mut rng: Rng,
) -> Result<End, End> {
    let (store, settings, clock) = (shared.store(), &shared.settings, shared.clock);
    // A publisher creates the stream if there is none.
    shared.log.lock().create(1);
    let start = find_start(&*store, settings, clock.now(), Duration::ZERO);
    let start = start.await.map_err(FollowError::from)?;
    let origin = start.map_or(Epoch::first(origin), |start| start.origin);
    let (bus, queue, emitter) = bus_of(shared, metrics, origin);
    let bus = bus.stand_by(shared.status.derive_mismatches());
    shared.bus.replace(Some((bus, queue)));
    let status = Arc::clone(&shared.status);
    let mut follower = Follower::new(
        Arc::clone(&store),
        clock,
        emitter.clone(),
        status,
        origin,
        settings.clone(),
    );
    let mut live = follower.start().await?;
    let claimed = follower.stand_by(&mut live).await?;
    let leading = emitter.lead(Arc::clone(&shared.pace)).await;
    let Leading { first, tails } = leading.ok_or(FollowError::Stopping)?;
    let (commands, received) = mpsc::channel(4);
    let parts = UplinkParts {
        store,
        clock,
        bus: emitter.clone(),
        log: Arc::clone(&shared.ring),
        reader: 0,
        pace: Arc::clone(&shared.pace),
        status: Arc::clone(&shared.status),
        commands: received,
    };
    let uplink = Uplink::new(parts, settings, claimed, first);
    shared.commands.replace(Some(commands));
    let (own, numbers, pushes) = (
        Rc::clone(shared),
        Rng::new(rng.next()),
        Rng::new(rng.next()),
    );
    shared.start(async move {
        let next = sources::start(&emitter, &tails).await;
        let numbered = sources::run_numbered(Rc::clone(&own), emitter.clone(), next, numbers);
        own.start(numbered);
        own.start(sources::run_push(Rc::clone(&own), emitter, pushes));
    });
    match uplink.run().await {
        Ok(()) => Ok(End::Left),
        Err(error) => Err(End::Lead(error)),
    }
}

/// Life of a gateway.
async fn follow(shared: &Rc<Shared>, metrics: Arc<Metrics>) -> Result<End, End> {
    let (store, settings, clock) = (shared.store(), &shared.settings, shared.clock);
    let start = find_start(&*store, settings, clock.now(), Duration::ZERO);
    let start = start.await.map_err(FollowError::from)?;
    let Some(start) = start else {
        return Err(End::NoLog);
    };
    let (bus, queue, emitter) = bus_of(shared, metrics, start.origin);
    shared.bus.replace(Some((bus, queue)));
    let status = Arc::clone(&shared.status);
    let mut follower = Follower::new(
        store,
        clock,
        emitter,
        status,
        start.origin,
        settings.clone(),
    );
    let mut live = follower.start().await?;
    follower.follow(&mut live, settings.stale_after).await?;
    Ok(End::Left)
}
