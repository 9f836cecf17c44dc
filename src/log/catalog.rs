use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::shared_list::{Shared, merge};
use crate::codec::EventHead;
use crate::market::{Instrument, Symbol};
use crate::topic::{Channel, Topic, TopicPattern};

/// A topic's number: dense, given in the order in which the log names them, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u32);

impl TopicId {
    /// As an index of a table by topic.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A source's number: its place in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceId(pub u16);

/// An instrument's number, over all sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstrumentId(pub u32);

/// Immutable properties of a topic.
#[derive(Debug)]
pub struct TopicInfo {
    /// Its number.
    pub id: TopicId,
    /// The topic.
    pub topic: Topic,
    /// The topic as a text.
    pub text: Box<str>,
    /// Encoded start of its events.
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
    /// Its topics, by the channel's index.
    pub topics: [Option<TopicId>; Channel::COUNT],
}

/// The reason why an instrument isn't in the catalog, though its source announced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdded {
    /// Another source owns the symbol.
    Taken(SourceId),
    /// The catalog holds as many instruments as `limits.instruments` allows.
    Limit,
}

/// All instruments and topics. Each batch of the log holds the catalog it was made with; a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    sources: Vec<Arc<str>>,
    instruments: Shared<InstrumentInfo>,
    instruments_max: Option<usize>,
    topics: Shared<TopicInfo>,
    /// Topics of one channel, in the order of their symbols.
    by_channel: [Vec<TopicId>; Channel::COUNT],
    /// Instruments in the order of their symbols.
    by_symbol: Vec<InstrumentId>,
    /// Instruments that their source no longer has: neither a name nor a pattern finds their topics.
    removed: HashMap<Symbol, InstrumentId>,
}

/// Instruments and topics that [`Catalog::add`] has to sort in.
#[derive(Default)]
struct Unsorted {
    instruments: HashMap<Symbol, InstrumentId>,
    /// Topics of instruments that had been removed.
    topics: Vec<TopicId>,
}

impl Catalog {
    /// A catalog of sources that have no instruments yet.
    pub fn new(sources: Vec<Arc<str>>) -> Self {
        Self {
            sources,
            ..Self::default()
        }
    }

    /// Holds no more instruments than that, over all sources.
    pub const fn limit(&mut self, instruments_max: usize) {
        self.instruments_max = Some(instruments_max);
    }

    /// Adds instruments, in about the same time for each however many there are already.
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
        added
    }

    /// Another source; its number is the next.
    pub fn add_source(&mut self, name: Arc<str>) {
        self.sources.push(name);
    }

    /// The instruments of a source.
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
        let returned = self.removed.remove(&instrument.symbol);
        if let Some(id) = returned {
            unsorted.instruments.insert(instrument.symbol.clone(), id);
            let topics = self.instrument(id).topics;
            unsorted.topics.extend(topics.into_iter().flatten());
        }
        let known = known.or(returned);
        if let Some(id) = known {
            let known = self.instrument(id);
            if known.source != source {
                return Err(NotAdded::Taken(known.source));
            }
            // The same source tells it again; it may describe it otherwise, and have more channels.
            let topics = self.add_topics(&instrument, known.topics, source);
            let info = InstrumentInfo {
                instrument,
                source,
                topics,
            };
            self.instruments.set(id.0 as usize, info);
            return Ok(id);
        }
        let id = InstrumentId(self.instruments.len as u32);
        let topics = self.add_topics(&instrument, [None; Channel::COUNT], source);
        unsorted.instruments.insert(instrument.symbol.clone(), id);
        self.instruments.push(InstrumentInfo {
            instrument,
            source,
            topics,
        });
        Ok(id)
    }

    /// The topics of an instrument: those that it has, and what is missing of its channels.
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
            let topic = Topic {
                channel,
                symbol: instrument.symbol.clone(),
            };
            let topic_id = TopicId(self.topics.len as u32);
            topics[channel.index()] = Some(topic_id);
            self.topics.push(TopicInfo {
                id: topic_id,
                text: topic.to_string().into(),
                head: EventHead::new(&topic),
                topic,
                source,
            });
        }
        topics
    }

    /// Takes in that an instrument's prices and quantities have at least so many decimals.
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

    /// The instrument of that symbol.
    pub fn of_symbol(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.symbol_place(symbol)
            .ok()
            .map(|place| self.by_symbol[place])
    }

    /// The instrument of that symbol, also one that was removed.
    pub fn known(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.of_symbol(symbol).or_else(|| self.removed(symbol))
    }

    /// The instrument of that symbol, if it was removed.
    pub fn removed(&self, symbol: &Symbol) -> Option<InstrumentId> {
        self.removed.get(symbol).copied()
    }

    /// Removes instruments: no name and no pattern finds their topics any more. They keep their numbers, for when a source
    /// announces them again.
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

    /// Number of topics that names and patterns match.
    pub fn listed(&self) -> usize {
        self.by_channel.iter().map(Vec::len).sum()
    }

    /// Gives an instrument to another source.
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

    /// A topic by its number.
    pub fn topic(&self, id: TopicId) -> &Arc<TopicInfo> {
        self.topics.get(id.index())
    }

    /// A source's name in the config.
    pub fn source(&self, id: SourceId) -> &Arc<str> {
        &self.sources[id.0 as usize]
    }

    /// All sources' names, in the config's order.
    pub fn sources(&self) -> &[Arc<str>] {
        &self.sources
    }

    /// An instrument by its number.
    pub fn instrument(&self, id: InstrumentId) -> &InstrumentInfo {
        self.instruments.get(id.0 as usize)
    }

    /// All instruments, in the order of their symbols.
    pub fn instruments(&self) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        self.by_symbol.iter().map(|id| self.instrument(*id))
    }

    /// The instruments at some of these places.
    pub fn instruments_at(
        &self,
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        self.by_symbol[places].iter().map(|id| self.instrument(*id))
    }

    /// The places that a symbol, or one that ends in `*`, has among the instruments.
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

    /// The topic of that name.
    pub fn find(&self, topic: &Topic) -> Option<TopicId> {
        let list = &self.by_channel[topic.channel.index()];
        list.binary_search_by(|id| self.topic(*id).topic.symbol.cmp(&topic.symbol))
            .ok()
            .map(|at| list[at])
    }

    /// The topics that a pattern means, in the order of their symbols.
    pub fn matching(&self, pattern: &TopicPattern) -> &[TopicId] {
        let list = &self.by_channel[pattern.channel.index()];
        let symbol = |id: &TopicId| self.topics.get(id.index()).topic.symbol.as_str();
        let from = list.partition_point(|id| symbol(id) < &*pattern.prefix);
        let len = list[from..].partition_point(|id| symbol(id).starts_with(&*pattern.prefix));
        &list[from..from + len]
    }

    /// The topic of the same channel whose symbol is most like `topic`'s: for an error's message.
    pub fn nearest(&self, topic: &Topic) -> Option<&TopicInfo> {
        let upper = Topic {
            channel: topic.channel,
            symbol: Symbol::new(&topic.symbol.as_str().to_ascii_uppercase()).ok()?,
        };
        if let Some(id) = self.find(&upper) {
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
            .max_by_key(|id| common(id))
            .map(|id| &**self.topic(*id))
    }
}
