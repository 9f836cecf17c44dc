//! Catalogue of all metrics with name, unit, labels and help text. Labels have closed sets of
//! values: no symbols, no clients.
//!
//! Each thread records frequent values locally and hands them over periodically
//! ([`LocalHistogram`]).

mod catalogue;
mod cluster;
mod counts;
mod histogram;
mod labels;
mod meters;

pub use cluster::ClusterMetrics;
pub use histogram::{Histogram, LocalHistogram};
pub use labels::{AuthEvent, MEMORY_HOLDERS, PanicIn, REJECTED_STATE, Refused};
pub use meters::{ShardMeters, SourceMeters};

pub(crate) use cluster::FAILED_APPENDS;
pub(crate) use labels::DROPPED;

use catalogue::Catalogue;
use labels::{AUTH_KEYS, FANOUT_CLIENTS, FAULT_KINDS, REJECTED_INPUT, RULES, TLS_VERSIONS};

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::histogram::{NUMBERS, SIZES, TIMES};
use crate::protocol::{Code, GapCause, LagLevel, Mode, PerEncoding, SourceState};
use crate::topic::Channel;

/// Handles of all metrics; those on the hot path are accessed by index, without a lookup by name.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    /// Number of events published, by channel index.
    pub published: [IntCounter; Channel::COUNT],
    /// Number of events encoded.
    pub encoded: PerEncoding<IntCounter>,
    /// Memory of the log, in bytes.
    pub log_bytes: IntGauge,
    /// Latency from receipt to publication.
    pub bus_time: Histogram,
    /// Number of items per batch.
    pub batch_items: Histogram,
    /// Fill level of the queue of the bus, 0 to 1.
    pub queue_fill: Gauge,
    /// Number of topics.
    pub topics: IntGauge,
    /// Number of instruments with stale prices.
    pub stale: IntGauge,
    /// Number of open connections.
    pub connections: IntGauge,
    /// Number of connections opened.
    pub opened: IntCounter,
    /// Number of lagging connections, by level: warn, degraded.
    pub late: [IntGauge; 2],
    /// Number of subscriptions.
    pub subscriptions: IntGauge,
    /// Number of events delivered in data arrays.
    pub delivered: IntCounter,
    /// Number of events replaced by newer ones.
    pub merged: IntCounter,
    /// Number of events reported in gaps, by cause index.
    pub lost: [IntCounter; GapCause::ALL.len()],
    /// Number of bytes written to sockets.
    pub written_bytes: IntCounter,
    /// Latency from publication to write: by mode for clients that keep up, then by mode for
    /// lagging clients.
    pub fanout_time: [Histogram; 2 * Mode::NAMES.len()],
    /// Age of the oldest event queued for a blocked client.
    pub outbox_age: Histogram,
    /// Number of bytes per write.
    pub flush_bytes: Histogram,
    /// Latency from snapshot request to write.
    pub snapshot_time: Histogram,
    /// Number of topics resumed, by outcome.
    pub resumes: IntCounterVec,
    /// Number of events missing from the ledger.
    pub unaccounted: IntCounter,
    /// Upper bound of memory by the memory formula, in bytes.
    pub memory_bound: IntGauge,
    /// Memory of the machine or limit of the container, in bytes.
    pub memory_limit: IntGauge,
    /// Memory by holder, in bytes, as far as it is counted.
    pub memory_held: IntGaugeVec,
    /// Number of panics while serving one connection, by part.
    panics: IntCounterVec,
    /// Maximum number of connections in the config.
    pub connections_limit: IntGauge,
    /// Number of changes of lag level, by new level: ok, warn, degraded.
    pub lag: [IntCounter; 3],
    /// Number of connections closed by the server, by code index; the last is "other".
    pub closed: IntCounterVec,
    /// Number of bytes queued in outboxes.
    pub queued_bytes: IntGauge,
    /// Number of requests answered with an error, by code.
    pub request_errors: IntCounterVec,
    /// Number of input records rejected, by reason.
    pub rejected_input: IntCounterVec,
    /// Number of shard overruns: the shard fell behind the bus by more than bus.log.
    pub overruns: IntCounter,
    /// Number of rows of recordings, by source and outcome.
    pub replay_rows: IntCounterVec,
    /// Number of events that violate a rule of their source, by rule and action.
    source_rules: IntCounterVec,
    /// Number of injected faults that have begun, by kind.
    pub injected_faults: IntCounterVec,
    /// Number of source restarts.
    pub source_restarts: IntCounter,
    /// Number of handshakes rejected, by reason.
    handshakes_rejected: IntCounterVec,
    /// Number of TLS handshakes completed, by protocol version.
    tls_handshakes: IntCounterVec,
    /// Number of reloads of certificates and keys, by outcome.
    pub tls_reloads: IntCounterVec,
    /// End of the validity of the certificate, Unix seconds; 0 without TLS.
    pub tls_certificate_expiry: IntGauge,
    /// 1 if the last reload of the certificates was rejected.
    pub tls_reload_failed: IntGauge,
    /// 1 while the task of a source runs.
    pub source_up: IntGaugeVec,
    /// 1 for the current state of a source, 0 for the others.
    pub source_state: IntGaugeVec,
    /// Number of events emitted by sources but not published by the bus, by reason.
    source_dropped: IntCounterVec,
    /// Number of events emitted by sources.
    source_events: IntCounterVec,
    /// Number of events that sources missed.
    source_missed: IntCounterVec,
    /// 1 during graceful shutdown.
    pub draining: IntGauge,
    /// Number of config reloads, by outcome.
    pub reloads: IntCounterVec,
    /// 1 if the last config reload was rejected.
    pub reload_failed: IntGauge,
    /// Wall clock minus server clock.
    pub clock_skew: Gauge,
    /// Number of steps of the wall clock, by direction.
    pub clock_steps: IntCounterVec,
    /// Number of saved states rejected, by reason.
    pub states_rejected: IntCounterVec,
    /// Number of authentications, by outcome.
    authentications: IntCounterVec,
    /// Number of times the keys of the authentication were read again, by outcome.
    pub auth_keys: IntCounterVec,
}

