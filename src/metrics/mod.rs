//! Every metric's name, unit, labels and help text, in one catalogue. Labels are of closed sets: no symbol, no client.

use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::protocol::{Code, Encoding, GapCause, LagLevel};
use crate::topic::Channel;

/// Handles of all metrics; the hot ones are reached by index, without a lookup by name.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events published, by the channel's index.
    pub published: [IntCounter; Channel::COUNT],
    /// Batches published.
    pub batches: IntCounter,
    /// Events encoded, by the encoding's index.
    pub encoded: [IntCounter; 2],
    /// Memory of the log.
    pub log_bytes: IntGauge,
    /// Fill of the bus' queue, in thousandths.
    pub queue_permille: IntGauge,
    /// Topics there are.
    pub topics: IntGauge,
    /// Connections open.
    pub connections: IntGauge,
    /// Subscriptions held.
    pub subscriptions: IntGauge,
    /// Events put into data arrays.
    pub delivered: IntCounter,
    /// Events replaced by newer ones.
    pub merged: IntCounter,
    /// Events named in gaps, by the cause's index.
    pub lost: [IntCounter; GapCause::ALL.len()],
    /// Bytes written to sockets.
    pub written_bytes: IntCounter,
    /// Changes of lag level: ok, warn, degraded.
    pub lag: [IntCounter; 3],
    /// Connections closed by the server, by the code's index; the last is "other".
    pub closed: IntCounterVec,
    /// Bytes that wait in outboxes.
    pub queued_bytes: IntGauge,
    /// Requests answered by an error.
    pub request_errors: IntCounterVec,
    /// Input that was refused, by reason.
    pub bad_input: IntCounterVec,
    /// Times a shard was overrun by the log.
    pub overruns: IntCounter,
    /// Restarts of sources.
    pub source_restarts: IntCounter,
    /// Handshakes refused, by reason.
    pub handshakes_refused: IntCounterVec,
    /// A source's state: 1 where it holds.
    pub source_up: IntGaugeVec,
}

/// Builds metrics and registers them.
struct Catalogue(Registry);

impl Catalogue {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("every name stands once in the catalogue");
        collector
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("names of the catalogue are valid"))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("names of the catalogue are valid"))
    }
    fn counters(&self, name: &str, help: &str, label: &str) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), &[label]).expect("names of the catalogue are valid"))
    }
    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), &[label]).expect("names of the catalogue are valid"))
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let all = Catalogue(Registry::new());
        let published = all.counters("tickcast_events_published_total", "Events that the bus published.", "channel");
        let names = ["trade", "quote", "ticker", "bar_1s", "bar_1m", "bar_5m", "bar_1h", "bar_1d", "status"];
        let encoded = all.counters("tickcast_events_encoded_total", "Events made into bytes, once an encoding.", "encoding");
        let lost = all.counters("tickcast_events_lost_total", "Events named in gaps.", "cause");
        let lag = all.counters("tickcast_lag_changes_total", "Changes of a connection's lag level.", "level");
        Self {
            published: names.map(|name| published.with_label_values(&[name])),
            encoded: Encoding::ALL.map(|encoding| encoded.with_label_values(&[encoding.name()])),
            lost: GapCause::ALL.map(|cause| lost.with_label_values(&[cause.name()])),
            lag: ["ok", "warn", "degraded"].map(|level| lag.with_label_values(&[level])),
            batches: all.counter("tickcast_batches_published_total", "Batches that the bus published."),
            log_bytes: all.gauge("tickcast_log_bytes", "Memory of the batches on the log."),
            queue_permille: all.gauge("tickcast_bus_queue_permille", "How full the bus' queue is, in thousandths."),
            topics: all.gauge("tickcast_topics", "Topics there are."),
            connections: all.gauge("tickcast_connections", "Connections open."),
            subscriptions: all.gauge("tickcast_subscriptions", "Topics held, over all connections."),
            delivered: all.counter("tickcast_events_delivered_total", "Events put into data arrays, over all connections."),
            merged: all.counter("tickcast_events_merged_total", "Events replaced by newer ones, over all connections."),
            written_bytes: all.counter("tickcast_written_bytes_total", "Bytes written to clients' sockets."),
            closed: all.counters("tickcast_connections_closed_total", "Connections closed, by code; client: by the client.", "code"),
            queued_bytes: all.gauge("tickcast_queued_bytes", "Bytes that wait in outboxes."),
            request_errors: all.counters("tickcast_request_errors_total", "Requests answered by an error.", "code"),
            bad_input: all.counters("tickcast_bad_input_total", "What sources said that was refused.", "reason"),
            overruns: all.counter("tickcast_shard_overruns_total", "Times a shard was overrun by the log."),
            source_restarts: all.counter("tickcast_source_restarts_total", "Times a source was started again."),
            handshakes_refused: all.counters("tickcast_handshakes_refused_total", "Handshakes refused.", "reason"),
            source_up: all.gauges("tickcast_source_up", "1 where the source runs.", "source"),
            registry: all.0,
        }
    }

    /// The lag counter of a level.
    pub fn lag_of(&self, level: LagLevel) -> &IntCounter {
        &self.lag[match level {
            LagLevel::Ok => 0,
            LagLevel::Warn => 1,
            LagLevel::Degraded => 2,
        }]
    }

    /// Counts a close by the server.
    pub fn count_close(&self, code: Code) {
        self.closed.with_label_values(&[code.name()]).inc();
    }

    /// Counts a request that was answered by an error.
    pub fn count_error(&self, code: Code) {
        self.request_errors.with_label_values(&[code.name()]).inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let rendered = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        rendered.expect("a Vec takes all, and the catalogue's names are valid");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
