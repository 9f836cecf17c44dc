//! Steps of a simulation: who does something next, and what.

use std::time::Duration;

use tickcast::bus::Emit;
use tickcast::market::UnixNanos;
use tickcast::protocol::SourceState;

use crate::Violation;
use crate::plan::{Fault, Plan, default_limits, limits};
use crate::rng::Rng;
use crate::server::Server;
use crate::sources::{SYMBOLS, Source, emit, expected};
use crate::world::World;

/// Actions with their weights. Those of a fault are skipped where the plan lacks it.
const ACTIONS: [(Action, usize); 25] = [
    (Action::Emit, 240),
    (Action::Bus, 140),
    (Action::Shard, 160),
    (Action::Pump, 60),
    (Action::Read, 170),
    (Action::Write, 60),
    (Action::Request, 70),
    (Action::Connect, 40),
    (Action::ShortTime, 100),
    (Action::NextDue, 60),
    (Action::LongTime, 6),
    (Action::Settle, 2),
    (Action::KeepUp, 2),
    (Action::Of(Fault::Stall), 12),
    (Action::Of(Fault::Disconnect), 8),
    (Action::Of(Fault::SourceFails), 5),
    (Action::Of(Fault::Growth), 3),
    (Action::Of(Fault::Reload), 3),
    (Action::Of(Fault::Tune), 3),
    (Action::Of(Fault::Overrun), 5),
    (Action::Of(Fault::Deaf), 3),
    (Action::Of(Fault::AskForMuch), 2),
    (Action::Of(Fault::EpochsPileUp), 1),
    (Action::Of(Fault::SourceGap), 10),
    (Action::Rare, 6),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Emit,
    Bus,
    Shard,
    /// The bus and all shards, until they sleep.
    Pump,
    Read,
    Write,
    Request,
    Connect,
    ShortTime,
    /// Time passes until a shard is due.
    NextDue,
    LongTime,
    Settle,
    /// Quotes are published while clients read at once.
    KeepUp,
    Of(Fault),
    /// A restart, a kill, a pause or a refusal.
    Rare,
}

impl Action {
    fn draw(rng: &mut Rng) -> Self {
        let all: usize = ACTIONS.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.below(all);
        for (action, weight) in ACTIONS {
            if left < weight {
                return match action {
                    Self::Rare => {
                        let rare = [Fault::Restart, Fault::Kill, Fault::Pause, Fault::Refuse];
                        Self::Of(*rng.pick(&rare))
                    }
                    other => other,
                };
            }
            left -= weight;
        }
        Self::Bus
    }
}

impl World {
    /// Makes one step.
    pub(crate) fn step(&mut self, plan: &Plan, rng: &mut Rng) -> Result<(), Violation> {
        let action = Action::draw(rng);
        if let Action::Of(fault) = action
            && !plan.has(fault)
        {
            return Ok(());
        }
        self.go_on_draining()?;
        match action {
            Action::Emit => {
                let events = 1 + rng.below(3);
                self.emit(rng, events);
            }
            Action::Bus => {
                if let Some(server) = &mut self.server {
                    server.step_bus(&mut self.truth)?;
                }
            }
            Action::Shard => {
                if let Some(server) = &mut self.server {
                    let at = rng.below(server.shards.len());
                    for _ in 0..=rng.below(3) {
                        server.step_shard(at)?;
                    }
                }
            }
            Action::Pump => {
                if let Some(server) = &mut self.server {
                    server.run(&mut self.truth)?;
                }
            }
            Action::Read => self.read_some(rng)?,
            Action::Write => {
                let at = rng.below(self.clients.len());
                let bytes = if rng.chance(70) {
                    usize::MAX
                } else {
                    1 + rng.below(40)
                };
                self.clients[at].write(bytes);
            }
            Action::Request => self.request(rng),
            Action::Connect => self.connect_one(rng, false),
            Action::ShortTime => self.advance(Duration::from_micros(rng.below(5000) as u64)),
            Action::NextDue => self.advance_to_due()?,
            Action::LongTime => self.advance(Duration::from_millis(rng.below(900) as u64)),
            Action::Settle => self.settle(rng)?,
            Action::KeepUp => {
                let at = rng.below(self.clients.len());
                self.keep_up(at, rng)?;
            }
            Action::Of(fault) => self.fault(fault, rng)?,
            Action::Rare => {}
        }
        Ok(())
    }

    fn emit(&mut self, rng: &mut Rng, events: usize) {
        let at = rng.below(self.sources.len());
        self.emit_from(at, |source, now| source.values(rng, events, now));
    }

