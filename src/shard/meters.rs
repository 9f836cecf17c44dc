//! Metrics of a shard: the counts of its outboxes, and the duration of its turns.

use std::time::Duration;

use prometheus::IntCounter;

use crate::market::UnixNanos;
use crate::metrics::{Metrics, ShardMeters};
use crate::outbox::{Counts, REPORT_EVERY, Tallies};
use crate::protocol::LagLevel;

/// Span for which the longest turn is kept, once to twice.
const SPAN: Duration = Duration::from_secs(30);

/// Moves the counts of outboxes to the metrics: counters every turn, distributions when due.
pub(super) fn report(counts: &mut Counts, metrics: &Metrics) {
    let add = |counter: &IntCounter, count: &mut u64| {
        if *count > 0 {
            counter.inc_by(std::mem::take(count));
        }
    };
    add(&metrics.delivered, &mut counts.delivered);
    add(&metrics.merged, &mut counts.merged);
    add(&metrics.written_bytes, &mut counts.written);
    for (counter, count) in metrics.lost.iter().zip(&mut counts.lost) {
        add(counter, count);
    }
    for (level, count) in LagLevel::ALL.into_iter().zip(&mut counts.lag) {
        add(metrics.lag_of(level), count);
    }
    for ((_, counter), count) in metrics.encoded.iter().zip(counts.encoded.values_mut()) {
        add(counter, count);
    }
    let Some(tallies) = counts.due_tallies() else {
        return;
    };
    let Tallies {
        fanout,
        outbox_age,
        flush_bytes,
        snapshot,
    } = tallies;
    for (histogram, tally) in metrics.fanout_time.iter().zip(fanout) {
        histogram.add(tally);
    }
    metrics.outbox_age.add(outbox_age);
    metrics.flush_bytes.add(flush_bytes);
    metrics.snapshot_time.add(snapshot);
}

/// Durations of a shard's turns.
#[derive(Debug)]
pub(super) struct Meters {
    metrics: ShardMeters,
    /// Longest turn of this span and of the previous one.
    longest: [Duration; 2],
    span_begun: UnixNanos,
    handed_over: UnixNanos,
}

impl Meters {
    pub(super) fn new(metrics: ShardMeters) -> Self {
        Self {
            metrics,
            longest: [Duration::ZERO; 2],
            span_begun: UnixNanos::default(),
            handed_over: UnixNanos::default(),
        }
    }

    /// Records a pause of the shard.
    pub(super) fn paused(&self, pause: Duration) {
        self.metrics.paused.inc_by(pause.as_secs_f64());
    }

    /// Records a turn.
    pub(super) fn turned(&mut self, begun: UnixNanos, ended: UnixNanos) {
        let took = ended.since(begun);
        self.metrics.turn.time(took);
        if ended.since(self.handed_over) >= REPORT_EVERY {
            self.handed_over = ended;
            self.metrics.turn.hand_over();
        }
        let before = self.longest;
        if ended.since(self.span_begun) >= SPAN {
            self.longest = [Duration::ZERO, self.longest[0]];
            self.span_begun = ended;
        }
        self.longest[0] = self.longest[0].max(took);
        if self.longest != before {
            self.metrics
                .longest_turn
                .set(self.longest[0].max(self.longest[1]).as_secs_f64());
        }
    }
}
