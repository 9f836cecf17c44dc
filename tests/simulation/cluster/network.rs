//! Network of a simulation: everything that is on its way to the log and back, with the fate that
//! the seed decides.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tickcast::clock::Clock;
use tickcast::market::UnixNanos;

use super::log::SimulatedLog;
use super::plan::{Fault, Plan};
use crate::rng::Rng;

/// Action of the log at a moment.
pub(crate) type Action = Box<dyn FnOnce(&mut SimulatedLog) + Send>;

/// Way between a server and the log, in one direction.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// Arrival of the last message: others arrive behind it.
    last: UnixNanos,
}

/// Messages on their way.
pub(crate) struct Network {
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    faults: Vec<Fault>,
    /// True once no more faults happen.
    pub(crate) is_calm: bool,
    due: BTreeMap<(UnixNanos, u64), Action>,
    serial: u64,
    to_log: BTreeMap<usize, Way>,
    from_log: BTreeMap<usize, Way>,
    /// Servers without a connection.
    pub(crate) cut: Vec<usize>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    pub(crate) fn new(plan: &Plan, clock: Clock) -> Self {
        Self {
            clock,
            rng: Rng::new(plan.seed ^ 0x4e7),
            faults: plan.faults.clone(),
            is_calm: false,
            due: BTreeMap::new(),
            serial: 0,
            to_log: BTreeMap::new(),
            from_log: BTreeMap::new(),
            cut: Vec::new(),
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        !self.is_calm && self.faults.contains(&fault)
    }

    /// True with a probability of `percent` if the seed has the fault.
    pub(crate) fn chance(&mut self, fault: Fault, percent: usize) -> bool {
        self.has(fault) && self.rng.chance(percent)
    }

    /// Lets something happen at a time.
    pub(crate) fn at(&mut self, time: UnixNanos, action: Action) {
        self.serial += 1;
        self.due.insert((time, self.serial), action);
    }

    /// Time of the next action.
    pub(crate) fn next(&self) -> Option<UnixNanos> {
        self.due.first_key_value().map(|((time, _), _)| *time)
    }

    /// The next action that is due.
    pub(crate) fn take(&mut self, now: UnixNanos) -> Option<Action> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    fn delay(&mut self) -> Duration {
        let micros = 100 + self.rng.below(3000) as u64;
        let late = if self.chance(Fault::Late, 3) {
            Duration::from_millis(*self.rng.pick(&[200, 1500, 2500, 6000]))
        } else {
            Duration::ZERO
        };
        Duration::from_micros(micros) + late
    }

    /// Sends a request of a server to the log.
    pub(crate) fn request(&mut self, node: usize, action: Action) {
        let is_cut = self.cut.contains(&node);
        if self.chance(Fault::Loss, 3) || (is_cut && self.rng.chance(50)) {
            return;
        }
        // A connection that is cut keeps what is sent until it is back.
        let kept = if is_cut { 3000 } else { 0 };
        let time = self
            .clock
            .now()
            .plus(self.delay() + Duration::from_millis(kept));
        let time = self.in_order(node, time, true);
        self.at(time, action);
    }

    /// Sends an answer of the log to a server.
    pub(crate) fn answer(&mut self, node: usize, action: Action) {
        if self.chance(Fault::Loss, 3) || self.cut.contains(&node) {
            return;
        }
        let time = self.clock.now().plus(self.delay());
        let time = self.in_order(node, time, false);
        self.at(time, action);
    }

    /// Sends a copy of a record to a subscriber.
    pub(crate) fn copy(
        &mut self,
        node: usize,
        action: impl Fn(&mut SimulatedLog) + Clone + Send + 'static,
    ) {
        if self.cut.contains(&node) || self.chance(Fault::Copies, 8) {
            return;
        }
        let mut time = self.clock.now().plus(self.delay());
        if self.chance(Fault::Copies, 5) {
            time = time.plus(Duration::from_millis(self.rng.below(1500) as u64));
        } else {
            time = self.in_order(node, time, false);
        }
        if self.chance(Fault::Copies, 5) {
            let again = time.plus(Duration::from_millis(self.rng.below(800) as u64));
            self.at(again, Box::new(action.clone()));
        }
        self.at(time, Box::new(action));
    }

    /// Time of arrival of a message behind those before it.
    fn in_order(&mut self, node: usize, time: UnixNanos, is_request: bool) -> UnixNanos {
        if self.chance(Fault::Reorder, 20) {
            return time;
        }
        let ways = if is_request {
            &mut self.to_log
        } else {
            &mut self.from_log
        };
        let way = ways.entry(node).or_default();
        way.last = way.last.max(time);
        way.last
    }
}
