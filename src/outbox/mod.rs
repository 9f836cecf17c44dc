//! Outbox of a connection: its subscriptions with their accounts, and its queues.
//!
//! Bytes leave in this order: control messages, then the *queue* (raw events, snapshots, missed
//! events, in order), then the last values of conflated subscriptions. While the socket accepts
//! everything, raw events go directly into the [`FrameBuffer`] and the queue is empty.
//!
//! Invariants: the events in the frame buffer are accounted for, and no others. A conflated
//! subscription sends last values only while none of its entries is in the queue. No I/O here, and
//! no clock: `now` is an argument.
//!
//! | file | idea |
//! |---|---|
//! | `slot`, `backlog`, `state` | a subscription: account, numbers of what waits, and state of its delivery |
//! | `slots`, `slot_id` | all subscriptions of a connection, by slot and by topic |
//! | `subscribe` | subscriptions begin, change and end; epochs and overruns |
//! | `queue`, `control`, `waiting`, `blocks` | entries that wait for the socket |
//! | `drain`, `ledger` | from the queues to the frame buffer |
//! | `overflow`, `thinning` | limits of a slow consumer, and the reduction of its queue |
//! | `pings`, `read_window` | the pace of a client behind its kernel's and its own buffers |
//! | `frame_buffer`, `last_value`, `event_range`, `counts` | bytes, and numbers |
//!
//! The rules of conflation by kind of channel are in `log::conflation`, those of encoding in
//! `codec`.
//!
//! # Slow consumers
//!
//! A client is a slow consumer when it does not read as fast as its events arrive. Its socket then
//! accepts no more bytes, and events queue here. It sees, in this order:
//!
//! 1. `lag` with level `warn`, once a quarter of `fanout.outbox` or `fanout.behind` is used.
//! 2. At the limit, by `on_slow` of each subscription: `gap`: the oldest events are dropped, and a
//!    `gap` message with cause `slow` has their range; `conflate`: `lag` with level `degraded`,
//!    after which sequence numbers jump to the newest event (but never over the last event of a
//!    bar); `disconnect`: the connection is closed with 4407.
//! 3. `lag` with level `ok`, once everything is sent.
//!
//! Nothing is lost silently: the ledger counts each event as delivered, merged or lost. Other
//! clients do not notice.
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use tickcast::codec::decode_server_message;
//! # use tickcast::limits::{HistoryLimits, OutboxLimits};
//! # use tickcast::log::{Batch, Catalog, Event, LogItem, Replica, SourceId};
//! # use tickcast::market::{Aggressor, Body, Instrument, Price, Qty, SourceKind, Symbol, Trade, TradeId, UnixNanos};
//! # use tickcast::outbox::{Counts, EventRange, EventRef, LastValueCache, Outbox, View};
//! # use tickcast::protocol::{Control, Encoding, Epoch, GapCause, LagLevel, Mode, OnSlow, Seq, ServerMessage, Settings};
//! # use tickcast::session::Join;
//! # use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};
//! # let instrument = Instrument {
//! #     symbol: Symbol::new("BTC-USD")?, venue_symbol: None, description: String::new(), price_scale: 2, qty_scale: 0,
//! #     src: SourceKind::Sim, has_trades: true, has_quotes: false, stale_after: None, session_start: Duration::ZERO,
//! # };
//! # let mut catalog = Catalog::new(vec!["sim".into()]);
//! # catalog.add(SourceId(0), vec![instrument]);
//! # let catalog = Arc::new(catalog);
//! # let history = HistoryLimits { events: 1000, bytes: 1 << 20, age: Duration::from_secs(60) };
//! # let mut replica = Replica::new(Epoch { origin: 7, generation: 0 }, history);
//! # replica.apply(&LogItem::Topics { instruments: Vec::new(), new: 0..catalog.len() as u32, restored: Vec::new() }, &catalog);
//! # let topic = catalog.find(&tickcast::topic::Topic {
//! #     channel: tickcast::topic::Channel::Trade, symbol: Symbol::new("BTC-USD")?,
//! # }).ok_or("a topic")?;
//! # let limits = OutboxLimits {
//! #     outbox_bytes: 4096, control_bytes: 65_536, frame_bytes: 65_536, behind_max: Duration::from_secs(10),
//! # };
//! # let (mut last_values, mut counts, mut timers) = (LastValueCache::default(), Counts::default(), Vec::new());
//! # let now = UnixNanos(1_767_225_600_000_000_000);
//! # macro_rules! view { () => { &mut View {
//! #     replica: &replica, last_values: &mut last_values, limits: &limits, counts: &mut counts, now, timers: &mut timers,
//! # } } }
//! # let trade = |seq: Seq| Event { topic, seq, tx: now, body: Body::Trade(Trade {
//! #     ts: now, px: Price(64_000.into()), qty: Qty(1.into()), side: Aggressor::Buy, id: TradeId::None,
//! # }) };
//! let mut outbox = Outbox::new(Encoding::Json, limits.frame_bytes);
//! let settings = Settings { mode: Mode::Raw, on_slow: OnSlow::Gap };
//! let slot = outbox.subscribe(topic, settings, Join::Live, view!());
//!
//! // The client reads nothing while 100 trades are published.
//! outbox.frames.blocked = true;
//! for seq in (1..=100).map(Seq) {
//! #   let item = LogItem::Event(trade(seq));
//! #   replica.apply(&item, &catalog);
//! #   let batch = [Arc::new(Batch::new(vec![item], Arc::clone(&catalog)))];
//! #   let (encoded, _) = batch[0].encode(Encoding::Json);
//! #   let event = &EventRange {
//! #       batches: &batch, places: &[EventRef { batch: 0, item: 0, next: EventRef::END }], at: 0, first: seq, last: seq,
//! #       joined: encoded.item(0), encoding: Encoding::Json,
//! #   };
//!     outbox.admit(slot, event, now, &limits, &mut counts, &mut timers);
//!     outbox.enforce_limits(view!());
//! }
//! outbox.respond_ledger(None);
//!
//! // It reads again.
//! outbox.frames.blocked = false;
//! while !outbox.fill(view!()) {}
//! # outbox.frames.seal();
//! # let mut bytes = std::io::Cursor::new(outbox.frames.unsent().to_vec());
//! # let mut context = WebSocketContext::new(Role::Client, None);
//! # let mut received = Vec::new();
//! # while let Ok(message) = context.read(&mut bytes) {
//! #     if message.is_text() { received.push(decode_server_message(&message.into_data(), Encoding::Json)?); }
//! # }
//! # let mut received = received.into_iter();
//! # let mut next = || received.next().ok_or("a message");
//!
//! let ServerMessage::Control(Control::Lag(lag)) = next()? else { panic!("a lag message") };
//! assert_eq!(lag.level, LagLevel::Warn);
//!
//! let ServerMessage::Control(Control::Gap(gap)) = next()? else { panic!("a gap") };
//! assert_eq!((gap.from, gap.cause), (Seq(1), GapCause::Slow));
//!
//! let ServerMessage::Events(trades) = next()? else { panic!("the newest trades") };
//! assert_eq!(trades[0].seq, gap.to.next());
//! assert_eq!(trades[trades.len() - 1].seq, Seq(100));
//!
//! let ServerMessage::Control(Control::Ledger(ledger)) = next()? else { panic!("the ledger") };
//! let account = &ledger.topics[0];
//! assert_eq!(account.lost, gap.n);
//! assert_eq!(account.head.since(account.start), account.delivered + account.lost);
//!
//! let ServerMessage::Control(Control::Lag(lag)) = next()? else { panic!("a lag message") };
//! assert_eq!(lag.level, LagLevel::Ok);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backlog;
mod blocks;
mod control;
mod counts;
mod drain;
mod event_range;
mod frame_buffer;
mod last_value;
mod ledger;
mod overflow;
mod pings;
mod queue;
mod read_window;
mod slot;
mod slot_id;
mod slots;
mod state;
mod subscribe;
#[cfg(test)]
mod tests;
mod thinning;
mod waiting;

