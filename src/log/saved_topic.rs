//! Topic state saved across a restart of the server, with events in wire format.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Replica;
use super::source_gap::{SourceGap, SourceGaps};
use super::topic_state::{RestoredTopic, TopicState};
use crate::codec::{decode_server_message, encode_event};
use crate::log::{Event, TopicId, TopicInfo};
use crate::protocol::{DataEvent, Encoding, Epoch, Seq, ServerMessage};

/// Saved state of one topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedTopic {
    /// Name of the topic.
    pub topic: String,
    /// Generation of its epoch.
    #[serde(alias = "generation")]
    pub generation: u32,
    /// Sequence number of its newest event.
    pub head: Seq,
    ended_at: Seq,
    closed_evicted: Seq,
    recent: Bytes,
    closed: Bytes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    source_gaps: Vec<SourceGap>,
}

/// Encodes events as a MessagePack array.
fn write(info: &TopicInfo, events: &VecDeque<Event>) -> Bytes {
    let mut bytes = vec![0xdd];
    bytes.extend_from_slice(&(events.len() as u32).to_be_bytes());
    for event in events {
        encode_event(
            &mut bytes,
            Encoding::Msgpack,
            &info.head,
            event.seq,
            event.tx,
            &event.body,
        );
    }
    bytes.into()
}

fn read(topic: TopicId, bytes: &[u8]) -> Option<VecDeque<Event>> {
    let Ok(ServerMessage::Events(events)) = decode_server_message(bytes, Encoding::Msgpack) else {
        return None;
    };
    let event = |DataEvent { seq, tx, body, .. }| Event {
        topic,
        seq,
        tx,
        body,
    };
    Some(events.into_iter().map(event).collect())
}

impl Replica {
    /// Saved state of all topics that have events.
    pub fn save(&self) -> Vec<SavedTopic> {
        let with_events = self
            .topics
            .iter()
            .enumerate()
            .filter(|(_, state)| state.head > Seq::START || state.epoch.generation > 0);
        let save = |(at, state): (usize, &TopicState)| {
            let info = self.catalog.topic(TopicId(at as u32));
            SavedTopic {
                topic: info.text.to_string(),
                generation: state.epoch.generation,
                head: state.head,
                ended_at: state.ended.back().map_or(Seq::START, |(_, seq)| *seq),
                closed_evicted: state.closed_evicted,
                recent: write(info, &state.recent),
                closed: write(info, &state.closed),
                source_gaps: state.source_gaps.recent().to_vec(),
            }
        };
        with_events.map(save).collect()
    }
}

impl RestoredTopic {
    /// Resumes from the saved state; `None` if it is inconsistent.
    pub fn goes_on(saved: &SavedTopic, info: &TopicInfo, origin: u64) -> Option<Self> {
        let (recent, closed) = (read(info.id, &saved.recent)?, read(info.id, &saved.closed)?);
        let is_whole = recent
            .iter()
            .rev()
            .zip((1..=saved.head.0).rev().map(Seq))
            .all(|(event, seq)| event.seq == seq);
        if !is_whole
            || (saved.head > Seq::START && recent.is_empty())
            || recent.len() as u64 > saved.head.0
        {
            return None;
        }
        Some(Self(TopicState {
            epoch: Epoch {
                origin,
                generation: saved.generation,
            },
            head: saved.head,
            recent,
            closed,
            closed_evicted: saved.closed_evicted,
            ended: saved
                .generation
                .checked_sub(1)
                .map(|generation| (generation, saved.ended_at))
                .into_iter()
                .collect(),
            source_gaps: SourceGaps::restored(saved.source_gaps.clone()),
            kind: info.topic.channel.kind(),
        }))
    }

    /// Starts over in the epoch after the saved one.
    pub fn starts_over(saved: &SavedTopic, info: &TopicInfo, origin: u64) -> Self {
        let epoch = Epoch {
            origin,
            generation: saved.generation,
        }
        .next();
        Self(TopicState {
            ended: VecDeque::from([(saved.generation, saved.head)]),
            ..TopicState::new(epoch, info.topic.channel)
        })
    }
}
