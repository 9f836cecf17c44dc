//! Messages about the connection as a whole.

use serde::{Deserialize, Serialize};

use crate::protocol::{Code, Encoding, Id, MESSAGE_BYTES_MAX};

/// First message of the server on a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Name and version of the server.
    pub server: String,
    /// Identifier of this connection in the server's log.
    pub session: String,
    /// Epoch of the server.
    pub epoch: String,
    /// Server time, in Unix nanoseconds.
    pub ts: u64,
    /// Encoding of the connection.
    pub encoding: Encoding,
    /// Heartbeat interval, in milliseconds.
    pub heartbeat_ms: u64,
    /// Limits of the connection.
    pub limits: Limits,
    /// `none`, `required` or `ok`.
    pub auth: String,
    /// Maximum size of a server message on this connection, in bytes.
    #[serde(default = "message_bytes_max")]
    pub max_message: u64,
}

/// Maximum message size of servers that do not state it, in bytes.
const fn message_bytes_max() -> u64 {
    MESSAGE_BYTES_MAX as u64
}

/// Limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Maximum number of subscribed topics.
    pub topics: u64,
    /// Maximum number of requests per second.
    pub requests_per_s: u64,
    /// Maximum size of a request, in bytes.
    pub message_bytes: u64,
    /// Maximum number of events in a snapshot.
    pub snapshot_events: u64,
}

/// Response to `auth`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authenticated {
    /// Id of the request.
    pub id: Option<Id>,
    /// Expiry of the authorization, in Unix nanoseconds; `None`: never.
    pub expires: Option<u64>,
    /// Limits in force after authentication.
    pub limits: Limits,
}

/// Response to `ping`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Id of the request.
    pub id: Option<Id>,
    /// Value of `t` in the request.
    pub t: i64,
    /// Server time, in Unix nanoseconds.
    pub ts: u64,
}

/// Error response: the request failed as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProtocolError {
    /// Id of the request.
    pub id: Option<Id>,
    /// Error code, one of [`Code`].
    pub code: u16,
    /// Name of the code.
    pub name: String,
    /// Description of the error and its remedy.
    pub message: String,
    /// Time after which a retry may succeed, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl ProtocolError {
    /// Error for which a retry cannot succeed.
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

/// Last message before the server closes the connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bye {
    /// Reason code, one of [`Code`].
    pub code: u16,
    /// Description of the reason.
    pub message: String,
    /// True if the client may reconnect.
    pub reconnect: bool,
    /// Delay before the client should reconnect, in milliseconds.
    pub after_ms: u64,
}
