//! Prometheus histograms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use crate::histogram::{BUCKETS, Scale, Tally};

#[derive(Debug)]
struct Shared {
    desc: Desc,
    scale: Scale,
    /// Counts per bucket, not cumulative; unused buckets of a short scale remain zero.
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    labels: Vec<proto::LabelPair>,
}

/// A histogram as exported to Prometheus. Clones share their values.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Shared>);

impl Histogram {
    /// Creates an empty histogram with these labels.
    pub(super) fn new(
        name: &str,
        help: &str,
        scale: Scale,
        labels: &[(&str, &str)],
    ) -> prometheus::Result<Self> {
        let of = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let desc = Desc::new(
            name.to_owned(),
            help.to_owned(),
            Vec::new(),
            labels.iter().copied().map(of).collect(),
        )?;
        let labels = desc.const_label_pairs.clone();
        let counts = [const { AtomicU64::new(0) }; BUCKETS];
        Ok(Self(Arc::new(Shared {
            desc,
            scale,
            counts,
            sum: AtomicU64::new(0),
            labels,
        })))
    }

    /// Creates a thread-local recorder for this histogram.
    pub fn local(&self) -> LocalHistogram {
        LocalHistogram {
            shared: self.clone(),
            tally: Tally::new(self.0.scale),
        }
    }

    /// Adds the values that a thread has recorded.
    pub fn add(&self, tally: &mut Tally) {
        let Some((counts, sum)) = tally.take() else {
            return;
        };
        for (count, total) in counts.into_iter().zip(&self.0.counts) {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.0.sum.fetch_add(sum, Ordering::Relaxed);
    }

    /// Number of recorded values.
    #[cfg(test)]
    pub fn count(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

impl Collector for Histogram {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let Shared {
            desc,
            scale,
            counts,
            sum,
            labels,
        } = &*self.0;
        let mut so_far = 0;
        let bucket = |(bound, count): (&u64, &AtomicU64)| {
            so_far += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound as f64 / scale.per_shown);
            bucket.set_cumulative_count(so_far);
            bucket
        };
        let buckets: Vec<_> = scale.bounds.iter().zip(counts).map(bucket).collect();
        let above: u64 = counts[scale.bounds.len()..]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        let mut histogram = proto::Histogram::default();
        histogram.set_sample_count(so_far + above);
        histogram.set_sample_sum(sum.load(Ordering::Relaxed) as f64 / scale.per_shown);
        histogram.set_bucket(buckets);
        let mut metric = proto::Metric::from_label(labels.clone());
        metric.set_histogram(histogram);
        let mut family = proto::MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

/// Thread-local values of a histogram; exported when they are handed over.
#[derive(Debug)]
pub struct LocalHistogram {
    shared: Histogram,
    tally: Tally,
}

impl LocalHistogram {
    /// Records one value `times` times.
    pub fn record(&mut self, value: u64, times: u64) {
        self.tally.record(value, times);
    }

    /// Records a time.
    pub fn time(&mut self, time: Duration) {
        self.tally.time(time);
    }

    /// Transfers all recorded values to the shared histogram.
    pub fn hand_over(&mut self) {
        self.shared.add(&mut self.tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::TIMES;

    #[test]
    fn exported_buckets_are_cumulative() {
        let histogram =
            Histogram::new("a_seconds", "A.", TIMES, &[("shard", "0")]).expect("a valid name");
        let mut local = histogram.local();
        local.record(10_000, 3);
        local.time(Duration::from_millis(3));
        local.time(Duration::from_secs(100));
        assert_eq!(histogram.count(), 0, "not yet handed over");
        local.hand_over();
        local.hand_over();
        let families = histogram.collect();
        let shown = families[0].get_metric()[0].get_histogram();
        assert_eq!(shown.get_sample_count(), 5);
        assert!((shown.get_sample_sum() - 100.003_03).abs() < 1e-9);
        let cumulative: Vec<u64> = shown
            .get_bucket()
            .iter()
            .map(proto::Bucket::cumulative_count)
            .collect();
        assert_eq!(
            (cumulative[0], cumulative[7], cumulative[8], cumulative[18]),
            (3, 3, 4, 4)
        );
        assert!((shown.get_bucket()[0].upper_bound() - 1e-5).abs() < 1e-12);
    }
}
