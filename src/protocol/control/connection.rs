//! Messages about the connection as a whole.

use serde::{Deserialize, Serialize};

use crate::protocol::{Code, Encoding, Id, MESSAGE_BYTES_MAX};

/// The server's greeting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the server.
    pub server: String,
    /// Names this connection in the server's log.
    pub session: String,
    /// The server's epoch.
    pub epoch: String,
    /// The server's time, Unix nanoseconds.
    pub ts: u64,
    /// The connection's encoding.
    pub encoding: Encoding,
    /// Heartbeat interval, in milliseconds.
    pub heartbeat_ms: u64,
    /// Limits for the client.
    pub limits: Limits,
    /// `none`, `required` or `ok`.
    pub auth: String,
    /// Bytes of the largest message that the server sends on this connection.
    #[serde(default = "message_bytes_max")]
    pub max_message: u64,
}

/// The bound of servers that don't say it.
const fn message_bytes_max() -> u64 {
    MESSAGE_BYTES_MAX as u64
}

/// Limits for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Topics held at once.
    pub topics: u64,
    /// Requests a second.
    pub requests_per_s: u64,
    /// Bytes of a request.
    pub message_bytes: u64,
    /// Events of a snapshot.
    pub snapshot_events: u64,
}

/// Answers `auth`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authenticated {
    /// The request's.
    pub id: Option<Id>,
    /// Expiry of the authorization, Unix nanoseconds; `None`: never.
    pub expires: Option<u64>,
    /// The limits now.
    pub limits: Limits,
}

/// Answers `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The request's.
    pub id: Option<Id>,
    /// As sent.
    pub t: i64,
    /// The server's time, Unix nanoseconds.
    pub ts: u64,
}

/// A request failed as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProtocolError {
    /// The request's.
    pub id: Option<Id>,
    /// See [`Code`].
    pub code: u16,
    /// The code's name.
    pub name: String,
    /// Says what to do.
    pub message: String,
    /// Time after which a retry may succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl ProtocolError {
    /// An error that no retry mends.
    pub fn new(id: Option<Id>, code: Code, message: impl Into<String>) -> Self {
        Self {
            id,
            code: code.number(),
            name: code.name().to_owned(),
            message: message.into(),
            retry_ms: None,
        }
    }
}

/// The server closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bye {
    /// See [`Code`].
    pub code: u16,
    /// Why.
    pub message: String,
    /// True if the client may reconnect.
    pub reconnect: bool,
    /// Reconnect slot of the client.
    pub after_ms: u64,
}