    /// Emits values of a source, if it runs.
    pub(crate) fn emit_from(
        &mut self,
        at: usize,
        values: impl FnOnce(&mut Source, UnixNanos) -> Vec<Emit>,
    ) {
        let now = self.clock.now();
        let source = &mut self.sources[at];
        if let Some(server) = &self.server
            && !source.is_down
            && !source.is_retired
        {
            emit(&server.emitter, at, values(source, now));
        }
    }

    fn read_some(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let at = rng.below(self.clients.len());
        if self.clients[at].is_stalled {
            return Ok(());
        }
        let bytes = if rng.chance(60) {
            usize::MAX
        } else {
            1 + rng.below(600)
        };
        self.read(at, bytes, rng)?;
        if rng.chance(70) {
            self.clients[at].write(usize::MAX);
        }
        Ok(())
    }

    fn request(&mut self, rng: &mut Rng) {
        let at = rng.below(self.clients.len());
        if !self.clients[at].is_open() {
            return;
        }
        let symbols: Vec<String> = self
            .sources
            .iter()
            .flat_map(|source| &source.symbols)
            .map(ToString::to_string)
            .collect();
        let now = self.now();
        self.clients[at].request_anything(rng, &symbols, now);
        if rng.chance(60) {
            self.clients[at].write(usize::MAX);
        }
        self.note(|world| format!("client {at} asks {:?}", world.clients[at].last_request()));
    }

    fn connect_one(&mut self, rng: &mut Rng, is_refused: bool) {
        let at = rng.below(self.clients.len());
        if self.clients[at].socket.is_none() && self.server.is_some() {
            self.connect(at, is_refused, rng);
            self.note(|_| format!("client {at} connects"));
        }
    }

    fn advance_to_due(&mut self) -> Result<(), Violation> {
        if let Some(server) = &mut self.server
            && let Some(due) = server.run(&mut self.truth)?
        {
            self.advance_to(due);
        }
        Ok(())
    }

    fn fault(&mut self, fault: Fault, rng: &mut Rng) -> Result<(), Violation> {
        self.note(|_| format!("{fault:?}"));
        let at = rng.below(self.clients.len());
        match fault {
            Fault::Stall => {
                let is_stalled = &mut self.clients[at].is_stalled;
                *is_stalled = !*is_stalled;
            }
            Fault::Deaf => {
                let is_deaf = &mut self.clients[at].is_deaf;
                *is_deaf = !*is_deaf;
            }
            Fault::Disconnect => self.disconnect(at, rng),
            Fault::SourceFails => self.fail_source(rng),
            Fault::Growth => self.grow(rng)?,
            Fault::Reload => self.reload(rng)?,
            Fault::Tune => {
                self.setup.limits = limits(rng, default_limits()?);
                self.truth.limit_history(self.setup.limits.history);
                if let Some(server) = &self.server {
                    server.tune(self.setup.limits, self.sources.len());
                }
            }
            Fault::Overrun => {
                for _ in 0..20 + rng.below(60) {
                    self.emit(rng, 2);
                    if let Some(server) = &mut self.server {
                        server.step_bus(&mut self.truth)?;
                    }
                    if rng.chance(3) && plan_has_epochs(rng) {
                        self.fail_source(rng);
                    }
                }
            }
            Fault::Restart => self.drain(rng)?,
            Fault::Kill => {
                self.server = None;
                self.left = None;
                self.hang_up();
                self.start();
            }
            Fault::Pause => {
                self.advance(Duration::from_millis(1200 + rng.below(4000) as u64));
            }
            Fault::Refuse => self.connect_one(rng, true),
            Fault::SourceGap => self.miss(rng),
            Fault::AskForMuch => self.ask_for_much(at, rng)?,
            Fault::EpochsPileUp => self.pile_up_epochs(at, rng)?,
        }
        Ok(())
    }

    fn disconnect(&mut self, at: usize, rng: &mut Rng) {
        let now = self.now();
        let client = &mut self.clients[at];
        let Some(socket) = client.socket.clone() else {
            return;
        };
        match rng.below(3) {
            0 => socket.reset(),
            1 => socket.end(),
            _ => {
                // A close frame, which the server answers.
                client.close(rng, now);
                return;
            }
        }
        client.has_left = true;
        client.forget();
    }

    fn fail_source(&mut self, rng: &mut Rng) {
        let at = rng.below(self.sources.len());
        let source = &mut self.sources[at];
        let Some(server) = &self.server else {
            return;
        };
        if source.is_retired {
            return;
        }
        let values = match (source.is_down, rng.below(3)) {
            (true, _) => vec![Emit::StartOver, Emit::State(SourceState::Live)],
            (false, 0) => vec![Emit::StartOver],
            (false, _) => vec![Emit::State(SourceState::Reconnecting)],
        };
        let goes_down = values.len() == 1 && values[0] != Emit::StartOver;
        if emit(&server.emitter, at, values) {
            source.is_down = goes_down;
        }
    }

