//! The only reader of time.
//!
//! One clock for everything: monotonic, anchored to the wall when it is made, so that times on the wire are of the world
//! and never run backwards. Code that decides is handed `now`; only the shells around it read the clock.

use std::time::{Instant, SystemTime};

use crate::market::UnixNanos;

/// A monotonic clock that tells the world's time. Copies of one clock agree.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    anchor: Instant,
    wall: UnixNanos,
}

impl Clock {
    /// Anchors a clock to the wall, now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads time")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { anchor: Instant::now(), wall: UnixNanos(wall.as_nanos() as u64) }
    }

    /// The time now; never before an earlier answer.
    pub fn now(&self) -> UnixNanos {
        self.wall.plus(self.anchor.elapsed())
    }

    /// The runtime's instant at which this clock shows `time`.
    pub fn instant_at(&self, time: UnixNanos) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.anchor + time.since(self.wall))
    }

    /// Waits until this clock shows `time`.
    pub async fn sleep_until(&self, time: UnixNanos) {
        tokio::time::sleep_until(self.instant_at(time)).await;
    }
}
