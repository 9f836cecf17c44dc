//! Scenario of a worker's connections: subscribing, cuts and reconnects, and the ledgers at the
//! end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt;

use super::connection::{ConnectionError, LoadConnection, Turn};
use super::plan::{Plan, Role};
use super::recorder::add_failure;
use super::token::READ_EVERY;
use super::worker::{
    DisconnectReason, Due, Order, Place, READ_BYTES, Report, SLOW_READ, SPAN, Stage, Worker,
};
use crate::market::UnixNanos;

/// Interval of pings from a connection that reads nothing.
const LIFE_SIGN: Duration = Duration::from_secs(15);
/// Interval at which a connection that reads the announcement of its token's end late, or never,
/// presents a new token if there is one.
const RENEWAL_UNASKED: Duration = Duration::from_secs(5);

impl Worker {
    /// Schedule of a plan before anything happens.
    pub(super) fn first_due(
        plan: &Plan,
        places: &[Place],
        begun: UnixNanos,
    ) -> BinaryHeap<Reverse<(UnixNanos, Due)>> {
        let mut due = BinaryHeap::new();
        for (at, place) in places.iter().enumerate() {
            let share = place.assignment.number as f64 / plan.connections.max(1) as f64;
            due.push(Reverse((
                begun.plus(plan.ramp.mul_f64(share)),
                Due::Open(at),
            )));
        }
        due.push(Reverse((begun.plus(SPAN), Due::Span)));
        if !plan.silence.is_zero() {
            due.push(Reverse((begun.plus(plan.ramp + plan.silence), Due::Speak)));
        }
        if !plan.pause_every.is_zero() {
            due.push(Reverse((begun.plus(plan.pause_every), Due::Pause)));
        }
        due
    }

    /// Handles the result of a connection's events.
    pub(super) fn settle(&mut self, at: usize, turn: Result<Turn, ConnectionError>) {
        match turn {
            Ok(Turn::On) => {}
            Ok(Turn::Joined) => self.on_joined(at),
            Ok(Turn::Ledger) => self.on_ledger(at),
            Ok(Turn::Closed(code)) => {
                *self.span.tally.closed.entry(code).or_default() += 1;
                self.lose(at);
            }
            Err(error) => {
                let number = self.places[at].assignment.number;
                add_failure(
                    &mut self.end.failures,
                    format!("connection {number}: {error}"),
                );
                *self.span.tally.closed.entry(1006).or_default() += 1;
                self.lose(at);
            }
        }
    }

    fn on_joined(&mut self, at: usize) {
        self.count_joined(at);
        let role = self.places[at].assignment.role;
        let now = self.clock.now();
        if self.stage == Stage::Finishing {
            return self.ask_ledger(at, DisconnectReason::End);
        }
        if matches!(role, Role::Slow | Role::Stalled) {
            self.places[at].is_held_back = true;
            self.due
                .push(Reverse((now.plus(LIFE_SIGN), Due::LifeSign(at))));
            if self.settings.renewed_token().is_some() {
                let due = Due::RenewUnasked(at);
                self.due.push(Reverse((now.plus(RENEWAL_UNASKED), due)));
            }
        }
        match role {
            Role::Slow => {
                self.due
                    .push(Reverse((now.plus(SLOW_READ), Due::SlowRead(at))));
            }
            Role::Counter | Role::Probe => self.pause(at, now),
            Role::Stalled => {}
        }
    }

    /// Stops reading a connection for the pause of the plan.
    fn pause(&mut self, at: usize, now: UnixNanos) {
        if self.pause.is_zero() {
            return;
        }
        let until = now.plus(self.pause);
        self.places[at].is_held_back = true;
        self.places[at].paused_until = Some(until);
        self.due.push(Reverse((until, Due::Resume(at))));
    }

    /// Pauses all connections that read, and none that is being cut.
    fn pause_all(&mut self, now: UnixNanos) {
        if self.stage == Stage::Finishing {
            return;
        }
        for at in 0..self.places.len() {
            let place = &self.places[at];
            let is_reading = !place.is_held_back
                && place.cut.is_none()
                && place.link.as_ref().is_some_and(LoadConnection::is_open);
            if is_reading {
                self.pause(at, now);
            }
        }
    }

