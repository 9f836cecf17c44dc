//! World of a simulated cluster: its log, publishers and gateways, in one thread and in virtual
//! time.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use tickcast::clock::Clock;
use tickcast::cluster::{FollowError, LeadError, NoStart, StoreError};
use tickcast::market::UnixNanos;

use super::log::SimulatedLog;
use super::network::Network;
use super::plan::{Fault, Plan};
use super::server::{End, Server, Surroundings};
use super::store::SharedLog;
use crate::Violation;
use crate::rng::Rng;

/// Beginning of virtual time.
pub(crate) const BEGINNING: UnixNanos = UnixNanos(1_767_225_600_000_000_000);
/// Time with faults.
const FAULTS: Duration = Duration::from_secs(25);
/// Longest time after it until everything goes on again.
const RECOVERY: Duration = Duration::from_secs(20);
/// Longest time until the last records have reached all gateways.
const REST: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// Number of pushes that must be confirmed after all faults.
const TOLD: usize = 3;
/// Turns at one moment after which the servers must wait.
const BUSY_MAX: usize = 200_000;
/// Number of the newest entries of the diary that are kept.
const DIARY_MAX: usize = 60;

/// Result of a simulation.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) digest: u64,
    /// Records committed.
    pub(crate) records: u64,
    /// Pushes confirmed.
    pub(crate) told: usize,
    /// Turns of servers.
    pub(crate) steps: u64,
    pub(crate) violation: Option<Violation>,
    /// The last events.
    pub(crate) diary: VecDeque<String>,
}

/// Event of the world.
#[derive(Debug, Clone, Copy)]
enum Job {
    Fault,
    Start(usize),
    Thaw(usize),
    Heal(usize),
}

pub(crate) struct World {
    plan: Plan,
    clock: Clock,
    log: SharedLog,
    surroundings: Surroundings,
    /// By number; `None` while it does not run.
    servers: Vec<Option<Server>>,
    jobs: BTreeMap<(UnixNanos, u64), Job>,
    serial: u64,
    rng: Rng,
    steps: u64,
    diary: VecDeque<String>,
}

impl World {
    fn new(plan: &Plan) -> Self {
        let clock = Clock::simulated(BEGINNING);
        clock.advance_to(BEGINNING, Duration::ZERO);
        let log = SharedLog::new(SimulatedLog::new(Network::new(plan, clock)));
        let surroundings = Surroundings {
            clock,
            log: log.clone(),
            settings: plan.settings.clone(),
            pushes: Rc::new(Cell::new(0)),
            origin: plan.seed,
            emits: true,
        };
        let mut world = Self {
            plan: plan.clone(),
            clock,
            log,
            surroundings,
            servers: Vec::new(),
            jobs: BTreeMap::new(),
            serial: 0,
            rng: Rng::new(plan.seed),
            steps: 0,
            diary: VecDeque::new(),
        };
        for node in 0..plan.publishers + plan.gateways {
            world.servers.push(None);
            world.after(100 * node as u64, Job::Start(node));
        }
        world.after(1000, Job::Fault);
        world
    }

    /// Runs a plan to its end.
    pub(crate) fn run(plan: &Plan) -> Outcome {
        let mut world = Self::new(plan);
        let violation = world.run_all().err();
        let log = world.log.lock();
        let mut digest = DefaultHasher::new();
        for record in log.records() {
            record.hash(&mut digest);
        }
        Outcome {
            digest: digest.finish(),
            records: log.truth.records,
            told: log.truth.told(),
            steps: world.steps,
            violation,
            diary: std::mem::take(&mut world.diary),
        }
    }

    fn run_all(&mut self) -> Result<(), Violation> {
        self.run_until(BEGINNING.plus(FAULTS))?;
        self.calm_down();
        let told = self.log.lock().truth.told() + TOLD;
        let due = self.clock.now().plus(RECOVERY);
        while self.log.lock().truth.told() < told {
            if self.clock.now() >= due {
                let text = "the cluster does not go on after all faults";
                return Err(Violation::new(text));
            }
            self.run_until(self.clock.now().plus(LOOK_AFTER))?;
        }
        self.rest()
    }