/// Violations of the rules for bad market data, by rule: flagged events, dropped events.
pub type RuleCounters = [[IntCounter; 2]; RULES.len()];

const FANOUT_HELP: &str = "Fan-out latency from publication to the client's socket, by delivery mode and by whether the client keeps up or lags. Includes interval waits, excludes resumed events.";

impl Metrics {
    /// Creates all metrics, at zero.
    #[allow(clippy::too_many_lines, reason = "a table of all metrics")]
    pub fn new() -> Self {
        let all = Catalogue(Registry::new());
        let published = all.counters(
            "tickcast_events_published_total",
            "Events published by the bus.",
            "channel",
            [],
        );
        let names = [
            "trade", "quote", "ticker", "bar_1s", "bar_1m", "bar_5m", "bar_1h", "bar_1d", "status",
        ];
        let encoded = all.counters(
            "tickcast_events_encoded_total",
            "Events encoded, once per encoding.",
            "encoding",
            [],
        );
        let lost = all.counters(
            "tickcast_events_lost_total",
            "Events lost, as reported in gaps, by cause.",
            "cause",
            [],
        );
        let lag = all.counters(
            "tickcast_lag_changes_total",
            "Changes of a connection's lag level.",
            "level",
            [],
        );
        let late = all.gauges(
            "tickcast_slow_consumers",
            "Connections currently lagging, by level.",
            &["level"],
        );
        let memory_held = all.gauges(
            "tickcast_memory_held_bytes",
            "Memory by holder, as far as it is counted.",
            &["holder"],
        );
        // Present before the first count.
        for holder in MEMORY_HOLDERS {
            memory_held.with_label_values(&[holder]);
        }
        let build = all.gauges(
            "tickcast_build_info",
            "Constant 1, labelled with the version.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let source_events = Opts::new(
            "tickcast_source_events_total",
            "Trades and quotes emitted by sources.",
        );
        let source_events = IntCounterVec::new(source_events, &["source", "channel"])
            .expect("metric names are valid");
        let source_missed = Opts::new(
            "tickcast_source_missed_events_total",
            "Trades and quotes that sources missed, reported to subscribers as gaps with cause source; an unknown number counts as one.",
        );
        let source_missed = IntCounterVec::new(source_missed, &["source", "channel"])
            .expect("metric names are valid");
        let source_rules = Opts::new(
            "tickcast_source_rule_events_total",
            "Events that violate a rule of their source, by rule and action.",
        );
        let source_rules = IntCounterVec::new(source_rules, &["source", "rule", "action"])
            .expect("metric names are valid");
        let source_dropped = Opts::new(
            "tickcast_source_events_dropped_total",
            "Events emitted by sources but not published by the bus, by reason.",
        );
        let source_dropped = IntCounterVec::new(source_dropped, &["source", "reason"])
            .expect("metric names are valid");
        let replay_rows = Opts::new(
            "tickcast_replay_rows_total",
            "Rows of recorded files, by outcome: emitted as a trade or quote, or skipped, by reason.",
        );
        let replay_rows = IntCounterVec::new(replay_rows, &["source", "outcome"])
            .expect("metric names are valid");
        let codes = || Code::ALL.map(Code::name);
        let process = all.0.register(Box::new(ProcessCollector::for_self()));
        process.expect("process metrics have distinct names");
        Self {
            published: names.map(|name| published.with_label_values(&[name])),
            encoded: PerEncoding::from_fn(|encoding| encoded.with_label_values(&[encoding.name()])),
            lost: GapCause::ALL.map(|cause| lost.with_label_values(&[cause.name()])),
            lag: ["ok", "warn", "degraded"].map(|level| lag.with_label_values(&[level])),
            late: ["warn", "degraded"].map(|level| late.with_label_values(&[level])),
            bus_time: all.histogram("tickcast_bus_latency_seconds", "Ingest-to-publish latency, including queueing.", TIMES),
            batch_items: all.histogram("tickcast_batch_items", "Items per published batch: events and topic changes.", NUMBERS),
            queue_fill: all.ratio("tickcast_bus_queue_ratio", "Fill level of the bus input queue, 0 to 1."),
            log_bytes: all.gauge("tickcast_log_bytes", "Memory of the batches in the log."),
            topics: all.gauge("tickcast_topics", "Topics in the catalog."),
            stale: all.gauge(
                "tickcast_instruments_stale",
                "Instruments without events for longer than stale_after, excluding closed and halted ones.",
            ),
            connections: all.gauge("tickcast_connections", "Open connections."),
            opened: all.counter("tickcast_connections_opened_total", "Connections opened."),
            subscriptions: all.gauge("tickcast_subscriptions", "Subscribed topics, over all connections."),
            delivered: all.counter("tickcast_events_delivered_total", "Events delivered in data arrays, over all connections."),
            merged: all.counter("tickcast_events_merged_total", "Events conflated (replaced by newer ones), over all connections."),
            written_bytes: all.counter("tickcast_written_bytes_total", "Bytes written to client sockets."),
            fanout_time: std::array::from_fn(|at| {
                let modes = Mode::NAMES.len();
                let labels = [("client", FANOUT_CLIENTS[at / modes]), ("mode", Mode::NAMES[at % modes])];
                all.labelled("tickcast_fanout_latency_seconds", FANOUT_HELP, &labels)
            }),
            outbox_age: all.histogram(
                "tickcast_outbox_age_seconds",
                "Age of the oldest queued event or unanswered ping, sampled for clients that must read first.",
                TIMES,
            ),
            flush_bytes: all.histogram("tickcast_flush_bytes", "Bytes accepted by a client socket per turn.", SIZES),
            snapshot_time: all.histogram("tickcast_snapshot_latency_seconds", "Snapshot latency from request to write.", TIMES),
            resumes: all.counters(
                "tickcast_resumes_total",
                "Topics resumed after a reconnect, by outcome.",
                "outcome",
                ["recovered", "expired", "new_epoch"],
            ),
            unaccounted: all.counter(
                "tickcast_events_unaccounted_total",
                "Events missing from a ledger: neither delivered, merged nor lost. Anything but 0 is a bug.",
            ),
            closed: all.counters(
                "tickcast_connections_closed_total",
                "Connections closed, by code: the name of a protocol code, client for a close by the client, or a number for a violation of RFC 6455.",
                "code",
                codes().into_iter().chain(["client", "1002", "1007", "1009", "1011"]),
            ),
            queued_bytes: all.gauge("tickcast_outbox_bytes", "Bytes queued in outboxes."),
            memory_bound: all.gauge("tickcast_memory_bound_bytes", "Upper bound of memory by the memory formula."),
            memory_limit: all.gauge(
                "tickcast_memory_limit_bytes",
                "Memory limit: `limits.memory`, or with auto that of the machine or container; 0 if unknown.",
            ),
            memory_held,
            panics: all.counters(
                "tickcast_panics_total",
                "Panics while serving one connection, which was closed, by part. Anything but 0 is a bug.",
                "part",
                PanicIn::ALL.map(PanicIn::name),
            ),
            connections_limit: all.gauge("tickcast_connections_limit", "Connection limit (`limits.connections`)."),
            request_errors: all.counters("tickcast_request_errors_total", "Requests answered with an error, by code.", "code", codes()),
            rejected_input: all.counters("tickcast_rejected_input_total", "Input records rejected, by reason.", "reason", REJECTED_INPUT),
            overruns: all.counter("tickcast_shard_overruns_total", "Shard overruns: the shard fell behind the bus by more than bus.log."),
            replay_rows: all.register(replay_rows),
            source_restarts: all.counter("tickcast_source_restarts_total", "Source restarts."),
            injected_faults: all.counters(
                "tickcast_injected_faults_total",
                "Injected faults that have begun, by kind.",
                "kind",
                FAULT_KINDS,
            ),
            handshakes_rejected: all.counters(
                "tickcast_handshakes_rejected_total",
                "Handshakes and HTTP requests rejected or aborted, by reason.",
                "reason",
                Refused::ALL.map(Refused::name),
            ),
            tls_handshakes: all.counters("tickcast_tls_handshakes_total", "TLS handshakes completed, by protocol version.", "version", TLS_VERSIONS),
            tls_reloads: all.counters("tickcast_tls_reloads_total", "Reloads of certificates and keys, by outcome.", "outcome", ["applied", "rejected"]),
            tls_certificate_expiry: all.gauge(
                "tickcast_tls_certificate_expiry_timestamp_seconds",
                "End of the validity of the TLS certificate, or of the first of its chain that expires; Unix seconds, 0 without TLS.",
            ),
            tls_reload_failed: all.gauge("tickcast_tls_reload_failed", "1 while the current certificate files are rejected and the previous certificate is in use."),
            source_up: all.gauges("tickcast_source_up", "1 while the source runs.", &["source"]),
            source_state: all.gauges("tickcast_source_state", "1 for the current state of a source, 0 for the others.", &["source", "state"]),
            source_events: all.register(source_events),
            source_missed: all.register(source_missed),
            source_rules: all.register(source_rules),
            source_dropped: all.register(source_dropped),
            reloads: all.counters(
                "tickcast_config_reloads_total",
                "Config reloads, by outcome.",
                "outcome",
                ["applied", "rejected"],
            ),
            reload_failed: all
                .gauge("tickcast_config_reload_failed", "1 while the current config file is rejected and an older config is in force."),
            clock_skew: all.ratio(
                "tickcast_clock_skew_seconds",
                "Wall clock minus server clock; the server clock is slewed towards the wall clock and never steps back.",
            ),
            clock_steps: all.counters(
                "tickcast_clock_steps_total",
                "Wall-clock steps of a second or more, while running or between two runs, by direction.",
                "direction",
                ["forward", "back"],
            ),
            states_rejected: all.counters(
                "tickcast_states_rejected_total",
                "Saved states rejected at start, by reason.",
                "reason",
                REJECTED_STATE,
            ),
            authentications: all.counters(
                "tickcast_authentications_total",
                "Authentications of clients, by outcome: credentials accepted or refused, and ends of connections by timeout, expiry or revocation.",
                "outcome",
                AuthEvent::ALL.map(AuthEvent::name),
            ),
            auth_keys: all.counters(
                "tickcast_auth_keys_reloads_total",
                "Changed key files and key sets of the authentication, by outcome.",
                "outcome",
                AUTH_KEYS,
            ),
            draining: all.gauge("tickcast_draining", "1 during graceful shutdown."),
            catalogue: all,
        }
    }

