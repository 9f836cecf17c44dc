//! Actions of a shard for its sessions and commands.

use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::command::Command;
use super::connection::{Adopted, Connection, ConnectionKey, Credentials, Inbox, Peer};
use super::lifecycle::{SHUTTING_DOWN, TOO_SLOW};
use super::registry::Subscriber;
use super::snapshots::Snapshots;
use crate::access::InstrumentList;
use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::outbox::{Outbox, View};
use crate::protocol::{Bye, Code, Control, Encoding, LagLevel, Mode, Settings, Welcome};
use crate::session::{Action, Join, Session};

/// The name and version in `welcome`.
const SERVER: &str = concat!("tickcast/", env!("CARGO_PKG_VERSION"));
/// Reason for 4406.
const CONNECTION_LIMIT: &str =
    "connection limit reached (limits.connections); reconnect later or to another server";

impl Shard {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Adopt(adopted) => self.adopt(*adopted),
            Command::Snapshot {
                topics,
                events,
                principal,
                reply,
            } => self
                .snapshots
                .push_back(Snapshots::begin(topics, events, principal, reply)),
            // A caller that has given up needs no answer.
            Command::Catalog(reply) => _ = reply.send(Arc::clone(self.feed.replica.catalog())),
            Command::Tune {
                limits,
                demand,
                done,
            } => {
                self.tune(limits, demand);
                _ = done.send(());
            }
            Command::Entitle(entitlements) => self.entitle(entitlements),
            Command::ReviewCredentials => self.review_credentials(),
            Command::Save(reply) => {
                while self.take_batches() {}
                // An overrun shard has no complete state; the next server then begins a new epoch.
                if self.is_up_to_date() {
                    _ = reply.send(self.feed.replica.save());
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

    /// Adds a connection; returns its key and the bytes received after its handshake.
    fn insert(&mut self, adopted: Adopted) -> (ConnectionKey, Bytes) {
        let Adopted {
            transport,
            encoding,
            message_max,
            read_ahead,
            peer,
            agent,
            principal,
            #[cfg(feature = "echo")]
            is_echo,
            credentials,
            permit,
            admitted,
        } = adopted;
        let mut outbox = Outbox::new(encoding, self.feed.config.limits.outbox.frame_bytes);
        outbox.frames.limit_messages(message_max);
        let feed = &self.feed;
        // The roles may have changed since the handshake.
        let principal = feed.config.entitlements.renew(&principal);
        let mut session = Session::new(principal.limits(&self.limits), feed.now);
        match credentials {
            Credentials::NotNeeded => {}
            Credentials::Missing => {
                let timeout = feed.config.gate.policy().settings.timeout;
                session.require_authentication(feed.now.plus(timeout));
            }
            Credentials::Proven(grant) => session.set_grant(grant),
        }
        let agent = self.agents.of(agent);
        let key = self.connections.insert(|generation| Connection {
            transport,
            outbox,
            dirty: false,
            in_round: false,
            left_unread: false,
            waited: false,
            closing: None,
            queued_reported: 0,
            level_reported: LagLevel::Ok,
            peer: Box::new(Peer {
                session,
                principal,
                #[cfg(feature = "echo")]
                is_echo,
                partial: None,
                guard: super::reader::FrameRateLimit::default(),
                generation,
                received: feed.now,
                pinged: false,
                lag_at: UnixNanos(u64::MAX),
                next_heartbeat: feed.now.plus(feed.config.limits.heartbeat),
                checkup_at: UnixNanos(u64::MAX),
                heartbeat_ms: feed.config.limits.heartbeat.as_millis() as u32,
                backpressure: None,
                inbox: Inbox::default(),
                permit,
                admitted,
                seat: None,
                ip: peer.ip(),
                port: peer.port(),
                agent,
                connected: feed.now,
                unaccounted: 0,
                known_sources: None,
            }),
        });
        (key, read_ahead)
    }

    fn adopt(&mut self, adopted: Adopted) {
        let (encoding, peer) = (adopted.encoding, adopted.peer);
        let refused = adopted.permit.is_none();
        let (key, read_ahead) = self.insert(adopted);
        self.count_connections();
        self.feed.metrics.connections.inc();
        self.feed.metrics.opened.inc();
        tracing::debug!(shard = self.number, connection = key.0, %peer, "connected");
        let transport = &mut self.connections[key].transport;
        if let Err(error) = self.sockets.add(key, transport) {
            return self.end(key, Some(error.kind()));
        }
        if refused || self.draining {
            let (code, message) = if refused {
                (Code::ConnectionLimit, CONNECTION_LIMIT)
            } else {
                (Code::Draining, SHUTTING_DOWN)
            };
            let bye = Bye {
                code: code.number(),
                message: message.to_owned(),
                reconnect: true,
                after_ms: 5000,
            };
            self.close(key, &bye, code);
            return;
        }
        #[cfg(feature = "echo")]
        if self.connections[key].peer.is_echo {
            self.arm_checkup(key);
            return self.take_bytes(key, &read_ahead);
        }
        // The policy may have changed since the handshake.
        self.review_credential(key);
        if self.connections[key].closing.is_some() {
            return;
        }
        let principal = self.connections[key].peer.principal.clone();
        if !self.serves(key, &principal) {
            return;
        }
        if let Err(refused) = self.seat(key) {
            return self.refuse_seat(key, &refused);
        }
        let welcome = self.welcome(key, self.connections[key].peer.generation.0, encoding);
        self.connections[key].outbox.respond(welcome);
        self.connections.mark_dirty(key);
        self.arm_checkup(key);
        if !read_ahead.is_empty() {
            self.take_bytes(key, &read_ahead);
        }
    }

    fn welcome(&self, key: ConnectionKey, generation: u32, encoding: Encoding) -> Control {
        Control::Welcome(Welcome {
            server: SERVER.to_owned(),
            session: self.session_of(key, generation),
            epoch: self.feed.replica.origin().to_string(),
            ts: self.feed.now.0,
            encoding,
            heartbeat_ms: self.feed.config.limits.heartbeat.as_millis() as u64,
            limits: *self.connections[key].peer.session.limits(),
            auth: self.connections[key]
                .peer
                .session
                .auth_state()
                .name()
                .to_owned(),
            max_message: self.connections[key].outbox.frames.message_max() as u64,
        })
    }

    /// Executes the actions of a session, in order.
    pub(super) fn act(&mut self, key: ConnectionKey, actions: Vec<Action>) {
        let holds = actions
            .iter()
            .filter(|action| matches!(action, Action::Subscribe(..)))
            .count();
        self.connections[key].outbox.reserve(holds);
        for action in actions {
            if self.connections[key].closing.is_some() {
                return;
            }
            match action {
                Action::Notify(control) => self.notify_change(key, control),
                // Bounded by the client's subscriptions, and must precede the data that it
                // announces.
                Action::Respond(control) => self.respond(key, control),
                Action::Subscribe(topic, settings, join) => {
                    self.subscribe(key, topic, settings, join);
                }
                Action::Modify(topic, settings) => self.modify(key, topic, settings),
                Action::Snapshot(topic, events) => self.with_outbox(key, |outbox, view| {
                    if let Some(slot) = outbox.slot_of(topic) {
                        outbox.snapshot(slot, events, view);
                    }
                }),
                Action::Unsubscribe(topic) => self.release(key, topic),
                Action::Ledger(id) => self.connections[key].outbox.respond_ledger(id),
                Action::Instruments(id, pattern) => {
                    let catalog = Arc::clone(self.feed.replica.catalog());
                    let connection = &mut self.connections[key];
                    let principal = &connection.peer.principal;
                    let list = InstrumentList::new(catalog, principal, &pattern);
                    connection.outbox.respond_instruments(id, list);
                }
                Action::LimitMessages(bytes) => {
                    self.connections[key].outbox.frames.limit_messages(bytes);
                }
                Action::Authenticate(token) => self.authenticate(key, &token),
                Action::Close(bye, code) => self.close(key, &bye, code),
            }
        }
        self.connections.mark_dirty(key);
    }

    fn respond(&mut self, key: ConnectionKey, control: Control) {
        if let Control::Error(error) = &control {
            let mut codes = Code::ALL.into_iter();
            if let Some(code) = codes.find(|code| code.number() == error.code) {
                self.feed.metrics.count_error(code);
            }
        }
        self.connections[key].outbox.respond(control);
    }

    fn subscribe(&mut self, key: ConnectionKey, topic: TopicId, settings: Settings, join: Join) {
        self.count_join(join);
        self.fan_out.raw += usize::from(settings.mode == Mode::Raw);
        // The first subscription of a client writes a ping.
        self.connections.lend_buffer(key);
        let slot = self.with_outbox(key, |outbox, view| {
            outbox.subscribe(topic, settings, join, view)
        });
        let subscriber = Subscriber {
            connection: key,
            slot,
        };
        let place = self.fan_out.registry.add(topic, subscriber);
        self.connections[key].outbox.set_place(slot, place);
        self.feed.metrics.subscriptions.inc();
        let source = self.feed.replica.catalog().topic(topic).source;
        if let Some(demand) = self.feed.config.demand.get(source.0 as usize) {
            demand.raise();
        }
        self.notify_source_at_subscribe(key, source);
    }

    fn modify(&mut self, key: ConnectionKey, topic: TopicId, settings: Settings) {
        let outbox = &self.connections[key].outbox;
        let Some(slot) = outbox.slot_of(topic) else {
            return;
        };
        let was_raw = outbox.slot(slot).settings().mode == Mode::Raw;
        self.fan_out.raw -= usize::from(was_raw);
        self.fan_out.raw += usize::from(settings.mode == Mode::Raw);
        self.with_outbox(key, |outbox, view| outbox.modify(slot, settings, view));
    }

    pub(super) fn with_outbox<T>(
        &mut self,
        key: ConnectionKey,
        change: impl FnOnce(&mut Outbox, &mut View<'_>) -> T,
    ) -> T {
        let Self {
            connections, feed, ..
        } = self;
        let mut view = feed.view();
        let changed = change(&mut connections[key].outbox, &mut view);
        self.arm_intervals(key);
        changed
    }

    /// Notifies a client of a change of its subscriptions. A client that has not read the previous
    /// changes is disconnected.
    fn notify_change(&mut self, key: ConnectionKey, control: Control) {
        let outbox = &mut self.connections[key].outbox;
        let fits = outbox.has_room_for_change(&self.feed.config.limits.outbox);
        outbox.notify_change(control);
        if !fits {
            self.disconnect_slow_consumer(key, TOO_SLOW);
        }
    }

    fn count_join(&self, join: Join) {
        let outcome = match join {
            Join::Snapshot(_) | Join::Offered(_) | Join::Live => return,
            Join::Anew(_) => "new_epoch",
            Join::Resume(_) => "recovered",
            Join::Expired(..) => "expired",
        };
        self.feed
            .metrics
            .resumes
            .with_label_values(&[outcome])
            .inc();
    }

    pub(super) fn release(&mut self, key: ConnectionKey, topic: TopicId) {
        let outbox = &mut self.connections[key].outbox;
        let Some(slot) = outbox.unsubscribe(topic) else {
            return;
        };
        let ended = outbox.slot(slot);
        let (place, was_raw) = (ended.place, ended.settings().mode == Mode::Raw);
        self.fan_out.raw -= usize::from(was_raw);
        self.unregister(topic, place);
    }

    fn unregister(&mut self, topic: TopicId, place: u32) {
        self.feed.metrics.subscriptions.dec();
        if let Some(Subscriber { connection, slot }) = self.fan_out.registry.remove(topic, place) {
            self.connections[connection].outbox.set_place(slot, place);
        }
    }

    /// Sends an unsolicited message; disconnects a client whose unsolicited messages exceed the
    /// bound.
    pub(super) fn notify(&mut self, key: ConnectionKey, control: Arc<Control>) {
        let connection = &mut self.connections[key];
        if connection.closing.is_some() {
            return;
        }
        let fits = connection
            .outbox
            .notify(control, &self.feed.config.limits.outbox);
        self.connections.mark_dirty(key);
        if !fits {
            self.disconnect_slow_consumer(key, TOO_SLOW);
        }
    }
}