    /// Lets all gateways publish the whole log, to which nothing is added any more.
    fn rest(&mut self) -> Result<(), Violation> {
        self.surroundings.emits = false;
        for server in self.servers.iter().flatten() {
            server.stop_sources();
        }
        let due = self.clock.now().plus(REST);
        loop {
            self.run_until(self.clock.now().plus(LOOK_AFTER))?;
            let log = self.log.lock();
            let last = log.truth.check_all(log.records())?;
            let is_behind = |server: &Option<Server>| {
                let server = server.as_ref();
                server.is_none_or(|gateway| Some(gateway.position) != last)
            };
            let gateways = &self.servers[self.plan.publishers..];
            let Some(behind) = gateways.iter().position(is_behind) else {
                return Ok(());
            };
            if self.clock.now() >= due {
                let node = self.plan.publishers + behind;
                let text = format!("gateway {node} has not published the whole log");
                return Err(Violation::new(text));
            }
        }
    }

    fn note(&mut self, text: String) {
        let since = self.clock.now().since(BEGINNING);
        let last = self.log.lock().last();
        self.diary
            .push_back(format!("{since:?}, record {last}: {text}"));
        if self.diary.len() > DIARY_MAX {
            self.diary.pop_front();
        }
    }

    fn after(&mut self, millis: u64, job: Job) {
        let time = self.clock.now().plus(Duration::from_millis(millis));
        self.serial += 1;
        self.jobs.insert((time, self.serial), job);
    }

