//! Metrics that a source and a shard own.

use prometheus::{Gauge, IntCounter};

use super::LocalHistogram;

/// Metrics of a source.
#[derive(Debug)]
pub struct SourceMeters {
    /// Latency from event time to receipt, for real-time sources.
    pub lag: LocalHistogram,
    /// Number of trades emitted.
    pub trades: IntCounter,
    /// Number of quotes emitted.
    pub quotes: IntCounter,
    /// Number of trades and quotes that the source missed.
    pub missed: [IntCounter; 2],
}

/// Metrics of a shard.
#[derive(Debug)]
pub struct ShardMeters {
    /// Duration of the turns of the event loop.
    pub turn: LocalHistogram,
    /// Longest recent turn.
    pub longest_turn: Gauge,
    /// Total time by which turns were late.
    pub paused: prometheus::Counter,
}
