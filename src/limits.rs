//! Limits that the config sets and that the log, outboxes and shards obey.

use std::time::Duration;

use crate::protocol::Limits;

/// Retention of past events, in addition to what snapshots need (config `bus.history`).
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Events of each topic.
    pub events: usize,
    /// Memory over all topics.
    pub bytes: usize,
    /// Age of an event.
    pub age: Duration,
}

/// Limits of every outbox (config `fanout`).
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Bytes of queued live events.
    pub outbox_bytes: usize,
    /// Bytes of queued control messages that the client did not request.
    pub control_bytes: usize,
    /// Bytes of a data message.
    pub frame_bytes: usize,
    /// Age of the oldest queued event at which a client counts as slow.
    pub behind_max: Duration,
}

/// Limits and timeouts of a shard. A reload replaces them.
#[derive(Debug, Clone, Copy)]
pub struct ShardLimits {
    /// Limits of each outbox.
    pub outbox: OutboxLimits,
    /// Retention of the replica.
    pub history: HistoryLimits,
    /// Limits of a client's requests.
    pub requests: Limits,
    /// Interval between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a client is pinged.
    pub ping_after: Duration,
    /// Silence after which a client is disconnected.
    pub drop_after: Duration,
    /// Time limit for the rest of a message whose first byte has arrived.
    pub message_timeout: Duration,
    /// Time limit for a client to take what precedes its close frame.
    pub close_timeout: Duration,
    /// Time without reading after which a client is disconnected.
    pub stall_timeout: Duration,
    /// Time for which events may be gathered before they are written.
    pub flush_window: Duration,
}
