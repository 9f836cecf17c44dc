//! Conflation rules: which events of a topic may replace which others.
//!
//! The only file that decides by [`Kind`]. The history, sessions, outboxes and snapshots use it or
//! [`Kind::conflates`]:
//!
//! | kind | a newer event replaces | every client must get | a conflated or returning client gets |
//! |---|---|---|---|
//! | [`Kind::Event`]: trades | nothing | all events | all events |
//! | [`Kind::State`]: quotes, tickers, status | all older events | the newest event | the newest event |
//! | [`Kind::Bar`]: bars | older events of the same bar | the last event of each bar | the closed bars, then the open one |
//!
//! To add a kind, add a variant to [`Kind`]; the compiler lists the matches to extend. Order-book
//! changes, for example, fit none of these kinds: no change replaces another, but a snapshot of the
//! book replaces everything before it.
//!
//! The rules are below the outbox because the history also depends on them: it retains the events
//! that conflation must not skip.

use std::collections::VecDeque;

use super::topic_state::TopicState;
use super::{Event, Replica, TopicId};
use crate::market::Body;
use crate::protocol::Seq;
use crate::topic::Kind;

/// Number of trades in a snapshot if the request does not specify one.
pub const SNAPSHOT_TRADES: usize = 50;

/// Number of events in a snapshot for the requested number, or the default if the request does not
/// specify one.
pub const fn snapshot_events(kind: Kind, wanted: Option<usize>) -> usize {
    match (kind, wanted) {
        (Kind::Event | Kind::Bar, Some(events)) => events,
        (Kind::Event, None) => SNAPSHOT_TRADES,
        (Kind::Bar, None) | (Kind::State, _) => 1,
    }
}

/// True if a request may specify the number of events in a snapshot.
pub const fn is_snapshot_sized(kind: Kind) -> bool {
    match kind {
        Kind::Event | Kind::Bar => true,
        Kind::State => false,
    }
}

/// True if a snapshot replaces all older events that a conflated client has not received. A
/// snapshot of bars does not: bars that closed in the meantime precede it.
pub const fn snapshot_replaces_all(kind: Kind) -> bool {
    match kind {
        Kind::Event | Kind::State => true,
        Kind::Bar => false,
    }
}

impl Event {
    /// True if no newer event may replace this one although its channel conflates: the last event
    /// of a bar.
    pub fn must_keep(&self) -> bool {
        matches!(&self.body, Body::Bar(bar) if bar.done)
    }
}

/// Events that a conflated client receives in place of all events after a given one.
#[derive(Debug)]
pub struct CatchUp<I> {
    /// Newest event that the client should receive but that is no longer kept; a gap up to it is
    /// reported first.
    pub evicted: Option<Seq>,
    /// Events that follow, in order.
    pub events: I,
}

impl Replica {
    /// Events for a conflated client that has received all events up to `after`.
    pub fn catch_up(
        &self,
        topic: TopicId,
        after: Seq,
    ) -> CatchUp<impl DoubleEndedIterator<Item = &Event>> {
        let state = &self.topics[topic.index()];
        debug_assert!(state.kind.conflates(), "no event replaces a trade");
        let newest = state.recent.back();
        let kept = state.closed.partition_point(|event| event.seq <= after);
        CatchUp {
            evicted: state.evicted_after(after),
            events: state
                .closed
                .range(kept..)
                .chain(newest.filter(|event| event.seq > after && !event.must_keep())),
        }
    }

    /// True if the history can resume a client that has received all events up to `after`. It must
    /// contain every later event or, for a conflated subscription, those that conflation retains.
    pub fn can_resume(&self, topic: TopicId, after: Seq, is_conflated: bool) -> bool {
        let state = &self.topics[topic.index()];
        if is_conflated && state.kind.conflates() {
            state.evicted_after(after).is_none()
        } else {
            self.after(topic, after).is_some()
        }
    }
}

impl TopicState {
    /// Number of recent events that snapshots need.
    pub(super) const fn floor(&self) -> usize {
        snapshot_events(self.kind, None)
    }

    /// Newest event after `after` that every client must receive but that is no longer kept.
    fn evicted_after(&self, after: Seq) -> Option<Seq> {
        match self.kind {
            Kind::Bar => Some(self.closed_evicted).filter(|evicted| *evicted > after),
            // Trades are never conflated; the newest event of a state is always kept.
            Kind::Event | Kind::State => None,
        }
    }

    /// State as of `seq` in at most `events` events, newest last: the last trades, the last bars or
    /// the last state.
    pub(super) fn snapshot(&self, seq: Seq, events: usize) -> Vec<&Event> {
        let upto = |list: &VecDeque<Event>| list.partition_point(|event| event.seq <= seq);
        let recent = upto(&self.recent);
        let mut found: Vec<&Event> = match self.kind {
            Kind::Event => self
                .recent
                .range(recent.saturating_sub(events)..recent)
                .collect(),
            Kind::State => self
                .recent
                .range(recent.saturating_sub(1)..recent)
                .collect(),
            Kind::Bar => {
                let closed = upto(&self.closed);
                let open = self
                    .recent
                    .range(recent.saturating_sub(1)..recent)
                    .find(|event| !event.must_keep());
                let bars = events - usize::from(open.is_some());
                self.closed
                    .range(closed.saturating_sub(bars)..closed)
                    .chain(open)
                    .collect()
            }
        };
        // A history that has moved past `seq` can no longer reconstruct its state.
        if found.last().is_some_and(|event| event.seq != seq) {
            found.clear();
        }
        found
    }
}
