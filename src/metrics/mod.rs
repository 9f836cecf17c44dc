//! Every metric's name, unit, labels and help text, in one catalogue. Labels are of closed sets: no symbol, no client.
//!
//! What happens often is recorded by each thread for itself and handed over now and then ([`LocalHistogram`]).

mod histogram;

pub use histogram::{Histogram, LocalHistogram};

use histogram::{NUMBERS, SIZES, Scale, TIMES};
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::protocol::{Code, Encoding, GapCause, LagLevel, Mode, SourceState};
use crate::topic::Channel;

/// Handles of all metrics; the hot ones are reached by index, without a lookup by name.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    /// Events published, by the channel's index.
    pub published: [IntCounter; Channel::COUNT],
    /// Events encoded, by the encoding's index.
    pub encoded: [IntCounter; 2],
    /// Memory of the log.
    pub log_bytes: IntGauge,
    /// Received → published.
    pub bus_time: Histogram,
    /// Items of a batch.
    pub batch_items: Histogram,
    /// Fill of the bus' queue, 0 to 1.
    pub queue_fill: Gauge,
    /// Topics there are.
    pub topics: IntGauge,
    /// Instruments whose prices stand still, though they shouldn't.
    pub stale: IntGauge,
    /// Connections open.
    pub connections: IntGauge,
    /// Connections that were opened.
    pub opened: IntCounter,
    /// Connections that are late now: warn, degraded.
    pub late: [IntGauge; 2],
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
    /// Published → written: by mode for clients that keep up, then by mode for those that lag.
    pub fanout_time: [Histogram; 2 * Mode::NAMES.len()],
    /// Age of the oldest event that waits for a blocked client.
    pub queue_age: Histogram,
    /// Bytes written at once.
    pub flush_bytes: Histogram,
    /// Asked for → on the wire.
    pub snapshot_time: Histogram,
    /// Topics resumed, by outcome.
    pub resumes: IntCounterVec,
    /// Events that no account has.
    pub unaccounted: IntCounter,
    /// What the formula allows.
    pub memory_bound: IntGauge,
    /// Memory that the machine or the container has for the process.
    pub memory_limit: IntGauge,
    /// Connections that the config allows.
    pub connections_limit: IntGauge,
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
    /// Rows of recordings, by source and outcome.
    pub replay_rows: IntCounterVec,
    /// Restarts of sources.
    pub source_restarts: IntCounter,
    /// Handshakes refused, by reason.
    handshakes_refused: IntCounterVec,
    /// A source's task runs.
    pub source_up: IntGaugeVec,
    /// A source's state: 1 where it holds.
    pub source_state: IntGaugeVec,
    /// Events that sources emitted and the bus did not publish, by reason.
    source_dropped: IntCounterVec,
    /// What sources emitted.
    source_events: IntCounterVec,
    /// 1 while the server stops.
    pub draining: IntGauge,
    /// Reloads of the config, by outcome.
    pub reloads: IntCounterVec,
    /// 1 where the last was refused.
    pub reload_failed: IntGauge,
    /// Wall clock less the server's clock.
    pub clock_skew: Gauge,
    /// Steps of the wall clock, by direction.
    pub clock_steps: IntCounterVec,
    /// Saved states that were refused, by reason.
    pub states_refused: IntCounterVec,
}

/// A source's own.
#[derive(Debug)]
pub struct SourceMeters {
    /// Event time → received; for sources whose events happen now.
    pub lag: LocalHistogram,
    /// Trades emitted.
    pub trades: IntCounter,
    /// Quotes emitted.
    pub quotes: IntCounter,
}

/// A shard's own.
#[derive(Debug)]
pub struct ShardMeters {
    /// How long turns of its loop take.
    pub turn: LocalHistogram,
    /// The longest of late.
    pub longest_turn: Gauge,
    /// Time by which turns were late.
    pub paused: prometheus::Counter,
}

const FANOUT_HELP: &str = "Fan-out latency, from the log to the client's socket, by mode and by whether the client keeps up or lags: interval waits included, resumed events not.";

/// Clients that keep up, and those whose socket was full or that were told of a lag when the events were written.
const FANOUT_CLIENTS: [&str; 2] = ["keeping_up", "lagging"];

