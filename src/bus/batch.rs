use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::{Catalog, InstrumentId, SourceId, TopicId};
use crate::market::{Body, TradeId, UnixNanos};
use crate::metrics::Metrics;
use crate::protocol::{Encoding, Epoch, SourceCondition, encode_event};
use crate::replica::RestoredTopic;

/// One event, numbered and stamped.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose.
    pub topic: TopicId,
    /// Its number within the topic's epoch.
    pub seq: u64,
    /// When the bus published it.
    pub tx: UnixNanos,
    /// What it says.
    pub body: Body,
}

impl Event {
    /// About how many bytes of memory it takes.
    pub fn footprint(&self) -> usize {
        let text = match &self.body {
            Body::Trade(trade) => match &trade.id {
                TradeId::Text(text) => text.len(),
                TradeId::None | TradeId::Number(_) => 0,
            },
            _ => 0,
        };
        size_of::<Self>() + text
    }

    /// Whether this is the last event of a bar, which no mode swallows.
    pub fn closes_bar(&self) -> bool {
        matches!(&self.body, Body::Bar(bar) if bar.done)
    }
}

/// What the log says, in order.
#[derive(Debug)]
pub enum LogItem {
    /// An event of a topic.
    Event(Event),
    /// Topics that are new; the batch's catalog knows them.
    Topics {
        /// Their numbers.
        new: Range<u32>,
        /// Those of them that don't begin with nothing, because the server was there before.
        restored: Vec<(TopicId, Arc<RestoredTopic>)>,
    },
    /// Instruments that are described otherwise now; the batch's catalog has their description.
    Instruments(Vec<InstrumentId>),
    /// A topic begins a new epoch at sequence number 0.
    Epoch {
        /// Which topic.
        topic: TopicId,
        /// Its epoch from here on.
        epoch: Epoch,
    },
    /// A source changed its state.
    Source {
        /// Which source.
        source: SourceId,
        /// Its state from here on.
        condition: SourceCondition,
    },
}

/// The bytes of a batch's events in one encoding, one after the other.
#[derive(Debug)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Where each item's bytes end; an item that is no event has none.
    ends: Vec<u32>,
}

impl Encoded {
    /// The bytes of the item at `at`.
    pub fn item(&self, at: usize) -> &[u8] {
        let from = if at == 0 {
            0
        } else {
            self.ends[at - 1] as usize
        };
        &self.bytes[from..self.ends[at] as usize]
    }
}

/// What the bus publishes at once; immutable and shared by all shards.
#[derive(Debug)]
pub struct Batch {
    /// What it says, in order.
    pub items: Vec<LogItem>,
    /// The instruments and topics as of its end.
    pub catalog: Arc<Catalog>,
    encoded: [OnceLock<Encoded>; 2],
}

/// Memory of an item's share of the bytes in both encodings, for the log's bound.
const ENCODED_BYTES_GUESS: usize = 128;

impl Batch {
    /// A batch whose bytes nobody needed yet.
    pub fn new(items: Vec<LogItem>, catalog: Arc<Catalog>) -> Self {
        Self {
            items,
            catalog,
            encoded: [const { OnceLock::new() }; 2],
        }
    }

    /// About how many bytes of memory it takes, its encodings included.
    pub fn footprint(&self) -> usize {
        size_of::<Self>() + self.items.len() * (size_of::<LogItem>() + ENCODED_BYTES_GUESS)
    }

    /// The events' bytes in `encoding`: made by whoever asks first, shared by all after.
    pub fn encoded(&self, encoding: Encoding, metrics: &Metrics) -> &Encoded {
        self.encoded[encoding.index()].get_or_init(|| {
            let mut bytes = Vec::with_capacity(self.items.len() * ENCODED_BYTES_GUESS);
            let mut events = 0;
            let ends = self.items.iter().map(|item| {
                if let LogItem::Event(event) = item {
                    let head = &self.catalog.topic(event.topic).head;
                    encode_event(&mut bytes, encoding, head, event.seq, event.tx, &event.body);
                    events += 1;
                }
                bytes.len() as u32
            });
            let ends = ends.collect();
            bytes.shrink_to_fit();
            metrics.encoded[encoding.index()].inc_by(events);
            Encoded { bytes, ends }
        })
    }
}
