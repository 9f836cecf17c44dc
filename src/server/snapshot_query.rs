//! Query of `GET /v1/snapshot`.

use hyper::StatusCode;
use percent_encoding::percent_decode_str;

use super::response::{HttpResponse, refusal};
use crate::shard::SNAPSHOT_NAMES_MAX;

/// Parameters of a snapshot request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SnapshotQuery {
    /// Topics and patterns; at least one, at most [`SNAPSHOT_NAMES_MAX`].
    pub topics: Vec<String>,
    /// Maximum number of events per topic.
    pub events: Option<usize>,
}

impl SnapshotQuery {
    /// Parses a query; unknown keys are ignored.
    pub(super) fn parse(query: &str) -> Result<Self, HttpResponse> {
        let (mut topics, mut events) = (Vec::new(), None);
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = percent_decode_str(value).decode_utf8_lossy();
            match (key, value.parse::<usize>()) {
                ("topics", _) => {
                    let names = value.split(',').filter(|topic| !topic.is_empty());
                    // One more than allowed suffices to reject the request.
                    let room = (SNAPSHOT_NAMES_MAX + 1).saturating_sub(topics.len());
                    topics.extend(names.take(room).map(str::to_owned));
                }
                ("events", Ok(number)) if number > 0 => events = Some(number),
                ("events", _) => {
                    let message =
                        "invalid `events`: expected a number of at least 1, e.g. events=100";
                    return Err(refusal(StatusCode::BAD_REQUEST, message));
                }
                _ => {}
            }
        }
        if topics.len() > SNAPSHOT_NAMES_MAX {
            let message = format!(
                "too many names: expected at most {SNAPSHOT_NAMES_MAX} topics and patterns per request"
            );
            return Err(refusal(StatusCode::BAD_REQUEST, &message));
        }
        if topics.is_empty() {
            let message = "missing `topics`: expected e.g. ?topics=trade:BTC-USD,quote:*";
            return Err(refusal(StatusCode::BAD_REQUEST, message));
        }
        Ok(Self { topics, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Option<(Vec<String>, Option<usize>)> {
        let query = SnapshotQuery::parse(query).ok()?;
        Some((query.topics, query.events))
    }

    #[test]
    fn names_are_decoded_and_bounded() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(
            parsed("x&topics=trade%3AA,,quote:*&events=5&topics=bar:A:1m&y=1"),
            Some((names(&["trade:A", "quote:*", "bar:A:1m"]), Some(5)))
        );
        let many = |count: usize| format!("topics={}", "a,".repeat(count));
        assert!(parsed(&many(SNAPSHOT_NAMES_MAX)).is_some());
        for bad in [
            "",
            "topics=",
            "topics=,,",
            "topics=a&events=0",
            "events=1",
            "topics=a&events=-1",
            &many(SNAPSHOT_NAMES_MAX + 1),
            &many(20_000),
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
