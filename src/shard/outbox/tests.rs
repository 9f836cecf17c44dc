//! The outbox against a client that counts from the wire alone, under random operations.

use std::collections::HashSet;
use std::io::{self, Cursor};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rust_decimal::Decimal;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketContext};

use super::{
    Admitted, Catalog, Counts, LagLevel, Metrics, Mode, Newest, Outbox, OutboxLimits, Place,
    Relief, Replica, Run, SlotId, TopicId, UnixNanos, View,
};
use crate::bus::{Batch, Event, LogItem, SourceId};
use crate::client::Accounts;
use crate::market::{
    Aggressor, Bar, Body, Instrument, Price, Qty, Quote, SourceKind, Symbol, Trade, TradeId,
};
use crate::protocol::{
    Control, Encoding, Epoch, From, Id, Limits, Op, Request, ServerMessage, Subscribe,
    decode_server_message, encode_parts, encode_request,
};
use crate::replica::HistoryLimits;
use crate::session::{Action, Session};
use crate::topic::{Kind, TopicName};

const TOPICS: [&str; 5] = ["trade:A", "quote:A", "bar:A:1s", "trade:B", "quote:B"];
const NAMES: [&str; 7] = [
    "trade:A", "quote:A", "bar:A:1s", "trade:B", "quote:B", "quote:*", "bar:*:1s",
];
const MODES: [(&str, Option<u16>); 3] = [("raw", None), ("conflate", None), ("interval", Some(10))];

#[derive(Debug, Clone)]
enum Step {
    Publish {
        topic: usize,
        events: u8,
        closes: bool,
    },
    Flush,
    Unblock {
        room: usize,
    },
    Tick {
        ms: u16,
    },
    Subscribe {
        name: usize,
        mode: usize,
        on_slow: Option<OnSlowWord>,
        snapshot: Option<bool>,
    },
    Unsubscribe {
        name: usize,
    },
    Modify {
        name: usize,
        mode: usize,
    },
    Resync {
        name: usize,
    },
    Ledger,
    Heartbeat,
    Epoch {
        topic: usize,
    },
    Overrun {
        events: u8,
    },
    Reconnect {
        room: usize,
    },
}

type OnSlowWord = crate::protocol::OnSlow;

fn step() -> impl Strategy<Value = Step> {
    use crate::protocol::OnSlow;
    prop_oneof![
        20 => (0..TOPICS.len(), 1u8..40, any::<bool>()).prop_map(|(topic, events, closes)| Step::Publish { topic, events, closes }),
        8 => Just(Step::Flush),
        8 => (0usize..6000).prop_map(|room| Step::Unblock { room }),
        5 => (1u16..400).prop_map(|ms| Step::Tick { ms }),
        6 => (0..NAMES.len(), 0..MODES.len(), prop_oneof![
                Just(None), Just(Some(OnSlow::Conflate)), Just(Some(OnSlow::Gap))
            ], prop_oneof![Just(None), Just(Some(true)), Just(Some(false))])
            .prop_map(|(name, mode, on_slow, snapshot)| Step::Subscribe { name, mode, on_slow, snapshot }),
        1 => (0..NAMES.len()).prop_map(|name| Step::Unsubscribe { name }),
        3 => (0..NAMES.len(), 0..MODES.len()).prop_map(|(name, mode)| Step::Modify { name, mode }),
        2 => (0..NAMES.len()).prop_map(|name| Step::Resync { name }),
        2 => Just(Step::Ledger),
        1 => Just(Step::Heartbeat),
        1 => (0..TOPICS.len()).prop_map(|topic| Step::Epoch { topic }),
        1 => (1u8..80).prop_map(|events| Step::Overrun { events }),
        2 => prop_oneof![Just(usize::MAX), 0usize..8000].prop_map(|room| Step::Reconnect { room }),
    ]
}

