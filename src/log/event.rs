use std::ops::Range;
use std::sync::Arc;

use super::{InstrumentId, RestoredTopic, SourceId, TopicId};
use crate::market::{Body, TradeId, UnixNanos};
use crate::protocol::{Epoch, Seq, SourceCondition};

/// One event, numbered and stamped.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Topic of the event.
    pub topic: TopicId,
    /// Its number within the topic's epoch.
    pub seq: Seq,
    /// Publication time.
    pub tx: UnixNanos,
    /// Content of the event.
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
}

/// An item of the log, in order.
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
    /// Instruments that are no longer there: their topics end. The batch's catalog doesn't list them.
    Removed(Vec<InstrumentId>),
    /// Instruments that had been removed and are there again.
    Returned(Vec<InstrumentId>),
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