/// Reason why a connection or its request is refused or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many sockets.
    Sockets,
    /// Nothing came in time.
    Silent,
    /// The head was begun and not ended in time.
    Slow,
    /// The client left in the middle of a head.
    Incomplete,
    /// The bytes are no HTTP/1.1.
    Malformed,
    /// The head is longer than heads may be.
    TooLarge,
    /// `Host` is missing, twice, or not one of ours.
    Host,
    /// A page of this origin may not use the feed.
    Origin,
    /// Not a handshake by RFC 6455.
    Handshake,
    /// Too many requests at once.
    Busy,
    /// More requests a second than the limit.
    Rate,
    /// The body of a publish request came too slowly.
    SlowBody,
    /// The client did not take its answer.
    Unread,
}

impl Refused {
    const ALL: [Self; 13] = [
        Self::Sockets,
        Self::Silent,
        Self::Slow,
        Self::Incomplete,
        Self::Malformed,
        Self::TooLarge,
        Self::Host,
        Self::Origin,
        Self::Handshake,
        Self::Busy,
        Self::Rate,
        Self::SlowBody,
        Self::Unread,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::Busy => "busy",
            Self::Rate => "rate",
            Self::SlowBody => "slow_body",
            Self::Unread => "unread",
        }
    }
}

/// The reasons why the bus does not publish an event: another source owns the symbol, `limits.instruments` is reached, the
/// instrument lacks the channel, the source has not announced it, or a session's sum has no room for it.
pub(crate) const DROPPED: [&str; 5] = [
    "symbol_taken",
    "instrument_limit",
    "channel",
    "unannounced",
    "overflow",
];
/// Why input is refused.
const BAD_INPUT: [&str; 14] = [
    "malformed",
    "channel",
    "symbol",
    "quantity",
    "negative_price",
    "zero_price",
    "too_large",
    "crossed",
    "late",
    "ahead",
    "behind",
    "unit",
    "full",
    "bad_line",
];

/// Why a saved state is refused.
pub const STATE_REFUSED: [&str; 6] = [
    "missing",
    "unreadable",
    "damaged",
    "not_the_last",
    "old",
    "ahead",
];

/// Builds metrics and registers them.
#[derive(Debug)]
struct Catalogue(Registry);

