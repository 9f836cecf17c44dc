//! Histograms as files that the public `HdrHistogram` tools read: `.hlog` (interval log, format
//! 1.2) and `.hgrm` (percentiles).

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::Outcome;

/// Values are written in microseconds, as the tools' own examples do; the histograms hold
/// nanoseconds.
const NS_PER_US: f64 = 1e3;
/// Steps between each halving of what is left to 100 %.
const STEPS_A_HALF: u32 = 5;

fn to_io(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Writes one histogram a second and kind (tags `due`, `published`, `lag`, `lateness`), in
/// nanoseconds.
pub fn write_hlog(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let mut out = out;
    let mut serializer = V2DeflateSerializer::new();
    let begun = SystemTime::UNIX_EPOCH + Duration::from_nanos(outcome.begun_ns);
    writeln!(out, "#[Histogram log format version 1.2]")?;
    writeln!(out, "#[Values are nanoseconds]")?;
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&outcome.tester)
        .with_start_time(begun)
        .with_base_time(begun)
        .with_max_value_divisor(1e6);
    let mut log = builder
        .begin_log_with(&mut out, &mut serializer)
        .map_err(to_io)?;
    let mut from = Duration::ZERO;
    for (until, span) in &outcome.spans {
        let latency = &span.latency;
        for (name, histogram) in [
            ("due", &latency.due),
            ("published", &latency.published),
            ("lag", &latency.lag),
            ("lateness", &span.lateness),
        ] {
            if !histogram.is_empty() {
                let tag = Tag::new(name).ok_or_else(|| to_io("a tag must not contain blanks"))?;
                log.write_histogram(histogram, from, until.saturating_sub(from), Some(tag))
                    .map_err(|error| to_io(format!("{error:?}")))?;
            }
        }
        from = *until;
    }
    Ok(())
}

/// Writes a histogram's percentiles in the form of `HistogramLogProcessor`, in microseconds.
pub fn write_hgrm(histogram: &Histogram<u64>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    for value in histogram.iter_quantiles(STEPS_A_HALF) {
        let share = value.quantile_iterated_to();
        let us = value.value_iterated_to() as f64 / NS_PER_US;
        let count = histogram.count_between(0, value.value_iterated_to());
        if share < 1.0 {
            writeln!(
                out,
                "{us:>12.3} {share:>2.12} {count:>10} {:>14.2}",
                1.0 / (1.0 - share)
            )?;
        } else {
            writeln!(out, "{us:>12.3} {share:>2.12} {count:>10}")?;
        }
    }
    let (mean, deviation) = (histogram.mean() / NS_PER_US, histogram.stdev() / NS_PER_US);
    writeln!(
        out,
        "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]"
    )?;
    let (max, count) = (histogram.max() as f64 / NS_PER_US, histogram.len());
    writeln!(
        out,
        "#[Max     = {max:>12.3}, Total count    = {count:>12}]"
    )?;
    writeln!(
        out,
        "#[Buckets = {:>12}, SubBuckets     = {:>12}]",
        histogram.buckets(),
        2048
    )
}
