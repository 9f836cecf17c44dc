//! The bus: a single thread and the only writer of every topic.
//!
//! The bus receives the output of the sources, derives tickers, bars and status ([`derive`]),
//! assigns each event the next sequence number of its topic, stamps the batch and appends it to the
//! [`Log`].
//!
//! Invariant: it never waits for a shard, a session or a socket.

pub mod derive;
mod emit;
mod follow;
mod interruption;
mod meters;
mod ownership;
mod saved;
mod sequencer;
mod source_tail;
mod standby;
mod takeover;
#[cfg(test)]
mod tests;

pub use derive::SavedTime;
pub use emit::{
    EMITTED_MAX, Emit, Emitter, ForeignState, InputQueue, Leading, MissedData, MissedKind,
    QueueFull, WriterState, input_queue,
};
pub use saved::{RestoredState, SavedOutput, SavedState};
pub use source_tail::SourceTail;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rust_decimal::Decimal;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::log::{
    Batch, Checkpoint, InstrumentId, Log, LogItem, NotAdded, Pace, SourceCondition, SourceId,
    SourceInput,
};
use crate::market::{Bar, Body, Interval, Quote, Symbol, Trade, UnixNanos};
use crate::metrics::Metrics;
use crate::protocol::{Epoch, SourceState};
use crate::topic::Channel;
use derive::{Derive, Publish, SessionSoFar};
use emit::Input;
use interruption::Interruption;
use meters::{Dropped, Meters};
use sequencer::Sequencer;
use source_tail::Repeated;
use standby::{Standby, is_lost};

/// Maximum number of items published at once, which keeps the turns of the shards short.
const BATCH_ITEMS_MAX: usize = 2048;

/// Description of a source for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Name of the source in the config.
    pub name: Arc<str>,
    /// Silence after which an instrument without its own setting is stale.
    pub stale_after: Duration,
    /// True if the source emits events in real time, so that lag is meaningful; false for replayed
    /// data.
    pub is_present: bool,
    /// Checksum of the config, which decides whether another server can go on with the source.
    pub config: Bytes,
}

/// State of the bus thread.
#[derive(Debug)]
pub struct Bus {
    clock: Clock,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    sources: Vec<SourceSpec>,
    /// By source: global instrument number for each local one, or the reason for rejection.
    instruments: Vec<Vec<Result<InstrumentId, NotAdded>>>,
    derive: Derive,
    out: Sequencer,
    meters: Meters,
    heritage: RestoredState,
    /// By restarted source: its previous instruments, until it announces the current ones.
    carried_over: HashMap<usize, Vec<InstrumentId>>,
    /// Instruments closed because their source dropped them.
    free: HashSet<InstrumentId>,
    /// Symbols listed in the config.
    expected: Arc<HashSet<Symbol>>,
    /// Maximum number of instruments, once this server leads a cluster.
    instruments_max: Option<usize>,
    /// Bound of the batches that the log of a cluster does not contain yet.
    pace: Option<Arc<Pace>>,
    /// State of a server that follows a log and may become its writer.
    standby: Option<Box<Standby>>,
    /// By source of the log that this server writes: end of its output.
    tails: Vec<SourceTail>,
    /// Newest interruption of the log.
    interruption: Option<Interruption>,
    /// By source: events of the log that it emits again, because it goes on from its position.
    repeated: HashMap<usize, Repeated>,
}

impl Bus {
    /// Creates a bus that writes to `log`. Topics begin in the epoch `origin`, except for restored
    /// ones.
    pub fn new(
        clock: Clock,
        log: Arc<Log>,
        metrics: Arc<Metrics>,
        sources: Vec<SourceSpec>,
        origin: Epoch,
        heritage: RestoredState,
    ) -> Self {
        let meters = Meters::new(
            &metrics,
            sources
                .iter()
                .map(|source| (&*source.name, source.is_present)),
        );
        let names = sources
            .iter()
            .map(|source| Arc::clone(&source.name))
            .collect();
        let mut derive = Derive::new(sources.len());
        for (at, time) in heritage
            .sources
            .iter()
            .enumerate()
            .filter_map(|(at, time)| time.map(|time| (at, time)))
        {
            derive.restore_time(at, time);
        }
        Self {
            clock,
            log,
            metrics,
            instruments: vec![Vec::new(); sources.len()],
            derive,
            out: Sequencer::new(origin, names, heritage.tx),
            sources,
            meters,
            heritage,
            carried_over: HashMap::new(),
            free: HashSet::new(),
            expected: Arc::default(),
            instruments_max: None,
            pace: None,
            standby: None,
            tails: Vec::new(),
            interruption: None,
            repeated: HashMap::new(),
        }
    }

    /// Sets the maximum number of instruments over all sources; excess instruments are rejected and
    /// logged by name.
    pub fn limit_instruments(mut self, instruments_max: usize) -> Self {
        Arc::make_mut(&mut self.out.catalog).limit(instruments_max);
        self.instruments_max = Some(instruments_max);
        self
    }

