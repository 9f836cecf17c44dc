use std::collections::VecDeque;

use super::Event;
use super::source_gap::SourceGaps;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Seq};
use crate::topic::{Channel, Kind};

/// Number of ended epochs kept per topic, so that an overrun reader can identify the events it
/// missed.
pub const ENDED_EPOCHS_KEPT: usize = 16;

/// State of one topic at one position of the log.
#[derive(Debug, Clone)]
pub(super) struct TopicState {
    pub(super) epoch: Epoch,
    pub(super) head: Seq,
    /// Consecutive events, newest last; never empty once an event has been published.
    pub(super) recent: VecDeque<Event>,
    /// Last events of closed bars, newest last; used only by `bar` topics.
    pub(super) closed: VecDeque<Event>,
    /// Sequence number of the last event of the newest closed bar that is no longer kept.
    pub(super) closed_evicted: Seq,
    /// Most recent ended epochs, newest last: generation and last sequence number of each.
    pub(super) ended: VecDeque<(u32, Seq)>,
    /// Source gaps of the epoch.
    pub(super) source_gaps: SourceGaps,
    pub(super) kind: Kind,
}

/// Initial state of a restored topic.
#[derive(Debug)]
pub struct RestoredTopic(pub(super) TopicState);

impl TopicState {
    pub(super) fn new(epoch: Epoch, channel: Channel) -> Self {
        Self {
            epoch,
            head: Seq::START,
            recent: VecDeque::new(),
            closed: VecDeque::new(),
            closed_evicted: Seq::START,
            ended: VecDeque::new(),
            source_gaps: SourceGaps::default(),
            kind: channel.kind(),
        }
    }

    /// Oldest sequence number still kept; `head` + 1 if there is none.
    pub(super) fn first_kept(&self) -> Seq {
        Seq(self.head.0 + 1 - self.recent.len() as u64)
    }

    /// Removes events beyond `events` or published before `oldest`, except those that snapshots
    /// need; returns the freed memory.
    pub(super) fn trim(&mut self, events: usize, oldest: UnixNanos) -> usize {
        let mut bytes = 0;
        while self.recent.len() > self.floor()
            && (self.recent.len() > events
                || self.recent.front().is_some_and(|event| event.tx < oldest))
        {
            bytes += self.recent.pop_front().map_or(0, |old| old.footprint());
        }
        bytes
    }

    /// Notes the end of the current epoch.
    pub(super) fn end_epoch(&mut self) {
        self.ended.push_back((self.epoch.generation, self.head));
        if self.ended.len() > ENDED_EPOCHS_KEPT {
            self.ended.pop_front();
        }
    }

    pub(super) fn trimmed(&self) -> Self {
        let skip = self.recent.len().saturating_sub(self.floor());
        Self {
            recent: self.recent.iter().skip(skip).cloned().collect(),
            ..self.clone_without_recent()
        }
    }

    fn clone_without_recent(&self) -> Self {
        Self {
            epoch: self.epoch,
            head: self.head,
            recent: VecDeque::new(),
            closed: self.closed.clone(),
            closed_evicted: self.closed_evicted,
            ended: self.ended.clone(),
            source_gaps: self.source_gaps.clone(),
            kind: self.kind,
        }
    }
}