    fn count_joined(&mut self, at: usize) {
        if !std::mem::replace(&mut self.places[at].has_joined, true) {
            self.joining -= 1;
            if self.joining == 0 {
                self.report(Report::Joined);
            }
        }
    }

    /// Ends a connection that does not reconnect.
    fn lose(&mut self, at: usize) {
        self.places[at].link = None;
        if let Some(cut) = self.places[at].cut.take()
            && cut != DisconnectReason::Churn
        {
            self.count_awaited();
        }
        self.count_joined(at);
    }

    fn count_awaited(&mut self) {
        self.awaited -= 1;
        if self.awaited == 0 && self.stage != Stage::Finishing {
            self.report(Report::Gathered);
        }
    }

    /// Requests the ledger of a connection if it is open. The end also waits for connections that
    /// churn cuts, and for those that churn is opening again: they are asked once they have joined.
    fn ask_ledger(&mut self, at: usize, cut: DisconnectReason) {
        if self.settings.dialect.is_raw() {
            return self.cut_without_ledger(at, cut);
        }
        let place = &mut self.places[at];
        let Some(link) = &mut place.link else { return };
        let is_asked = match link.ask_ledger(&self.settings) {
            Ok(is_asked) => is_asked,
            Err(error) => return self.settle(at, Err(error)),
        };
        let is_end = cut == DisconnectReason::End;
        let is_new = match place.cut {
            None => is_asked || is_end && place.has_joined && !link.is_over(),
            Some(DisconnectReason::Churn) => is_end,
            Some(_) => false,
        };
        if is_new {
            place.cut = Some(cut);
            self.awaited += usize::from(cut != DisconnectReason::Churn);
        }
    }

    /// Cuts a connection to a server that has no ledgers, unless it has never joined.
    fn cut_without_ledger(&mut self, at: usize, cut: DisconnectReason) {
        let place = &mut self.places[at];
        let Some(link) = place.link.as_mut().filter(|_| place.has_joined) else {
            return;
        };
        match cut {
            DisconnectReason::End => {
                link.close();
                place.link = None;
            }
            DisconnectReason::Storm => {
                place.comes_back = true;
                place.is_held_back = true;
            }
            DisconnectReason::Churn => {
                link.close();
                self.open(at);
            }
        }
    }

    fn on_ledger(&mut self, at: usize) {
        let place = &mut self.places[at];
        let Some(link) = &mut place.link else { return };
        let (entries, from) = link.ledger();
        match place.cut.take() {
            Some(DisconnectReason::End) => {
                let sums = &mut self.end.ledger;
                sums.connections += 1;
                sums.topics += entries.len() as u64;
                for entry in entries {
                    sums.delivered += entry.delivered;
                    sums.merged += entry.merged;
                    sums.lost += entry.lost;
                }
                link.close();
                place.link = None;
                self.count_awaited();
            }
            Some(DisconnectReason::Storm) => {
                place.from = from;
                place.comes_back = true;
                place.is_held_back = true;
                self.count_awaited();
            }
            Some(DisconnectReason::Churn) => {
                place.from = from;
                self.open(at);
            }
            None => {}
        }
    }

    pub(super) fn handle(&mut self, order: Order) {
        match order {
            Order::Measure => {
                self.report_span();
                self.stage = Stage::Measuring;
                if let Some(every) = self.churn_every {
                    self.due
                        .push(Reverse((self.clock.now().plus(every), Due::Churn)));
                }
            }
            Order::Gather => {
                let reading = |place: &Place| !place.is_held_back && place.cut.is_none();
                let all: Vec<usize> = (0..self.places.len())
                    .filter(|at| reading(&self.places[*at]))
                    .collect();
                for at in all {
                    self.ask_ledger(at, DisconnectReason::Storm);
                }
                if self.awaited == 0 {
                    self.report(Report::Gathered);
                }
            }
            Order::ComeBack => {
                let all: Vec<usize> = (0..self.places.len())
                    .filter(|at| std::mem::take(&mut self.places[*at].comes_back))
                    .collect();
                for at in &all {
                    self.places[*at].link = None;
                    self.places[*at].has_joined = false;
                }
                self.joining += all.len();
                for at in &all {
                    self.open(*at);
                }
                if all.is_empty() {
                    self.report(Report::Joined);
                }
            }
            Order::Finish => self.begin_finish(),
        }
    }

