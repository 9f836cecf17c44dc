use std::sync::{Arc, OnceLock};

use super::{Catalog, LogItem};
use crate::codec::encode_event;
use crate::protocol::{Encoding, PerEncoding};

/// Encoded events of a batch in one encoding, concatenated.
#[derive(Debug)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// End offset of each item's bytes; an item that is not an event is empty.
    ends: Vec<u32>,
}

impl Encoded {
    /// Bytes of the item at index `at`.
    pub fn item(&self, at: usize) -> &[u8] {
        let from = if at == 0 {
            0
        } else {
            self.ends[at - 1] as usize
        };
        &self.bytes[from..self.ends[at] as usize]
    }
}

/// A batch of published items; immutable and shared by all shards.
#[derive(Debug)]
pub struct Batch {
    /// Items, in order.
    pub items: Vec<LogItem>,
    /// Instruments and topics as of the end of the batch.
    pub catalog: Arc<Catalog>,
    encoded: PerEncoding<OnceLock<Encoded>>,
}

/// Estimated size of an item in all encodings, in bytes, for the memory bound of the log.
const ENCODED_BYTES_GUESS: usize = 128;

impl Batch {
    /// Creates a batch that is not encoded yet.
    pub fn new(items: Vec<LogItem>, catalog: Arc<Catalog>) -> Self {
        Self {
            items,
            catalog,
            encoded: PerEncoding::default(),
        }
    }

    /// Approximate memory footprint in bytes, including the encodings.
    pub fn footprint(&self) -> usize {
        size_of::<Self>() + self.items.len() * (size_of::<LogItem>() + ENCODED_BYTES_GUESS)
    }

    /// Events of the batch in `encoding`, encoded by the first caller and shared by all others,
    /// with the number of events that this call encoded.
    pub fn encode(&self, encoding: Encoding) -> (&Encoded, u64) {
        let mut events = 0;
        let encoded = self.encoded[encoding].get_or_init(|| {
            let mut bytes = Vec::with_capacity(self.items.len() * ENCODED_BYTES_GUESS);
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
            Encoded { bytes, ends }
        });
        (encoded, events)
    }
}
