//! The bus: one plain thread, the single writer of every topic.
//!
//! It takes what sources emit, derives tickers, bars and status ([`derive`]), gives each event its topic's next number,
//! stamps the batch and puts it onto the [`Log`].
//!
//! Invariant: it never waits for a shard, a session or a socket.

pub mod derive;
mod emit;
mod meters;
mod saved;
#[cfg(test)]
mod tests;

pub use emit::{EMITTED_MAX, Emit, Emitter, InputQueue, QueueFull, input_queue};
pub use saved::{RestoredState, SavedState, SavedTime};

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::HistoryLimits;
use rust_decimal::Decimal;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::log::{
    Batch, Catalog, Checkpoint, Event, InstrumentId, Log, LogItem, NotAdded, Replica,
    RestoredTopic, SourceId, TopicId,
};
use crate::market::{Body, Instrument, Symbol, TradingState, UnixNanos};
use crate::metrics::Metrics;
use crate::protocol::{Epoch, Seq, SourceCondition, SourceState};
use crate::topic::Channel;
use derive::{Derive, Publish};
use emit::Input;
use meters::{Dropped, Meters};

/// At most so many items are published at once, so that a shard's turn stays short.
const BATCH_ITEMS_MAX: usize = 2048;
/// At most so many instruments are announced at once, for the same reason.
const ANNOUNCED_AT_ONCE: usize = 256;
/// Refused symbols that are logged one by one.
const REFUSED_LOGGED: usize = 20;

/// Description of a source for the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// Its name in the config.
    pub name: Arc<str>,
    /// After how long a silence an instrument is stale that says nothing itself.
    pub stale_after: Duration,
    /// Its events happen now, so that it can be late with them; what is replayed happened long ago.
    pub is_present: bool,
}

/// The bus' thread and what it writes to.
#[derive(Debug)]
pub struct Bus {
    clock: Clock,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    sources: Vec<SourceSpec>,
    /// By source: its own numbers of instruments → ours, or the reason why it has none.
    instruments: Vec<Vec<Result<InstrumentId, NotAdded>>>,
    derive: Derive,
    out: Sequencer,
    meters: Meters,
    heritage: RestoredState,
    /// By source that began anew: the instruments that it had before, until it tells its own.
    carried_over: HashMap<usize, Vec<InstrumentId>>,
    /// Closed, because their source has given them up.
    free: HashSet<InstrumentId>,
    /// Symbols that the config lists.
    expected: Arc<HashSet<Symbol>>,
}

/// Numbers events and gathers them for the next batch.
#[derive(Debug)]
struct Sequencer {
    replica: Replica,
    catalog: Arc<Catalog>,
    items: Vec<LogItem>,
    /// Position of the batch's announcement of topics.
    topics_at: Option<usize>,
    tx: UnixNanos,
    published: [u64; Channel::COUNT],
    /// Instruments whose decimals are more than the catalog says; told with the batch.
    grown: HashMap<InstrumentId, (u32, u32)>,
    /// Status topics of instruments whose prices stand still, though they should not.
    stale: HashSet<TopicId>,
}

impl Publish for Sequencer {
    fn publish(&mut self, topic: TopicId, body: Body) {
        let event = Event {
            topic,
            seq: self.replica.head(topic).next(),
            tx: self.tx,
            body,
        };
        let info = self.catalog.topic(topic);
        self.published[info.topic.channel.index()] += 1;
        if let Body::Status(status) = &event.body {
            match status.state {
                TradingState::Stale => self.stale.insert(topic),
                _ => self.stale.remove(&topic),
            };
        }
        self.push(LogItem::Event(event));
    }
}

impl Sequencer {
    /// The catalog to change; `push` the topics afterwards.
    fn catalog(&mut self) -> &mut Catalog {
        // A second owner would make each change a copy of all of it.
        self.replica.release_catalog();
        Arc::make_mut(&mut self.catalog)
    }

