//! Metrics of a server in a cluster, which a standalone server does not export.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge};

use super::{Histogram, Metrics};
use crate::histogram::TIMES;

/// Outcomes of appends that were not accepted at once.
pub(crate) const FAILED_APPENDS: [&str; 2] = ["refused", "unknown"];

/// Metrics of the appends to the shared log.
#[derive(Debug)]
pub struct AppendMetrics {
    /// Latency from sending a record to its acknowledgement.
    pub time: Histogram,
    /// Records sent and not acknowledged.
    pub unacknowledged: IntGauge,
    /// Memory of the batches that the log does not contain yet, in bytes.
    pub buffered_bytes: IntGauge,
    /// Limit of the memory of these batches, in bytes.
    pub buffer_limit: IntGauge,
    /// Number of appends that were not accepted at once, by outcome in [`FAILED_APPENDS`].
    pub failed: IntCounterVec,
}

/// Metrics of a server in a cluster.
#[derive(Debug)]
pub struct ClusterMetrics {
    /// 1 while this server writes the log.
    pub leading: IntGauge,
    /// Term of the newest record of a leader.
    pub term: IntGauge,
    /// Number of the newest record that this server has applied, or appended.
    pub record: IntGauge,
    /// Time of this server when it received, or appended, the newest record; Unix seconds.
    pub record_time: Gauge,
    /// Time at which this server stored its newest checkpoint, or began to lead; Unix seconds.
    pub checkpoint_time: Gauge,
    /// 1 while a gateway receives no records.
    pub silent: IntGauge,
    /// Appends of a leading publisher.
    pub appends: AppendMetrics,
    /// Number of holes in the received records.
    pub holes: IntCounter,
    /// Number of records read from the stream.
    pub fetched: IntCounter,
    /// Number of events that a standby publisher has derived in another way than the leader.
    pub derive_mismatches: IntCounter,
    /// Number of times that this server has loaded a checkpoint because the log did not go on.
    pub rebuilds: IntCounter,
    /// Number of times that the log contained other records than those that this server had read.
    pub diverged: IntCounter,
    /// Number of records appended again because the log had forgotten them.
    pub repaired: IntCounter,
    /// 1 while a NATS server is connected.
    pub connected: IntGauge,
    /// Number of connections to NATS servers, after the first one.
    pub reconnects: IntCounter,
}

impl Metrics {
    fn export_role(&self, role: &str) {
        let roles = self.catalogue.gauges(
            "tickcast_cluster_role",
            "1 for the role of the server in its cluster.",
            &["role"],
        );
        roles.with_label_values(&[role]).set(1);
    }

    fn append_metrics(&self) -> AppendMetrics {
        let all = &self.catalogue;
        AppendMetrics {
            time: all.histogram(
                "tickcast_cluster_append_latency_seconds",
                "Latency of the shared log, from sending a record to its acknowledgement.",
                TIMES,
            ),
            unacknowledged: all.gauge(
                "tickcast_cluster_unacknowledged_records",
                "Records sent to the shared log and not acknowledged.",
            ),
            buffered_bytes: all.gauge(
                "tickcast_cluster_buffered_bytes",
                "Memory of the batches that the shared log does not contain yet.",
            ),
            buffer_limit: all.gauge(
                "tickcast_cluster_buffer_limit_bytes",
                "Limit of the memory of these batches (`cluster.buffer`).",
            ),
            failed: all.counters(
                "tickcast_cluster_failed_appends_total",
                "Appends to the shared log that were refused or not answered, by outcome; the publisher then reads what the log contains.",
                "outcome",
                FAILED_APPENDS,
            ),
        }
    }

    /// Creates the metrics of a server in a cluster.
    pub fn add_cluster(&self, role: &str) -> ClusterMetrics {
        let all = &self.catalogue;
        self.export_role(role);
        ClusterMetrics {
            leading: all.gauge(
                "tickcast_cluster_leading",
                "1 while the server writes the shared log.",
            ),
            term: all.gauge(
                "tickcast_cluster_term",
                "Term of the newest leader that the server knows.",
            ),
            record: all.gauge(
                "tickcast_cluster_record",
                "Number of the newest record of the shared log that the server has applied or appended.",
            ),
            record_time: all.ratio(
                "tickcast_cluster_record_timestamp_seconds",
                "Time at which the server received or appended the newest record; Unix seconds.",
            ),
            checkpoint_time: all.ratio(
                "tickcast_cluster_checkpoint_timestamp_seconds",
                "Time at which the server stored its newest checkpoint, or began to lead; Unix seconds, 0 if it has not led.",
            ),
            silent: all.gauge(
                "tickcast_cluster_log_silent",
                "1 while a gateway receives no records and reports its sources as reconnecting.",
            ),
            appends: self.append_metrics(),
            holes: all.counter(
                "tickcast_cluster_holes_total",
                "Holes in the received records, which the server fills from the stream.",
            ),
            fetched: all.counter(
                "tickcast_cluster_fetched_records_total",
                "Records read from the stream, at the start and to fill holes.",
            ),
            derive_mismatches: all.counter(
                "tickcast_cluster_derive_mismatches_total",
                "Tickers, bars and states that a publisher standing by has derived in another way than the leader.",
            ),
            rebuilds: all.counter(
                "tickcast_cluster_rebuilds_total",
                "Checkpoints that the server has loaded because the shared log did not continue what it had read.",
            ),
            diverged: all.counter(
                "tickcast_cluster_diverged_total",
                "Times that the shared log contained other records than those that the server had read.",
            ),
            repaired: all.counter(
                "tickcast_cluster_repaired_records_total",
                "Records that the shared log had forgotten and that the server has appended again.",
            ),
            connected: all.gauge(
                "tickcast_cluster_nats_connected",
                "1 while the server is connected to a NATS server.",
            ),
            reconnects: all.counter(
                "tickcast_cluster_nats_reconnects_total",
                "Connections to NATS servers after the first one.",
            ),
        }
    }
}