    /// Publishes until all emitters are dropped or a stop is queued; returns the state to save.
    pub fn run(mut self, mut queue: InputQueue) -> SavedState {
        while let Some(first) = queue.wait() {
            if self.publish_queued(first, &mut queue).is_break() {
                break;
            }
        }
        self.into_saved()
    }

    /// Publishes what is queued, up to one batch, without waiting. Returns false if nothing is.
    #[cfg(feature = "internals")]
    pub fn step(&mut self, queue: &mut InputQueue) -> bool {
        let first = queue.poll();
        let is_queued = first.is_some();
        if let Some(first) = first {
            // A simulation stops the bus by not stepping it any more.
            let _stopped = self.publish_queued(first, queue);
        }
        is_queued
    }

    /// State to save once the bus has stopped.
    pub fn into_saved(self) -> SavedState {
        let (times, instruments) = self.derive.save(&self.out.catalog);
        SavedState {
            times,
            instruments,
            tx: self.out.tx,
            carried_over: self.heritage.topics.into_values().collect(),
        }
    }

    /// Current time, never earlier than the last publication time, even one of a previous process.
    fn now(&self) -> UnixNanos {
        self.clock.now().max(self.heritage.tx)
    }

    /// Publishes an input and those queued behind it, up to one batch. Breaks at a stop.
    fn publish_queued(&mut self, first: Input, queue: &mut InputQueue) -> ControlFlow<()> {
        self.out.tx = self.now();
        self.forget_interruption();
        let mut next = Some(first);
        while let Some(input) = next {
            match input {
                Input::Emitted(source, emitted, received) => {
                    self.meters.receive(source.0 as usize, &emitted, received);
                    for emit in emitted {
                        self.take(source, emit, received);
                    }
                }
                Input::Followed(followed) => self.follow(followed),
                Input::Restored(state, done) => {
                    // A send error means that the server is stopping.
                    let _stopping = done.send(self.restore(*state));
                }
                Input::Origin(origin, reply) => {
                    // A send error means that the server no longer leads.
                    let _fenced = reply.send(self.begin_origin(origin));
                }
                Input::Lead(pace, reply) => {
                    // A send error means that the server is stopping.
                    let _stopping = reply.send(self.lead(pace));
                }
                Input::Checkpoint(next, reply) => self.answer_checkpoint(next, reply),
                Input::WriterState(reply) => {
                    // A send error means that the server no longer leads.
                    let _fenced = reply.send(self.writer_state());
                }
                Input::Position(reply) => {
                    self.publish();
                    // A send error means that nobody waits any more.
                    let _nobody = reply.send(self.log.head());
                }
                Input::Stop => {
                    self.publish();
                    return ControlFlow::Break(());
                }
            }
            next = if self.out.items.len() < BATCH_ITEMS_MAX {
                queue.poll()
            } else {
                None
            };
        }
        self.publish();
        self.metrics.queue_fill.set(queue.fill());
        ControlFlow::Continue(())
    }

    fn answer_checkpoint(&mut self, next: u64, reply: oneshot::Sender<Arc<Checkpoint>>) {
        self.publish();
        let interruption = self.interruption.as_ref();
        let interruption = interruption.and_then(|interruption| interruption.state_at(next));
        let checkpoint = interruption.unwrap_or_else(|| Arc::new(self.checkpoint()));
        // A send error means that the shard has stopped and no longer needs the checkpoint.
        let _nobody = reply.send(checkpoint);
    }

    /// State behind the last published batch. The replica may have released its catalog.
    fn checkpoint(&self) -> Checkpoint {
        let (head, catalog) = (self.log.head(), Arc::clone(&self.out.catalog));
        let tx = self.out.tx.max(self.heritage.tx);
        self.out.replica.checkpoint(head, tx, catalog)
    }

    fn publish(&mut self) {
        if self.out.items.is_empty() {
            self.meters.forget();
            return;
        }
        self.out.announce_grown_scales();
        let mut items = std::mem::take(&mut self.out.items);
        self.out.topics_at = None;
        // Batches are retained for a while, and many are small.
        items.shrink_to_fit();
        // Input read after this point was received later.
        self.out.tx = self.now();
        self.meters.publish(items.len(), self.out.tx);
        for (channel, count) in self.out.published.iter_mut().enumerate() {
            self.metrics.published[channel].inc_by(std::mem::take(count));
        }
        let batch = Batch::new(items, Arc::clone(&self.out.catalog));
        if let Some(pace) = &self.pace {
            pace.add(batch.footprint());
        }
        self.log.publish(batch);
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        self.metrics.stale.set(self.out.stale.len() as i64);
    }