    /// Creates the metrics of a source.
    pub fn add_source(&self, name: &str) -> SourceMeters {
        let lag = self.catalogue.labelled(
            "tickcast_source_latency_seconds",
            "Source latency from event time to receipt.",
            &[("source", name)],
        );
        for state in SourceState::ALL {
            self.source_state.with_label_values(&[name, state.name()]);
        }
        let of = |channel| self.source_events.with_label_values(&[name, channel]);
        SourceMeters {
            lag: lag.local(),
            trades: of("trade"),
            quotes: of("quote"),
            missed: ["trade", "quote"]
                .map(|channel| self.source_missed.with_label_values(&[name, channel])),
        }
    }

    /// Counters of the events of a source that violate a rule.
    pub fn rule_counters(&self, source: &str) -> RuleCounters {
        RULES.map(|rule| {
            ["flagged", "dropped"]
                .map(|action| self.source_rules.with_label_values(&[source, rule, action]))
        })
    }

    /// Counters of the unpublished events of a source, by reason index in [`DROPPED`].
    pub(crate) fn dropped_of(&self, source: &str) -> [IntCounter; DROPPED.len()] {
        DROPPED.map(|reason| self.source_dropped.with_label_values(&[source, reason]))
    }

    /// Creates the metrics of a shard.
    pub fn add_shard(&self, number: usize) -> ShardMeters {
        let label = ("shard", &*number.to_string());
        let turn = self.catalogue.labelled(
            "tickcast_shard_turn_duration_seconds",
            "Duration of a turn of the shard's event loop.",
            &[label],
        );
        let opts = Opts::new(
            "tickcast_shard_paused_seconds_total",
            "Total time by which turns were more than a second late because the process or machine was paused.",
        );
        let paused = prometheus::Counter::with_opts(opts.const_label(label.0, label.1))
            .expect("metric names are valid");
        let opts = Opts::new(
            "tickcast_shard_turn_duration_max_seconds",
            "Longest turn of the last 30 to 60 seconds.",
        );
        let longest =
            Gauge::with_opts(opts.const_label(label.0, label.1)).expect("metric names are valid");
        ShardMeters {
            turn: turn.local(),
            longest_turn: self.catalogue.register(longest),
            paused: self.catalogue.register(paused),
        }
    }