/// A shard of one connection, with a socket that takes what it is told to.
struct Rig {
    encoding: Encoding,
    catalog: Arc<Catalog>,
    replica: Replica,
    newest: Newest,
    metrics: Metrics,
    counts: Counts,
    limits: OutboxLimits,
    now: UnixNanos,
    timers: Vec<(UnixNanos, SlotId)>,
    outbox: Outbox,
    session: Session,
    room: usize,
    received: Vec<u8>,
    context: WebSocketContext,
    accounts: Accounts,
    bar_start: u64,
    failed: Option<String>,
    heads: Vec<(String, u64, String)>,
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
    fn new(encoding: Encoding) -> Self {
        let origin = Epoch { origin: 7, turn: 0 };
        let mut catalog = Catalog::new(vec!["s".into()]);
        catalog.add(SourceId(0), vec![instrument("A"), instrument("B")]);
        let catalog = Arc::new(catalog);
        let history = HistoryLimits {
            events: 60,
            bytes: 1 << 20,
            age: Duration::from_secs(300),
        };
        let mut replica = Replica::new(origin, history);
        replica.apply(
            &LogItem::Topics {
                new: 0..catalog.len() as u32,
                restored: Vec::new(),
            },
            &catalog,
        );
        let now = UnixNanos(1_000_000_000_000);
        Self {
            encoding,
            catalog,
            replica,
            newest: Newest::default(),
            metrics: Metrics::new(),
            counts: Counts::new(&Metrics::new()),
            limits: OutboxLimits {
                outbox: 6000,
                control: 100_000,
                frame: 2000,
                behind_max: Duration::from_millis(500),
            },
            now,
            timers: Vec::new(),
            outbox: Outbox::new(encoding, 2000),
            session: Session::new(Arc::new(LIMITS), now),
            room: usize::MAX,
            received: Vec::new(),
            context: WebSocketContext::new(Role::Client, None),
            accounts: Accounts::default(),
            bar_start: 0,
            failed: None,
            heads: Vec::new(),
        }
    }

    fn topic(&self, text: &str) -> TopicId {
        match TopicName::parse(text) {
            Ok(TopicName::Topic(topic)) => self.catalog.find(&topic).expect("the rig's own topic"),
            _ => unreachable!("the rig's own topic"),
        }
    }

    fn event(&mut self, topic: TopicId, closes: bool) -> Event {
        let seq = self.replica.head(topic) + 1;
        let (ts, px, qty) = (self.now, Price(Decimal::from(seq)), Qty(Decimal::ONE));
        let body = match self.catalog.topic(topic).topic.channel.kind() {
            Kind::Event => Body::Trade(Trade {
                ts,
                px,
                qty,
                side: Aggressor::Buy,
                id: TradeId::None,
            }),
            Kind::State => Body::Quote(Quote {
                ts,
                bid: None,
                ask: None,
            }),
            Kind::Bar => {
                let bar = Bar {
                    done: closes,
                    ..Bar::first(UnixNanos(self.bar_start), ts, px, qty)
                };
                self.bar_start += u64::from(closes);
                Body::Bar(bar)
            }
        };
        Event {
            topic,
            seq,
            tx: self.now,
            body,
        }
    }

    fn publish(&mut self, topic: TopicId, closes: bool, is_seen: bool) {
        let event = self.event(topic, closes);
        let item = LogItem::Event(event.clone());
        self.replica.apply(&item, &self.catalog);
        let slot = self.outbox.slot_of(topic).filter(|_| is_seen);
        let Some(slot) = slot else { return };
        let batches = [Arc::new(Batch::new(vec![item], Arc::clone(&self.catalog)))];
        let places = [Place {
            batch: 0,
            item: 0,
            next: Place::END,
        }];
        let joined = batches[0].encoded(self.encoding, &self.metrics).item(0);
        let (encoding, metrics) = (self.encoding, &self.metrics);
        let run = Run {
            batches: &batches,
            places: &places,
            at: 0,
            first: event.seq,
            last: event.seq,
            joined,
            encoding,
            metrics,
        };
        if self.outbox.admit(
            slot,
            &run,
            self.now,
            &self.limits,
            &mut self.counts,
            &mut self.timers,
        ) == Admitted::Marked
        {
            self.newest.keep(
                &event,
                self.replica.epoch(topic).turn,
                self.encoding,
                joined,
            );
        }
    }

