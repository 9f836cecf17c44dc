//! A shard of one connection, a bus before it, and a client that counts from the wire alone.

mod feed;
mod requests;

use std::collections::HashSet;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{HistoryLimits, OutboxLimits};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketContext};

use super::super::{
    Counts, LagLevel, LastValueCache, Outbox, OverflowAction, Replica, SlotId, TopicId, UnixNanos,
    View,
};
use super::truth::Truth;
use crate::client::Accounts;
use crate::codec::decode_server_message;
use crate::log::{Catalog, LogItem, SourceId};
use crate::market::{Instrument, SourceKind, Symbol};
use crate::protocol::{Control, Encoding, Epoch, Gap, Limits, Op, Seq, ServerMessage};
use crate::session::Session;
use crate::topic::TopicName;

/// Topics of the rig, each a state of another kind.
pub(super) const TOPICS: [&str; 5] = ["trade:A", "quote:A", "bar:A:1s", "trade:B", "quote:B"];

/// A shard of one connection, with a socket that takes what it is told to.
pub(super) struct Rig {
    encoding: Encoding,
    pub(super) catalog: Arc<Catalog>,
    /// The state of all that was published; the shard's own may lack what an overrun hides.
    bus: Replica,
    pub(super) replica: Replica,
    last_values: LastValueCache,
    counts: Counts,
    pub(super) limits: OutboxLimits,
    pub(super) now: UnixNanos,
    pub(super) timers: Vec<(UnixNanos, SlotId)>,
    pub(super) outbox: Outbox,
    pub(super) session: Session,
    /// Bytes that the socket still takes before it blocks.
    pub(super) room: usize,
    received: Vec<u8>,
    context: WebSocketContext,
    pub(super) accounts: Accounts,
    bar_start: UnixNanos,
    /// The first promise that was broken.
    pub(super) failed: Option<String>,
    /// Places from which the last connection resumed: topic, number, epoch.
    resumed: Vec<(String, Seq, String)>,
    truth: Truth,
    /// Gaps that were received.
    pub(super) gaps: Vec<Gap>,
    /// Answers to pings that have not reached the shard.
    pongs: Vec<Vec<u8>>,
    /// The last message of each kind, newest last, for directed tests.
    pub(super) seen: Vec<ServerMessage>,
}

const LIMITS: Limits = Limits {
    topics: 100,
    requests_per_s: 1_000_000,
    message_bytes: 65_536,
    snapshot_events: 1000,
};

fn instrument(symbol: &str) -> Instrument {
    Instrument {
        symbol: Symbol::new(symbol).expect("a symbol"),
        description: String::new(),
        price_scale: 0,
        qty_scale: 0,
        src: SourceKind::Sim,
        has_trades: true,
        has_quotes: true,
        stale_after: None,
        session_start: Duration::ZERO,
        venue_symbol: None,
    }
}

impl Rig {
    pub(super) fn new(encoding: Encoding) -> Self {
        let origin = Epoch {
            origin: 7,
            generation: 0,
        };
        let mut catalog = Catalog::new(vec!["s".into()]);
        catalog.add(SourceId(0), vec![instrument("A"), instrument("B")]);
        let catalog = Arc::new(catalog);
        let history = HistoryLimits {
            events: 60,
            bytes: 1 << 20,
            age: Duration::from_secs(300),
        };
        let topics = LogItem::Topics {
            new: 0..catalog.len() as u32,
            instruments: Vec::new(),
            restored: Vec::new(),
        };
        let (mut bus, mut replica) = (Replica::new(origin, history), Replica::new(origin, history));
        bus.apply(&topics, &catalog);
        replica.apply(&topics, &catalog);
        let now = UnixNanos(1_000_000_000_000);
        Self {
            encoding,
            catalog,
            bus,
            replica,
            last_values: LastValueCache::default(),
            counts: Counts::default(),
            limits: OutboxLimits {
                outbox_bytes: 6000,
                control_bytes: 100_000,
                frame_bytes: 2000,
                behind_max: Duration::from_millis(500),
            },
            now,
            timers: Vec::new(),
            outbox: Outbox::new(encoding, 2000),
            session: Session::new(Arc::new(LIMITS), now),
            room: usize::MAX,
            received: Vec::new(),
            context: WebSocketContext::new(Role::Client, None),
            accounts: Accounts::with_every_bar(),
            bar_start: UnixNanos(0),
            failed: None,
            resumed: Vec::new(),
            truth: Truth::default(),
            gaps: Vec::new(),
            pongs: Vec::new(),
            seen: Vec::new(),
        }
    }

    pub(super) fn topic(&self, text: &str) -> TopicId {
        match TopicName::parse(text) {
            Ok(TopicName::Topic(topic)) => self.catalog.find(&topic).expect("the rig's own topic"),
            _ => unreachable!("the rig's own topic"),
        }
    }

    fn text(&self, topic: TopicId) -> String {
        self.catalog.topic(topic).text.to_string()
    }

