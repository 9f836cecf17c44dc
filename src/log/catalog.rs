use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::shared_list::{Shared, merge};
use crate::codec::EventHead;
use crate::market::{Instrument, Symbol};
use crate::topic::{Channel, Topic, TopicPattern};

/// Topic number: dense, assigned in the order in which the log announces topics, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

impl TopicId {
    /// Index into a table by topic.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Source number: index of the source in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(pub u16);

/// Instrument number, unique across all sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstrumentId(pub u32);

/// Immutable properties of a topic.
#[derive(Debug)]
pub struct TopicInfo {
    /// Number of the topic.
    pub id: TopicId,
    /// The topic.
    pub topic: Topic,
    /// Name of the topic.
    pub text: Box<str>,
    /// Encoded common prefix of its events.
    pub head: EventHead,
    /// Source of the topic.
    pub source: SourceId,
}

/// An instrument with its topics.
#[derive(Debug)]
pub struct InstrumentInfo {
    /// Description of the instrument.
    pub instrument: Instrument,
    /// Source of the instrument.
    pub source: SourceId,
    /// Topics of the instrument, by channel index.
    pub topics: [Option<TopicId>; Channel::COUNT],
}

/// Reason for which an announced instrument is not in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdded {
    /// Another source owns the symbol.
    Taken(SourceId),
    /// The catalog has reached `limits.instruments`.
    Limit,
}

/// All instruments and topics. Each batch of the log refers to the catalog as of that batch; a
/// change creates a new catalog.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    sources: Vec<Arc<str>>,
    instruments: Shared<InstrumentInfo>,
    instruments_max: Option<usize>,
    topics: Shared<TopicInfo>,
    /// Topics by channel, in symbol order.
    by_channel: [Vec<TopicId>; Channel::COUNT],
    /// Instruments, in symbol order.
    by_symbol: Vec<InstrumentId>,
    /// Removed instruments: no name or pattern matches their topics.
    removed: HashMap<Symbol, InstrumentId>,
}

/// Instruments and topics that [`Catalog::add`] has to merge into the sorted lists.
#[derive(Default)]
pub(super) struct Unsorted {
    pub(super) instruments: HashMap<Symbol, InstrumentId>,
    /// Topics of instruments that were removed before.
    topics: Vec<TopicId>,
}

impl Catalog {
    /// Creates a catalog of sources without instruments.
    pub fn new(sources: Vec<Arc<str>>) -> Self {
        Self {
            sources,
            ..Self::default()
        }
    }

    /// Sets the maximum number of instruments over all sources.
    pub const fn limit(&mut self, instruments_max: usize) {
        self.instruments_max = Some(instruments_max);
    }

    /// Adds instruments; the time per instrument is independent of the size of the catalog.
    pub fn add(
        &mut self,
        source: SourceId,
        instruments: Vec<Instrument>,
    ) -> Vec<Result<InstrumentId, NotAdded>> {
        let first_topic = self.topics.len as u32;
        let mut unsorted = Unsorted::default();
        let added = instruments
            .into_iter()
            .map(|instrument| self.add_one(source, instrument, &mut unsorted))
            .collect();
        self.list(first_topic, unsorted);
        added
    }

    /// Merges new and returned entries into the sorted lists.
    pub(super) fn list(&mut self, first_topic: u32, unsorted: Unsorted) {
        let Self {
            instruments,
            topics,
            by_channel,
            by_symbol,
            ..
        } = self;
        let by_name = |a: &InstrumentId, b: &InstrumentId| {
            let symbol = |id: &InstrumentId| &instruments.get(id.0 as usize).instrument.symbol;
            symbol(a).cmp(symbol(b))
        };
        let mut new: Vec<InstrumentId> = unsorted.instruments.into_values().collect();
        new.sort_unstable_by(by_name);
        merge(by_symbol, &new, by_name);
        let by_name = |a: &TopicId, b: &TopicId| {
            let symbol = |id: &TopicId| &topics.get(id.index()).topic.symbol;
            symbol(a).cmp(symbol(b))
        };
        let mut new = [const { Vec::new() }; Channel::COUNT];
        let added_topics = (first_topic..topics.len as u32).map(TopicId);
        for id in added_topics.chain(unsorted.topics) {
            new[topics.get(id.index()).topic.channel.index()].push(id);
        }
        for (list, mut new) in by_channel.iter_mut().zip(new) {
            new.sort_unstable_by(by_name);
            merge(list, &new, by_name);
        }
    }