    /// Sets the current state of a source.
    pub fn set_source_state(&self, name: &str, state: SourceState) {
        for one in SourceState::ALL {
            self.source_state
                .with_label_values(&[name, one.name()])
                .set(i64::from(one == state));
        }
    }

    /// Counter of changes to a lag level.
    pub fn lag_of(&self, level: LagLevel) -> &IntCounter {
        &self.lag[match level {
            LagLevel::Ok => 0,
            LagLevel::Warn => 1,
            LagLevel::Degraded => 2,
        }]
    }

    /// Moves a connection from one lag level to another.
    pub fn change_late(&self, before: LagLevel, after: LagLevel) {
        let gauge = |level| match level {
            LagLevel::Ok => None,
            LagLevel::Warn => Some(&self.late[0]),
            LagLevel::Degraded => Some(&self.late[1]),
        };
        if let Some(gauge) = gauge(before) {
            gauge.dec();
        }
        if let Some(gauge) = gauge(after) {
            gauge.inc();
        }
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let rendered = TextEncoder::new().encode(&self.catalogue.0.gather(), &mut out);
        rendered.expect("writing to memory cannot fail, and the catalogue's names are valid");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_series_per_holder_before_the_first_count() {
        let text = String::from_utf8(Metrics::new().render()).expect("text");
        for holder in MEMORY_HOLDERS {
            let line = format!("tickcast_memory_held_bytes{{holder=\"{holder}\"}} 0\n");
            assert!(text.contains(&line), "{holder}");
        }
    }
}
