//! Reasons for which a test cannot run.

use std::io;
use std::net::SocketAddr;

use crate::client::{ClientError, FeedUrlError, TokenError};
use crate::topic::TopicError;

/// Reason why a test cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refused a thread, a poll or a socket.
    #[error("the tester failed: {0}")]
    Io(#[from] io::Error),
    /// The server does not answer like a tickcast server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no token to present.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The host and the path of the plan form no address.
    #[error(transparent)]
    Address(#[from] FeedUrlError),
    /// Invalid topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// Timeout.
    #[error("{0} accepted the connection but sent no welcome; for non-tickcast servers use --raw")]
    Silent(SocketAddr),
    /// The server rejected a request of the preflight.
    #[error("request rejected by the server: {0}")]
    Refused(String),
    /// The server requires a token, and the plan has none.
    #[error("the server requires authentication")]
    AuthRequired,
    /// No topic of the server matches the names.
    #[error(
        "no topic matches {0}; list the instruments with `tickcast tail --json --topics 'status:*'`"
    )]
    NoTopics(String),
    /// More topics per connection than the server has.
    #[error(
        "requested {asked} topics per connection, but only {there} match; lower --topics-per-connection"
    )]
    TooFewTopics {
        /// Requested number.
        asked: usize,
        /// Available number.
        there: usize,
    },
    /// Too many connections for the limit of open files.
    #[error(
        "{asked} connections exceed the open-file limit of {limit}; raise it (ulimit -n) or use fewer --connections"
    )]
    Files {
        /// Requested number.
        asked: usize,
        /// Limit.
        limit: u64,
    },
    /// Not all connections subscribed in time.
    #[error("not all of {0} connections subscribed within 60 s; use a longer --ramp")]
    NotJoined(usize),
    /// A thread of the tester failed.
    #[error("a thread of the tester ended unexpectedly")]
    Worker,
}