    fn with_view<T>(&mut self, change: impl FnOnce(&mut Outbox, &mut View<'_>) -> T) -> T {
        let Self {
            outbox,
            replica,
            newest,
            limits,
            metrics,
            counts,
            now,
            timers,
            ..
        } = self;
        change(
            outbox,
            &mut View {
                replica,
                newest,
                limits,
                metrics,
                counts,
                now: *now,
                timers,
            },
        )
    }

    fn flush(&mut self) {
        while !self.outbox.wire.blocked {
            let is_last = self.with_view(Outbox::fill);
            self.outbox.wire.seal();
            let taken = self.outbox.wire.len().min(self.room);
            self.received
                .extend_from_slice(&self.outbox.wire.unsent()[..taken]);
            self.outbox.wire.advance(taken);
            self.room -= taken;
            self.outbox.wire.blocked = !self.outbox.wire.is_empty();
            if self.outbox.wire.is_empty() {
                drop(self.outbox.wire.reclaim());
                if is_last {
                    break;
                }
            }
        }
        if self.outbox.wire.blocked {
            assert_eq!(self.with_view(Outbox::relieve), Relief::Done);
        }
        self.read();
    }

    fn read(&mut self) {
        let mut stream = Partly(Cursor::new(std::mem::take(&mut self.received)));
        while let Ok(message) = self.context.read(&mut stream) {
            let payload = match message {
                Message::Binary(bytes) => bytes.to_vec(),
                Message::Text(text) => text.as_bytes().to_vec(),
                _ => continue,
            };
            let message =
                decode_server_message(&payload, self.encoding).expect("a message of the protocol");
            self.take(&message);
        }
    }

    fn take(&mut self, message: &ServerMessage) {
        if let ServerMessage::Control(Control::Heartbeat(heartbeat)) = message {
            let own = (
                self.accounts.delivered,
                self.accounts.merged,
                self.accounts.lost,
            );
            if own != (heartbeat.delivered, heartbeat.merged, heartbeat.lost) {
                self.failed
                    .get_or_insert(format!("{heartbeat:?} but counted {own:?}"));
            }
        }
        if let Err(error) = self.accounts.take(message) {
            self.failed.get_or_insert(error.to_string());
        }
        if let ServerMessage::Control(Control::Subscribed(subscribed)) = message {
            for entry in &subscribed.ok {
                let before = self.heads.iter().find(|(topic, ..)| *topic == entry.topic);
                if let (Some(_), Some((topic, seq, epoch))) = (entry.recovered, before)
                    && entry.epoch.as_ref() == Some(epoch)
                {
                    self.accounts.resume(topic, *seq);
                }
            }
        }
    }

    fn request(&mut self, op: Op) {
        let payload = encode_request(
            &Request {
                id: Some(Id::Number(1)),
                op,
            },
            self.encoding,
        );
        let mut payload = Some(payload);
        while payload.is_some() || self.session.is_busy() {
            let view = crate::session::View {
                replica: &self.replica,
                held: &self.outbox,
                now: self.now,
            };
            let actions = match payload.take() {
                Some(payload) => self.session.on_request(&payload, self.encoding, view),
                None => self.session.go_on(view),
            };
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer(control) => {
                for part in encode_parts(control, self.encoding) {
                    self.outbox.answer(part);
                }
            }
            Action::Hold(topic, settings, join) => {
                _ = self.with_view(|outbox, view| outbox.hold(topic, settings, join, view));
            }
            Action::Set(topic, settings) => self.with_view(|outbox, view| {
                let slot = outbox.slot_of(topic).expect("a held topic is set");
                outbox.set(slot, settings, view);
            }),
            Action::Snapshot(topic, events) => self.with_view(|outbox, view| {
                let slot = outbox.slot_of(topic).expect("a held topic is snapshot");
                outbox.snapshot(slot, events, view);
            }),
            Action::Drop(topic) => _ = self.outbox.release(topic),
            Action::Ledger(id) => self.outbox.answer_ledger(id),
            other => unreachable!("not asked for: {other:?}"),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Publish {
                topic,
                events,
                closes,
            } => {
                let topic = self.topic(TOPICS[topic]);
                for at in 0..events {
                    self.publish(topic, closes && at % 5 == 4, true);
                }
                self.flush();
            }
            Step::Flush => self.flush(),
            Step::Unblock { room } => {
                self.room = room;
                self.outbox.wire.blocked = false;
                self.flush();
            }
            Step::Tick { ms } => {
                self.now = self.now.plus(Duration::from_millis(ms.into()));
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
            Step::Subscribe {
                name,
                mode,
                on_slow,
                snapshot,
            } => {
                let topics = vec![NAMES[name].to_owned()];
                let snapshot = snapshot.map(|yes| {
                    if yes {
                        crate::protocol::SnapshotWish::Yes
                    } else {
                        crate::protocol::SnapshotWish::No
                    }
                });
                self.request(Op::Subscribe(Subscribe {
                    topics,
                    wish: wish(mode, on_slow),
                    snapshot,
                    ..Subscribe::default()
                }));
            }
            Step::Unsubscribe { name } => {
                self.request(Op::Unsubscribe(crate::protocol::TopicsAsked::These(vec![
                    NAMES[name].to_owned(),
                ])));
            }
            Step::Modify { name, mode } => self.request(Op::Modify {
                topics: vec![NAMES[name].to_owned()],
                wish: wish(mode, None),
            }),
            Step::Resync { name } => self.request(Op::Resync {
                topics: vec![NAMES[name].to_owned()],
            }),
            Step::Ledger => self.request(Op::Ledger),
            Step::Heartbeat => self.outbox.heartbeat(),
            Step::Epoch { topic } => self.new_epoch(TOPICS[topic]),
            Step::Overrun { events } => self.overrun(events),
            Step::Reconnect { room } => self.reconnect(room),
        }
    }

    fn new_epoch(&mut self, topic: &str) {
        let topic = self.topic(topic);
        let epoch = self.replica.epoch(topic).next();
        let slot = self.outbox.slot_of(topic);
        if let Some(slot) = slot {
            self.with_view(|outbox, view| outbox.before_epoch(slot, view));
        }
        self.replica
            .apply(&LogItem::Epoch { topic, epoch }, &Arc::clone(&self.catalog));
        if let Some(slot) = slot {
            self.outbox.begin_epoch(slot, epoch, 0, None, self.now);
        }
    }

    /// The shard sees nothing of these events, and goes on from a checkpoint.
    fn overrun(&mut self, events: u8) {
        self.flush();
        for at in 0..events {
            let topic = self.topic(TOPICS[at as usize % TOPICS.len()]);
            self.publish(topic, at % 7 == 6, false);
        }
        let checkpoint = self.replica.checkpoint(0);
        self.replica.restore(&checkpoint);
        for (_, slot) in self.outbox.held().to_vec() {
            self.with_view(|outbox, view| outbox.on_overrun(slot, view));
        }
        self.flush();
    }

    /// The connection breaks off wherever it is; the next one goes on from what was received.
    fn reconnect(&mut self, room: usize) {
        self.heads = self
            .accounts
            .iter()
            .map(|(topic, own)| (topic.clone(), own.head, own.epoch.clone()))
            .collect();
        self.heads.sort();
        let topics: Vec<_> = self.heads.iter().map(|(topic, ..)| topic.clone()).collect();
        let from = From {
            epoch: String::new(),
            seqs: self
                .heads
                .iter()
                .map(|(topic, seq, _)| (topic.clone(), *seq))
                .collect(),
            epochs: self
                .heads
                .iter()
                .map(|(topic, _, epoch)| (topic.clone(), epoch.clone()))
                .collect(),
        };
        self.outbox = Outbox::new(self.encoding, 2000);
        self.session = Session::new(Arc::new(LIMITS), self.now);
        self.context = WebSocketContext::new(Role::Client, None);
        (self.accounts, self.received, self.room) = (Accounts::default(), Vec::new(), room);
        self.timers.clear();
        self.request(Op::Subscribe(Subscribe {
            topics,
            from: Some(from),
            ..Subscribe::default()
        }));
        self.flush();
    }

    /// Lets everything out and asks for the ledger, which `accounts` compares.
    fn settle(&mut self) {
        self.request(Op::Ledger);
        for _ in 0..8 {
            self.run(&Step::Unblock { room: usize::MAX });
            self.run(&Step::Tick { ms: 400 });
        }
        self.request(Op::Ledger);
        self.run(&Step::Heartbeat);
        self.flush();
        for (topic, slot) in self.outbox.held() {
            let state = self.outbox.slot(*slot);
            let head = self.replica.head(*topic);
            assert_eq!(
                (state.head, state.tail(), state.queued(), state.marked),
                (head, head, 0, false),
                "{topic:?} has caught up"
            );
        }
        let free: HashSet<_> = self.outbox.free.iter().collect();
        assert_eq!(free.len(), self.outbox.free.len(), "a slot is freed once");
        assert_eq!(
            free.len() + self.outbox.held().len(),
            self.outbox.slots.len(),
            "no slot is forgotten"
        );
        assert!(!self.outbox.has_more() && self.outbox.level() == LagLevel::Ok);
    }
}

fn wish(mode: usize, on_slow: Option<OnSlowWord>) -> crate::protocol::DeliveryWish {
    let (name, interval_ms) = MODES[mode];
    let mode = match name {
        "raw" => Mode::Raw,
        "conflate" => Mode::Conflate,
        _ => Mode::Interval(interval_ms.unwrap_or_default()),
    };
    crate::protocol::DeliveryWish {
        mode: Some(mode),
        interval_ms,
        on_slow,
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

/// Many more in `./check --full`.
fn cases() -> u32 {
    if std::env::var("TICKCAST_FULL").as_deref() == Ok("1") {
        20_000
    } else {
        400
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_client_that_counts_from_the_wire_alone_agrees(steps in proptest::collection::vec(step(), 1..120), json in any::<bool>()) {
        let mut rig = Rig::new(if json { Encoding::Json } else { Encoding::Msgpack });
        for (at, step) in steps.iter().enumerate() {
            rig.run(step);
            prop_assert_eq!(&rig.failed, &None, "after step {} ({:?})", at, step);
        }
        rig.settle();
        prop_assert_eq!(&rig.failed, &None, "when all was out");
    }
}
