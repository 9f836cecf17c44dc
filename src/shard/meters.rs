//! Duration of a shard's turns.

use std::time::Duration;

use crate::market::UnixNanos;
use crate::metrics::ShardMeters;
use crate::outbox::REPORT_EVERY;

/// The longest turn is remembered for one to two of these.
const SPAN: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Meters {
    told: ShardMeters,
    /// The longest turn of this span and of the one before.
    longest: [Duration; 2],
    span_begun: UnixNanos,
    handed_over: UnixNanos,
}

impl Meters {
    pub(super) fn new(told: ShardMeters) -> Self {
        Self {
            told,
            longest: [Duration::ZERO; 2],
            span_begun: UnixNanos::default(),
            handed_over: UnixNanos::default(),
        }
    }

    /// The shard was paused for so long.
    pub(super) fn paused(&self, pause: Duration) {
        self.told.paused.inc_by(pause.as_secs_f64());
    }

    /// A turn is over.
    pub(super) fn turned(&mut self, begun: UnixNanos, ended: UnixNanos) {
        let took = ended.since(begun);
        self.told.turn.time(took);
        if ended.since(self.handed_over) >= REPORT_EVERY {
            self.handed_over = ended;
            self.told.turn.hand_over();
        }
        let before = self.longest;
        if ended.since(self.span_begun) >= SPAN {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.span_begun = ended;
        }
        self.longest[0] = self.longest[0].max(took);
        if self.longest != before {
            self.told
                .longest_turn
                .set(self.longest[0].max(self.longest[1]).as_secs_f64());
        }
    }
}
