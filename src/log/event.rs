use super::TopicId;
use crate::market::{Body, TradeId, UnixNanos};
use crate::protocol::Seq;

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
