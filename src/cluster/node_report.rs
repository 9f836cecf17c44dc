//! Reports of the servers of a cluster: once a second each one tells the others which record it has
//! applied. Reports may be lost; nothing but readiness and `tickcast cluster status` depends on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};

use super::settings::ClusterSettings;
use super::status::ClusterStatus;
use super::store::{Store, StoreError};
use crate::clock::Clock;
use crate::market::UnixNanos;

/// Interval between two reports of a server.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Age up to which a report counts.
const FRESH: Duration = Duration::from_secs(3);
/// Number of servers that are listed.
const NODES_MAX: usize = 4096;
/// Maximum size of a report, in bytes.
const REPORT_BYTES_MAX: usize = 1024;

/// Report of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Name of the server.
    pub node: String,
    /// Its role in the config.
    pub role: String,
    /// True if it writes the log.
    pub leads: bool,
    /// Number of the newest record that it has applied or appended.
    pub record: u64,
    /// Checksum of that record.
    pub sum: u64,
    /// Time since it received or appended that record, in milliseconds.
    pub silence_ms: u64,
    /// Number of its clients.
    pub clients: u64,
}

impl NodeReport {
    /// Time since the server received or appended a record.
    pub const fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }

    /// Name by which it differs from all other servers: two parts of one process have the same name.
    fn key(&self) -> String {
        format!("{} {}", self.role, self.node)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let is_short = payload.len() <= REPORT_BYTES_MAX;
        is_short.then(|| serde_json::from_slice(payload).ok())?
    }
}

fn subject(cluster: &str) -> String {
    format!("tc.pos.{cluster}")
}

/// Greatest number of a record that another server has reported, and when.
#[derive(Debug, Clone, Copy, Default)]
struct Ahead {
    record: u64,
    at: UnixNanos,
}

impl Ahead {
    fn is_fresh(self, now: UnixNanos) -> bool {
        now.since(self.at) < FRESH
    }

    fn take(&mut self, record: u64, now: UnixNanos) {
        if record >= self.record || !self.is_fresh(now) {
            *self = Self { record, at: now };
        }
    }

    /// True if another server has a record behind this one.
    fn is_behind(self, record: u64, now: UnixNanos) -> bool {
        self.is_fresh(now) && self.record > record
    }
}

/// Publishes the reports of this server, and notes those of the others, for ever.
pub async fn report_node(
    store: Store,
    settings: ClusterSettings,
    status: Arc<ClusterStatus>,
    clock: Clock,
    clients: IntGauge,
) {
    let subject = subject(&settings.name);
    let mut ahead = Ahead::default();
    let client = store.client().clone();
    let subscribed = client.subscribe(subject.clone()).await;
    let mut reports = match subscribed {
        Ok(reports) => reports,
        Err(error) => {
            tracing::warn!(%error, "cannot receive the reports of other servers");
            return;
        }
    };
    let own = settings.role.name();
    let is_own = |report: &NodeReport| report.node == settings.node && report.role == own;
    let mut due = clock.now();
    let mut heard = clock.now();
    loop {
        tokio::select! {
            message = reports.next() => {
                let Some(message) = message else {
                    return;
                };
                match NodeReport::read(&message.payload) {
                    Some(report) if is_own(&report) => heard = clock.now(),
                    Some(report) => ahead.take(report.record, clock.now()),
                    None => {}
                }
            }
            () = clock.sleep_until(due) => {
                let now = clock.now();
                due = now.plus(REPORT_INTERVAL);
                let position = status.position();
                let is_heard = now.since(heard) < FRESH;
                status.note_reports(is_heard, ahead.is_behind(position.number, now));
                let report = NodeReport {
                    node: settings.node.clone(),
                    role: own.to_owned(),
                    leads: status.is_leading(),
                    record: position.number,
                    sum: position.sum,
                    silence_ms: u64::try_from(status.silence(now).as_millis()).unwrap_or(u64::MAX),
                    clients: u64::try_from(clients.get()).unwrap_or_default(),
                };
                let payload = serde_json::to_vec(&report).unwrap_or_default();
                // A report that cannot be sent is replaced by the next one.
                let _lost = client.publish(subject.clone(), Bytes::from(payload)).await;
            }
        }
    }
}

/// Reports of all servers during this time, in the order of their names, with the newest of each.
pub(super) async fn collect(
    store: &Store,
    cluster: &str,
    time: Duration,
) -> Result<Vec<NodeReport>, StoreError> {
    let reports = store.client().subscribe(subject(cluster)).await;
    let mut reports = reports.map_err(|error| StoreError::Request(error.to_string()))?;
    let mut found: HashMap<String, NodeReport> = HashMap::new();
    let read = async {
        while let Some(message) = reports.next().await {
            let report = NodeReport::read(&message.payload);
            if let Some(report) = report.filter(|_| found.len() < NODES_MAX) {
                found.insert(report.key(), report);
            }
        }
    };
    // The end of the time ends the reading.
    let _elapsed = tokio::time::timeout(time, read).await;
    let mut all: Vec<NodeReport> = found.into_values().collect();
    all.sort_by(|one, other| (&one.node, &other.role).cmp(&(&other.node, &one.role)));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: &str, record: u64) -> NodeReport {
        NodeReport {
            node: node.to_owned(),
            role: "gateway".to_owned(),
            leads: false,
            record,
            sum: 1,
            silence_ms: 2,
            clients: 3,
        }
    }

    #[test]
    fn only_fresh_reports_of_other_servers_count() {
        let second = |second: u64| UnixNanos(second * 1_000_000_000);
        let mut ahead = Ahead::default();
        assert!(!ahead.is_behind(0, second(10)));
        ahead.take(7, second(11));
        ahead.take(9, second(12));
        ahead.take(8, second(13));
        assert!(ahead.is_behind(8, second(14)));
        assert!(!ahead.is_behind(9, second(14)));
        assert!(!ahead.is_behind(6, second(15)), "it is old");
        ahead.take(8, second(15));
        assert!(ahead.is_behind(7, second(15)), "an old one is replaced");
        assert!(!ahead.is_behind(8, second(15)));
    }

    #[test]
    fn foreign_bytes_are_no_report() {
        let bytes = serde_json::to_vec(&report("a", 7)).expect("a report");
        assert_eq!(NodeReport::read(&bytes), Some(report("a", 7)));
        let more = String::from_utf8(bytes)
            .expect("text")
            .replace('{', "{\"new\":1,");
        assert_eq!(NodeReport::read(more.as_bytes()), Some(report("a", 7)));
        for foreign in ["", "{}", "[1]", &more[..more.len() - 1]] {
            assert_eq!(NodeReport::read(foreign.as_bytes()), None);
        }
        let long = more.replace("\"a\"", &format!("\"{}\"", "a".repeat(REPORT_BYTES_MAX)));
        assert_eq!(NodeReport::read(long.as_bytes()), None);
    }
}
