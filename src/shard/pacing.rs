//! Pace of conflated values.
//!
//! A conflated subscription has no rate of its own: a shard that sent each value as soon as it
//! changed would be busy all the time, however fast the values change. It sends them in rounds, and
//! pauses after each round for a multiple of the time that the round took. A round of few values is
//! short, so that they wait for microseconds; only a round for very many clients takes long enough
//! for its pause to be seen. Raw events, responses and snapshots are never held back.

use std::time::Duration;

use super::Shard;
use super::connection::ConnectionKey;
use crate::market::UnixNanos;

/// Pause after a round, as a multiple of the time that it took.
const PAUSE: u32 = 3;
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// Longest pause as a share of `fanout.behind`: a value that waits for its round is not late.
const BEHIND_SHARE: u32 = 8;
/// Number of connections flushed between two readings of the clock.
const FLUSHES_A_CLOCK_READ: usize = 16;

/// Connections that have only conflated values due, and the time of their next round.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    waiting: Vec<ConnectionKey>,
    next: UnixNanos,
}

impl Pacing {
    /// Time of the next round; `None` if nothing waits for it.
    pub(super) fn due_at(&self) -> Option<UnixNanos> {
        (!self.waiting.is_empty()).then_some(self.next)
    }

    /// Takes the connections of a round that begins now; none before its time.
    fn begin(&mut self, now: UnixNanos) -> Vec<ConnectionKey> {
        if now < self.next {
            return Vec::new();
        }
        std::mem::take(&mut self.waiting)
    }

    /// Notes the end of a round, and takes its list back for reuse.
    fn end(
        &mut self,
        mut round: Vec<ConnectionKey>,
        took: Duration,
        ended: UnixNanos,
        behind_max: Duration,
    ) {
        let pause_max = PAUSE_MAX.min(behind_max / BEHIND_SHARE);
        self.next = ended.plus((took * PAUSE).min(pause_max));
        round.clear();
        if self.waiting.is_empty() {
            self.waiting = round;
        }
    }
}

impl Shard {
    /// Sends the values of a connection in the next round.
    pub(super) fn send_in_round(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        if !std::mem::replace(&mut connection.in_round, true) {
            self.pacing.waiting.push(key);
        }
    }

    /// Sends a round of conflated values if it is due.
    pub(super) fn send_round(&mut self) {
        let round = self.pacing.begin(self.feed.now);
        if round.is_empty() {
            return;
        }
        let began = self.feed.config.clock.now();
        let (before, from) = round.split_at(self.fan_out.rotation.next().first_of(round.len()));
        for (at, key) in from.iter().chain(before).enumerate() {
            if at % FLUSHES_A_CLOCK_READ == 0 {
                self.feed.counts.settle(self.feed.config.clock.now());
            }
            let Some(connection) = self.connections.get_mut(*key) else {
                continue;
            };
            if std::mem::take(&mut connection.in_round) && connection.outbox.is_due() {
                self.flush_one(*key);
            }
        }
        let ended = self.feed.config.clock.now();
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let took = ended.since(began);
        self.pacing.end(round, took, ended, behind_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_followed_by_a_pause_of_three_times_its_length() {
        let mut pacing = Pacing::default();
        let at = |us: u64| UnixNanos(us * 1000);
        let behind_max = Duration::from_secs(10);
        pacing.waiting.push(ConnectionKey(1));
        assert_eq!(pacing.due_at(), Some(at(0)), "the first value goes at once");
        let round = pacing.begin(at(1000));
        assert_eq!(round, [ConnectionKey(1)]);
        pacing.end(round, Duration::from_micros(10), at(1010), behind_max);
        assert_eq!(pacing.due_at(), None, "nothing waits");
        pacing.waiting.push(ConnectionKey(2));
        assert_eq!(pacing.due_at(), Some(at(1040)));
        assert!(pacing.begin(at(1039)).is_empty());
        assert_eq!(pacing.begin(at(1040)), [ConnectionKey(2)]);
    }

    #[test]
    fn a_pause_is_never_longer_than_a_client_may_be_behind() {
        let mut pacing = Pacing::default();
        let took = Duration::from_secs(1);
        for (behind_max, pause) in [(10_000, 20), (80, 10)] {
            let behind_max = Duration::from_millis(behind_max);
            pacing.end(Vec::new(), took, UnixNanos(0), behind_max);
            pacing.waiting.push(ConnectionKey(1));
            let expected = UnixNanos(0).plus(Duration::from_millis(pause));
            assert_eq!(pacing.due_at(), Some(expected));
        }
    }
}