    fn run_until(&mut self, end: UnixNanos) -> Result<(), Violation> {
        loop {
            self.run_servers()?;
            let job = self.jobs.first_key_value().map(|((time, _), _)| *time);
            let message = self.log.lock().network.next();
            let due = [job, message, self.clock.next_sleeper()];
            let next = due.into_iter().flatten().min().unwrap_or(end);
            if next > end {
                self.clock.advance_to(end, Duration::ZERO);
                return Ok(());
            }
            self.clock.advance_to(next, Duration::ZERO);
            let now = self.clock.now();
            while let Some(entry) = self.jobs.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                let job = entry.remove();
                self.take(job);
            }
            self.log.lock().step();
        }
    }

    /// Lets the servers run, in random order, until all of them wait.
    fn run_servers(&mut self) -> Result<(), Violation> {
        let count = self.servers.len();
        for _ in 0..BUSY_MAX {
            let first = self.rng.below(count);
            let mut is_busy = false;
            for at in 0..count {
                let at = (first + at) % count;
                if let Some(server) = &mut self.servers[at]
                    && server.turn(&mut self.rng)
                {
                    is_busy = true;
                    self.steps += 1;
                    self.check(at)?;
                    break;
                }
            }
            if let Some(violation) = self.log.lock().violation.take() {
                return Err(violation);
            }
            if !is_busy {
                return Ok(());
            }
        }
        Err(Violation::new("the servers are busy for ever"))
    }

    /// Checks a server, and starts it again once it has ended.
    fn check(&mut self, at: usize) -> Result<(), Violation> {
        let Some(server) = &mut self.servers[at] else {
            return Ok(());
        };
        server.check()?;
        let Some(end) = server.end() else {
            if server.shared.status.lacks_checkpoint() {
                // A simulation has none, so that the server would end some time later.
                self.note(format!("server {at} is stopped: it needs a checkpoint"));
                self.kill(at, 500);
            }
            return Ok(());
        };
        self.note(format!("server {at} ends: {end:?}"));
        if !self.is_expected(at, &end) {
            return Err(Violation::new(format!("server {at} ends: {end:?}")));
        }
        self.servers[at] = None;
        let pause = 100 + self.rng.below(1500) as u64;
        self.after(pause, Job::Start(at));
        Ok(())
    }

    /// True if a server may end for this reason.
    fn is_expected(&self, at: usize, end: &End) -> bool {
        let is_publisher = at < self.plan.publishers;
        let is_lost = self.plan.has(Fault::LostStream);
        match end {
            End::NoLog | End::Left | End::Lead(LeadError::Fenced(_)) => true,
            End::Follow(
                FollowError::Store(StoreError::Request(_))
                | FollowError::Start(NoStart::Store(StoreError::Request(_))),
            ) => true,
            End::Follow(FollowError::Store(_) | FollowError::Start(_)) => is_lost,
            // Without an object store no new epochs can begin.
            End::Lead(LeadError::Forgotten(_)) => {
                let forgets = is_lost || self.plan.has(Fault::RollBack);
                // An answer that is out of date looks like a log that has forgotten.
                is_publisher && (forgets || self.plan.has(Fault::Stale))
            }
            End::Follow(
                FollowError::Chain(_) | FollowError::Diverged(_) | FollowError::Contradiction(_),
            ) => self.log.lock().truth.is_forked,
            End::Lead(LeadError::Overrun | LeadError::Unstored | LeadError::Stopping)
            | End::Follow(_) => false,
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Start(node) => {
                if self.servers[node].is_none() {
                    let rng = Rng::new(self.rng.next());
                    let is_publisher = node < self.plan.publishers;
                    let server = Server::new(node, is_publisher, &self.surroundings, rng);
                    self.servers[node] = Some(server);
                    self.note(format!("server {node} starts"));
                }
            }
            Job::Thaw(node) => {
                if let Some(server) = &mut self.servers[node] {
                    server.is_frozen = false;
                }
                self.note(format!("server {node} goes on"));
            }
            Job::Heal(node) => {
                self.log.lock().network.cut.retain(|cut| *cut != node);
                if let Some(server) = &self.servers[node] {
                    server.reconnect();
                }
                self.note(format!("server {node} is connected again"));
            }
            Job::Fault => {
                let events: Vec<Fault> = self
                    .plan
                    .faults
                    .clone()
                    .into_iter()
                    .filter(|fault| fault.is_event())
                    .collect();
                let is_calm = self.log.lock().network.is_calm;
                if !events.is_empty() && !is_calm {
                    let fault = *self.rng.pick(&events);
                    self.cause(fault);
                    let pause = 300 + self.rng.below(4000) as u64;
                    self.after(pause, Job::Fault);
                }
            }
        }
    }

    fn cause(&mut self, fault: Fault) {
        let (publishers, gateways) = (self.plan.publishers, self.plan.gateways);
        let publisher = self.rng.below(publishers);
        let gateway = publishers + self.rng.below(gateways);
        let any = self.rng.below(publishers + gateways);
        let pause = *self.rng.pick(&[100, 800, 2500, 6000]);
        let subject = match fault {
            Fault::NoLeader | Fault::RollBack | Fault::LostStream => self.harm_log(fault, pause),
            Fault::Cut => {
                self.log.lock().network.cut.push(any);
                self.after(pause, Job::Heal(any));
                any as u64
            }
            Fault::Freeze => self.freeze(publisher, pause),
            Fault::Gateway if self.rng.chance(50) => self.freeze(gateway, pause),
            Fault::Gateway => self.kill(gateway, pause),
            Fault::Kill => self.kill(publisher, pause),
            Fault::HandOver => {
                let servers = self.servers.iter().flatten();
                let leader = servers.filter(|server| server.hand_over()).count();
                leader as u64
            }
            Fault::Loss
            | Fault::Late
            | Fault::Reorder
            | Fault::Copies
            | Fault::Refusal
            | Fault::Stale => 0,
        };
        self.note(format!("{fault:?} {subject}, {pause} ms"));
    }

    fn freeze(&mut self, node: usize, pause: u64) -> u64 {
        if let Some(server) = &mut self.servers[node] {
            server.is_frozen = true;
        }
        self.after(pause, Job::Thaw(node));
        node as u64
    }

    fn kill(&mut self, node: usize, pause: u64) -> u64 {
        self.servers[node] = None;
        self.after(pause, Job::Start(node));
        node as u64
    }

    fn harm_log(&mut self, fault: Fault, pause: u64) -> u64 {
        let mut log = self.log.lock();
        log.lose_leader(Duration::from_millis(pause));
        match fault {
            Fault::RollBack => {
                let count = 1 + self.rng.below(12);
                log.roll_back(count);
                count as u64
            }
            Fault::LostStream => {
                log.lose_stream();
                0
            }
            _ => 0,
        }
    }

    /// Ends all faults.
    fn calm_down(&mut self) {
        self.note("no more faults".to_owned());
        let mut log = self.log.lock();
        log.network.is_calm = true;
        log.network.cut.clear();
        drop(log);
        for server in self.servers.iter_mut().flatten() {
            server.is_frozen = false;
            server.reconnect();
        }
    }
}
