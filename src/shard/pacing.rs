//! Pace of conflated values.
//!
//! A conflated subscription has no rate of its own: a shard that sent each value as soon as it
//! changed would be busy all the time, however fast the values change. It sends them in rounds, and
//! pauses once rounds have used up their share of the time. Few clients never use it up, so that
//! their values are sent at once; very many clients take several rounds, each of which sends the
//! newest values. Raw events, responses and snapshots are never held back. A shard
//! without raw subscriptions does not read the log during a pause either: what changes several
//! times in it is routed once.

use std::collections::VecDeque;
use std::time::Duration;

use super::Shard;
use super::connection::ConnectionKey;
use crate::market::UnixNanos;

/// Pause after a round, as a multiple of the time that the round took.
const PAUSE: u32 = 4;
/// Time owed in pauses up to which rounds follow each other without one: the timers of the runtime
/// have a resolution of a millisecond, so that a shorter pause would last far too long.
const OWED_MAX: Duration = Duration::from_millis(1);
/// Longest time of a round; the other connections wait for the next one, which reads newer values.
const ROUND_MAX: Duration = Duration::from_millis(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// Longest pause as a share of `fanout.behind`: a value that waits for its round is not late.
const BEHIND_SHARE: u32 = 8;
/// Number of connections flushed between two readings of the clock.
const FLUSHES_A_CLOCK_READ: usize = 16;

/// Connections that have only conflated values due, and the time of their next round.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    waiting: VecDeque<ConnectionKey>,
    /// Time at which no pause is owed any more.
    settled_at: UnixNanos,
    next: UnixNanos,
}

impl Pacing {
    /// Time of the next round; `None` if nothing waits for it.
    pub(super) fn due_at(&self) -> Option<UnixNanos> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// End of the pause, if there is one at this time.
    pub(super) fn pause_ends(&self, now: UnixNanos) -> Option<UnixNanos> {
        (now < self.next).then_some(self.next)
    }

    fn is_due(&self, now: UnixNanos) -> bool {
        self.due_at().is_some_and(|at| at <= now)
    }

    /// Notes a round.
    fn pause(&mut self, began: UnixNanos, ended: UnixNanos, behind_max: Duration) {
        let took = ended.since(began);
        let pause_max = PAUSE_MAX.min(behind_max / BEHIND_SHARE);
        let settled_at = self.settled_at.max(began).plus(took * (1 + PAUSE));
        self.settled_at = settled_at.min(ended.plus(pause_max));
        self.next = self.settled_at.minus(OWED_MAX);
    }
}

impl Shard {
    /// Time at which the log is read again, if it is left for now.
    pub(super) fn leaves_log_until(&self) -> Option<UnixNanos> {
        let pause_ends = self.pacing.pause_ends(self.feed.now)?;
        (self.fan_out.raw == 0).then_some(pause_ends)
    }

    /// Sends the values of a connection in one of the next rounds.
    pub(super) fn send_in_round(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        if !std::mem::replace(&mut connection.in_round, true) {
            self.pacing.waiting.push_back(key);
        }
    }

    /// Sends a round of conflated values if it is due. A shard without raw subscriptions first
    /// reads all of the log, so that the values are the newest, as long as it keeps up with the
    /// log.
    pub(super) fn send_round(&mut self, log_has_more: bool) {
        let waited = self.feed.now.since(self.pacing.next);
        if !self.pacing.is_due(self.feed.now)
            || (log_has_more && self.fan_out.raw == 0 && waited < PAUSE_MAX)
        {
            return;
        }
        let began = self.feed.config.clock.now();
        let mut now = began;
        while now.since(began) < ROUND_MAX && !self.pacing.waiting.is_empty() {
            self.feed.counts.settle(now);
            for _ in 0..FLUSHES_A_CLOCK_READ {
                let Some(key) = self.pacing.waiting.pop_front() else {
                    break;
                };
                let Some(connection) = self.connections.get_mut(key) else {
                    continue;
                };
                if std::mem::take(&mut connection.in_round) && connection.outbox.is_due() {
                    self.flush_one(key);
                }
            }
            now = self.feed.config.clock.now();
        }
        let behind_max = self.feed.config.limits.outbox.behind_max;
        self.pacing.pause(began, now, behind_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rounds_take_a_fifth_of_the_time() {
        let mut pacing = Pacing::default();
        let (round, behind_max) = (Duration::from_millis(1), Duration::from_secs(10));
        let first = UnixNanos(1_000_000_000);
        let mut began = first;
        for _ in 0..100 {
            let ended = began.plus(round);
            pacing.pause(began, ended, behind_max);
            assert_eq!(pacing.due_at(), None, "nothing waits");
            began = pacing.pause_ends(ended).expect("a pause after each round");
        }
        assert_eq!(began, first.plus(100 * 5 * round).minus(OWED_MAX));
        pacing.waiting.push_back(ConnectionKey(1));
        assert!(!pacing.is_due(began.minus(Duration::from_nanos(1))) && pacing.is_due(began));
    }

    #[test]
    fn values_of_few_clients_are_never_held_back() {
        let mut pacing = Pacing::default();
        for at in 0..10_000 {
            // 10,000 values a second, each sent in 10 µs.
            let began = UnixNanos(1_000_000_000 + at * 100_000);
            let ended = began.plus(Duration::from_micros(10));
            assert_eq!(pacing.pause_ends(began), None);
            pacing.pause(began, ended, Duration::from_secs(10));
        }
    }

    #[test]
    fn a_pause_is_a_small_share_of_the_time_that_a_client_may_be_behind() {
        let mut pacing = Pacing::default();
        for (behind_ms, pause_ms) in [(10_000, 20), (80, 10)] {
            let began = UnixNanos(0);
            let ended = began.plus(Duration::from_secs(1));
            pacing.pause(began, ended, Duration::from_millis(behind_ms));
            let pause_ends = ended.plus(Duration::from_millis(pause_ms)).minus(OWED_MAX);
            assert_eq!(pacing.pause_ends(ended), Some(pause_ends));
        }
    }
}