    fn begin_finish(&mut self) {
        self.report_span();
        self.stage = Stage::Finishing;
        for at in 0..self.places.len() {
            let is_open = self.places[at]
                .link
                .as_ref()
                .is_some_and(LoadConnection::is_open);
            if !self.settings.ledger && is_open {
                self.places[at].link = None;
                continue;
            }
            self.ask_ledger(at, DisconnectReason::End);
            if std::mem::take(&mut self.places[at].is_held_back) {
                self.again.push(at);
            }
        }
    }

    pub(super) fn take_due(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((at, due))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            match due {
                Due::Open(place) => self.open(place),
                Due::Speak => self.speak(),
                Due::SlowRead(place) if self.places[place].is_held_back => {
                    self.read_once(place, self.slow_bytes.min(READ_BYTES));
                    if self.places[place].link.is_some() {
                        self.due.push(Reverse((at.plus(SLOW_READ), due)));
                    }
                }
                Due::LifeSign(place) if self.places[place].is_held_back => {
                    if let Some(link) = &mut self.places[place].link {
                        let shown = link.show_life().map(|()| Turn::On);
                        self.settle(place, shown);
                        self.due.push(Reverse((at.plus(LIFE_SIGN), due)));
                    }
                }
                Due::RenewUnasked(place) if self.places[place].is_held_back => {
                    if let Some(link) = &mut self.places[place].link {
                        let renewed = link.renew_unasked(now, &self.settings);
                        self.settle(place, renewed.map(|()| Turn::On));
                        self.due.push(Reverse((at.plus(RENEWAL_UNASKED), due)));
                    }
                }
                Due::SlowRead(_) | Due::LifeSign(_) | Due::RenewUnasked(_) => {}
                Due::Renew(place) => self.renew(place, now),
                Due::Pause => {
                    self.pause_all(now);
                    self.due.push(Reverse((at.plus(self.pause_every), due)));
                }
                Due::Resume(place) if self.places[place].paused_until == Some(at) => {
                    self.places[place].paused_until = None;
                    self.places[place].is_held_back = false;
                    self.again.push(place);
                }
                // Reconnected meanwhile.
                Due::Resume(_) => {}
                Due::Churn => self.churn(at),
                Due::Span => {
                    self.report_span();
                    self.due.push(Reverse((at.plus(SPAN), due)));
                }
            }
        }
    }

    /// Renews the token of a connection whose server has announced its end.
    pub(super) fn renew_if_due(&mut self, at: usize) {
        let link = self.places[at].link.as_mut();
        if link.is_some_and(LoadConnection::must_renew) {
            self.renew(at, self.clock.now());
        }
    }

    fn renew(&mut self, at: usize, now: UnixNanos) {
        let Some(link) = &mut self.places[at].link else {
            return;
        };
        match link.renew(now, &self.settings) {
            Ok(false) => {}
            Ok(true) => self
                .due
                .push(Reverse((now.plus(READ_EVERY), Due::Renew(at)))),
            Err(error) => self.settle(at, Err(error)),
        }
    }

    /// Releases all held-back handshakes at once.
    fn speak(&mut self) {
        self.stage = Stage::Open;
        for at in 0..self.places.len() {
            if let Some(link) = &mut self.places[at].link {
                let spoken = link.speak(&self.settings).map(|()| Turn::On);
                self.settle(at, spoken);
            }
        }
    }

    /// Cuts one reading connection, which then reconnects.
    fn churn(&mut self, at: UnixNanos) {
        let Some(every) = self.churn_every.filter(|_| self.stage != Stage::Finishing) else {
            return;
        };
        self.due.push(Reverse((at.plus(every), Due::Churn)));
        for _ in 0..8 {
            let chosen = self.rng.random_range(0..self.places.len());
            let place = &self.places[chosen];
            if !place.is_held_back
                && place.cut.is_none()
                && place.link.as_ref().is_some_and(LoadConnection::is_open)
            {
                return self.ask_ledger(chosen, DisconnectReason::Churn);
            }
        }
    }
}
