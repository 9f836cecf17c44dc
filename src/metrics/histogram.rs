//! Histograms that one thread fills without an atomic, and hands over now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// Upper bounds of buckets, in the unit of what is recorded, and how many of those make one of what is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    bounds: &'static [u64],
    per_shown: f64,
}

/// Times from 10 µs to 10 s, recorded in nanoseconds and shown in seconds.
pub(super) const TIMES: Scale = Scale {
    bounds: &[
        10_000,
        20_000,
        50_000,
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        20_000_000,
        50_000_000,
        100_000_000,
        200_000_000,
        500_000_000,
        1_000_000_000,
        2_000_000_000,
        5_000_000_000,
        10_000_000_000,
    ],
    per_shown: 1e9,
};
/// Sizes from 64 B to 1 MiB.
pub(super) const SIZES: Scale = Scale {
    bounds: &[64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576],
    per_shown: 1.0,
};
/// Numbers from 1 to 4,096.
pub(super) const NUMBERS: Scale = Scale {
    bounds: &[1, 4, 16, 64, 256, 1024, 4096],
    per_shown: 1.0,
};

/// The most bounds of a scale, and one for all above.
const BUCKETS: usize = TIMES.bounds.len() + 1;

#[derive(Debug)]
struct Shared {
    desc: Desc,
    scale: Scale,
    /// Not cumulative; the last ones of a short scale stay at zero.
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    labels: Vec<proto::LabelPair>,
}

/// A histogram as exported to Prometheus. Clones share their values.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Shared>);

impl Histogram {
    /// An empty one with these labels.
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

    /// One that fills it, for a thread of its own.
    pub fn local(&self) -> LocalHistogram {
        LocalHistogram {
            shared: self.clone(),
            counts: [0; BUCKETS],
            sum: 0,
            is_empty: true,
        }
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

/// A thread's own; what it holds is seen once it is handed over.
#[derive(Debug)]
pub struct LocalHistogram {
    shared: Histogram,
    counts: [u64; BUCKETS],
    sum: u64,
    is_empty: bool,
}

impl LocalHistogram {
    /// Records one value `times` over.
    pub fn record(&mut self, value: u64, times: u64) {
        let bucket = self
            .shared
            .0
            .scale
            .bounds
            .partition_point(|bound| *bound < value);
        self.counts[bucket] += times;
        self.sum = self.sum.wrapping_add(value.wrapping_mul(times));
        self.is_empty = false;
    }

    /// Records a time.
    pub fn time(&mut self, time: Duration) {
        self.record(time.as_nanos() as u64, 1);
    }

    /// True if no values are pending.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Hands over what was recorded.
    pub fn hand_over(&mut self) {
        if std::mem::replace(&mut self.is_empty, true) {
            return;
        }
        for (count, total) in self.counts.iter_mut().zip(&self.shared.0.counts) {
            if *count > 0 {
                total.fetch_add(std::mem::take(count), Ordering::Relaxed);
            }
        }
        self.shared
            .0
            .sum
            .fetch_add(std::mem::take(&mut self.sum), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_shown_cumulatively() {
        let histogram =
            Histogram::new("a_seconds", "A.", TIMES, &[("shard", "0")]).expect("a right name");
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
