//! Delayed view: a shard whose clients see events of a certain age only.
//!
//! Such a shard reads the log as fast as any other, but each batch waits in a bounded delay line
//! until it is old enough. Replica, snapshots, histories and ledgers are those of the delayed log,
//! so nothing newer is anywhere in the shard but in the line. An event keeps its sequence number
//! and its publication time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::connection::ConnectionKey;
use super::{ITEMS_A_TURN, Shard};
use crate::access::Principal;
use crate::log::{Batch, Checkpoint, Next};
use crate::market::UnixNanos;
use crate::protocol::{Bye, Code};

/// Estimated memory of a topic in a checkpoint, in bytes.
const TOPIC_BYTES: usize = 1024;
/// Time after which a client of another delay may reconnect.
const RECONNECT_MS: u64 = 1000;

/// Part of the log.
#[derive(Debug)]
enum Part {
    Batch(Arc<Batch>),
    /// State after batches that did not fit into the line.
    Checkpoint(Arc<Checkpoint>),
}

#[derive(Debug)]
struct Delayed {
    due: UnixNanos,
    bytes: usize,
    part: Part,
}

/// Batches that are not old enough.
#[derive(Debug)]
pub(super) struct DelayLine {
    delay: Duration,
    waiting: VecDeque<Delayed>,
    bytes: usize,
    bytes_max: usize,
    /// True after an overflow, until half of the line is free.
    is_full: bool,
}

impl DelayLine {
    /// Creates an empty line; `None` without a delay.
    pub(super) fn new(delay: Duration, bytes_max: usize) -> Option<Self> {
        (!delay.is_zero()).then(|| Self {
            delay,
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max,
            is_full: false,
        })
    }

    /// Time at which the next part is old enough.
    pub(super) fn due_at(&self) -> Option<UnixNanos> {
        self.waiting.front().map(|next| next.due)
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.waiting.is_empty() || self.bytes + bytes <= self.bytes_max
    }

    fn push(&mut self, part: Part, bytes: usize, now: UnixNanos) {
        self.bytes += bytes;
        let due = now.plus(self.delay);
        self.waiting.push_back(Delayed { due, bytes, part });
    }

    fn pop(&mut self, now: UnixNanos) -> Option<Part> {
        self.waiting.front().filter(|next| next.due <= now)?;
        let next = self.waiting.pop_front()?;
        self.bytes -= next.bytes;
        Some(next.part)
    }
}

impl Shard {
    /// Routes the batches that are old enough. Returns whether there may be more.
    pub(super) fn take_delayed(&mut self) -> bool {
        self.fill_delay_line();
        let mut items = 0;
        while items < ITEMS_A_TURN {
            let now = self.feed.now;
            match self.delay_line.as_mut().and_then(|line| line.pop(now)) {
                None => return false,
                Some(Part::Batch(batch)) => {
                    items += batch.items.len();
                    self.route(&batch);
                }
                Some(Part::Checkpoint(checkpoint)) => {
                    // The line is ahead of the checkpoint.
                    let next = self.feed.next;
                    self.restore(&checkpoint);
                    self.feed.next = next;
                    return true;
                }
            }
        }
        true
    }

    /// Moves new batches of the log to the line. Batches that do not fit are lost, and announced as
    /// gaps by a checkpoint of the state after them.
    fn fill_delay_line(&mut self) {
        let Self {
            delay_line: Some(line),
            feed,
            ..
        } = self
        else {
            return;
        };
        if feed.restoring.is_some() || (line.is_full && line.bytes > line.bytes_max / 2) {
            return;
        }
        while !std::mem::take(&mut line.is_full) {
            match feed.log.read(feed.next) {
                Next::Batch(batch) => {
                    let bytes = batch.footprint();
                    if !line.has_room_for(bytes) {
                        line.is_full = true;
                        tracing::warn!(
                            shard = self.number,
                            "delay line full (bus.delay_line); delayed clients lose events"
                        );
                        return;
                    }
                    feed.next += 1;
                    // Read after the batch, so that no event is released early.
                    line.push(Part::Batch(batch), bytes, feed.config.clock.now());
                }
                Next::Empty => return,
                Next::Overrun => break,
            }
        }
        self.on_overrun();
    }

    /// Takes the checkpoint that follows lost batches.
    pub(super) fn take_checkpoint(&mut self, checkpoint: Arc<Checkpoint>) {
        let Some(line) = &mut self.delay_line else {
            return self.restore(&checkpoint);
        };
        self.feed.next = checkpoint.next;
        let bytes = checkpoint.topics() * TOPIC_BYTES;
        let now = self.feed.config.clock.now();
        line.push(Part::Checkpoint(checkpoint), bytes, now);
    }

    /// Closes a connection that belongs to a view with another delay; true if it stays open. A client
    /// that presents its credentials after the handshake would come back to the same shard.
    pub(super) fn serves(&mut self, key: ConnectionKey, principal: &Principal) -> bool {
        let delay = principal.delay();
        if delay == self.feed.config.delay {
            return true;
        }
        let role = principal.role().map_or("", |role| &role.name);
        let session = &self.connections[key].peer.session;
        let is_first_auth = session.awaits_check() && session.grant().is_none();
        let remedy = if is_first_auth {
            "present the token in the handshake (`Authorization: Bearer TOKEN` or `?ticket=`), not by `auth`"
        } else {
            "reconnect with the credentials in the handshake. A delay that a reload adds requires a restart of the server"
        };
        let message =
            format!("not entitled: the view of role \"{role}\" is delayed by {delay:?}; {remedy}");
        let bye = Bye {
            code: Code::NotEntitled.number(),
            message,
            reconnect: !is_first_auth,
            after_ms: RECONNECT_MS,
        };
        self.close(key, &bye, Code::NotEntitled);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Catalog;

    #[test]
    fn a_delay_line_releases_nothing_early_and_bounds_its_memory() {
        let batch = || Arc::new(Batch::new(Vec::new(), Arc::new(Catalog::default())));
        let bytes = batch().footprint();
        let second = |at: u64| UnixNanos(at * 1_000_000_000);
        assert!(DelayLine::new(Duration::ZERO, bytes).is_none());
        let mut line = DelayLine::new(Duration::from_secs(10), 2 * bytes).expect("a line");
        for at in [1, 2] {
            assert!(line.has_room_for(bytes));
            line.push(Part::Batch(batch()), bytes, second(at));
        }
        assert!(!line.has_room_for(bytes));
        assert_eq!(line.due_at(), Some(second(11)));
        assert!(
            line.pop(second(11).minus(Duration::from_nanos(1)))
                .is_none()
        );
        assert!(line.pop(second(11)).is_some() && line.pop(second(11)).is_none());
        assert!(line.has_room_for(bytes) && line.bytes == bytes);
    }
}
