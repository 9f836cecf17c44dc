//! The simulated log: a replicated stream with the rules of NATS. A record is accepted
//! only behind the record that its writer expects, committed in the order of acceptance, and then
//! copied to the subscribers. It loses its leader, what it has not committed, and sometimes more.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tickcast::cluster::{AppendFault, Extent, Last, Record, StoreError};
use tickcast::market::UnixNanos;
use tokio::sync::{mpsc, oneshot};

use super::network::Network;
use super::plan::Fault;
use super::truth::Truth;
use crate::Violation;

/// Time for which the log remembers records that it has accepted.
const REMEMBERED: Duration = Duration::from_secs(1);

/// Answer to an append.
pub(crate) type Accepted = oneshot::Sender<Result<(), AppendFault>>;

#[derive(Debug, Clone)]
struct Stored {
    bytes: Bytes,
    sum: u64,
    time: UnixNanos,
}

/// Accepted record that is not committed.
#[derive(Debug)]
struct Proposal {
    node: usize,
    bytes: Bytes,
    sum: u64,
    last: Last,
    accepted: Accepted,
    due: UnixNanos,
}

/// The log.
#[derive(Debug)]
pub(crate) struct SimulatedLog {
    pub(crate) network: Network,
    pub(crate) truth: Truth,
    /// First broken promise.
    pub(crate) violation: Option<Violation>,
    /// False while the stream is lost.
    exists: bool,
    /// Number of the first record.
    first: u64,
    records: Vec<Stored>,
    proposed: VecDeque<Proposal>,
    /// Checksum of the last record, unless its replicas have restarted since.
    last_sum: Option<u64>,
    has_leader: bool,
    subscribers: Vec<(usize, mpsc::Sender<Bytes>)>,
}