impl Catalogue {
    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0
            .register(Box::new(collector.clone()))
            .expect("every name stands once in the catalogue");
        collector
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("names of the catalogue are valid"))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("names of the catalogue are valid"))
    }
    fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help).expect("names of the catalogue are valid"))
    }
    fn histogram(&self, name: &str, help: &str, scale: Scale) -> Histogram {
        self.register(
            Histogram::new(name, help, scale, &[]).expect("names of the catalogue are valid"),
        )
    }
    fn labelled(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Histogram {
        self.register(
            Histogram::new(name, help, TIMES, labels).expect("names of the catalogue are valid"),
        )
    }
    /// With every value that the label is known to take at zero, so that nothing is told apart from no data.
    fn counters<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), &[label])
            .expect("names of the catalogue are valid");
        for value in values {
            counters.with_label_values(&[value]);
        }
        self.register(counters)
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(
            IntGaugeVec::new(Opts::new(name, help), labels)
                .expect("names of the catalogue are valid"),
        )
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[allow(
        clippy::too_many_lines,
        reason = "a table, to be read from its top to its bottom"
    )]
    pub fn new() -> Self {
        let all = Catalogue(Registry::new());
        let published = all.counters(
            "tickcast_events_published_total",
            "Events that the bus published.",
            "channel",
            [],
        );
        let names = [
            "trade", "quote", "ticker", "bar_1s", "bar_1m", "bar_5m", "bar_1h", "bar_1d", "status",
        ];
        let encoded = all.counters(
            "tickcast_events_encoded_total",
            "Events made into bytes, once an encoding.",
            "encoding",
            [],
        );
        let lost = all.counters(
            "tickcast_events_lost_total",
            "Events named in gaps, by cause.",
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
            "tickcast_connections_late",
            "Connections that were told that they are late, by level.",
            &["level"],
        );
        let build = all.gauges(
            "tickcast_build_info",
            "1; its label tells the version.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let source_events = Opts::new(
            "tickcast_source_events_total",
            "Trades and quotes that sources emitted.",
        );
        let source_events = IntCounterVec::new(source_events, &["source", "channel"])
            .expect("names of the catalogue are valid");
        let source_dropped = Opts::new(
            "tickcast_source_dropped_total",
            "Events that sources emitted and the bus did not publish, by reason.",
        );
        let source_dropped = IntCounterVec::new(source_dropped, &["source", "reason"])
            .expect("names of the catalogue are valid");
        let replay_rows = Opts::new(
            "tickcast_replay_rows_total",
            "Rows of recorded files, by outcome: emitted as a trade or a quote, or skipped for a reason.",
        );
        let replay_rows = IntCounterVec::new(replay_rows, &["source", "outcome"])
            .expect("names of the catalogue are valid");
        let codes = || Code::ALL.map(Code::name);
        let process = all.0.register(Box::new(ProcessCollector::for_self()));
        process.expect("the process' metrics have names of their own");
        Self {
            published: names.map(|name| published.with_label_values(&[name])),
            encoded: Encoding::ALL.map(|encoding| encoded.with_label_values(&[encoding.name()])),
            lost: GapCause::ALL.map(|cause| lost.with_label_values(&[cause.name()])),
            lag: ["ok", "warn", "degraded"].map(|level| lag.with_label_values(&[level])),
            late: ["warn", "degraded"].map(|level| late.with_label_values(&[level])),
            bus_time: all.histogram("tickcast_bus_seconds", "From a source's hand to the log: waiting in the queue included.", TIMES),
            batch_items: all.histogram("tickcast_batch_items", "What the bus publishes at once: events and news of topics.", NUMBERS),
            queue_fill: all.ratio("tickcast_bus_queue_ratio", "How full the bus' queue is, 0 to 1."),
            log_bytes: all.gauge("tickcast_log_bytes", "Memory of the batches on the log."),
            topics: all.gauge("tickcast_topics", "Topics there are."),
            stale: all.gauge(
                "tickcast_instruments_stale",
                "Instruments that say nothing though they should; not those that are closed or halted.",
            ),
            connections: all.gauge("tickcast_connections", "Connections open."),
            opened: all.counter("tickcast_connections_opened_total", "Connections that were opened."),
            subscriptions: all.gauge("tickcast_subscriptions", "Topics held, over all connections."),
            delivered: all.counter("tickcast_events_delivered_total", "Events put into data arrays, over all connections."),
            merged: all.counter("tickcast_events_merged_total", "Events replaced by newer ones, over all connections."),
            written_bytes: all.counter("tickcast_written_bytes_total", "Bytes written to clients' sockets."),
            fanout_time: std::array::from_fn(|at| {
                let modes = Mode::NAMES.len();
                let labels = [("client", FANOUT_CLIENTS[at / modes]), ("mode", Mode::NAMES[at % modes])];
                all.labelled("tickcast_fanout_seconds", FANOUT_HELP, &labels)
            }),
            queue_age: all.histogram(
                "tickcast_queue_age_seconds",
                "Age of the oldest event that waits, at each look at a blocked client.",
                TIMES,
            ),
            flush_bytes: all.histogram("tickcast_flush_bytes", "Bytes that a client's socket took in one turn.", SIZES),
            snapshot_time: all.histogram("tickcast_snapshot_seconds", "From the request of a snapshot to the wire.", TIMES),
            resumes: all.counters(
                "tickcast_resumes_total",
                "Topics that a client went on with after a reconnect, by outcome.",
                "outcome",
                ["recovered", "expired", "new_epoch"],
            ),
            unaccounted: all.counter(
                "tickcast_events_unaccounted_total",
                "Events that a ledger has neither as delivered nor merged nor lost; 0, or there is a bug.",
            ),
            closed: all.counters(
                "tickcast_connections_closed_total",
                "Connections closed, by code; client: by the client; a number: for a violation of RFC 6455.",
                "code",
                codes().into_iter().chain(["client", "1002", "1007", "1009"]),
            ),
            queued_bytes: all.gauge("tickcast_queued_bytes", "Bytes that wait in outboxes."),
            memory_bound: all.gauge("tickcast_memory_bound_bytes", "What the memory formula allows with this config."),
            memory_limit: all.gauge(
                "tickcast_memory_limit_bytes",
                "Memory of the machine, or of the container where that is less; 0 where it can't be read.",
            ),
            connections_limit: all.gauge("tickcast_connections_limit", "Connections that `limits.connections` allows."),
            request_errors: all.counters("tickcast_request_errors_total", "Requests answered by an error.", "code", codes()),
            bad_input: all.counters("tickcast_bad_input_total", "What sources said that was refused.", "reason", BAD_INPUT),
            overruns: all.counter("tickcast_shard_overruns_total", "Times a shard was overrun by the log."),
            replay_rows: all.register(replay_rows),
            source_restarts: all.counter("tickcast_source_restarts_total", "Times a source was started again."),
            handshakes_refused: all.counters(
                "tickcast_handshakes_refused_total",
                "Handshakes and HTTP requests refused or cut off, by reason.",
                "reason",
                Refused::ALL.map(Refused::name),
            ),
            source_up: all.gauges("tickcast_source_up", "1 where the source runs.", &["source"]),
            source_state: all.gauges("tickcast_source_state", "1 for the state that a source is in.", &["source", "state"]),
            source_events: all.register(source_events),
            source_dropped: all.register(source_dropped),
            reloads: all.counters(
                "tickcast_config_reloads_total",
                "Times the config was read again, by outcome.",
                "outcome",
                ["taken", "refused"],
            ),
            reload_failed: all
                .gauge("tickcast_config_reload_failed", "1 where the config as it is now was refused, and an older one holds."),
            clock_skew: all.ratio(
                "tickcast_clock_skew_seconds",
                "Wall clock less the server's clock, which is brought back to it without going back.",
            ),
            clock_steps: all.counters(
                "tickcast_clock_steps_total",
                "Steps of the wall clock by a second or more, while the server ran or between two runs.",
                "direction",
                ["forward", "back"],
            ),
            states_refused: all.counters(
                "tickcast_states_refused_total",
                "Saved states that were not taken up at the start, by reason.",
                "reason",
                STATE_REFUSED,
            ),
            draining: all.gauge("tickcast_draining", "1 while the server stops."),
            catalogue: all,
        }
    }

    /// The metrics of a source.
    pub fn add_source(&self, name: &str) -> SourceMeters {
        let lag = self.catalogue.labelled(
            "tickcast_source_lag_seconds",
            "From an event's time to its arrival here.",
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
        }
    }

    /// The events of a source that are not published, by the index of the reason in [`DROPPED`].
    pub(crate) fn dropped_of(&self, source: &str) -> [IntCounter; DROPPED.len()] {
        DROPPED.map(|reason| self.source_dropped.with_label_values(&[source, reason]))
    }

    /// The metrics of a shard.
    pub fn add_shard(&self, number: usize) -> ShardMeters {
        let label = ("shard", &*number.to_string());
        let turn = self.catalogue.labelled(
            "tickcast_shard_turn_seconds",
            "How long a turn of a shard's loop takes.",
            &[label],
        );
        let opts = Opts::new(
            "tickcast_shard_paused_seconds_total",
            "Time by which turns of a shard's loop were late, where that was more than a second: the process or machine was paused.",
        );
        let paused = prometheus::Counter::with_opts(opts.const_label(label.0, label.1))
            .expect("names of the catalogue are valid");
        let opts = Opts::new(
            "tickcast_shard_longest_turn_seconds",
            "The longest turn of the last half to whole minute.",
        );
        let longest = Gauge::with_opts(opts.const_label(label.0, label.1))
            .expect("names of the catalogue are valid");
        ShardMeters {
            turn: turn.local(),
            longest_turn: self.catalogue.register(longest),
            paused: self.catalogue.register(paused),
        }
    }

    /// A source is in this state now.
    pub fn set_source_state(&self, name: &str, state: SourceState) {
        for one in SourceState::ALL {
            self.source_state
                .with_label_values(&[name, one.name()])
                .set(i64::from(one == state));
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

    /// A connection that was told one level is told another.
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

    /// Counts a close by the server.
    pub fn count_close(&self, code: Code) {
        self.closed.with_label_values(&[code.name()]).inc();
    }

    /// Counts a connection or request that is refused or cut off.
    pub fn count_refused(&self, reason: Refused) {
        let labels = [reason.name()];
        self.handshakes_refused.with_label_values(&labels).inc();
    }

    /// Counts a request that was answered by an error.
    pub fn count_error(&self, code: Code) {
        self.request_errors.with_label_values(&[code.name()]).inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let rendered = TextEncoder::new().encode(&self.catalogue.0.gather(), &mut out);
        rendered.expect("a Vec takes all, and the catalogue's names are valid");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