pub use control::instrument_entry;
pub use counts::{Counts, REPORT_EVERY, Tallies};
pub use event_range::{EventRange, EventRef};
pub use frame_buffer::{FrameBuffer, Opcode};
pub use last_value::LastValueCache;
pub use overflow::OverflowAction;
pub use slot::{Slot, SlotRef};
pub use slot_id::SlotId;
pub use state::State;

use std::time::Duration;

use crate::limits::OutboxLimits;
use crate::log::{Replica, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{Encoding, Id, LagLevel, Mode, Seq};
use queue::Entry;
use read_window::ReadWindow;
use slots::{SlotList, Slots};
use waiting::Queues;

/// State of the shard that an outbox uses to fill the frame buffer.
#[derive(Debug)]
pub struct View<'a> {
    /// Topic states as of the latest routed batch.
    pub replica: &'a Replica,
    /// Bytes of the newest events.
    pub last_values: &'a mut LastValueCache,
    /// Limits of the outbox.
    pub limits: &'a OutboxLimits,
    /// Counts of all connections, which the shard reports.
    pub counts: &'a mut Counts,
    /// Time of this turn.
    pub now: UnixNanos,
    /// Timers of intervals: (time, slot).
    pub timers: &'a mut Vec<(UnixNanos, SlotId)>,
}

