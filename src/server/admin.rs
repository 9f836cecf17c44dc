//! Admin routes: slow clients and source reports.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Server;
use super::response::{HttpResponse, JSON, refusal, stopping, text, with_type};
use crate::replay::FileReport;
use crate::shard::{Command, ConnectionInfo, Rank};
use crate::source::SourceStatus;
use crate::source::rules::{RuleReport, rule_reports};

/// Default number of connections in a response.
const TOP: usize = 20;
const TOP_MAX: usize = 1000;

/// Response to `GET /v1/admin/connections`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsResponse {
    /// Server time, Unix nanoseconds.
    pub ts: u64,
    /// Total number of connections.
    pub count: usize,
    /// Ranking.
    pub by: Rank,
    /// Highest-ranked connections.
    pub connections: Vec<ConnectionInfo>,
}

/// Highest-ranked connections over all shards.
pub(super) async fn connections(server: &Server, query: &str) -> HttpResponse {
    let (mut by, mut top) = (Rank::Age, TOP);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "by" => match serde_json::from_value(value.into()) {
                Ok(known) => by = known,
                Err(_) => {
                    return refusal(
                        StatusCode::BAD_REQUEST,
                        "invalid `by`: expected age, merged, lost, queued or delivered",
                    );
                }
            },
            "top" => match value.parse() {
                Ok(number @ 1..=TOP_MAX) => top = number,
                _ => {
                    return refusal(
                        StatusCode::BAD_REQUEST,
                        &format!("invalid `top`: expected a number from 1 to {TOP_MAX}"),
                    );
                }
            },
            _ => {}
        }
    }
    let mut connections = Vec::new();
    for shard in &server.shards {
        let (reply, response) = oneshot::channel();
        shard.send(Command::Connections { by, top, reply }).await;
        let Ok(found) = response.await else {
            return stopping();
        };
        connections.extend(found);
    }
    connections.sort_by_key(|one| std::cmp::Reverse(one.rank(by)));
    connections.truncate(top);
    let count = server
        .shards
        .iter()
        .map(crate::shard::ShardHandle::connections)
        .sum();
    let response = ConnectionsResponse {
        ts: server.clock.now().0,
        count,
        by,
        connections,
    };
    with_type(
        text(
            StatusCode::OK,
            serde_json::to_vec(&response).expect("plain values are JSON"),
        ),
        JSON,
    )
}

/// Response to `GET /v1/admin/sources`.
#[derive(Debug, Serialize)]
struct SourcesResponse {
    sources: Vec<SourceReport>,
}

/// Status of a source and the reports of its files.
#[derive(Debug, Serialize)]
struct SourceReport {
    name: String,
    /// True if it has announced its instruments.
    started: bool,
    /// Reason for a permanent failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Events that violated a rule of the source.
    rules: Vec<RuleReport>,
    files: Vec<FileReport>,
}

/// Sources in config order.
pub(super) fn sources(server: &Server) -> HttpResponse {
    let settings = server.settings.load();
    let report = |(name, status): &(Arc<str>, Arc<SourceStatus>)| SourceReport {
        name: name.to_string(),
        started: status.has_started(),
        error: status.failure().as_deref().map(str::to_owned),
        rules: status.rules.as_ref().map_or_else(Vec::new, rule_reports),
        files: status.files().iter().map(|file| file.report()).collect(),
    };
    let response = SourcesResponse {
        sources: settings.sources.iter().map(report).collect(),
    };
    let body = serde_json::to_vec(&response).expect("plain values are JSON");
    with_type(text(StatusCode::OK, body), JSON)
}
