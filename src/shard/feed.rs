//! Reading side of the log: cursor, replica, and the state that outboxes use.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{Entitlements, Seats};
use crate::auth::Gate;
use crate::bus::Emitter;
use crate::clock::Clock;
use crate::limits::ShardLimits;
use crate::log::{Checkpoint, DemandSignal, Log, Replica};
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::outbox::{Counts, LastValueCache, SlotId, View};
use crate::protocol::Epoch;

/// Configuration of a shard at start.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The clock of the whole server.
    pub clock: Clock,
    /// The epoch in which topics begin.
    pub epoch: Epoch,
    /// Limits that a reload can change.
    pub limits: ShardLimits,
    /// By source: opened by the first subscription to one of its topics.
    pub demand: Arc<[Arc<DemandSignal>]>,
    /// Age of the events that its clients see.
    pub delay: Duration,
    /// Max memory of the batches that are not old enough, in bytes.
    pub delay_line_bytes: usize,
    /// Rights of the clients, which a reload can change.
    pub entitlements: Arc<Entitlements>,
    /// Connections by client, shared by all shards.
    pub seats: Arc<Seats>,
    /// Check of credentials.
    pub gate: Arc<Gate>,
}

/// Request for a checkpoint, which the waits of the shard make and continue.
pub(super) struct Restoring(Pin<Box<dyn Future<Output = Option<Arc<Checkpoint>>> + Send>>);

impl Restoring {
    pub(super) fn new(
        request: impl Future<Output = Option<Arc<Checkpoint>>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(request))
    }

    /// The checkpoint; `None` if the bus has stopped.
    pub(super) async fn answer(&mut self) -> Option<Arc<Checkpoint>> {
        self.0.as_mut().await
    }
}

impl fmt::Debug for Restoring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Restoring")
    }
}

/// State of all topics as of the latest routed batch, with the time and the counters of this turn.
#[derive(Debug)]
pub(super) struct Feed {
    pub config: ShardConfig,
    pub metrics: Arc<Metrics>,
    pub log: Arc<Log>,
    /// Number of the next batch to read.
    pub next: u64,
    pub bus: Emitter,
    /// Request for a checkpoint after an overrun.
    pub restoring: Option<Restoring>,
    pub replica: Replica,
    pub last_values: LastValueCache,
    /// Work of all connections in this turn.
    pub counts: Counts,
    /// Timers requested by outboxes.
    pub intervals: Vec<(UnixNanos, SlotId)>,
    /// Time of this turn.
    pub now: UnixNanos,
}

impl Feed {
    /// Part of the shard that an outbox reads and counts in.
    pub(super) fn view(&mut self) -> View<'_> {
        View {
            replica: &self.replica,
            last_values: &mut self.last_values,
            limits: &self.config.limits.outbox,
            counts: &mut self.counts,
            now: self.now,
            timers: &mut self.intervals,
        }
    }
}