    /// Makes new topics known. Those of one batch are one item of it: nothing before them in the batch can mean them.
    fn announce(&mut self, new: Range<u32>, restored: Vec<(TopicId, Arc<RestoredTopic>)>) {
        let item = LogItem::Topics { new, restored };
        self.replica.apply(&item, &self.catalog);
        let known = self.topics_at.and_then(|at| self.items.get_mut(at));
        match (known, item) {
            (
                Some(LogItem::Topics {
                    new: known,
                    restored: before,
                }),
                LogItem::Topics { new, restored },
            ) => {
                known.end = new.end;
                before.extend(restored);
            }
            (_, item) => {
                self.topics_at = Some(self.items.len());
                self.items.push(item);
            }
        }
    }

    /// Notes the decimals of a price and its quantity.
    fn note_scales(&mut self, id: InstrumentId, px: Decimal, qty: Decimal) {
        let instrument = &self.catalog.instrument(id).instrument;
        let (price, qty) = (px.scale(), qty.scale());
        if price > instrument.price_scale || qty > instrument.qty_scale {
            let grown = self.grown.entry(id).or_default();
            *grown = (grown.0.max(price), grown.1.max(qty));
        }
    }

    /// Describes the instruments anew whose decimals have grown: the catalog is copied once a batch.
    fn tell_grown(&mut self) {
        if self.grown.is_empty() {
            return;
        }
        let mut grown: Vec<_> = std::mem::take(&mut self.grown).into_iter().collect();
        grown.sort_by_key(|(id, _)| id.0);
        let catalog = self.catalog();
        for (id, (price, qty)) in &grown {
            catalog.grow_scales(*id, *price, *qty);
        }
        self.push(LogItem::Instruments(
            grown.into_iter().map(|(id, _)| id).collect(),
        ));
    }

    fn push(&mut self, item: LogItem) {
        self.replica.apply(&item, &self.catalog);
        self.items.push(item);
    }
}

