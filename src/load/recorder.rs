//! Settings and recorder that all connections of a worker share.

use super::plan::Dialect;
use super::stats::{Latency, Tally};
use crate::printable::printable;
use crate::protocol::Encoding;

/// Failures that are told; further ones are of the same kinds.
const FAILURES_MAX: usize = 50;

/// Settings shared by all connections of a test.
#[derive(Debug)]
pub(super) struct TestSettings {
    pub dialect: Dialect,
    pub encoding: Encoding,
    pub host: String,
    /// Path of the feed, where the server is a tickcast.
    pub path: String,
    /// Offset added to the local clock to get the server's time.
    pub clock_offset_ns: i64,
    /// The events' own times tell when they were due.
    pub due_is_known: bool,
    pub ledger: bool,
}

/// Recorder of a connection's results.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    pub tally: &'a mut Tally,
    pub latency: &'a mut Latency,
    pub failures: &'a mut Vec<String>,
    /// Latencies are recorded.
    pub measures: bool,
}

pub(super) fn add_failure(failures: &mut Vec<String>, what: String) {
    if failures.len() < FAILURES_MAX {
        // Much of it is the server's own text.
        failures.push(printable(&what).into_owned());
    }
}
