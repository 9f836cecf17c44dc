//! Last-value cache: encoded newest events of each topic for conflated subscriptions, shared by all
//! clients.

use super::Counts;
use crate::codec::encode_event;
use crate::log::{Event, Replica, TopicId};
use crate::protocol::{Encoding, PerEncoding, Seq};

#[derive(Debug, Default)]
struct Kept {
    seq: Seq,
    generation: u32,
    bytes: Vec<u8>,
}

/// Newest event of each topic, and the newest one that must be kept, as bytes in each encoding.
#[derive(Debug, Default)]
pub struct LastValueCache {
    topics: Vec<PerEncoding<[Kept; 2]>>,
    scratch: Vec<u8>,
}

impl LastValueCache {
    fn place(&mut self, topic: TopicId, encoding: Encoding, must_keep: bool) -> &mut Kept {
        if self.topics.len() <= topic.index() {
            self.topics.resize_with(topic.index() + 1, Default::default);
        }
        &mut self.topics[topic.index()][encoding][usize::from(must_keep)]
    }

    /// Caches the bytes of an event that its batch has already encoded.
    pub fn keep(&mut self, event: &Event, generation: u32, encoding: Encoding, bytes: &[u8]) {
        let kept = self.place(event.topic, encoding, event.must_keep());
        (kept.seq, kept.generation) = (event.seq, generation);
        kept.bytes.clear();
        kept.bytes.extend_from_slice(bytes);
    }

    /// Bytes of an event: cached, or encoded now and cached if newer.
    pub fn bytes(
        &mut self,
        replica: &Replica,
        event: &Event,
        encoding: Encoding,
        counts: &mut Counts,
    ) -> &[u8] {
        let generation = replica.epoch(event.topic).generation;
        let must_keep = event.must_keep();
        let kept = self.place(event.topic, encoding, must_keep);
        if (kept.seq, kept.generation) == (event.seq, generation) {
            return &self.place(event.topic, encoding, must_keep).bytes;
        }
        // A snapshot or a catch-up asks for older events too, which must not displace the newest.
        let is_newer = kept.generation != generation || kept.seq < event.seq;
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        encode_event(
            &mut bytes,
            encoding,
            &replica.catalog().topic(event.topic).head,
            event.seq,
            event.tx,
            &event.body,
        );
        counts.encoded[encoding] += 1;
        self.scratch = bytes;
        if is_newer {
            let bytes = std::mem::take(&mut self.scratch);
            self.keep(event, generation, encoding, &bytes);
            self.scratch = bytes;
        }
        &self.scratch
    }
}
