//! Samples of a server's metrics, and the difference between two.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::cli::http_get::HttpClient;
use crate::server::ConnectionsResponse;
use crate::shard::Rank;

/// Sample of a server's metrics and connections.
#[derive(Debug)]
pub(super) struct Sample {
    /// Series by name, summed over all labels.
    sums: HashMap<String, f64>,
    /// Histograms by name: cumulative counts by upper bound, in seconds.
    buckets: HashMap<String, Vec<(f64, f64)>>,
    pub connections: ConnectionsResponse,
}

/// Parses a line of the Prometheus text format: name, labels, value.
fn series(line: &str) -> Option<(&str, &str, f64)> {
    let (head, value) = line.rsplit_once(' ')?;
    let (name, labels) = head.split_once('{').map_or((head, ""), |(name, labels)| {
        (name, labels.trim_end_matches('}'))
    });
    Some((name, labels, value.parse().ok()?))
}

/// Interval waits are requested by clients and excluded from latencies.
fn is_by_interval(labels: &str) -> bool {
    labels.contains("mode=\"interval\"")
}

impl Sample {
    /// Takes a sample from a server's admin address.
    pub(super) fn take(server: &HttpClient, by: Rank, top: usize) -> Result<Self> {
        let (status, text) = server.get("/metrics")?;
        ensure!(
            status == 200,
            "no /metrics at {server}: expected the admin address of a server, e.g. 127.0.0.1:8081"
        );
        let rank = serde_json::to_value(by)?;
        let (status, json) = server.get(&format!(
            "/v1/admin/connections?by={}&top={top}",
            rank.as_str().unwrap_or("age")
        ))?;
        ensure!(
            status == 200,
            "no /v1/admin/connections at {server}: expected the admin address of a server, e.g. 127.0.0.1:8081; {}",
            json.trim()
        );
        let mut sample = Self {
            sums: HashMap::new(),
            buckets: HashMap::new(),
            connections: serde_json::from_str(&json).context(
                "invalid response of /v1/admin/connections: expected a server of the same version",
            )?,
        };
        for (name, labels, value) in text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(series)
        {
            let bound = labels
                .split("le=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            match (name.strip_suffix("_bucket"), bound.map(str::parse::<f64>)) {
                (Some(name), Some(Ok(bound))) if !is_by_interval(labels) => {
                    let buckets = sample.buckets.entry(name.to_owned()).or_default();
                    match buckets
                        .iter_mut()
                        .find(|(known, _)| known.total_cmp(&bound).is_eq())
                    {
                        Some((_, count)) => *count += value,
                        None => buckets.push((bound, value)),
                    }
                }
                (Some(_), _) => {}
                (None, _) => *sample.sums.entry(name.to_owned()).or_default() += value,
            }
        }
        Ok(sample)
    }

    /// Value of a gauge or counter, summed over all labels.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.sums.get(name).copied().unwrap_or(0.0)
    }

    /// Seconds since an earlier sample.
    fn since(&self, before: &Self) -> f64 {
        self.connections.ts.saturating_sub(before.connections.ts) as f64 / 1e9
    }

    /// Increase of a counter per second.
    pub(super) fn rate(&self, before: &Self, name: &str) -> f64 {
        let seconds = self.since(before);
        if seconds > 0.0 {
            (self.value(name) - before.value(name)).max(0.0) / seconds
        } else {
            0.0
        }
    }

    /// Quantile of the values recorded since an earlier sample: the upper bound of its bucket, in
    /// seconds.
    pub(super) fn quantile(&self, before: &Self, name: &str, share: f64) -> Option<f64> {
        let now = self.buckets.get(name)?;
        let then = before.buckets.get(name)?;
        let grown: Vec<(f64, f64)> = now
            .iter()
            .zip(then)
            .map(|((bound, now), (_, then))| (*bound, now - then))
            .collect();
        let total = grown
            .last()
            .map(|(_, count)| *count)
            .filter(|count| *count > 0.0)?;
        grown
            .into_iter()
            .find(|(_, count)| *count >= share * total)
            .map(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ts: u64, text: &str) -> Sample {
        let connections = ConnectionsResponse {
            ts,
            count: 0,
            by: Rank::Age,
            connections: Vec::new(),
        };
        let mut sample = Sample {
            sums: HashMap::new(),
            buckets: HashMap::new(),
            connections,
        };
        for (name, labels, value) in text.lines().filter_map(series) {
            match (
                name.strip_suffix("_bucket"),
                labels
                    .split('"')
                    .nth(1)
                    .and_then(|bound| bound.parse().ok()),
            ) {
                (Some(name), Some(bound)) => sample
                    .buckets
                    .entry(name.to_owned())
                    .or_default()
                    .push((bound, value)),
                _ => *sample.sums.entry(name.to_owned()).or_default() += value,
            }
        }
        sample
    }

    #[test]
    fn rates_and_quantiles_cover_the_time_between_two_samples() {
        let before = sample(
            0,
            "a{x=\"1\"} 5\na{x=\"2\"} 5\nt_bucket{le=\"0.1\"} 10\nt_bucket{le=\"1\"} 10\nt_bucket{le=\"+Inf\"} 10",
        );
        let now = sample(
            2_000_000_000,
            "a{x=\"1\"} 9\na{x=\"2\"} 5\nt_bucket{le=\"0.1\"} 10\nt_bucket{le=\"1\"} 109\nt_bucket{le=\"+Inf\"} 110",
        );
        assert!((now.rate(&before, "a") - 2.0).abs() < 1e-9);
        assert_eq!(now.quantile(&before, "t", 0.5), Some(1.0));
        assert_eq!(now.quantile(&before, "t", 0.999), Some(f64::INFINITY));
        assert_eq!(
            now.quantile(&now, "t", 0.5),
            None,
            "no values between the samples"
        );
    }
}