/// Result of admitting a live event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// The event is in the frame buffer or the queue, or will be read from the history.
    Queued,
    /// The subscription is conflated; the event's bytes are worth caching.
    Marked,
}

/// Sums over all accounts since the connection began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
}

/// Bounded send queue of one connection, with its subscriptions and their accounts.
#[derive(Debug)]
pub struct Outbox {
    /// Bytes for the socket, in wire order.
    pub frames: FrameBuffer,
    slots: Slots,
    free: SlotList,
    waiting: Queues,
    level: LagLevel,
    totals: Totals,
    /// Number of events covered by ended accounts.
    ended: u64,
    /// Number of subscriptions in a conflated mode.
    merging: u32,
    /// A ping was sent for which no timer is set yet.
    pinged: bool,
    /// Reading from the client is paused, so no pong can be received.
    is_unheard: bool,
    /// Measurement of the client's reading, from the first subscription on.
    read_window: Option<Box<ReadWindow>>,
}

impl Outbox {
    /// Empty outbox whose data messages end at `frame` bytes.
    pub const fn new(encoding: Encoding, frame: usize) -> Self {
        Self {
            frames: FrameBuffer::new(encoding, frame),
            slots: Slots::EMPTY,
            free: SlotList::EMPTY,
            waiting: Queues::EMPTY,
            level: LagLevel::Ok,
            totals: Totals {
                delivered: 0,
                merged: 0,
                lost: 0,
            },
            ended: 0,
            merging: 0,
            pinged: false,
            is_unheard: false,
            read_window: None,
        }
    }

    fn degraded(&self) -> bool {
        self.level == LagLevel::Degraded
    }

    /// Subscribed topics in order, each with its slot.
    pub fn subscribed_topics(&self) -> impl ExactSizeIterator<Item = (TopicId, SlotId)> {
        self.slots.subscribed_topics()
    }

    /// Slot of a subscribed topic.
    pub fn slot_of(&self, topic: TopicId) -> Option<SlotId> {
        self.slots.slot_of(topic)
    }

