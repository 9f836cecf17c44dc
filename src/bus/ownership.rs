//! Instrument ownership. A source announces its instruments; a reload removes, replaces or moves
//! them. A symbol has exactly one owner at a time.

use std::collections::HashSet;
use std::sync::Arc;

use super::meters::Dropped;
use super::{Bus, SourceSpec};
use crate::log::{InstrumentId, LogItem, NotAdded, SourceId, SourceInput, TopicId};
use crate::market::{Instrument, Symbol, TradingState, UnixNanos};
use crate::protocol::{Seq, SourceState};
use crate::topic::Channel;

/// Maximum number of instruments announced at once, which keeps the turns of the shards short.
const ANNOUNCED_AT_ONCE: usize = 256;
/// Maximum number of rejected symbols logged individually.
const REFUSED_LOGGED: usize = 20;

impl Bus {
    /// Retires a source that a reload removed, with its instruments.
    pub(super) fn retire(&mut self, source: SourceId, received: UnixNanos) {
        let gone = self.out.catalog.of_source(source);
        self.instruments[source.0 as usize].clear();
        self.close(gone.clone(), received);
        self.change_source(source, SourceState::Ended, received, None);
        self.remove(gone);
    }

    pub(super) fn begin(&mut self, at: usize, spec: SourceSpec) {
        self.meters.begin(&self.metrics, at, &spec);
        if at == self.sources.len() {
            self.out.catalog().add_source(Arc::clone(&spec.name));
            self.derive.add_source();
            self.instruments.push(Vec::new());
            self.sources.push(spec);
            // Readers must know the name of the source before its first event.
            let none = self.out.catalog.len() as u32;
            self.out.announce(none..none, Vec::new(), Vec::new());
            self.note_begin(at);
            return;
        }
        self.sources[at] = spec;
        self.note_begin(at);
        self.instruments[at].clear();
        let had = self.out.catalog.of_source(SourceId(at as u16));
        self.free.extend(&had);
        self.carried_over.insert(at, had);
        self.start_over(at);
    }

    fn close(&mut self, instruments: Vec<InstrumentId>, now: UnixNanos) {
        for id in instruments {
            let source = self.derive.source_of(id);
            self.note(source, || {
                SourceInput::Trading(id, TradingState::Closed, now)
            });
            self.derive
                .on_trading(id, TradingState::Closed, now, &mut self.out);
            self.free.insert(id);
        }
    }

    /// Moves symbols that their previous source dropped to the announcing source, in a new epoch.
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
        self.out.push(LogItem::Moved {
            instruments: moved.iter().copied().collect(),
            source,
        });
        let topics = self.derive.move_to(&moved, source.0 as usize);
        self.begin_epochs(topics);
    }

    pub(super) fn add_instruments(
        &mut self,
        source: SourceId,
        instruments: Vec<Instrument>,
        now: UnixNanos,
    ) {
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
        // Instruments that a restarted source no longer announces.
        if let Some(mut carried_over) = self.carried_over.remove(&(source.0 as usize)) {
            carried_over.retain(|id| {
                !claimed.contains(id) && self.out.catalog.instrument(*id).source == source
            });
            self.close(carried_over.clone(), now);
            self.remove(carried_over);
        }
    }

    /// Removes instruments that their source dropped from the catalog, unless the config lists them
    /// in another source.
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
        let announced = added.iter().flatten().copied().collect();
        self.instruments[at].extend(added);
        self.out.announce(topics, announced, restored);
        returned.retain(|id| self.out.catalog.is_there(*id));
        if !returned.is_empty() {
            self.out.push(LogItem::Returned(returned));
        }
    }

    /// Logs rejected symbols; their events are dropped and counted.
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
                    "duplicate symbol, owned by another source; dropping its events from this source"
                ),
                NotAdded::Limit => tracing::warn!(
                    source = name,
                    %symbol,
                    "instrument limit reached (limits.instruments); dropping events of this symbol"
                ),
            }
        }
        if more > 0 {
            tracing::warn!(source = name, more, "further symbols rejected");
        }
    }

    /// Global number of a source's local instrument; events of an instrument without one are
    /// counted as dropped.
    pub(super) fn own(&self, source: usize, local: u32, events: usize) -> Option<InstrumentId> {
        let why = match self.instruments[source].get(local as usize) {
            Some(Ok(id)) => return Some(*id),
            Some(Err(NotAdded::Taken(_))) => Dropped::Symbol,
            Some(Err(NotAdded::Limit)) => Dropped::Limit,
            None => Dropped::Unannounced,
        };
        self.meters.drop(source, why, events);
        None
    }

    /// Begins the next epoch of each topic that has an event in its current one.
    fn begin_epochs(&mut self, topics: impl IntoIterator<Item = TopicId>) {
        for topic in topics {
            if self.out.replica.head(topic) > Seq::START {
                let epoch = self.out.replica.epoch(topic).next();
                self.out.push(LogItem::Epoch { topic, epoch });
            }
        }
    }

    pub(super) fn start_over(&mut self, source: usize) {
        // The source does not resume from its saved time, whatever it has emitted so far.
        if let Some(time) = self.heritage.sources.get_mut(source) {
            *time = None;
        }
        self.note(source, || SourceInput::StartOver);
        let topics: Vec<TopicId> = self.derive.on_start_over(source).collect();
        if let Some(logged) = &mut self.out.logged {
            logged.forget(&topics);
        }
        self.begin_epochs(topics);
        // Instruments that only an earlier config of the source listed stay closed.
        if !self.carried_over.contains_key(&source) {
            let announced: HashSet<InstrumentId> =
                self.instruments[source].iter().flatten().copied().collect();
            let mut others = self.out.catalog.of_source(SourceId(source as u16));
            others.retain(|id| !announced.contains(id));
            self.close(others, self.out.tx);
        }
    }
}
