use super::Seq;
use crate::market::{Body, UnixNanos};
use crate::topic::Topic;

/// Data event, as a client receives it.
#[derive(Debug, Clone, PartialEq)]
pub struct DataEvent {
    /// Topic of the event.
    pub topic: Topic,
    /// Sequence number within the epoch of the topic.
    pub seq: Seq,
    /// Publication time.
    pub tx: UnixNanos,
    /// Content of the event, including the event time of the source.
    pub body: Body,
}
