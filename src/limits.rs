//! Limits from the config that apply to the log, outboxes and shards.

use std::time::Duration;

use crate::protocol::Limits;

/// Max ciphertext per connection that waits in memory while the socket accepts none.
pub const TLS_UNSENT_BYTES_MAX: usize = 64 << 10;

/// Retention of past events, in addition to what snapshots need (config `bus.history`).
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Maximum number of events per topic.
    pub events: usize,
    /// Maximum memory over all topics, in bytes.
    pub bytes: usize,
    /// Maximum age of an event.
    pub age: Duration,
}

/// Limits of every outbox (config `fanout`).
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Maximum size of queued live events, in bytes.
    pub outbox_bytes: usize,
    /// Maximum size of queued control messages that the client did not request, in bytes.
    pub control_bytes: usize,
    /// Target size of a data message, in bytes.
    pub frame_bytes: usize,
    /// Age of the oldest queued event from which a client counts as slow.
    pub behind_max: Duration,
}

/// Limits of connections and requests by client address (config `limits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Maximum number of connections of an address, in any state.
    pub connections_per_address: u32,
    /// Maximum number of connections of an IPv6 network (/64).
    pub connections_per_network: u32,
    /// Maximum rate of handshakes and HTTP requests of an address or IPv6 network.
    pub handshakes_per_s_per_address: u32,
    /// Maximum rate of new connections over all clients.
    pub handshakes_per_s: u32,
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
    /// Maximum rate of control frames and fragments of a connection.
    pub control_frames_per_s: u32,
    /// Interval between heartbeats.
    pub heartbeat: Duration,
    /// Silence after which a client is pinged.
    pub ping_after: Duration,
    /// Silence after which a client is disconnected.
    pub drop_after: Duration,
    /// Time limit for receiving a message, from its first byte.
    pub message_timeout: Duration,
    /// Time limit for a client to read the data queued before its close frame.
    pub close_timeout: Duration,
    /// Time without reading after which a client is disconnected.
    pub stall_timeout: Duration,
    /// Maximum time for which events are collected before they are written.
    pub flush_window: Duration,
}