    /// Adds a source, which gets the next source number.
    pub fn add_source(&mut self, name: Arc<str>) {
        self.sources.push(name);
    }

    /// Listed instruments of a source.
    pub fn of_source(&self, source: SourceId) -> Vec<InstrumentId> {
        let is_of = |id: &InstrumentId| self.instrument(*id).source == source;
        self.by_symbol.iter().copied().filter(is_of).collect()
    }

    fn add_one(
        &mut self,
        source: SourceId,
        instrument: Instrument,
        unsorted: &mut Unsorted,
    ) -> Result<InstrumentId, NotAdded> {
        let known = self
            .of_symbol(&instrument.symbol)
            .or_else(|| unsorted.instruments.get(&instrument.symbol).copied());
        let is_full = self
            .instruments_max
            .is_some_and(|max| self.by_symbol.len() + unsorted.instruments.len() >= max);
        if known.is_none() && is_full {
            return Err(NotAdded::Limit);
        }
        let known = known.or_else(|| self.relist(&instrument.symbol, unsorted));
        if let Some(id) = known {
            let known = self.instrument(id);
            if known.source != source {
                return Err(NotAdded::Taken(known.source));
            }
            // A repeated announcement by the same source may change the description and add
            // channels.
            let topics = self.add_topics(&instrument, known.topics, source);
            let info = InstrumentInfo {
                instrument,
                source,
                topics,
            };
            self.instruments.set(id.0 as usize, info);
            return Ok(id);
        }
        let topics = self.add_topics(&instrument, [None; Channel::COUNT], source);
        let info = InstrumentInfo {
            instrument,
            source,
            topics,
        };
        Ok(self.push_instrument(info, unsorted))
    }

    pub(super) fn push_instrument(
        &mut self,
        info: InstrumentInfo,
        unsorted: &mut Unsorted,
    ) -> InstrumentId {
        let id = InstrumentId(self.instruments.len as u32);
        unsorted
            .instruments
            .insert(info.instrument.symbol.clone(), id);
        self.instruments.push(info);
        id
    }

    /// Replaces the entry of an instrument.
    pub(super) fn set_instrument(&mut self, id: InstrumentId, info: InstrumentInfo) {
        self.instruments.set(id.0 as usize, info);
    }

    /// Number of instruments, including removed ones.
    pub fn instruments_len(&self) -> usize {
        self.instruments.len
    }

    /// Lists a removed instrument again.
    pub(super) fn relist(
        &mut self,
        symbol: &Symbol,
        unsorted: &mut Unsorted,
    ) -> Option<InstrumentId> {
        let id = self.removed.remove(symbol)?;
        unsorted.instruments.insert(symbol.clone(), id);
        let topics = self.instrument(id).topics;
        unsorted.topics.extend(topics.into_iter().flatten());
        Some(id)
    }

    /// Topics of an instrument, including new ones for missing channels.
    fn add_topics(
        &mut self,
        instrument: &Instrument,
        mut topics: [Option<TopicId>; Channel::COUNT],
        source: SourceId,
    ) -> [Option<TopicId>; Channel::COUNT] {
        for channel in instrument
            .channels()
            .into_iter()
            .filter(|channel| topics[channel.index()].is_none())
            .collect::<Vec<_>>()
        {
            topics[channel.index()] = Some(self.add_topic(channel, &instrument.symbol, source));
        }
        topics
    }