impl Bus {
    /// A bus that writes to `log`; its topics begin in the epoch `origin`, except for those that it inherits.
    pub fn new(
        clock: Clock,
        log: Arc<Log>,
        metrics: Arc<Metrics>,
        sources: Vec<SourceSpec>,
        origin: Epoch,
        heritage: RestoredState,
    ) -> Self {
        let limits = HistoryLimits {
            events: 0,
            bytes: usize::MAX,
            age: Duration::MAX,
        };
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
            out: Sequencer {
                replica: Replica::new(origin, limits),
                catalog: Arc::new(Catalog::new(names)),
                items: Vec::new(),
                topics_at: None,
                tx: heritage.tx,
                published: [0; Channel::COUNT],
                grown: HashMap::new(),
                stale: HashSet::new(),
            },
            sources,
            meters,
            heritage,
            carried_over: HashMap::new(),
            free: HashSet::new(),
            expected: Arc::default(),
        }
    }

    /// Holds no more instruments than that, over all sources; the others are refused by name.
    pub fn limit_instruments(mut self, instruments_max: usize) -> Self {
        Arc::make_mut(&mut self.out.catalog).limit(instruments_max);
        self
    }

    /// Publishes until every emitter is gone or the queue says stop; returns what is to be kept.
    pub fn run(mut self, mut queue: InputQueue) -> SavedState {
        self.publish_until_stopped(&mut queue);
        let (times, instruments) = self.derive.save(&self.out.catalog);
        SavedState {
            times,
            instruments,
            tx: self.out.tx,
            carried_over: self.heritage.topics.into_values().collect(),
        }
    }

    /// The present, which doesn't go back, though another process may have told it before.
    fn now(&self) -> UnixNanos {
        self.clock.now().max(self.heritage.tx)
    }

    fn publish_until_stopped(&mut self, queue: &mut InputQueue) {
        while let Some(first) = queue.wait() {
            self.out.tx = self.now();
            let mut next = Some(first);
            while let Some(input) = next {
                match input {
                    Input::Emitted(source, emitted, received) => {
                        self.meters.receive(source.0 as usize, &emitted, received);
                        for emit in emitted {
                            self.take(source, emit, received);
                        }
                    }
                    Input::Checkpoint(reply) => self.answer_checkpoint(reply),
                    Input::Stop => return self.publish(),
                }
                next = if self.out.items.len() < BATCH_ITEMS_MAX {
                    queue.poll()
                } else {
                    None
                };
            }
            self.publish();
            self.metrics.queue_fill.set(queue.fill());
        }
    }

    fn answer_checkpoint(&mut self, reply: oneshot::Sender<Arc<Checkpoint>>) {
        self.publish();
        // The shard may have stopped meanwhile; then nobody needs it.
        let _nobody = reply.send(Arc::new(self.out.replica.checkpoint(self.log.head())));
    }

    fn publish(&mut self) {
        if self.out.items.is_empty() {
            self.meters.forget();
            return;
        }
        self.out.tell_grown();
        let mut items = std::mem::take(&mut self.out.items);
        self.out.topics_at = None;
        // It is kept for a while, and there are many small ones.
        items.shrink_to_fit();
        // What follows was taken up later.
        self.out.tx = self.now();
        self.meters.publish(items.len(), self.out.tx);
        for (channel, count) in self.out.published.iter_mut().enumerate() {
            self.metrics.published[channel].inc_by(std::mem::take(count));
        }
        self.log
            .publish(Batch::new(items, Arc::clone(&self.out.catalog)));
        self.metrics.log_bytes.set(self.log.bytes() as i64);
        self.metrics.stale.set(self.out.stale.len() as i64);
    }

    fn take(&mut self, source: SourceId, emit: Emit, received: UnixNanos) {
        let at = source.0 as usize;
        match emit {
            Emit::Trade(local, trade) => {
                let Some(id) = self.own(at, local, 1) else {
                    return;
                };
                let topic = self.out.catalog.instrument(id).topics[Channel::Trade.index()];
                let Some(topic) = topic else {
                    return self.meters.drop(at, Dropped::Channel, 1);
                };
                if self.derive.on_trade(at, id, &trade, &mut self.out).is_err() {
                    return self.meters.drop(at, Dropped::Overflow, 1);
                }
                self.out.note_scales(id, trade.px.0, trade.qty.0);
                self.out.publish(topic, Body::Trade(trade));
            }
            Emit::Quote(local, quote) => {
                let Some(id) = self.own(at, local, 1) else {
                    return;
                };
                let topic = self.out.catalog.instrument(id).topics[Channel::Quote.index()];
                let Some(topic) = topic else {
                    return self.meters.drop(at, Dropped::Channel, 1);
                };
                self.derive.on_quote(id, quote.ts, &mut self.out);
                for level in [quote.bid, quote.ask].into_iter().flatten() {
                    let qty = level.qty.map_or(Decimal::ZERO, |qty| qty.0);
                    self.out.note_scales(id, level.px.0, qty);
                }
                self.out.publish(topic, Body::Quote(quote));
            }
            Emit::Watermark(now) => _ = self.derive.on_mark(at, now, &mut self.out),
            Emit::Instruments(instruments) => self.add_instruments(source, instruments, received),
            Emit::Trading(local, state, ts) => {
                let Some(id) = self.own(at, local, 1) else {
                    return;
                };
                self.derive.on_trading(id, state, ts, &mut self.out);
            }
            Emit::History(local, interval, bars) => {
                let Some(id) = self.own(at, local, bars.len()) else {
                    return;
                };
                let channel = Channel::Bar(interval).index();
                if self.out.catalog.instrument(id).topics[channel].is_none() {
                    return self.meters.drop(at, Dropped::Channel, bars.len());
                }
                self.derive
                    .on_history(at, id, interval, bars, &mut self.out);
            }
            Emit::Session(local, so_far) => {
                let Some(id) = self.own(at, local, 1) else {
                    return;
                };
                self.derive.on_session(id, so_far, &mut self.out);
            }
            Emit::StartOver => self.start_over(at),
            Emit::Expect(symbols) => self.expected = symbols,
            Emit::Begin(spec) => self.begin(at, spec),
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

    /// Ends a source that a reload took away, and its instruments.
    fn retire(&mut self, source: SourceId, received: UnixNanos) {
        let gone = self.out.catalog.of_source(source);
        self.instruments[source.0 as usize].clear();
        self.close(gone.clone(), received);
        self.change_source(source, SourceState::Ended, received, None);
        self.remove(gone);
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
        if matches!(
            state,
            SourceState::Stale | SourceState::Reconnecting | SourceState::Ended
        ) {
            self.derive.on_source_lost(at, &mut self.out);
        }
    }

    fn begin(&mut self, at: usize, spec: SourceSpec) {
        self.meters.begin(&self.metrics, at, &spec);
        if at == self.sources.len() {
            self.out.catalog().add_source(Arc::clone(&spec.name));
            self.derive.add_source();
            self.instruments.push(Vec::new());
            self.sources.push(spec);
            // Readers must know its name before it tells anything.
            let none = self.out.catalog.len() as u32;
            self.out.announce(none..none, Vec::new());
            return;
        }
        self.sources[at] = spec;
        self.instruments[at].clear();
        let had = self.out.catalog.of_source(SourceId(at as u16));
        self.free.extend(&had);
        self.carried_over.insert(at, had);
        self.start_over(at);
    }

    fn close(&mut self, instruments: Vec<InstrumentId>, now: UnixNanos) {
        for id in instruments {
            self.derive
                .on_trading(id, TradingState::Closed, now, &mut self.out);
            self.free.insert(id);
        }
    }

    /// Symbols that their source has given up go to the one that tells them now, in a new epoch.
    fn take_over(&mut self, source: SourceId, instruments: &[Instrument]) {
        let known = instruments
            .iter()
            .filter_map(|instrument| self.out.catalog.known(&instrument.symbol));
        let mut moved: HashSet<InstrumentId> = known.collect();
        moved.retain(|id| self.free.remove(id));
        moved.retain(|id| self.out.catalog.instrument(*id).source != source);
        if moved.is_empty() {
            return;
        }
        for id in &moved {
            self.out.catalog().move_to(*id, source);
        }
        let topics = self.derive.move_to(&moved, source.0 as usize);
        self.begin_epochs(topics);
    }

    fn add_instruments(&mut self, source: SourceId, instruments: Vec<Instrument>, now: UnixNanos) {
        let mut claimed = HashSet::new();
        let mut left = instruments.into_iter();
        loop {
            let some: Vec<Instrument> = left.by_ref().take(ANNOUNCED_AT_ONCE).collect();
            self.add_some(source, some, &mut claimed);
            if left.len() == 0 {
                break;
            }
            self.publish();
        }
        self.metrics.topics.set(self.out.catalog.listed() as i64);
        // What a source that began anew doesn't tell any more.
        if let Some(mut carried_over) = self.carried_over.remove(&(source.0 as usize)) {
            carried_over.retain(|id| {
                !claimed.contains(id) && self.out.catalog.instrument(*id).source == source
            });
            self.close(carried_over.clone(), now);
            self.remove(carried_over);
        }
    }

    /// Takes instruments off the catalog that their source has given up, unless the config lists them elsewhere.
    fn remove(&mut self, mut gone: Vec<InstrumentId>) {
        gone.retain(|id| {
            let symbol = &self.out.catalog.instrument(*id).instrument.symbol;
            !self.expected.contains(symbol)
        });
        self.derive.remove(&gone);
        for some in gone.chunks(ANNOUNCED_AT_ONCE) {
            self.out.catalog().remove(some);
            self.out.push(LogItem::Removed(some.to_vec()));
            self.publish();
        }
        self.metrics.topics.set(self.out.catalog.listed() as i64);
    }

    fn add_some(
        &mut self,
        source: SourceId,
        instruments: Vec<Instrument>,
        claimed: &mut HashSet<InstrumentId>,
    ) {
        self.take_over(source, &instruments);
        let symbols: Vec<Symbol> = instruments.iter().map(|one| one.symbol.clone()).collect();
        let removed = symbols
            .iter()
            .filter_map(|symbol| self.out.catalog.removed(symbol));
        let mut returned: Vec<InstrumentId> = removed.collect();
        let first = self.out.catalog.len() as u32;
        let added = self.out.catalog().add(source, instruments);
        let topics = first..self.out.catalog.len() as u32;
        let at = source.0 as usize;
        let stale_after = self.sources[at].stale_after;
        let goes_on = self.heritage.sources.get(at).is_some_and(Option::is_some);
        for id in added.iter().flatten() {
            let info = self.out.catalog.instrument(*id);
            self.derive.add(*id, info, stale_after);
            let saved = self
                .heritage
                .instruments
                .remove(info.instrument.symbol.as_str())
                .filter(|_| goes_on);
            let is_stale = saved.is_some_and(|saved| self.derive.restore(*id, at, saved));
            self.out
                .stale
                .extend(info.topics[Channel::Status.index()].filter(|_| is_stale));
        }
        let restored = self.heritage.take(&self.out.catalog, &added);
        self.log_refused(source, &symbols, &added);
        claimed.extend(added.iter().flatten());
        self.instruments[at].extend(added);
        self.out.announce(topics, restored);
        returned.retain(|id| self.out.catalog.is_there(*id));
        if !returned.is_empty() {
            self.out.push(LogItem::Returned(returned));
        }
    }

    /// Symbols that are left out: their events are dropped, and counted.
    fn log_refused(
        &self,
        source: SourceId,
        symbols: &[Symbol],
        added: &[Result<InstrumentId, NotAdded>],
    ) {
        let name = &*self.sources[source.0 as usize].name;
        let refused = symbols.iter().zip(added);
        let refused = refused.filter_map(|(symbol, added)| added.err().map(|why| (symbol, why)));
        let mut more = 0;
        for (at, (symbol, why)) in refused.enumerate() {
            match why {
                _ if at >= REFUSED_LOGGED => more += 1,
                NotAdded::Taken(owner) => tracing::warn!(
                    source = name,
                    %symbol,
                    owner = &**self.out.catalog.source(owner),
                    "duplicate symbol: another source owns it, so its events from this source are dropped"
                ),
                NotAdded::Limit => tracing::warn!(
                    source = name,
                    %symbol,
                    "too many instruments: limits.instruments is reached, so the events of this symbol are dropped"
                ),
            }
        }
        if more > 0 {
            tracing::warn!(source = name, more, "more symbols are left out");
        }
    }

    /// Our number for a source's own; what has none is counted as dropped.
    fn own(&self, source: usize, local: u32, events: usize) -> Option<InstrumentId> {
        let why = match self.instruments[source].get(local as usize) {
            Some(Ok(id)) => return Some(*id),
            Some(Err(NotAdded::Taken(_))) => Dropped::Symbol,
            Some(Err(NotAdded::Limit)) => Dropped::Limit,
            None => Dropped::Unannounced,
        };
        self.meters.drop(source, why, events);
        None
    }

    /// The next epoch of each topic that has an event in its own.
    fn begin_epochs(&mut self, topics: impl IntoIterator<Item = TopicId>) {
        for topic in topics {
            if self.out.replica.head(topic) > Seq::START {
                let epoch = self.out.replica.epoch(topic).next();
                self.out.push(LogItem::Epoch { topic, epoch });
            }
        }
    }

    fn start_over(&mut self, source: usize) {
        // It doesn't go on from where it was, whatever it has told yet.
        if let Some(time) = self.heritage.sources.get_mut(source) {
            *time = None;
        }
        let topics: Vec<TopicId> = self.derive.on_start_over(source).collect();
        self.begin_epochs(topics);
        // What it had by an earlier config, and has no more, stays closed.
        if !self.carried_over.contains_key(&source) {
            let told: HashSet<InstrumentId> =
                self.instruments[source].iter().flatten().copied().collect();
            let mut others = self.out.catalog.of_source(SourceId(source as u16));
            others.retain(|id| !told.contains(id));
            self.close(others, self.out.tx);
        }
    }
}
