//! Scenarios of several steps, for promises that single steps seldom reach.

use std::time::Duration;

use serde_json::{Value, json};
use tickcast::bus::Emit;

use crate::Violation;
use crate::client::Client;
use crate::client::account::Lag;
use crate::rest::Rest;
use crate::rng::Rng;
use crate::server::Server;
use crate::world::World;

/// Reads in the time that a client may be behind.
const READS_A_LIMIT: usize = 40;
/// Rounds in which a client reads what it has asked for.
const READS_MAX: usize = 300;
/// Quotes that are published while clients keep up.
const QUOTES: usize = 100;
/// Bytes of an event in the queue of a client, with its entry.
const EVENT_BYTES: usize = 400;
/// Most bytes of a topic in a queue that has been reduced: a gap, a snapshot and the newest event
/// or its last bar.
const TOPIC_BYTES: usize = 1500;

/// Patterns that match everything that a client can ask for.
const EVERYTHING: [&str; 6] = [
    "trade:*", "quote:*", "ticker:*", "bar:*:1s", "bar:*:1m", "status:*",
];

impl World {
    /// True if a client is up to date and nothing is due for it.
    fn is_up_to_date(&mut self, at: usize, rng: &mut Rng) -> Result<bool, Violation> {
        if !self.can_take_part(at) || self.be_answered(rng)? != Rest::Calm {
            return Ok(false);
        }
        let client = &self.clients[at];
        let mut accounts = client.accounts.iter();
        let has_all = accounts
            .all(|(topic, own)| self.truth.current(topic) == Some((own.epoch.as_str(), own.head)));
        Ok(has_all && self.can_take_part(at))
    }

    fn can_take_part(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let is_serving = |server: &Server| !server.is_draining();
        self.server.as_ref().is_some_and(is_serving)
            && client.is_open()
            && client.lag == Lag::Ok
            && !(client.is_stalled || client.is_deaf)
    }

    /// A client asks for more than its socket takes at once and reads it at a steady speed: neither
    /// that nor the few events behind it count against the client.
    pub(crate) fn ask_for_much(&mut self, at: usize, rng: &mut Rng) -> Result<(), Violation> {
        if !self.is_up_to_date(at, rng)? {
            return Ok(());
        }
        let limits = self.setup.limits.outbox;
        let bytes = 300 + rng.below(3000);
        // So few that neither their bytes nor the time to read them is that of a slow consumer.
        let bytes_max = (limits.outbox_bytes / 4).min(bytes * READS_A_LIMIT / 8);
        let events_max = self.truth.events + (bytes_max / EVENT_BYTES) as u64;
        self.ask(at, rng);
        self.clients[at].narrow(bytes);
        for round in 0..READS_MAX {
            if round % 20 == 0 && self.truth.events < events_max {
                self.emit_quote(rng);
            }
            // Its answers to pings are behind all that it has asked for.
            if round % 20 == 0 {
                let now = self.now();
                self.clients[at].show_life(rng, now);
            }
            self.advance(limits.behind_max / READS_A_LIMIT as u32);
            for reader in 0..self.clients.len() {
                if !self.clients[reader].is_stalled {
                    let bytes = if reader == at { bytes } else { usize::MAX };
                    self.read(reader, bytes, rng)?;
                    self.clients[reader].write(usize::MAX);
                }
            }
            let Some(server) = &mut self.server else {
                break;
            };
            server.run(&mut self.truth)?;
            if self.truth.events > events_max {
                break;
            }
            let client = &self.clients[at];
            if client.lag != Lag::Ok || !client.is_open() {
                return Err(Violation::new(format!(
                    "client {at} reads what it has asked for, {bytes} bytes at once, and is {:?} {:?}",
                    client.lag, client.end
                )));
            }
        }
        self.clients[at].capacity = self.setup.capacity;
        self.be_answered(rng)?;
        Ok(())
    }

    /// Sends many requests at once.
    fn ask(&mut self, at: usize, rng: &mut Rng) {
        let now = self.now();
        let client = &mut self.clients[at];
        let mut everything = EVERYTHING.to_vec();
        everything.truncate(1 + rng.below(EVERYTHING.len()));
        client.request(json!({"op": "subscribe", "topics": ["quote:*"]}), rng, now);
        for _ in 0..3 + rng.below(20) {
            let request: Value = match rng.below(4) {
                0 => json!({"op": "instruments"}),
                1 => json!({"op": "subscribe", "topics": everything, "snapshot": true}),
                _ => json!({"op": "resync", "topics": everything}),
            };
            client.request(request, rng, now);
        }
        client.write(usize::MAX);
        self.note(|_| format!("client {at} asks for {everything:?}"));
    }

