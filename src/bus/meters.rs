use std::time::Duration;

use prometheus::IntCounter;

use super::{Emit, SourceSpec};
use crate::market::UnixNanos;
use crate::metrics::{DROPPED, LocalHistogram, Metrics, SourceMeters};

/// Metrics of the bus and its sources, recorded locally and reported once per batch.
#[derive(Debug)]
pub(super) struct Meters {
    sources: Vec<Source>,
    /// Receive times of events that are not published yet, with their counts.
    received: Vec<(UnixNanos, u64)>,
    bus_time: LocalHistogram,
    batch_items: LocalHistogram,
}

/// The reason why an event that a source emitted is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Another source owns the symbol.
    Symbol,
    /// The instrument is beyond `limits.instruments`.
    Limit,
    /// The instrument doesn't have the event's channel.
    Channel,
    /// The source has not announced the instrument.
    Unannounced,
    /// A session's sum has no room for the trade.
    Overflow,
}

#[derive(Debug)]
struct Source {
    /// By [`Dropped`].
    dropped: [IntCounter; DROPPED.len()],
    told: SourceMeters,
    /// Its events happen now: how late they are says something.
    is_present: bool,
    trades: u64,
    quotes: u64,
}

impl Source {
    fn new(metrics: &Metrics, name: &str, is_present: bool) -> Self {
        Self {
            dropped: metrics.dropped_of(name),
            told: metrics.add_source(name),
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
            self.told.lag.time(received.since(happened));
        }
        1
    }

    fn tell(&mut self) {
        self.told.trades.inc_by(std::mem::take(&mut self.trades));
        self.told.quotes.inc_by(std::mem::take(&mut self.quotes));
        self.told.lag.hand_over();
    }
}

impl Meters {
    /// Of sources by name; `true` where events happen now.
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

    /// A source begins, or begins anew.
    pub(super) fn begin(&mut self, metrics: &Metrics, at: usize, spec: &SourceSpec) {
        match self.sources.get_mut(at) {
            Some(source) => source.is_present = spec.is_present,
            None => self
                .sources
                .push(Source::new(metrics, &spec.name, spec.is_present)),
        }
    }

    /// A source handed this over.
    pub(super) fn receive(&mut self, source: usize, emitted: &[Emit], received: UnixNanos) {
        // One that begins with this has told nothing else yet.
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

    /// Events of a source are not published, for this reason.
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
            source.tell();
        }
        self.batch_items.hand_over();
        self.bus_time.hand_over();
    }
}