    pub(super) fn add_topic(
        &mut self,
        channel: Channel,
        symbol: &Symbol,
        source: SourceId,
    ) -> TopicId {
        let topic = Topic {
            channel,
            symbol: symbol.clone(),
        };
        let id = TopicId(self.topics.len as u32);
        self.topics.push(TopicInfo {
            id,
            text: topic.to_string().into(),
            head: EventHead::new(&topic),
            topic,
            source,
        });
        id
    }

    /// Raises the number of decimals of an instrument's prices and quantities to at least these
    /// values.
    pub fn grow_scales(&mut self, id: InstrumentId, price: u32, qty: u32) {
        let info = self.instruments.get(id.0 as usize);
        let instrument = Instrument {
            price_scale: info.instrument.price_scale.max(price),
            qty_scale: info.instrument.qty_scale.max(qty),
            ..info.instrument.clone()
        };
        let info = InstrumentInfo {
            instrument,
            source: info.source,
            topics: info.topics,
        };
        self.instruments.set(id.0 as usize, info);
    }

    /// Listed instrument with this symbol.
    pub fn of_symbol(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.symbol_place(symbol)
            .ok()
            .map(|place| self.by_symbol[place])
    }

    /// Instrument with this symbol, whether listed or removed.
    pub fn known(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.of_symbol(symbol).or_else(|| self.removed(symbol))
    }

    /// Removed instrument with this symbol.
    pub fn removed(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.removed.get(symbol).copied()
    }

    /// Removes instruments: no name or pattern matches their topics any more. They keep their
    /// numbers in case a source announces them again.
    pub fn remove(&mut self, ids: &[InstrumentId]) {
        let gone: HashSet<InstrumentId> = ids.iter().copied().collect();
        self.by_symbol.retain(|id| !gone.contains(id));
        for id in gone {
            let info = Arc::clone(self.instruments.get(id.0 as usize));
            self.removed.insert(info.instrument.symbol.clone(), id);
        }
        let Self {
            topics,
            by_channel,
            removed,
            ..
        } = self;
        let is_there = |id: &TopicId| !removed.contains_key(&topics.get(id.index()).topic.symbol);
        for list in by_channel {
            list.retain(is_there);
        }
    }

    /// True unless the instrument was removed.
    pub fn is_there(&self, id: InstrumentId) -> bool {
        !self
            .removed
            .contains_key(&self.instrument(id).instrument.symbol)
    }

    /// True unless the topic's instrument was removed.
    pub fn is_listed(&self, topic: TopicId) -> bool {
        self.removed.is_empty() || !self.removed.contains_key(&self.topic(topic).topic.symbol)
    }

    /// Number of topics that names and patterns can match.
    pub fn listed(&self) -> usize {
        self.by_channel.iter().map(Vec::len).sum()
    }

    /// Moves an instrument to another source.
    pub fn move_to(&mut self, id: InstrumentId, source: SourceId) {
        let InstrumentInfo {
            instrument, topics, ..
        } = &**self.instruments.get(id.0 as usize);
        let info = InstrumentInfo {
            instrument: instrument.clone(),
            source,
            topics: *topics,
        };
        for topic in topics.iter().flatten() {
            let old = &**self.topics.get(topic.index());
            let (topic, text, head) = (
                old.topic.clone(),
                old.text.clone(),
                EventHead::new(&old.topic),
            );
            let at = old.id.index();
            let info = TopicInfo {
                id: old.id,
                topic,
                text,
                head,
                source,
            };
            self.topics.set(at, info);
        }
        self.instruments.set(id.0 as usize, info);
    }

    fn symbol_place(&self, symbol: &Symbol) -> Result<usize, usize> {
        self.by_symbol.binary_search_by(|id| {
            self.instruments
                .get(id.0 as usize)
                .instrument
                .symbol
                .cmp(symbol)
        })
    }

    /// Number of topics, including those of removed instruments.
    pub fn len(&self) -> usize {
        self.topics.len
    }