    pub(super) fn with_view<T>(
        &mut self,
        change: impl FnOnce(&mut Outbox, &mut View<'_>) -> T,
    ) -> T {
        let Self {
            outbox,
            replica,
            last_values,
            limits,
            counts,
            now,
            timers,
            ..
        } = self;
        change(
            outbox,
            &mut View {
                replica,
                last_values,
                limits,
                counts,
                now: *now,
                timers,
            },
        )
    }

    pub(super) fn flush(&mut self) {
        while !self.outbox.frames.blocked {
            let is_held = self.outbox.frames.is_held();
            let is_last = !is_held
                && self.with_view(|outbox, view| {
                    view.counts.begin_flush();
                    outbox.fill(view)
                });
            self.outbox.frames.seal();
            if self.outbox.frames.is_ping_due() {
                self.outbox.ping(self.now, self.limits.behind_max);
            }
            let taken = self.outbox.frames.len().min(self.room);
            self.received
                .extend_from_slice(&self.outbox.frames.unsent()[..taken]);
            self.outbox.frames.advance(taken);
            self.room -= taken;
            self.outbox.frames.blocked = !self.outbox.frames.is_empty();
            if self.outbox.frames.is_empty() {
                drop(self.outbox.frames.reclaim());
                if is_last || is_held {
                    break;
                }
            }
        }
        if self.outbox.is_waiting() {
            assert_eq!(self.with_view(Outbox::enforce_limits), OverflowAction::Done);
        }
        self.read();
    }

    /// The socket takes so many bytes more.
    pub(super) fn unblock(&mut self, room: usize) {
        self.room = room;
        self.outbox.frames.blocked = false;
        self.flush();
    }

    /// The answers to pings reach the shard.
    pub(super) fn pong(&mut self) {
        for payload in std::mem::take(&mut self.pongs) {
            self.outbox
                .on_pong(&payload, self.now, self.limits.behind_max);
        }
        self.flush();
    }

    pub(super) fn tick(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.outbox.look(self.now, self.limits.behind_max);
        let due: Vec<_> = self
            .timers
            .iter()
            .filter(|(at, _)| *at <= self.now)
            .map(|(_, slot)| *slot)
            .collect();
        self.timers.retain(|(at, _)| *at > self.now);
        for slot in due {
            self.outbox.on_due(slot, self.now);
        }
        self.flush();
    }

    fn read(&mut self) {
        let mut stream = Partly(Cursor::new(std::mem::take(&mut self.received)));
        while let Ok(message) = self.context.read(&mut stream) {
            let payload = match message {
                Message::Binary(bytes) => bytes.to_vec(),
                Message::Text(text) => text.as_bytes().to_vec(),
                Message::Ping(payload) => {
                    self.pongs.push(payload.to_vec());
                    continue;
                }
                _ => continue,
            };
            let message =
                decode_server_message(&payload, self.encoding).expect("a message of the protocol");
            self.take(message);
        }
    }

    fn take(&mut self, message: ServerMessage) {
        if let ServerMessage::Control(Control::Gap(gap)) = &message {
            self.gaps.push(gap.clone());
        }
        if let Err(error) = self.truth.check(&message, &self.accounts) {
            self.failed.get_or_insert(error);
        }
        if let Err(error) = self.accounts.take(&message) {
            self.failed.get_or_insert(error.to_string());
        }
        if let ServerMessage::Control(Control::Subscribed(subscribed)) = &message {
            for entry in &subscribed.ok {
                let before = self
                    .resumed
                    .iter()
                    .find(|(topic, ..)| *topic == entry.topic);
                if let (Some(_), Some((topic, seq, epoch))) = (entry.recovered, before)
                    && entry.epoch.as_ref() == Some(epoch)
                {
                    self.accounts.resume(topic, *seq);
                }
            }
        }
        self.seen.push(message);
    }

    /// Lets everything out and asks for the ledger, which `accounts` compares.
    pub(super) fn settle(&mut self) {
        self.request(Op::Ledger);
        for _ in 0..8 {
            self.unblock(usize::MAX);
            self.tick(Duration::from_millis(400));
            self.pong();
        }
        while !self.pongs.is_empty() || self.outbox.frames.is_held() {
            self.pong();
        }
        self.request(Op::Ledger);
        self.request(Op::Subscriptions);
        self.outbox.heartbeat();
        self.pong();
        self.pong();
        for (topic, slot) in self.outbox.subscribed_topics() {
            let state = self.outbox.slot(slot);
            let head = self.replica.head(topic);
            assert_eq!(
                (state.head, state.tail(), state.queued(), state.is_pending()),
                (head, head, 0, false),
                "{topic:?} has caught up"
            );
        }
        let free: HashSet<_> = self.outbox.free.iter().collect();
        assert_eq!(free.len(), self.outbox.free.len(), "a slot is freed once");
        assert_eq!(
            free.len() + self.outbox.subscribed_topics().len(),
            self.outbox.slots.len(),
            "no slot is forgotten"
        );
        assert!(!self.outbox.has_more() && self.outbox.level() == LagLevel::Ok);
        let unreported = self.truth.unreported(&self.accounts);
        if !unreported.is_empty() {
            let report = format!("{unreported:?}: the source gaps were not reported");
            self.failed.get_or_insert(report);
        }
        if let Some(missing) = self.truth.snapshots.first() {
            self.failed
                .get_or_insert(format!("{missing:?} was acknowledged, no snapshot came"));
        }
    }
}

struct Partly(Cursor<Vec<u8>>);

impl io::Read for Partly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl io::Write for Partly {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
