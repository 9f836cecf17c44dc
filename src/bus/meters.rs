use std::time::Duration;

use prometheus::IntCounter;

use super::{Emit, MissedData, MissedKind, SourceSpec};
use crate::market::UnixNanos;
use crate::metrics::{DROPPED, LocalHistogram, Metrics, SourceMeters};

/// Metrics of the bus and its sources, recorded locally and reported once per batch.
#[derive(Debug)]
pub(super) struct Meters {
    sources: Vec<Source>,
    /// Receive times of events not published yet, with the number of events each.
    received: Vec<(UnixNanos, u64)>,
    bus_time: LocalHistogram,
    batch_items: LocalHistogram,
}

/// Reason for not publishing an event that a source emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Another source owns the symbol.
    Symbol,
    /// The instrument exceeds `limits.instruments`.
    Limit,
    /// The instrument does not have the channel of the event.
    Channel,
    /// The source has not announced the instrument.
    Unannounced,
    /// A sum of the session would overflow.
    Overflow,
}

#[derive(Debug)]
struct Source {
    /// Counters indexed by [`Dropped`].
    dropped: [IntCounter; DROPPED.len()],
    metrics: SourceMeters,
    /// True if the source emits events in real time, so that their lag is meaningful.
    is_present: bool,
    trades: u64,
    quotes: u64,
}

impl Source {
    fn new(metrics: &Metrics, name: &str, is_present: bool) -> Self {
        Self {
            dropped: metrics.dropped_of(name),
            metrics: metrics.add_source(name),
            is_present,
            trades: 0,
            quotes: 0,
        }
    }

    fn count(&mut self, emit: &Emit, received: UnixNanos) -> u64 {
        let happened = match emit {
            Emit::Trade(_, trade) => {
                self.trades += 1;
                trade.ts
            }
            Emit::Quote(_, quote) => {
                self.quotes += 1;
                quote.ts
            }
            _ => return 0,
        };
        if self.is_present {
            self.metrics.lag.time(received.since(happened));
        }
        1
    }

    fn report(&mut self) {
        self.metrics.trades.inc_by(std::mem::take(&mut self.trades));
        self.metrics.quotes.inc_by(std::mem::take(&mut self.quotes));
        self.metrics.lag.hand_over();
    }
}

impl Meters {
    /// Creates meters for the named sources; `true` marks a real-time source.
    pub(super) fn new<'a>(
        metrics: &Metrics,
        sources: impl Iterator<Item = (&'a str, bool)>,
    ) -> Self {
        Self {
            sources: sources
                .map(|(name, is_present)| Source::new(metrics, name, is_present))
                .collect(),
            received: Vec::new(),
            bus_time: metrics.bus_time.local(),
            batch_items: metrics.batch_items.local(),
        }
    }

    /// Registers a new source, or an existing one with a new config.
    pub(super) fn begin(&mut self, metrics: &Metrics, at: usize, spec: &SourceSpec) {
        match self.sources.get_mut(at) {
            Some(source) => source.is_present = spec.is_present,
            None => self
                .sources
                .push(Source::new(metrics, &spec.name, spec.is_present)),
        }
    }

    /// Records values received from a source.
    pub(super) fn receive(&mut self, source: usize, emitted: &[Emit], received: UnixNanos) {
        // A source that starts with this input has emitted nothing before.
        let Some(source) = self.sources.get_mut(source) else {
            return;
        };
        let events = emitted
            .iter()
            .map(|emit| source.count(emit, received))
            .sum();
        if events > 0 {
            self.received.push((received, events));
        }
    }

    /// Counts data that a source missed.
    pub(super) fn miss(&self, source: usize, missed: MissedData) {
        let counters = &self.sources[source].metrics.missed;
        let counter = match missed.kind {
            MissedKind::Trades => &counters[0],
            MissedKind::Quotes => &counters[1],
        };
        // An unknown number is at least one event.
        counter.inc_by(missed.count.unwrap_or(1));
    }

    /// Counts events of a source that are not published, by reason.
    pub(super) fn drop(&self, source: usize, why: Dropped, events: usize) {
        self.sources[source].dropped[why as usize].inc_by(events as u64);
    }

    /// Discards the received events that were not published.
    pub(super) fn forget(&mut self) {
        self.received.clear();
    }

    /// Records that the received events were published, in a batch of `items` items.
    pub(super) fn publish(&mut self, items: usize, now: UnixNanos) {
        self.batch_items.record(items as u64, 1);
        for (received, events) in self.received.drain(..) {
            let took: Duration = now.since(received);
            self.bus_time.record(took.as_nanos() as u64, events);
        }
        for source in &mut self.sources {
            source.report();
        }
        self.batch_items.hand_over();
        self.bus_time.hand_over();
    }
}