    /// True if there are no topics.
    #[cfg(feature = "internals")]
    pub fn is_empty(&self) -> bool {
        self.topics.len == 0
    }

    /// Topic with this number.
    pub fn topic(&self, id: TopicId) -> &Arc<TopicInfo> {
        self.topics.get(id.index())
    }

    /// Name of a source in the config.
    pub fn source(&self, id: SourceId) -> &Arc<str> {
        &self.sources[id.0 as usize]
    }

    /// Names of all sources, in config order.
    pub fn sources(&self) -> &[Arc<str>] {
        &self.sources
    }

    /// Instrument with this number.
    pub fn instrument(&self, id: InstrumentId) -> &InstrumentInfo {
        self.instruments.get(id.0 as usize)
    }

    /// All instruments, in symbol order.
    pub fn instruments(&self) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        self.by_symbol.iter().map(|id| self.instrument(*id))
    }

    /// Instruments at these indices.
    pub fn instruments_at(
        &self,
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        self.by_symbol[places].iter().map(|id| self.instrument(*id))
    }

    /// Numbers of the instruments at these indices.
    pub fn ids_at(&self, places: Range<usize>) -> &[InstrumentId] {
        &self.by_symbol[places]
    }

    /// Index range of the instruments that match a symbol or a prefix ending in `*`.
    pub fn symbols(&self, pattern: &str) -> Range<usize> {
        let symbol = |id: &InstrumentId| self.instrument(*id).instrument.symbol.as_str();
        let (prefix, is_pattern) = pattern
            .strip_suffix('*')
            .map_or((pattern, false), |prefix| (prefix, true));
        let from = self.by_symbol.partition_point(|id| symbol(id) < prefix);
        let rest = &self.by_symbol[from..];
        let len = if is_pattern {
            rest.partition_point(|id| symbol(id).starts_with(prefix))
        } else {
            rest.partition_point(|id| symbol(id) == prefix)
        };
        from..from + len
    }

    /// Topic with this name.
    pub fn find(&self, topic: &Topic) -> Option<TopicId> {
        let list = &self.by_channel[topic.channel.index()];
        list.binary_search_by(|id| self.topic(*id).topic.symbol.cmp(&topic.symbol))
            .ok()
            .map(|at| list[at])
    }

    /// Topics that match a pattern, in symbol order.
    pub fn matching(&self, pattern: &TopicPattern) -> &[TopicId] {
        let list = &self.by_channel[pattern.channel.index()];
        let symbol = |id: &TopicId| self.topics.get(id.index()).topic.symbol.as_str();
        let from = list.partition_point(|id| symbol(id) < &*pattern.prefix);
        let len = list[from..].partition_point(|id| symbol(id).starts_with(&*pattern.prefix));
        &list[from..from + len]
    }

    /// Topic of the same channel with the symbol most similar to that of `topic`, for error
    /// messages; one of those for which `is_open` holds.
    pub fn nearest(&self, topic: &Topic, is_open: impl Fn(TopicId) -> bool) -> Option<&TopicInfo> {
        let upper = Topic {
            channel: topic.channel,
            symbol: Symbol::new(&topic.symbol.as_str().to_ascii_uppercase()).ok()?,
        };
        if let Some(id) = self.find(&upper).filter(|id| is_open(*id)) {
            return Some(self.topic(id));
        }
        let list = &self.by_channel[topic.channel.index()];
        let place = list.partition_point(|id| self.topic(*id).topic.symbol < upper.symbol);
        let common = |id: &TopicId| {
            let symbol = &self.topic(*id).topic.symbol;
            symbol
                .as_str()
                .bytes()
                .zip(upper.symbol.as_str().bytes())
                .take_while(|(a, b)| a == b)
                .count()
        };
        let around = &list[place.saturating_sub(1)..(place + 1).min(list.len())];
        around
            .iter()
            .filter(|id| is_open(**id))
            .max_by_key(|id| common(id))
            .map(|id| &**self.topic(*id))
    }
}
