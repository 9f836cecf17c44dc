//! Topic state saved across a restart of the server, with events in wire format.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::source_gap::{SOURCE_GAPS_KEPT, SourceGap, SourceGaps};
use super::topic_state::{RestoredTopic, TopicState};
use super::{Checkpoint, Replica};
use crate::codec::{decode_server_message, encode_event};
use crate::log::{CLOSED_BARS_KEPT, ENDED_EPOCHS_KEPT, Event, TopicId, TopicInfo};
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
    /// Number of source gaps, including joined ones; 0: that of `source_gaps`.
    #[serde(default, skip_serializing_if = "is_zero")]
    source_gap_count: u64,
    /// Most recent ended epochs, newest last; empty: only the one before, with `ended_at`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<(u32, Seq)>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde requires"
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
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
            SavedTopic::of(state, self.catalog.topic(TopicId(at as u32)))
        };
        with_events.map(save).collect()
    }
}

impl Checkpoint {
    /// Saved state of all topics, in the order of their numbers.
    pub fn save(&self) -> Vec<SavedTopic> {
        let topics = self.topics.iter().enumerate();
        topics
            .map(|(at, state)| SavedTopic::of(state, self.catalog.topic(TopicId(at as u32))))
            .collect()
    }
}

impl SavedTopic {
    fn of(state: &TopicState, info: &TopicInfo) -> Self {
        let recent_gaps = state.source_gaps.recent();
        let is_usual = |(generation, _): &(u32, Seq)| generation + 1 == state.epoch.generation;
        let joined = state.source_gaps.count() > recent_gaps.len() as u64;
        Self {
            topic: info.text.to_string(),
            generation: state.epoch.generation,
            head: state.head,
            ended_at: state.ended.back().map_or(Seq::START, |(_, seq)| *seq),
            closed_evicted: state.closed_evicted,
            recent: write(info, &state.recent),
            closed: write(info, &state.closed),
            source_gaps: recent_gaps.to_vec(),
            source_gap_count: if joined { state.source_gaps.count() } else { 0 },
            ended: if state.ended.len() > 1 || !state.ended.iter().all(is_usual) {
                state.ended.iter().copied().collect()
            } else {
                Vec::new()
            },
        }
    }

    /// Ended epochs, newest last.
    fn ended_epochs(&self) -> VecDeque<(u32, Seq)> {
        if !self.ended.is_empty() {
            return self.ended.iter().copied().collect();
        }
        let last = self.generation.checked_sub(1);
        last.map(|generation| (generation, self.ended_at))
            .into_iter()
            .collect()
    }

    /// True if the saved events can be those of the topic.
    fn is_consistent(
        &self,
        recent: &VecDeque<Event>,
        closed: &VecDeque<Event>,
        info: &TopicInfo,
    ) -> bool {
        let is_whole = recent
            .iter()
            .rev()
            .zip((1..=self.head.0).rev().map(Seq))
            .all(|(event, seq)| event.seq == seq);
        let channel = info.topic.channel;
        let fits = |event: &Event| event.body.fits(channel);
        is_whole
            && (self.head == Seq::START || !recent.is_empty())
            && recent.len() as u64 <= self.head.0
            && recent.iter().all(fits)
            && closed
                .iter()
                .all(|event| fits(event) && event.seq <= self.head)
            && closed.len() <= CLOSED_BARS_KEPT
            && self.ended.len() <= ENDED_EPOCHS_KEPT
            && self.source_gaps.len() <= SOURCE_GAPS_KEPT
    }
}

impl RestoredTopic {
    /// Resumes from the saved state; `None` if it is inconsistent.
    pub fn goes_on(saved: &SavedTopic, info: &TopicInfo, origin: u64) -> Option<Self> {
        let (recent, closed) = (read(info.id, &saved.recent)?, read(info.id, &saved.closed)?);
        if !saved.is_consistent(&recent, &closed, info) {
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
            ended: saved.ended_epochs(),
            source_gaps: SourceGaps::restored(saved.source_gap_count, saved.source_gaps.clone()),
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