    /// A source has missed data of an instrument.
    fn miss(&mut self, rng: &mut Rng) {
        let at = rng.below(self.sources.len());
        let source = &self.sources[at];
        if let Some(server) = &self.server
            && !source.is_down
            && !source.is_retired
        {
            emit(&server.emitter, at, source.missed(rng));
        }
    }

    /// Announces one more instrument of a source.
    fn grow(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let at = rng.below(self.sources.len());
        let Some(symbol) = self.free_symbol(rng) else {
            return Ok(());
        };
        let source = &mut self.sources[at];
        if let Some(server) = &self.server
            && !source.is_retired
        {
            source.add(symbol)?;
            let values = source.announce();
            emit(&server.emitter, at, values);
        }
        Ok(())
    }

    /// A symbol that no source lists.
    fn free_symbol(&self, rng: &mut Rng) -> Option<&'static str> {
        let symbol = *rng.pick(&SYMBOLS);
        let listed = self.sources.iter().filter(|source| !source.is_retired);
        let mut taken = listed.flat_map(|source| &source.symbols);
        (!taken.any(|one| one.as_str() == symbol)).then_some(symbol)
    }

    /// Applies another config: a source more, a source less, or a source with other instruments.
    fn reload(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let free = self.free_symbol(rng);
        let Some(server) = &self.server else {
            return Ok(());
        };
        let running: Vec<usize> = (0..self.sources.len())
            .filter(|at| !self.sources[*at].is_retired)
            .collect();
        match (rng.below(3), free) {
            (0, Some(symbol)) if self.sources.len() < 6 => {
                let at = self.sources.len();
                let mut source = Source::new(self.named, &[symbol])?;
                self.named += 1;
                let (spec, instruments) = (source.spec(), source.announce());
                self.sources.push(source);
                server.tune(self.setup.limits, self.sources.len());
                emit(&server.emitter, 0, vec![expected(&self.sources)]);
                emit(&server.emitter, at, vec![Emit::Begin(spec)]);
                emit(&server.emitter, at, instruments);
            }
            (1, _) if running.len() > 1 => {
                let at = *rng.pick(&running);
                self.sources[at].is_retired = true;
                emit(&server.emitter, 0, vec![expected(&self.sources)]);
                emit(&server.emitter, at, vec![Emit::Retire]);
            }
            (_, symbol) if !running.is_empty() => {
                let at = *rng.pick(&running);
                let source = &mut self.sources[at];
                if source.symbols.len() > 1 && rng.chance(50) {
                    source.symbols.remove(0);
                } else if let Some(symbol) = symbol {
                    source.add(symbol)?;
                }
                let (spec, instruments) = (source.spec(), source.announce_again());
                source.is_down = false;
                emit(&server.emitter, 0, vec![expected(&self.sources)]);
                emit(&server.emitter, at, vec![Emit::Begin(spec)]);
                emit(&server.emitter, at, instruments);
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins a graceful shutdown, or ends it before all clients have left.
    fn drain(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        match &mut self.server {
            Some(server) if server.is_draining() => self.stop(rng),
            Some(server) => {
                server.drain(Duration::from_millis(rng.below(2000) as u64));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Stops a server that has drained.
    fn go_on_draining(&mut self) -> Result<(), Violation> {
        if self.server.as_mut().is_some_and(Server::is_drained) {
            let mut rng = Rng::new(self.truth.events);
            self.stop(&mut rng)?;
        }
        Ok(())
    }

    fn stop(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        self.note(|_| "the server stops".to_owned());
        let Some(server) = self.server.take() else {
            return Ok(());
        };
        let left = server.stop(&mut self.truth)?;
        self.hang_up();
        let kept: Vec<(usize, bool)> = (0..self.sources.len())
            .filter(|at| !self.sources[*at].is_retired)
            .map(|at| (at, rng.chance(70)))
            .collect();
        self.sources.retain(|source| !source.is_retired);
        self.left = left.map(|left| left.restore(&kept));
        self.advance(Duration::from_millis(rng.below(1500) as u64));
        self.start();
        Ok(())
    }

    /// Clients of a server that is gone find their sockets closed.
    fn hang_up(&mut self) {
        for client in &mut self.clients {
            client.forget();
        }
    }
}

/// Some overruns have new epochs within.
fn plan_has_epochs(rng: &mut Rng) -> bool {
    rng.chance(50)
}
