use super::Seq;
use crate::market::{Body, UnixNanos};
use crate::topic::Topic;

/// One event as a client receives it.
#[derive(Debug, Clone, PartialEq)]
pub struct DataEvent {
    /// Channel, param and symbol.
    pub topic: Topic,
    /// Its number within the topic's epoch.
    pub seq: Seq,
    /// Publication time.
    pub tx: UnixNanos,
    /// Content of the event, with the source's own time.
    pub body: Body,
}