    fn take(&mut self, source: SourceId, emit: Emit, received: UnixNanos) {
        let at = source.0 as usize;
        if self.is_repeated(at, &emit) {
            return;
        }
        match emit {
            Emit::Trade(local, trade) => self.take_trade(at, local, trade),
            Emit::Quote(local, quote) => self.take_quote(at, local, quote),
            Emit::Missed(local, missed) => self.report_missed(at, local, missed),
            Emit::Watermark(now) => {
                self.note(at, || SourceInput::Mark(now));
                self.derive.on_mark(at, now, &mut self.out);
            }
            Emit::Instruments(instruments) => self.add_instruments(source, instruments, received),
            Emit::Trading(local, state, ts) => {
                let Some(id) = self.own(at, local, 1) else {
                    return;
                };
                self.note(at, || SourceInput::Trading(id, state, ts));
                self.derive.on_trading(id, state, ts, &mut self.out);
            }
            Emit::History(local, interval, bars) => self.take_history(at, local, interval, bars),
            Emit::Session(local, so_far) => self.take_session(at, local, so_far),
            Emit::StartOver => self.start_over(at),
            Emit::Expect(symbols) => self.expected = symbols,
            Emit::Begin(spec) => self.begin(at, spec),
            Emit::GoOn(spec) => self.go_on(at, spec),
            Emit::Position(position) => self.note(at, || SourceInput::Position(position)),
            Emit::Retire => self.retire(source, received),
            Emit::State(state) => self.change_source(source, state, received, None),
            Emit::Failed(error) => {
                self.change_source(source, SourceState::Ended, received, Some(error));
            }
        }
        if self.out.items.len() >= BATCH_ITEMS_MAX {
            self.publish();
        }
    }

    fn take_trade(&mut self, source: usize, local: u32, trade: Trade) {
        let Some(id) = self.own(source, local, 1) else {
            return;
        };
        let topic = self.out.catalog.instrument(id).topics[Channel::Trade.index()];
        let Some(topic) = topic else {
            return self.meters.drop(source, Dropped::Channel, 1);
        };
        let derived = self.derive.on_trade(source, id, &trade, &mut self.out);
        if derived.is_err() {
            return self.meters.drop(source, Dropped::Overflow, 1);
        }
        self.out.note_scales(id, trade.px.0, trade.qty.0);
        self.note_event(source, id, &trade);
        self.out.publish(topic, Body::Trade(trade));
    }

    fn take_quote(&mut self, source: usize, local: u32, quote: Quote) {
        let Some(id) = self.own(source, local, 1) else {
            return;
        };
        let topic = self.out.catalog.instrument(id).topics[Channel::Quote.index()];
        let Some(topic) = topic else {
            return self.meters.drop(source, Dropped::Channel, 1);
        };
        self.derive.on_quote(id, quote.ts, &mut self.out);
        for level in [quote.bid, quote.ask].into_iter().flatten() {
            let qty = level.qty.map_or(Decimal::ZERO, |qty| qty.0);
            self.out.note_scales(id, level.px.0, qty);
        }
        self.note_event(source, id, &quote);
        self.out.publish(topic, Body::Quote(quote));
    }

    fn take_history(&mut self, source: usize, local: u32, interval: Interval, bars: Vec<Bar>) {
        let Some(id) = self.own(source, local, bars.len()) else {
            return;
        };
        let channel = Channel::Bar(interval).index();
        if self.out.catalog.instrument(id).topics[channel].is_none() {
            return self.meters.drop(source, Dropped::Channel, bars.len());
        }
        self.note(source, || {
            let (closed, open): (Vec<_>, Vec<_>) = bars.iter().partition(|bar| bar.done);
            let open = open.first().map(|bar| (*bar).clone());
            SourceInput::History(id, interval, closed.len() as u32, open)
        });
        self.derive
            .on_history(source, id, interval, bars, &mut self.out);
    }

    fn take_session(&mut self, source: usize, local: u32, so_far: SessionSoFar) {
        let Some(id) = self.own(source, local, 1) else {
            return;
        };
        self.note(source, || {
            SourceInput::Session(id, so_far.bar.clone(), so_far.notional)
        });
        self.derive.on_session(id, so_far, &mut self.out);
    }

    /// Publishes a source gap on each topic of the instrument that the missed data concerns.
    fn report_missed(&mut self, source: usize, local: u32, missed: MissedData) {
        let Some(id) = self.own(source, local, 0) else {
            return;
        };
        self.meters.miss(source, missed);
        let topics = self.out.catalog.instrument(id).topics;
        for topic in topics.into_iter().flatten() {
            if missed
                .kind
                .concerns(self.out.catalog.topic(topic).topic.channel)
            {
                let missing = missed.count;
                self.out.push(LogItem::Missed { topic, missing });
            }
        }
    }

    fn change_source(
        &mut self,
        source: SourceId,
        state: SourceState,
        since: UnixNanos,
        error: Option<Arc<str>>,
    ) {
        let at = source.0 as usize;
        self.metrics.set_source_state(&self.sources[at].name, state);
        self.out.push(LogItem::Source {
            source,
            condition: SourceCondition {
                state,
                since,
                error,
            },
        });
        if is_lost(state) {
            self.derive.on_source_lost(at, &mut self.out);
        }
    }
}
