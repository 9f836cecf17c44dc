use super::TopicId;
use crate::market::{Body, TradeId, UnixNanos};
use crate::protocol::Seq;

/// Published event, with sequence number and publication time.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Topic of the event.
    pub topic: TopicId,
    /// Sequence number within the epoch of the topic.
    pub seq: Seq,
    /// Publication time.
    pub tx: UnixNanos,
    /// Content of the event.
    pub body: Body,
}

impl Event {
    /// Approximate memory footprint, in bytes.
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