    /// Subscription of a slot.
    pub fn slot(&self, slot: SlotId) -> SlotRef<'_> {
        self.slots.get(slot)
    }

    /// Reserves room for exactly this number of further subscriptions.
    pub fn reserve(&mut self, slots: usize) {
        self.slots
            .reserve_exact(slots.saturating_sub(self.free.len()));
    }

    /// Sets the index of a subscription in the registry.
    pub fn set_place(&mut self, slot: SlotId, place: u32) {
        self.slots[slot].place = place;
    }

    /// Sums over all accounts.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Difference between the events that the accounts cover and those counted as delivered, merged
    /// or lost. Always 0 in a correct server.
    pub fn unaccounted(&self) -> u64 {
        let held = self.slots.accounted();
        let Totals {
            delivered,
            merged,
            lost,
        } = self.totals;
        (self.ended + held).abs_diff(delivered + merged + lost)
    }

    /// Lag level of the latest `lag` message.
    pub fn level(&self) -> LagLevel {
        self.level
    }

    /// Accepts live events of a subscription. The frame buffer accepts about a frame of them;
    /// further events are queued.
    pub fn admit(
        &mut self,
        slot: SlotId,
        run: &EventRange<'_>,
        now: UnixNanos,
        limits: &OutboxLimits,
        counts: &mut Counts,
        timers: &mut Vec<(UnixNanos, SlotId)>,
    ) -> Admitted {
        let state = &self.slots[slot];
        // Conflated events are not queued: memory then depends on the number of subscriptions, not
        // on the event rate.
        if state.merges(self.level == LagLevel::Degraded) {
            self.set_pending(slot, now, timers);
            return Admitted::Marked;
        }
        if state.state() == State::CatchingUp {
            // The history has it, from which an entry of the queue is yet to read it.
            return Admitted::Queued;
        }
        if self.takes_at_once(slot, limits) && self.frames.fits_an_array(run.joined.len()) {
            self.frames.events(run.joined, run.count() as u32);
            self.count_delivered(slot, run.first, run.last, counts);
            return Admitted::Queued;
        }
        // Event by event, because the frame buffer may become too full in the middle; those after
        // it queue in order.
        for (event, bytes) in run.events() {
            if self.takes_at_once(slot, limits) {
                self.frames.events(bytes, 1);
                self.count_delivered(slot, event.seq, event.seq, counts);
            } else {
                self.slots.get_mut(slot).enqueue(Some(event.seq));
                let released = event.tx.plus(counts.delay);
                self.waiting.queue.push_event(slot, event, released, bytes);
            }
        }
        Admitted::Queued
    }

    /// True if a raw event may be written now. Queued control messages are written first: one of
    /// them may be the response that must precede the event.
    fn takes_at_once(&self, slot: SlotId, limits: &OutboxLimits) -> bool {
        let is_free = !self.is_waiting()
            && self.frames.len() <= limits.frame_bytes
            && self.waiting.control.is_empty();
        is_free && self.slots[slot].state() == State::Live
    }

    fn count_delivered(&mut self, slot: SlotId, first: Seq, last: Seq, counts: &mut Counts) {
        self.slots[slot].deliver_run(first, last);
        let delivered = last.since(first) + 1;
        self.totals.delivered += delivered;
        counts.delivered += delivered;
    }

    fn set_pending(&mut self, slot: SlotId, now: UnixNanos, timers: &mut Vec<(UnixNanos, SlotId)>) {
        let mut state = self.slots.get_mut(slot);
        if !state.mark_pending() {
            return;
        }
        if matches!(state.settings().mode, Mode::Interval(_)) && now < state.read().next_due() {
            timers.push((state.read().next_due(), slot));
        } else {
            self.waiting.pending.push_back((slot, now));
        }
    }

    /// Marks a slot as ready whose interval has passed.
    pub fn on_due(&mut self, slot: SlotId, now: UnixNanos) {
        if slot.index() >= self.slots.len() {
            return;
        }
        let state = self.slots.get(slot);
        if state.state() == State::Pending && now >= state.next_due() {
            self.waiting.pending.push_back((slot, now));
        }
    }

    /// Queues the response to `ledger` behind all queued entries.
    pub fn respond_ledger(&mut self, id: Option<Id>) {
        self.waiting.queue.push(Entry::Ledger(Box::new(id)));
    }

    /// True if responses are queued, so that no further request should be read.
    pub fn responses_wait(&self) -> bool {
        self.waiting.response_bytes > 0
    }

    /// Age of the oldest queued event or unanswered ping. The age of an event behind requested data
    /// counts from when that data is sent, as long as the client reads.
    pub fn behind(&self, now: UnixNanos, behind_max: Duration) -> Duration {
        let waiting = &*self.waiting;
        let reads = now <= waiting.reads_until;
        if reads && waiting.asked_ends_at.is_some() {
            return Duration::ZERO;
        }
        let is_pending = waiting.pending.front().map(|(_, since)| *since);
        let oldest = waiting
            .queue
            .oldest(reads)
            .into_iter()
            .chain(is_pending)
            .chain(self.unread_since(behind_max))
            .min();
        oldest.map_or(Duration::ZERO, |oldest| {
            now.since(oldest.max(waiting.asked_until))
        })
    }

    /// Records whether the socket has accepted bytes, and whether it has accepted all requested
    /// data.
    fn note_progress(&mut self, view: &View<'_>) {
        let taken = self.frames.taken();
        let waiting = &mut *self.waiting;
        if taken != waiting.taken || !(self.frames.blocked || self.frames.is_held()) {
            waiting.taken = taken;
            waiting.reads_until = view.now.plus(view.limits.behind_max);
        }
        if waiting
            .asked_ends_at
            .is_some_and(|ends_at| taken >= ends_at || self.frames.is_empty())
        {
            waiting.asked_ends_at = None;
            waiting.asked_until = view.now;
        }
    }

    /// Drops all queued entries; the frame buffer is still sent.
    pub fn drop_waiting(&mut self) {
        self.waiting = Queues::EMPTY;
        self.level = LagLevel::Ok;
        self.end_pings();
    }

    /// Releases unused memory.
    pub fn shrink(&mut self) {
        // While requested data is in the frame buffer, the next events do not age.
        if self.frames.is_empty() || self.waiting.asked_ends_at.is_none() {
            self.waiting.shrink(false);
        }
        self.slots.shrink();
        self.free.shrink();
    }

    /// Releases memory that is not needed soon, once everything is sent.
    pub fn release_idle_memory(&mut self) {
        self.waiting.shrink(true);
    }
}
