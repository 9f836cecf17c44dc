//! Pauses of the server itself: a process that was stopped, a machine that was suspended, a turn
//! that took too long. Clients can't be heard meanwhile, so no deadline of theirs may run.

use std::time::Duration;

use crate::market::UnixNanos;

/// Longest wait of a shard that has connections, so that a pause is noticed.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Lateness of a turn from which on it is a pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Measures by how much turns are late.
#[derive(Debug, Default)]
pub(super) struct PauseDetector {
    /// Latest due time of the next turn; `None` if nothing is due.
    due: Option<UnixNanos>,
    /// The latest pause, and the time until which events may be older by it.
    latest: (Duration, UnixNanos),
}

impl PauseDetector {
    /// Begins a turn. Returns its lateness if that is a pause.
    pub(super) fn begin(&mut self, now: UnixNanos, has_connections: bool) -> Option<Duration> {
        let late = self.due.map_or(Duration::ZERO, |due| now.since(due));
        self.due = has_connections.then(|| now.plus(LOOK_EVERY));
        (late >= PAUSE_MIN).then_some(late)
    }

    /// Excludes the pause from the age of queued events for this period.
    pub(super) fn excuse(&mut self, pause: Duration, until: UnixNanos) {
        self.latest = (pause, until);
    }

    /// Reference time for the age of queued events.
    pub(super) fn excused(&self, now: UnixNanos) -> UnixNanos {
        let (pause, until) = self.latest;
        if now < until { now.minus(pause) } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_late_by_a_second_is_a_pause() {
        let at = |ms: u64| UnixNanos(1).plus(Duration::from_millis(ms));
        let mut pauses = PauseDetector::default();
        assert_eq!(pauses.begin(at(60_000), true), None, "nothing was due");
        assert_eq!(pauses.begin(at(61_400), true), None);
        let late = pauses.begin(at(70_000), false);
        assert_eq!(late, Some(Duration::from_millis(8_100)));
        assert_eq!(pauses.begin(at(99_000), true), None, "no connections");
        pauses.excuse(Duration::from_secs(8), at(109_000));
        assert_eq!(pauses.excused(at(100_000)), at(92_000));
        assert_eq!(pauses.excused(at(110_000)), at(110_000));
    }
}
