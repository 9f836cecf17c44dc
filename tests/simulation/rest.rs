//! Rest: clients read and answer everything, and in the end every client has everything.

use std::time::Duration;

use crate::Violation;
use crate::client::Client;
use crate::client::account::Lag;
use crate::client::settings::Kind;
use crate::rng::Rng;
use crate::server::Server;
use crate::world::World;

/// Rounds of an exchange. Each moves bytes, of which there is an end while no time passes.
const EXCHANGES_MAX: usize = 20_000;
/// Advances of time after which a settlement is given up.
const ROUNDS_MAX: usize = 5000;
/// Longest advance of time at once.
const ADVANCE_MAX: Duration = Duration::from_millis(50);
/// Time beyond the longest flush window, which may have begun before a change of the limits.
const GATHERED_MAX: Duration = Duration::from_micros(5100);

/// Result of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// No byte moves until the next timer.
    Calm,
    /// There is no server, or it drains.
    NotApplicable,
    /// Time has passed in too small steps.
    OutOfRounds,
}

impl World {
    /// Lets the clients that are not stalled read and answer, and the server run, until no byte
    /// moves. Returns the number of bytes that have moved.
    pub(crate) fn exchange(&mut self, rng: &mut Rng) -> Result<usize, Violation> {
        let mut all = 0;
        for _ in 0..EXCHANGES_MAX {
            let mut moved = 0;
            for at in 0..self.clients.len() {
                if self.clients[at].is_stalled {
                    continue;
                }
                moved += self.clients[at].write(usize::MAX);
                moved += self.read(at, usize::MAX, rng)?;
                moved += self.clients[at].write(usize::MAX);
            }
            all += moved;
            if let Some(server) = &mut self.server {
                server.run(&mut self.truth)?;
            }
            let is_idle = |client: &Client| client.is_stalled || client.is_idle();
            if moved == 0 && self.clients.iter().all(is_idle) {
                return Ok(all);
            }
        }
        Err(Violation::new("bytes move for ever"))
    }

    /// Every request of a client that reads is answered, without anything else that wakes the
    /// server.
    pub(crate) fn be_answered(&mut self, rng: &mut Rng) -> Result<Rest, Violation> {
        for _ in 0..ROUNDS_MAX {
            // What is gathered is sent at the end of a flush window.
            self.advance(GATHERED_MAX);
            let moved = self.exchange(rng)?;
            if self.server.as_ref().is_none_or(Server::is_draining) {
                return Ok(Rest::NotApplicable);
            }
            if moved > 0 {
                continue;
            }
            let hears = |client: &&Client| !client.is_stalled && !client.is_deaf;
            let open = self.clients.iter().filter(|client| client.is_open());
            for client in open.filter(hears) {
                if let Some(missing) = client.missing_answer() {
                    let number = client.number;
                    return Err(Violation::new(format!(
                        "client {number} has read everything, and the server sleeps: {missing}"
                    )));
                }
            }
            return Ok(Rest::Calm);
        }
        Ok(Rest::OutOfRounds)
    }

    /// Lets everything come to rest: clients read and answer all, time passes, and in the end every
    /// client has everything.
    pub(crate) fn settle(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        if self.server.as_ref().is_none_or(Server::is_draining) {
            return Ok(());
        }
        self.note(|_| "settle".to_owned());
        for client in &mut self.clients {
            (client.is_stalled, client.is_deaf) = (false, false);
        }
        self.be_answered(rng)?;
        let behind = self.setup.limits.outbox.behind_max;
        let rest = self.pass_time(behind * 2 + Duration::from_secs(3), rng)?;
        let now = self.now();
        for client in self.clients.iter_mut().filter(|client| client.is_open()) {
            client.request(serde_json::json!({"op": "subscriptions"}), rng, now);
            client.request(serde_json::json!({"op": "ledger"}), rng, now);
        }
        if (rest, self.be_answered(rng)?) == (Rest::Calm, Rest::Calm) {
            self.check_rest()?;
        }
        Ok(())
    }

    /// Lets time pass up to each time at which a shard is due, while all clients that are not
    /// stalled read and answer.
    fn pass_time(&mut self, time: Duration, rng: &mut Rng) -> Result<Rest, Violation> {
        self.be_calm(true);
        let rest = self.pass_calm_time(time, rng)?;
        let now = self.now();
        for client in &self.clients {
            client.check_heartbeat(now)?;
        }
        self.be_calm(false);
        Ok(rest)
    }

    /// Notes that clients read and answer everything at once, or no longer do.
    pub(crate) fn be_calm(&mut self, is_calm: bool) {
        let now = is_calm.then(|| self.now());
        for client in &mut self.clients {
            client.be_calm(now);
        }
    }

    fn pass_calm_time(&mut self, time: Duration, rng: &mut Rng) -> Result<Rest, Violation> {
        let until = self.clock.now().plus(time);
        for _ in 0..ROUNDS_MAX {
            self.exchange(rng)?;
            let Some(server) = &mut self.server else {
                return Ok(Rest::NotApplicable);
            };
            let due = server.run(&mut self.truth)?;
            let now = self.clock.now();
            if now >= until {
                return Ok(Rest::Calm);
            }
            let soonest = now.plus(Duration::from_micros(1));
            let next = due.unwrap_or(until).min(now.plus(ADVANCE_MAX));
            self.advance_to(next.max(soonest));
        }
        Ok(Rest::OutOfRounds)
    }

    /// Every open client has everything that was published, and the server has counted all.
    fn check_rest(&self) -> Result<(), Violation> {
        for client in self.clients.iter().filter(|client| client.is_open()) {
            let fail = |text: String| {
                let number = client.number;
                Err(Violation::new(format!("client {number} at rest: {text}")))
            };
            for (topic, own) in &client.accounts {
                let Some((epoch, end)) = self.truth.current(topic) else {
                    return fail(format!("{topic} was never published"));
                };
                if (own.epoch.as_str(), own.head) != (epoch, end) {
                    return fail(format!(
                        "{topic} at {} of {}; published {end} of {epoch}; {:?}",
                        own.head, own.epoch, own.settings
                    ));
                }
                if let Some(missing) = own.missing_snapshot() {
                    return fail(format!("{topic}: no snapshot at {missing:?}"));
                }
                if own.is_stale && own.kind != Kind::Event {
                    return fail(format!("{topic}: the state behind a gap is unknown"));
                }
            }
            if client.lag != Lag::Ok {
                return fail(format!("lag is {:?}", client.lag));
            }
        }
        let unaccounted = self.server.as_ref().map_or(0, Server::unaccounted);
        if unaccounted > 0 {
            return Err(Violation::new(format!("{unaccounted} events unaccounted")));
        }
        Ok(())
    }
}
