//! Faults of a client message: invalid and expected values.

use crate::protocol::MESSAGE_BYTES_LEAST;

/// Maximum number of characters quoted from a client in an error message.
const SHOWN_MAX: usize = 40;

/// Reason for which a message is not a valid value of its encoding.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Msgpack(#[from] rmp_serde::decode::Error),
    #[error("unexpected bytes after the map")]
    BytesAfter,
}

/// Reason for which a message is not a valid request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestFault {
    #[error("the message is not a {encoding} map: {error}")]
    Malformed {
        encoding: &'static str,
        error: Malformed,
    },
    #[error("a request must be a map with `op`, not {0}")]
    NoMap(&'static str),
    #[error("a key must be a string, not {0}")]
    KeyKind(&'static str),
    #[error("duplicate key \"{}\"", shown(.0))]
    KeyTwice(String),
    #[error("`{key}` is missing: expected {expected}")]
    Missing {
        key: &'static str,
        expected: &'static str,
    },
    /// The value has the wrong type.
    #[error("`{key}` must be {wanted}, not {kind}")]
    Kind {
        key: &'static str,
        wanted: &'static str,
        kind: &'static str,
    },
    /// The value has the right type but is not allowed.
    #[error("`{key}` must {rule}")]
    Rule {
        key: &'static str,
        rule: &'static str,
    },
    #[error(
        "too many short {0}: more than 1024 must have at least 6 bytes on average, e.g. trade:A"
    )]
    ShortNames(&'static str),
    #[error("`topics` must contain strings, not {0}")]
    TopicKind(&'static str),
    #[error("`{key}` must {what} of up to {most} bytes")]
    TooLong {
        key: &'static str,
        what: &'static str,
        most: usize,
    },
    #[error("unknown `{key}` \"{}\": expected {known}", shown(given))]
    Unknown {
        key: &'static str,
        given: String,
        known: &'static str,
    },
    #[error("unsupported `interval_ms` {0}: expected 10, 25, 50, 100, 250, 500, 1000 or 5000")]
    Interval(i128),
    #[error("mode `interval` requires `interval_ms`: 10, 25, 50, 100, 250, 500, 1000 or 5000")]
    NoInterval,
    #[error("`modify` requires at least one of `mode`, `interval_ms`, `on_slow`")]
    NothingToModify,
    #[error("`max_message` must be a number of bytes, at least {MESSAGE_BYTES_LEAST}")]
    MaxMessage,
}

/// Quotes a text from a client for an error message.
fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect()
}
