use std::ops::Range;
use std::sync::Arc;

use super::{Event, InstrumentId, RestoredTopic, SourceId, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, SourceState};

/// State of a source and the time of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCondition {
    /// State of the source.
    pub state: SourceState,
    /// Time of the change.
    pub since: UnixNanos,
    /// Reason, if the source ended with a failure.
    pub error: Option<Arc<str>>,
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
