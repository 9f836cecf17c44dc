//! Construction and registration of metrics; each name is registered once.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::histogram::Histogram;
use crate::histogram::{Scale, TIMES};

/// Builder that creates and registers metrics.
#[derive(Debug)]
pub(super) struct Catalogue(pub(super) Registry);

impl Catalogue {
    pub(super) fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> C {
        self.0
            .register(Box::new(collector.clone()))
            .expect("metric names are unique");
        collector
    }
    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("metric names are valid"))
    }
    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("metric names are valid"))
    }
    pub(super) fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help).expect("metric names are valid"))
    }
    pub(super) fn histogram(&self, name: &str, help: &str, scale: Scale) -> Histogram {
        self.register(Histogram::new(name, help, scale, &[]).expect("metric names are valid"))
    }
    pub(super) fn labelled(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Histogram {
        self.register(Histogram::new(name, help, TIMES, labels).expect("metric names are valid"))
    }
    /// Creates counters with all known label values at zero, so that zero differs from missing
    /// data.
    pub(super) fn counters<'a>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> IntCounterVec {
        let counters =
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("metric names are valid");
        for value in values {
            counters.with_label_values(&[value]);
        }
        self.register(counters)
    }
    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(
            IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names are valid"),
        )
    }
}
