//! Timers of a shard.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connection::{ConnectionKey, Generation};
use crate::market::UnixNanos;
use crate::outbox::SlotId;

/// A due timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Heartbeat, ping, time limits of one connection.
    Checkup,
    /// Lag check of a blocked connection.
    Lag,
    /// A subscription's interval has passed.
    Interval(SlotId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub at: UnixNanos,
    pub connection: ConnectionKey,
    /// A timer of an ended connection must not reach the next one of the same key.
    pub generation: Generation,
    pub due: Due,
}

#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Timer>>);

impl Timers {
    pub(super) fn push(&mut self, timer: Timer) {
        self.0.push(Reverse(timer));
    }

    /// Time of the next timer.
    pub(super) fn next(&self) -> Option<UnixNanos> {
        self.0.peek().map(|Reverse(timer)| timer.at)
    }

    /// Next timer due by `now`.
    pub(super) fn pop(&mut self, now: UnixNanos) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(timer)| timer)
    }
}
