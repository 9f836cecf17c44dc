//! Flushing: writes outboxes to sockets, once per turn for each connection with data due.

use super::Shard;
use super::connection::{ConnectionKey, Flushed};
use super::lifecycle::TOO_SLOW;
use super::timers::{Due, Timer};
use crate::outbox::OverflowAction;

/// Number of connections flushed between two readings of the clock.
const FLUSHES_A_CLOCK_READ: usize = 16;

impl Shard {
    /// Flushes all other connections with data due. Returns true if some have more than one turn's
    /// share.
    pub(super) fn flush(&mut self) -> bool {
        let dirty = self.connections.take_dirty();
        let (before, from) = dirty.split_at(self.fan_out.rotation.next().first_of(dirty.len()));
        for (at, key) in from.iter().chain(before).enumerate() {
            if at % FLUSHES_A_CLOCK_READ == 0 {
                self.feed.counts.settle(self.feed.config.clock.now());
            }
            if self
                .connections
                .get(*key)
                .is_some_and(|connection| connection.dirty)
            {
                self.flush_one(*key);
            }
        }
        !self.connections.put_back(dirty)
    }

    pub(super) fn flush_one(&mut self, key: ConnectionKey) {
        let Self {
            connections, feed, ..
        } = self;
        let Some(connection) = connections.lend_buffer(key) else {
            return;
        };
        connection.dirty = false;
        let now = feed.now;
        let mut view = feed.view();
        let flushed = connection.flush(&mut view);
        view.now = self.pauses.excused(now);
        let relief = connection.enforce_limits(&mut view);
        connection.report_queued(&feed.metrics, now);
        let (pinged, waits) = (
            connection.outbox.take_pinged(),
            connection.outbox.is_waiting(),
        );
        match flushed {
            Flushed::All => {
                self.after_all_is_sent(key);
                self.read_on(key);
            }
            Flushed::Blocked => {
                self.connections.keep_unused_buffer(key);
                self.answer_on(key);
            }
            Flushed::More => self.connections.mark_dirty(key),
            Flushed::Broken(error) => return self.end(key, Some(error)),
        }
        if pinged || waits {
            self.watch(key);
        }
        self.arm_intervals(key);
        if relief == OverflowAction::Disconnect {
            self.disconnect_slow_consumer(key, TOO_SLOW);
        }
    }

    /// Reads requests that were left in the socket while responses were queued.
    fn read_on(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && std::mem::take(&mut connection.left_unread)
        {
            self.sockets.serve_next(key);
        }
    }

    /// Executes waiting requests once the responses before them are sent, even if the socket is
    /// full.
    fn answer_on(&mut self, key: ConnectionKey) {
        let connection = &self.connections[key];
        if connection.left_unread
            && !connection.holds_requests(self.feed.config.limits.outbox.control_bytes)
        {
            self.read_on(key);
        }
    }

    fn after_all_is_sent(&mut self, key: ConnectionKey) {
        self.connections.keep_buffer(key);
        self.connections[key].outbox.release_idle_memory();
        self.after_flush_of_closing(key);
    }

    /// Sets the timers that outboxes requested.
    pub(super) fn arm_intervals(&mut self, key: ConnectionKey) {
        if self.feed.intervals.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get(key) else {
            return self.feed.intervals.clear();
        };
        let generation = connection.peer.generation;
        for (at, slot) in self.feed.intervals.drain(..) {
            self.timers.push(Timer {
                at,
                connection: key,
                generation,
                due: Due::Interval(slot),
            });
        }
    }
}
