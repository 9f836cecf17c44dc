use std::sync::Arc;

use crate::log::{Batch, Event, LogItem};
use crate::protocol::{Encoding, Seq};

/// Position of an event in this turn, with the position of the next event of its topic.
#[derive(Debug, Clone, Copy)]
pub struct EventRef {
    /// Index of the batch within the turn.
    pub batch: u32,
    /// Index of the item within the batch.
    pub item: u32,
    /// Index of the topic's next event among the references of the turn; [`EventRef::END`] for the
    /// last one.
    pub next: u32,
}

impl EventRef {
    /// No event follows.
    pub const END: u32 = u32::MAX;
}

/// Consecutive events of one topic and epoch in one turn, as bytes of one encoding.
#[derive(Debug, Clone, Copy)]
pub struct EventRange<'a> {
    /// Batches of the turn.
    pub batches: &'a [Arc<Batch>],
    /// References to the events of the turn.
    pub places: &'a [EventRef],
    /// Index of the first event's reference.
    pub at: u32,
    /// The sequence number of the first event.
    pub first: Seq,
    /// The sequence number of the last event.
    pub last: Seq,
    /// Bytes of all events, joined as in an array.
    pub joined: &'a [u8],
    /// Encoding of the bytes.
    pub encoding: Encoding,
}

impl<'a> EventRange<'a> {
    /// Number of events, at least one.
    pub const fn count(&self) -> u64 {
        self.last.since(self.first) + 1
    }

    /// Each event with its bytes, in order.
    pub fn events(&self) -> impl Iterator<Item = (&'a Event, &'a [u8])> + use<'a> {
        let Self {
            batches,
            places,
            encoding,
            ..
        } = *self;
        let mut at = self.at;
        std::iter::from_fn(move || {
            let place = places.get(at as usize)?;
            at = place.next;
            let batch = &batches[place.batch as usize];
            let LogItem::Event(event) = &batch.items[place.item as usize] else {
                return None;
            };
            // The shard has encoded the batch, and counted its events, when it assigned the range.
            let (encoded, _) = batch.encode(encoding);
            Some((event, encoded.item(place.item as usize)))
        })
    }
}
