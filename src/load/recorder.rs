//! Settings and recorder that all connections of a worker share.

use super::plan::Dialect;
use super::stats::{Latency, Tally};
use super::stream::TlsSettings;
use super::token::SharedToken;
use crate::printable::printable;
use crate::protocol::Encoding;

/// Maximum number of reported failures; further ones are mostly of the same kinds.
const FAILURES_MAX: usize = 50;

/// Settings shared by all connections of a test.
#[derive(Debug)]
pub(super) struct TestSettings {
    pub dialect: Dialect,
    pub encoding: Encoding,
    pub host: String,
    /// Path of the feed, where the server is a tickcast.
    pub path: String,
    pub tls: Option<TlsSettings>,
    /// Token that each connection presents.
    pub token: Option<SharedToken>,
    /// Offset added to the local clock to get the server's time.
    pub clock_offset_ns: i64,
    /// True if the times of the events are due times.
    pub due_is_known: bool,
    pub ledger: bool,
}

impl TestSettings {
    /// Token of the connections, if another one may follow it.
    pub(super) fn renewed_token(&self) -> Option<&SharedToken> {
        self.token.as_ref().filter(|token| token.renews())
    }
}

/// Recorder of a connection's results.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    pub tally: &'a mut Tally,
    pub latency: &'a mut Latency,
    pub failures: &'a mut Vec<String>,
    /// True while latencies are recorded.
    pub measures: bool,
}

pub(super) fn add_failure(failures: &mut Vec<String>, what: String) {
    if failures.len() < FAILURES_MAX {
        // Most of it is text of the server.
        failures.push(printable(&what).into_owned());
    }
}
