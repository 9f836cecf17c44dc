use std::ops::Range;
use std::sync::Arc;

use super::{Event, InstrumentId, RestoredTopic, SourceId, SourceInput, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, SourceState};

/// State of a source and the time of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCondition {
    /// State of the source.
    pub state: SourceState,
    /// Time of the change.
    pub since: UnixNanos,
    /// Failure that ended the source, if any.
    pub error: Option<Arc<str>>,
}

/// Item of the log.
#[derive(Debug)]
pub enum LogItem {
    /// An event of a topic.
    Event(Event),
    /// Announced instruments and their new topics, which the catalog of the batch contains.
    Topics {
        /// Announced instruments, whether new, described again or listed again.
        instruments: Vec<InstrumentId>,
        /// Range of topic numbers.
        new: Range<u32>,
        /// New topics with state restored from a previous run of the server.
        restored: Vec<(TopicId, Arc<RestoredTopic>)>,
    },
    /// Instruments with a changed description, which the catalog of the batch contains.
    Instruments(Vec<InstrumentId>),
    /// Removed instruments: their topics end, and the catalog of the batch does not list them.
    Removed(Vec<InstrumentId>),
    /// Previously removed instruments that are listed again.
    Returned(Vec<InstrumentId>),
    /// Instruments move to another source; their topics begin new epochs.
    Moved {
        /// Numbers of the instruments.
        instruments: Vec<InstrumentId>,
        /// Source of the instruments from this item on.
        source: SourceId,
    },
    /// A topic begins a new epoch at sequence number 0.
    Epoch {
        /// Number of the topic.
        topic: TopicId,
        /// Epoch of the topic from this item on.
        epoch: Epoch,
    },
    /// The source of a topic missed data at this position of the stream.
    Missed {
        /// Number of the topic.
        topic: TopicId,
        /// Number of trades or quotes that the source missed, if known.
        missing: Option<u64>,
    },
    /// A source changed its state.
    Source {
        /// Number of the source.
        source: SourceId,
        /// State of the source from this item on.
        condition: SourceCondition,
    },
    /// Input of a source at this position.
    Input {
        /// Number of the source.
        source: SourceId,
        /// The input.
        input: SourceInput,
    },
}
