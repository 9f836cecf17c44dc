//! What a shard does for its sessions and on command.

use std::sync::Arc;
use std::time::Duration;

use super::command::{Command, SnapshotAnswer};
use super::connection::{Adopted, Closing, Connection, ConnectionKey, Peer, Permit};
use super::outbox::{Opcode, Outbox, SlotId, View};
use super::registry::Subscriber;
use super::timers::{Due, Timer};
use super::turn::Shard;
use crate::bus::TopicId;
use crate::market::UnixNanos;
use crate::protocol::{
    Bye, Code, Control, Encoding, LagLevel, Refusal, SnapshotHead, Welcome, encode_control,
    encode_event, encode_parts, write_snapshot,
};
use crate::session::{Action, Join, Session};
use crate::topic::{Kind, TopicName};

/// Over how long clients that are sent away are asked to come back.
const JITTER_MS: u64 = 1000;
/// How long a client may take to close its side after ours.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Events of one answer to `GET /v1/snapshot`, so that it holds nobody up.
const HTTP_SNAPSHOT_EVENTS_MAX: usize = 2000;
/// Topics and patterns that it may name.
const HTTP_SNAPSHOT_NAMES_MAX: usize = 100;
/// The name and version in `welcome`.
const SERVER: &str = concat!("tickcast/", env!("CARGO_PKG_VERSION"));

