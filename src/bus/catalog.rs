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

/// All instruments and topics. Each batch of the log holds the catalog it was made with; a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    sources: Vec<Arc<str>>,
    instruments: Vec<Arc<InstrumentInfo>>,
    topics: Vec<Arc<TopicInfo>>,
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

    /// Adds instruments; those whose symbol another source has are left out, and their numbers come back as `None`.
    pub fn add(
        &mut self,
        source: SourceId,
        instruments: Vec<Instrument>,
    ) -> Vec<Option<InstrumentId>> {
        let added = instruments
            .into_iter()
            .map(|instrument| self.add_one(source, instrument))
            .collect();
        let Self {
            topics, by_channel, ..
        } = self;
        for list in by_channel {
            list.sort_by(|a, b| {
                topics[a.index()]
                    .topic
                    .symbol
                    .cmp(&topics[b.index()].topic.symbol)
            });
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

    fn add_one(&mut self, source: SourceId, instrument: Instrument) -> Option<InstrumentId> {
        let place = match self.symbol_place(&instrument.symbol) {
            Err(place) => place,
            Ok(place) => {
                let id = self.by_symbol[place];
                let known = &self.instruments[id.0 as usize];
                if known.source != source {
                    return None;
                }
                // The same source tells it again; it may describe it otherwise, and have more channels.
                let topics = self.add_topics(&instrument, known.topics, source);
                self.instruments[id.0 as usize] = Arc::new(InstrumentInfo {
                    instrument,
                    source,
                    topics,
                });
                return Some(id);
            }
        };
        let id = InstrumentId(self.instruments.len() as u32);
        let topics = self.add_topics(&instrument, [None; Channel::COUNT], source);
        self.by_symbol.insert(place, id);
        self.instruments.push(Arc::new(InstrumentInfo {
            instrument,
            source,
            topics,
        }));
        Some(id)
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
            let topic_id = TopicId(self.topics.len() as u32);
            topics[channel.index()] = Some(topic_id);
            self.by_channel[channel.index()].push(topic_id);
            self.topics.push(Arc::new(TopicInfo {
                id: topic_id,
                text: topic.to_string().into(),
                head: EventHead::new(&topic),
                topic,
                source,
            }));
        }
        topics
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
        } = &*self.instruments[id.0 as usize];
        let info = InstrumentInfo {
            instrument: instrument.clone(),
            source,
            topics: *topics,
        };
        for topic in topics.iter().flatten() {
            let old = &*self.topics[topic.index()];
            let (topic, text, head) = (
                old.topic.clone(),
                old.text.clone(),
                EventHead::new(&old.topic),
            );
            let at = old.id.index();
            self.topics[at] = Arc::new(TopicInfo {
                id: old.id,
                topic,
                text,
                head,
                source,
            });
        }
        self.instruments[id.0 as usize] = Arc::new(info);
    }

    fn symbol_place(&self, symbol: &Symbol) -> Result<usize, usize> {
        self.by_symbol.binary_search_by(|id| {
            self.instruments[id.0 as usize]
                .instrument
                .symbol
                .cmp(symbol)
        })
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// A topic by its number.
    pub fn topic(&self, id: TopicId) -> &Arc<TopicInfo> {
        &self.topics[id.index()]
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
        &self.instruments[id.0 as usize]
    }

    /// All instruments, in the order of their symbols.
    pub fn instruments(&self) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        self.by_symbol.iter().map(|id| self.instrument(*id))
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
        let symbol = |id: &TopicId| self.topics[id.index()].topic.symbol.as_str();
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