    /// An epoch ends only if it has events.
    fn emit_and_start_over(&mut self, at: usize, rng: &mut Rng) {
        self.emit_from(at, |source, now| {
            let mut values = source.values(rng, 3, now);
            values.push(Emit::StartOver);
            values
        });
    }

    fn emit_quote(&mut self, rng: &mut Rng) {
        let at = rng.below(self.sources.len());
        self.emit_from(at, |source, now| source.one_quote(rng, now));
    }

    /// Quotes are published while clients read at once: events of mode `interval` keep their
    /// distance, and raw events are not held back.
    pub(crate) fn keep_up(&mut self, at: usize, rng: &mut Rng) -> Result<(), Violation> {
        // With a flush window, what a small socket has not taken at once is sent later.
        if !self.can_take_part(at) || !self.setup.limits.flush_window.is_zero() {
            return Ok(());
        }
        let now = self.now();
        let interval_ms = *rng.pick(&[10, 25, 50]);
        let request = json!({
            "op": "subscribe", "topics": ["quote:*"], "mode": "interval", "interval_ms": interval_ms,
        });
        self.clients[at].request(request, rng, now);
        if self.be_answered(rng)? != Rest::Calm {
            return Ok(());
        }
        self.be_calm(true);
        for _ in 0..QUOTES {
            self.emit_quote(rng);
            self.advance(Duration::from_micros(500));
            self.exchange(rng)?;
            self.check_raw_topics()?;
        }
        self.be_calm(false);
        Ok(())
    }

    /// Clients that read at once have all raw events.
    fn check_raw_topics(&self) -> Result<(), Violation> {
        let calm = |client: &&Client| client.calm_since.is_some() && client.is_open();
        for client in self.clients.iter().filter(calm) {
            let mut raw = client.accounts.iter().filter(|(topic, own)| {
                let current = self.truth.current(topic);
                own.settings.mode == "raw" && current != Some((own.epoch.as_str(), own.head))
            });
            if let Some((topic, own)) = raw.next().filter(|_| client.lag == Lag::Ok) {
                return Err(Violation::new(format!(
                    "client {} reads at once, and is at {} of {topic}: {:?} is published",
                    client.number,
                    own.head,
                    self.truth.current(topic)
                )));
            }
        }
        Ok(())
    }

    /// Sources start over again and again while a client reads nothing: epochs that have ended
    /// before they began for the client are skipped, so that they take no memory.
    pub(crate) fn pile_up_epochs(&mut self, at: usize, rng: &mut Rng) -> Result<(), Violation> {
        if !self.is_up_to_date(at, rng)? {
            return Ok(());
        }
        let limits = self.setup.limits.outbox;
        let now = self.now();
        let client = &mut self.clients[at];
        client.request(json!({"op": "subscribe", "topics": ["quote:*"]}), rng, now);
        self.be_answered(rng)?;
        if !self.can_take_part(at) {
            return Ok(());
        }
        self.clients[at].is_stalled = true;
        self.clients[at].narrow(0);
        let source = rng.below(self.sources.len());
        for _ in 0..50 + rng.below(150) {
            self.emit_and_start_over(source, rng);
            if let Some(server) = &mut self.server {
                server.run(&mut self.truth)?;
            }
            self.advance(Duration::from_millis(1));
        }
        // The next heartbeat is written before the queue is sent.
        let heartbeat = Duration::from_millis(self.clients[at].heartbeat_ms);
        self.advance(heartbeat + Duration::from_millis(1));
        if let Some(server) = &mut self.server {
            server.run(&mut self.truth)?;
        }
        let client = &mut self.clients[at];
        let topics = client.accounts.len();
        let most = 2 * limits.outbox_bytes + 3 * limits.frame_bytes + topics * TOPIC_BYTES + 8000;
        client.queued_max = Some(most as u64);
        client.is_stalled = false;
        client.capacity = self.setup.capacity;
        self.be_answered(rng)?;
        self.clients[at].queued_max = None;
        Ok(())
    }
}