impl Shard {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Adopt(adopted) => self.adopt(*adopted),
            // A caller that has gone away needs no answer.
            Command::Snapshot {
                topics,
                events,
                reply,
            } => _ = reply.send(self.http_snapshot(&topics, events)),
            Command::Catalog(reply) => _ = reply.send(Arc::clone(self.replica.catalog())),
            Command::Tune {
                tuning,
                gates,
                done,
            } => {
                self.tune(tuning, gates);
                _ = done.send(());
            }
            Command::Save(reply) => {
                while self.take_batches() {}
                // One that was overrun doesn't know all; the next server then begins a new epoch.
                if self.is_up_to_date() {
                    _ = reply.send(self.replica.save());
                }
            }
            Command::Connections { by, top, reply } => _ = reply.send(self.connections(by, top)),
            Command::Drain {
                spread,
                turn,
                of,
                done,
            } => self.drain(spread, turn, of, done),
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        let Adopted {
            stream,
            encoding,
            read_ahead,
            peer,
            agent,
            permit,
        } = adopted;
        let generation = self.next_generation();
        let entry = self.connections.vacant_entry();
        let key = ConnectionKey(entry.key() as u32);
        let refused = permit.is_none();
        entry.insert(Connection {
            stream,
            outbox: Outbox::new(encoding, self.config.tuning.outbox.frame),
            dirty: false,
            left_unread: false,
            closing: None,
            queued_told: 0,
            level_told: LagLevel::Ok,
            peer: Box::new(Peer {
                session: Session::new(Arc::clone(&self.limits), self.now),
                partial: None,
                guard: super::reader::FloodGuard::default(),
                waker: self.ready.waker(key),
                generation,
                received: self.now,
                pinged: false,
                watched: false,
                next_heartbeat: self.now.plus(self.config.tuning.heartbeat),
                checkup_at: UnixNanos(u64::MAX),
                reply_bytes: 0,
                inbox: std::collections::VecDeque::new(),
                permit,
                address: peer,
                agent,
                connected: self.now,
                late_since: None,
                unaccounted: 0,
            }),
        });
        self.handle.set_connections(self.connections.len());
        self.metrics.connections.inc();
        self.metrics.opened.inc();
        tracing::debug!(shard = self.number, connection = key.0, %peer, "connected");
        if refused || self.draining {
            let code = if refused {
                Code::ConnectionLimit
            } else {
                Code::Draining
            };
            let message =
                "this server takes no more connections; come back later, or to another".to_owned();
            self.close(
                key,
                &Bye {
                    code: code.number(),
                    message,
                    reconnect: true,
                    after_ms: 5000,
                },
                code,
            );
            return self.on_ready(key);
        }
        let welcome = self.welcome(key, generation.0, encoding);
        self.connections[key.0 as usize].outbox.answer(welcome);
        self.mark_dirty(key);
        self.arm_checkup(key);
        if !read_ahead.is_empty() {
            self.take_bytes(key, &read_ahead);
        }
        self.on_ready(key);
    }

    fn welcome(&self, key: ConnectionKey, generation: u32, encoding: Encoding) -> Vec<u8> {
        let welcome = Control::Welcome(Welcome {
            server: SERVER.to_owned(),
            session: self.session_of(key, generation),
            epoch: self.config.epoch.to_string(),
            ts: self.now.0,
            encoding,
            heartbeat_ms: self.config.tuning.heartbeat.as_millis() as u64,
            limits: self.config.tuning.limits,
            auth: "none".to_owned(),
        });
        encode_control(&welcome, encoding)
    }

    /// Does what a session says, in order.
    pub(super) fn act(&mut self, key: ConnectionKey, actions: Vec<Action>) {
        let holds = actions
            .iter()
            .filter(|action| matches!(action, Action::Hold(..)))
            .count();
        self.connections[key.0 as usize].outbox.reserve(holds);
        for action in actions {
            if self.connections[key.0 as usize].closing.is_some() {
                return;
            }
            match action {
                // Bounded by what the client holds, and needed before what it tells of.
                Action::Answer(control) | Action::Notice(control) => {
                    if let Control::Error(error) = &control
                        && let Some(code) = Code::ALL
                            .into_iter()
                            .find(|code| code.number() == error.code)
                    {
                        self.metrics.count_error(code);
                    }
                    let outbox = &mut self.connections[key.0 as usize].outbox;
                    for part in encode_parts(control, outbox.wire.encoding()) {
                        outbox.answer(part);
                    }
                }
                Action::Hold(topic, settings, join) => {
                    self.count_join(join);
                    let slot = self
                        .with_outbox(key, |outbox, view| outbox.hold(topic, settings, join, view));
                    let place = self.registry.add(
                        topic,
                        Subscriber {
                            connection: key,
                            slot,
                        },
                    );
                    self.connections[key.0 as usize]
                        .outbox
                        .set_place(slot, place);
                    self.metrics.subscriptions.inc();
                    if let Some(gate) = self
                        .config
                        .gates
                        .get(self.replica.catalog().topic(topic).source.0 as usize)
                    {
                        gate.open();
                    }
                }
                Action::Set(topic, settings) => self.with_outbox(key, |outbox, view| {
                    if let Some(slot) = outbox.slot_of(topic) {
                        outbox.set(slot, settings, view);
                    }
                }),
                Action::Snapshot(topic, events) => self.with_outbox(key, |outbox, view| {
                    if let Some(slot) = outbox.slot_of(topic) {
                        outbox.snapshot(slot, events, view);
                    }
                }),
                Action::Drop(topic) => self.release(key, topic),
                Action::Ledger(id) => self.connections[key.0 as usize].outbox.answer_ledger(id),
                Action::Instruments(id, pattern) => {
                    let catalog = Arc::clone(self.replica.catalog());
                    self.connections[key.0 as usize]
                        .outbox
                        .answer_instruments(id, catalog, &pattern);
                }
                Action::Close(bye, code) => self.close(key, &bye, code),
            }
        }
        self.mark_dirty(key);
    }

    fn with_outbox<T>(
        &mut self,
        key: ConnectionKey,
        change: impl FnOnce(&mut Outbox, &mut View<'_>) -> T,
    ) -> T {
        let Self {
            connections,
            replica,
            newest,
            config,
            metrics,
            counts,
            intervals,
            ..
        } = self;
        let mut view = View {
            replica,
            newest,
            limits: &config.tuning.outbox,
            metrics,
            counts,
            now: self.now,
            timers: intervals,
        };
        let changed = change(&mut connections[key.0 as usize].outbox, &mut view);
        self.arm_intervals(key);
        changed
    }

    fn count_join(&self, join: Join) {
        let outcome = match join {
            Join::Snapshot(_) | Join::Live => return,
            Join::Anew(_) => "new_epoch",
            Join::Resume(_) => "recovered",
            Join::Expired(..) => "expired",
        };
        self.metrics.resumes.with_label_values(&[outcome]).inc();
    }

    fn release(&mut self, key: ConnectionKey, topic: TopicId) {
        let outbox = &mut self.connections[key.0 as usize].outbox;
        let Some(slot) = outbox.release(topic) else {
            return;
        };
        let place = outbox.slot(slot).place;
        self.unregister(topic, place);
    }

    fn unregister(&mut self, topic: TopicId, place: u32) {
        self.metrics.subscriptions.dec();
        if let Some(Subscriber { connection, slot }) = self.registry.remove(topic, place) {
            self.connections[connection.0 as usize]
                .outbox
                .set_place(slot, place);
        }
    }

    /// Sends what the client didn't ask for; one that lets too much of it pile up is sent away.
    pub(super) fn notice(&mut self, key: ConnectionKey, encode: impl FnOnce(Encoding) -> Vec<u8>) {
        let connection = &mut self.connections[key.0 as usize];
        if connection.closing.is_some() {
            return;
        }
        let payload = encode(connection.outbox.wire.encoding());
        let fits = connection
            .outbox
            .notice(payload, &self.config.tuning.outbox);
        self.mark_dirty(key);
        if !fits {
            self.send_away(key);
        }
    }

    /// The client can't keep up, and asked to be told goodbye.
    pub(super) fn send_away(&mut self, key: ConnectionKey) {
        self.with_outbox(key, |outbox, view| outbox.warn(view));
        let message = "the client doesn't keep up with what it subscribed to; subscribe to less, or with mode conflate".to_owned();
        let bye = Bye {
            code: Code::SlowConsumer.number(),
            message,
            reconnect: true,
            after_ms: 1000,
        };
        self.close(key, &bye, Code::SlowConsumer);
    }

    /// Says `bye` and closes: what is on the wire still goes out, what waits doesn't.
    pub(super) fn close(&mut self, key: ConnectionKey, bye: &Bye, code: Code) {
        let Some(connection) = self.connections.get_mut(key.0 as usize) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        // A slot of its own for each, so that they don't come back all at once.
        let after_ms =
            bye.after_ms + u64::from(connection.peer.generation.0).wrapping_mul(617) % JITTER_MS;
        let bye = Bye {
            after_ms: if code == Code::Draining {
                bye.after_ms
            } else {
                after_ms
            },
            ..bye.clone()
        };
        let bye_payload = encode_control(&Control::Bye(bye), connection.outbox.wire.encoding());
        connection.outbox.wire_up_answers();
        connection.outbox.wire.control(&bye_payload);
        self.count_close(Some(code));
        self.close_frame(key, code.close_code(), code.name());
    }

    /// Puts the close frame on the wire, and waits a little for the client's.
    pub(super) fn close_frame(&mut self, key: ConnectionKey, code: u16, reason: &str) {
        let connection = &mut self.connections[key.0 as usize];
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        connection.outbox.wire.frame(Opcode::Close, &payload);
        self.begin_closing(key, Closing::Since(self.now));
    }

    pub(super) fn begin_closing(&mut self, key: ConnectionKey, closing: Closing) {
        let held: Vec<(TopicId, SlotId)> = self.connections[key.0 as usize].outbox.held().to_vec();
        for (topic, _) in held {
            self.release(key, topic);
        }
        let connection = &mut self.connections[key.0 as usize];
        connection.outbox.drop_waiting();
        connection.closing = Some(closing);
        self.check_up_at(key, self.now.plus(CLOSE_GRACE));
        self.mark_dirty(key);
    }

    pub(super) fn after_flush_of_closing(&mut self, key: ConnectionKey) {
        if self.connections[key.0 as usize].closing == Some(Closing::Answered) {
            self.remove(key);
        }
    }

    /// Forgets a connection; its socket closes.
    pub(super) fn remove(&mut self, key: ConnectionKey) {
        let held: Vec<(TopicId, SlotId)> = self.connections[key.0 as usize].outbox.held().to_vec();
        for (topic, _) in held {
            self.release(key, topic);
        }
        let connection = self.connections.remove(key.0 as usize);
        self.metrics.queued_bytes.sub(connection.queued_told.into());
        self.metrics
            .change_late(connection.level_told, LagLevel::Ok);
        let _counted: Option<Permit> = connection.peer.permit;
        self.handle.set_connections(self.connections.len());
        self.metrics.connections.dec();
        if self.connections.is_empty()
            && let Some(done) = self.drained.take()
        {
            // Whoever asked may have given up waiting.
            let _gave_up = done.send(());
        }
    }

    fn check_up_at(&mut self, key: ConnectionKey, at: UnixNanos) {
        let connection = &mut self.connections[key.0 as usize];
        connection.peer.checkup_at = at;
        let generation = connection.peer.generation;
        self.timers.push(Timer {
            at,
            connection: key,
            generation,
            due: Due::Checkup,
        });
    }

    /// Sets when a connection is checked up, unless that is soon enough already.
    pub(super) fn arm_checkup(&mut self, key: ConnectionKey) {
        let connection = &self.connections[key.0 as usize];
        if connection.closing.is_some() {
            return;
        }
        let config = &self.config;
        let silence = if connection.peer.pinged {
            config.tuning.drop_after
        } else {
            config.tuning.ping_after
        };
        let message_ends = connection
            .peer
            .partial
            .as_ref()
            .map(|partial| partial.since.plus(config.tuning.message_timeout));
        let at = connection.next_checkup(connection.peer.received.plus(silence), message_ends);
        if at < connection.peer.checkup_at {
            self.check_up_at(key, at);
        }
    }

    pub(super) fn check_up(&mut self, key: ConnectionKey) {
        let now = self.now;
        let connection = &mut self.connections[key.0 as usize];
        connection.peer.checkup_at = UnixNanos(u64::MAX);
        if let Some(closing) = connection.closing {
            let over = match closing {
                Closing::Since(since) => now.since(since) >= CLOSE_GRACE,
                Closing::Answered => true,
            };
            if over {
                self.remove(key);
            }
            return;
        }
        let message_over =
            connection.peer.partial.as_ref().is_some_and(|partial| {
                now.since(partial.since) >= self.config.tuning.message_timeout
            });
        let silent = now.since(connection.peer.received);
        if message_over || silent >= self.config.tuning.drop_after {
            let message = if message_over {
                "a message was begun and not ended in time"
            } else {
                "nothing came in time"
            };
            let bye = Bye {
                code: Code::Timeout.number(),
                message: message.to_owned(),
                reconnect: true,
                after_ms: 1000,
            };
            return self.close(key, &bye, Code::Timeout);
        }
        if silent >= self.config.tuning.ping_after
            && !std::mem::replace(&mut connection.peer.pinged, true)
        {
            connection.outbox.wire.frame(Opcode::Ping, b"");
            self.mark_dirty(key);
        }
        let connection = &mut self.connections[key.0 as usize];
        if now >= connection.peer.next_heartbeat {
            connection.peer.next_heartbeat = now.plus(self.config.tuning.heartbeat);
            connection.outbox.rest();
            connection.outbox.heartbeat();
            connection.check_accounts(&self.metrics);
            connection.peer.session.rest();
            connection.peer.inbox.shrink_to_fit();
            self.mark_dirty(key);
        }
        self.arm_checkup(key);
    }

    fn drain(
        &mut self,
        spread: Duration,
        turn: usize,
        of: usize,
        done: tokio::sync::oneshot::Sender<()>,
    ) {
        self.draining = true;
        let keys: Vec<_> = self
            .connections
            .iter()
            .map(|(key, _)| ConnectionKey(key as u32))
            .collect();
        let slots = (keys.len() * of).max(1) as u64;
        let spread_ms = spread.as_millis() as u64;
        for (at, key) in keys.iter().enumerate() {
            let message = "the server is stopping".to_owned();
            let after_ms = spread_ms * (at * of + turn) as u64 / slots;
            let bye = Bye {
                code: Code::Draining.number(),
                message,
                reconnect: true,
                after_ms,
            };
            self.with_outbox(*key, |outbox, view| _ = outbox.fill(view));
            self.close(*key, &bye, Code::Draining);
        }
        if keys.is_empty() {
            // Whoever asked may have given up waiting.
            let _gave_up = done.send(());
        } else {
            self.drained = Some(done);
        }
    }

    fn http_snapshot(&self, topics: &[String], events: Option<usize>) -> SnapshotAnswer {
        let mut answer = SnapshotAnswer {
            ok: Vec::new(),
            err: Vec::new(),
        };
        let catalog = self.replica.catalog();
        let mut left = HTTP_SNAPSHOT_EVENTS_MAX;
        for text in topics.iter().take(HTTP_SNAPSHOT_NAMES_MAX) {
            let found = match TopicName::parse(text) {
                Ok(TopicName::Topic(topic)) => catalog.find(&topic).map(|id| vec![id]),
                Ok(TopicName::Pattern(pattern)) => Some(
                    catalog
                        .matching(&pattern)
                        .iter()
                        .take(left + 1)
                        .copied()
                        .collect(),
                ),
                Err(error) => {
                    answer.err.push(Refusal::new(
                        text.as_str(),
                        Code::UnknownTopic,
                        error.to_string(),
                    ));
                    continue;
                }
            };
            let Some(found) = found else {
                answer.err.push(Refusal::new(
                    text.as_str(),
                    Code::UnknownTopic,
                    "there is no such topic",
                ));
                continue;
            };
            let most = |topic: &TopicId| self.events_of_snapshot(*topic, events);
            let asked: usize = found.iter().take(left + 1).map(most).sum();
            if asked > left {
                let message = format!(
                    "more than {HTTP_SNAPSHOT_EVENTS_MAX} events at once; ask for fewer topics or events"
                );
                answer
                    .err
                    .push(Refusal::new(text.as_str(), Code::TopicLimit, message));
                continue;
            }
            left -= asked;
            answer.ok.extend(
                found
                    .into_iter()
                    .map(|topic| self.json_snapshot(topic, events)),
            );
        }
        answer
    }

    /// How many events at most a snapshot over HTTP holds.
    fn events_of_snapshot(&self, topic: TopicId, events: Option<usize>) -> usize {
        let most = match self.replica.catalog().topic(topic).topic.channel.kind() {
            Kind::Event => events.unwrap_or(crate::replica::SNAPSHOT_TRADES),
            Kind::State => 1,
            Kind::Bar => events.unwrap_or(1),
        };
        most.min(self.config.tuning.limits.snapshot_events as usize)
    }

    fn json_snapshot(&self, topic: TopicId, events: Option<usize>) -> Vec<u8> {
        let info = self.replica.catalog().topic(topic);
        let seq = self.replica.head(topic);
        let found = self
            .replica
            .snapshot(topic, seq, self.events_of_snapshot(topic, events));
        let encoded = found.iter().map(|event| {
            let mut bytes = Vec::new();
            encode_event(
                &mut bytes,
                Encoding::Json,
                &info.head,
                event.seq,
                event.tx,
                &event.body,
            );
            bytes
        });
        let encoded: Vec<_> = encoded.collect();
        let head = SnapshotHead {
            topic: &info.text,
            epoch: &self.replica.epoch(topic).to_string(),
            seq,
        };
        let mut payload = Vec::new();
        write_snapshot(
            &mut payload,
            Encoding::Json,
            &head,
            encoded.len(),
            encoded.iter().map(Vec::as_slice),
        );
        payload
    }
}
