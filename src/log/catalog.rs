use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::market::{Instrument, Symbol};
use crate::protocol::EventHead;
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

/// What never changes of a topic.
#[derive(Debug)]
pub struct TopicInfo {
    /// Its number.
    pub id: TopicId,
    /// What it is.
    pub topic: Topic,
    /// The topic as a text.
    pub text: Box<str>,
    /// What its events begin with.
    pub head: EventHead,
    /// Whose topic it is.
    pub source: SourceId,
}

/// An instrument with its topics.
#[derive(Debug)]
pub struct InstrumentInfo {
    /// What is known of it.
    pub instrument: Instrument,
    /// Who emits it.
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

/// Entries of one piece of a [`Shared`] list.
const PIECE: usize = 1024;

/// A list that grows at its end and is copied in pieces: a copy shares them, and a change copies one.
#[derive(Debug)]
struct Shared<T> {
    pieces: Vec<Arc<Vec<Arc<T>>>>,
    len: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            pieces: self.pieces.clone(),
            len: self.len,
        }
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Shared<T> {
    fn push(&mut self, entry: T) {
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push(Arc::default());
        }
        if let Some(last) = self.pieces.last_mut() {
            Arc::make_mut(last).push(Arc::new(entry));
        }
        self.len += 1;
    }

    fn get(&self, at: usize) -> &Arc<T> {
        &self.pieces[at / PIECE][at % PIECE]
    }

    fn set(&mut self, at: usize, entry: T) {
        Arc::make_mut(&mut self.pieces[at / PIECE])[at % PIECE] = Arc::new(entry);
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

/// Puts sorted entries into a sorted list: a search for each, and one pass over the list.
fn merge<T: Copy>(list: &mut Vec<T>, new: &[T], order: impl Fn(&T, &T) -> Ordering) {
    let mut end = list.len();
    list.extend_from_slice(new);
    for (before, entry) in new.iter().enumerate().rev() {
        let at = list[..end].partition_point(|known| order(known, entry).is_lt());
        list.copy_within(at..end, at + before + 1);
        list[at + before] = *entry;
        end = at;
    }
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
        let mut new = HashMap::new();
        let added = instruments
            .into_iter()
            .map(|instrument| self.add_one(source, instrument, &mut new))
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
        let mut new: Vec<InstrumentId> = new.into_values().collect();
        new.sort_unstable_by(by_name);
        merge(by_symbol, &new, by_name);
        let by_name = |a: &TopicId, b: &TopicId| {
            let symbol = |id: &TopicId| &topics.get(id.index()).topic.symbol;
            symbol(a).cmp(symbol(b))
        };
        let mut new = [const { Vec::new() }; Channel::COUNT];
        for id in (first_topic..topics.len as u32).map(TopicId) {
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
        let of = |(at, info): (usize, &Arc<InstrumentInfo>)| {
            (info.source == source).then_some(InstrumentId(at as u32))
        };
        self.instruments.iter().enumerate().filter_map(of).collect()
    }

    fn add_one(
        &mut self,
        source: SourceId,
        instrument: Instrument,
        new: &mut HashMap<Symbol, InstrumentId>,
    ) -> Result<InstrumentId, NotAdded> {
        let known = self
            .of_symbol(&instrument.symbol)
            .or_else(|| new.get(&instrument.symbol).copied());
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
        if self
            .instruments_max
            .is_some_and(|max| self.instruments.len >= max)
        {
            return Err(NotAdded::Limit);
        }
        let id = InstrumentId(self.instruments.len as u32);
        let topics = self.add_topics(&instrument, [None; Channel::COUNT], source);
        new.insert(instrument.symbol.clone(), id);
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

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len
    }

    /// Whether there is none yet.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn merging_agrees_with_sorting(mut list in proptest::collection::vec(0u32..100, 0..40), mut new in proptest::collection::vec(0u32..100, 0..40)) {
            list.sort_unstable();
            new.sort_unstable();
            let mut expected = [list.clone(), new.clone()].concat();
            expected.sort_unstable();
            merge(&mut list, &new, Ord::cmp);
            prop_assert_eq!(list, expected);
        }
    }
}
