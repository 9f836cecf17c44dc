use std::collections::VecDeque;

use super::Event;
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Seq};
use crate::topic::{Channel, Kind};

/// State of one topic as of an item of the log.
#[derive(Debug, Clone)]
pub(super) struct TopicState {
    pub(super) epoch: Epoch,
    pub(super) head: Seq,
    /// Consecutive events, the newest last; never empty once something was published.
    pub(super) recent: VecDeque<Event>,
    /// The last events of closed bars, the newest last; only of `bar` topics.
    pub(super) closed: VecDeque<Event>,
    /// The last event of the newest closed bar that is no longer kept.
    pub(super) closed_evicted: Seq,
    /// The newest epochs before this one, the newest last: turn and last sequence number of each.
    pub(super) ended: VecDeque<(u32, Seq)>,
    pub(super) kind: Kind,
}

/// A topic's state to begin with.
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
            kind: channel.kind(),
        }
    }

    /// The oldest event that is still there; the number after `head` where none is.
    pub(super) fn first_kept(&self) -> Seq {
        Seq(self.head.0 + 1 - self.recent.len() as u64)
    }

    /// Forgets events beyond so many, or published before `oldest`, but for what snapshots need; returns their memory.
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
            kind: self.kind,
        }
    }
}