impl SimulatedLog {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            truth: Truth::default(),
            violation: None,
            exists: true,
            first: 1,
            records: Vec::new(),
            proposed: VecDeque::new(),
            last_sum: None,
            has_leader: true,
            subscribers: Vec::new(),
        }
    }

    fn now(&self) -> UnixNanos {
        self.network.clock.now()
    }

    /// Number of the last committed record.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.records.len() as u64 - 1
    }

    /// Bytes of all records.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Bytes> {
        self.records.iter().map(|stored| &stored.bytes)
    }

    /// Does what is due.
    pub(crate) fn step(&mut self) -> bool {
        let now = self.now();
        let action = self.network.take(now);
        let is_due = action.is_some();
        if let Some(action) = action {
            action(self);
        }
        is_due
    }

    /// Sends an answer.
    fn answer<T: Send + 'static>(&mut self, node: usize, to: oneshot::Sender<T>, answer: T) {
        let send = move |_: &mut Self| {
            // A send error means that nobody waits any more.
            let _gone = to.send(answer);
        };
        self.network.answer(node, Box::new(send));
    }

    /// Takes a record that a server appends.
    pub(crate) fn take_append(
        &mut self,
        node: usize,
        (bytes, sum): (Bytes, u64),
        last: Last,
        accepted: Accepted,
    ) {
        if !self.has_leader {
            return;
        }
        if !self.exists {
            return self.answer(node, accepted, Err(AppendFault::Unknown));
        }
        let since = self.now().minus(REMEMBERED);
        let mut recent = self.records.iter().rev().take_while(|it| it.time >= since);
        if recent.any(|stored| stored.sum == sum) {
            return self.answer(node, accepted, Ok(()));
        }
        let newest = self.last() + self.proposed.len() as u64;
        if last.number != newest || self.network.chance(Fault::Refusal, 4) {
            return self.answer(node, accepted, Err(AppendFault::Refused));
        }
        let delay = Duration::from_micros(200 + self.network.rng.below(2000) as u64);
        let before = self.proposed.back().map_or(UnixNanos(0), |it| it.due);
        let due = self.now().plus(delay).max(before);
        self.proposed.push_back(Proposal {
            node,
            bytes,
            sum,
            last,
            accepted,
            due,
        });
        self.network.at(due, Box::new(Self::commit_due));
    }

    /// Commits what a quorum has.
    fn commit_due(&mut self) {
        let now = self.now();
        while self.has_leader && self.proposed.front().is_some_and(|it| it.due <= now) {
            if let Some(proposal) = self.proposed.pop_front() {
                let (node, accepted, bytes) = (proposal.node, proposal.accepted, proposal.bytes);
                let outcome = self.commit(&bytes, proposal.sum, proposal.last);
                self.answer(node, accepted, outcome);
                if outcome.is_ok() {
                    self.copy(&bytes);
                }
            }
        }
    }

    /// Adds a record unless it expects another one before it.
    fn commit(&mut self, bytes: &Bytes, sum: u64, last: Last) -> Result<(), AppendFault> {
        let is_other = last.unverified.is_some() && last.unverified != self.last_sum;
        if is_other || last.number != self.last() {
            return Err(AppendFault::Refused);
        }
        let time = self.now();
        self.records.push(Stored {
            bytes: bytes.clone(),
            sum,
            time,
        });
        self.last_sum = Some(sum);
        let number = self.last();
        let before = self
            .records
            .len()
            .checked_sub(2)
            .map(|at| &self.records[at].bytes);
        let checked = self.truth.commit(number, bytes, before);
        self.break_promise(checked);
        Ok(())
    }

    fn copy(&mut self, bytes: &Bytes) {
        self.subscribers.retain(|(_, to)| !to.is_closed());
        for (node, to) in self.subscribers.clone() {
            let mut copied = bytes.to_vec();
            if self.network.chance(Fault::Copies, 3) {
                let at = self.network.rng.below(copied.len());
                copied[at] ^= 1;
            }
            let copied = Bytes::from(copied);
            // A slow reader loses copies.
            let send = move |_: &mut Self| _ = to.try_send(copied.clone());
            self.network.copy(node, send);
        }
    }

    /// Notes the first broken promise.
    pub(crate) fn break_promise(&mut self, checked: Result<(), Violation>) {
        if let Err(violation) = checked {
            self.violation.get_or_insert(violation);
        }
    }

    pub(crate) fn subscribe(&mut self, node: usize, to: mpsc::Sender<Bytes>) {
        self.subscribers.push((node, to));
    }

    /// Answers with the records that the log contains.
    pub(crate) fn take_extent(
        &mut self,
        node: usize,
        to: oneshot::Sender<Result<Extent, StoreError>>,
    ) {
        if !self.has_leader {
            return;
        }
        if !self.exists {
            return self.answer(node, to, Err(StoreError::Lost("simulated".to_owned())));
        }
        let mut last = self.last();
        if self.network.chance(Fault::Stale, 10) {
            let behind = self.network.rng.below(4) as u64;
            last = last
                .saturating_sub(behind)
                .max(self.first.saturating_sub(1));
        }
        let time = |number: u64| {
            let at = number.checked_sub(self.first).map(|at| at as usize);
            at.and_then(|at| self.records.get(at))
                .map_or(UnixNanos(0), |it| it.time)
        };
        let extent = Extent {
            first: self.first,
            first_time: time(self.first),
            last,
            last_time: time(last),
        };
        self.answer(node, to, Ok(extent));
    }

    /// Answers with a record.
    pub(crate) fn take_get(
        &mut self,
        node: usize,
        number: u64,
        to: oneshot::Sender<Result<Record, StoreError>>,
    ) {
        let lag = if self.network.chance(Fault::Stale, 10) {
            self.network.rng.below(4) as u64
        } else {
            0
        };
        let is_there = self.exists && number + lag <= self.last();
        let answer = if is_there && number < self.first {
            Err(StoreError::Gone(number))
        } else if is_there {
            let stored = &self.records[(number - self.first) as usize];
            Record::read(&stored.bytes).map_err(StoreError::from)
        } else {
            Err(StoreError::Request("no replica has the record".to_owned()))
        };
        self.answer(node, to, answer);
    }

    /// Creates the stream again.
    pub(crate) fn take_create(
        &mut self,
        node: usize,
        first: u64,
        to: oneshot::Sender<Result<(), StoreError>>,
    ) {
        if self.exists || !self.has_leader {
            let error = StoreError::Request("the stream exists".to_owned());
            return self.answer(node, to, Err(error));
        }
        self.create(first);
        self.answer(node, to, Ok(()));
    }

    /// Creates the stream if it is lost.
    pub(crate) fn create(&mut self, first: u64) {
        if !self.exists {
            (self.exists, self.first) = (true, first);
        }
    }

    /// Ends the leader of the stream: what it has not committed is committed by the next one, or
    /// lost. The next one commits without answers, and its replicas may have restarted.
    pub(crate) fn lose_leader(&mut self, pause: Duration) {
        if !self.has_leader {
            return;
        }
        let kept = self.network.rng.below(self.proposed.len() + 1);
        let proposed: Vec<Proposal> = self.proposed.drain(..).collect();
        for proposal in proposed.into_iter().take(kept) {
            let is_committed = self
                .commit(&proposal.bytes, proposal.sum, proposal.last)
                .is_ok();
            if is_committed && self.network.rng.chance(50) {
                self.copy(&proposal.bytes);
            }
        }
        self.has_leader = false;
        let since = self.now().minus(REMEMBERED);
        let is_old = self.records.last().is_none_or(|last| last.time < since);
        if is_old && self.network.rng.chance(50) {
            self.last_sum = None;
        }
        let back = self.now().plus(pause);
        self.network
            .at(back, Box::new(|log: &mut Self| log.has_leader = true));
    }

    /// Forgets the last records, although they were acknowledged.
    pub(crate) fn roll_back(&mut self, count: usize) {
        let kept = self.records.len().saturating_sub(count);
        for forgotten in self.records.split_off(kept) {
            self.truth.forget(forgotten.sum);
        }
        self.proposed.clear();
        self.last_sum = self.records.last().map(|last| last.sum);
    }

    /// Loses the stream.
    pub(crate) fn lose_stream(&mut self) {
        self.roll_back(usize::MAX);
        self.exists = false;
    }
}
