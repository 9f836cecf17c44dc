use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{DeliveryWish, Seq};

/// Request id chosen by the client; the response repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// Integer from 0 to 2^53 − 1.
    Number(u64),
    /// String of up to 36 characters.
    Text(String),
}

/// Request of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Id of the request, if any.
    pub id: Option<Id>,
    /// Operation requested.
    pub op: Op,
}

/// Operations that a client can request.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Subscribe to topics, or replace the settings of subscribed ones.
    Subscribe(Subscribe),
    /// Unsubscribe from topics.
    Unsubscribe(TopicsAsked),
    /// Modify the delivery settings of subscriptions.
    Modify {
        /// Names of the subscriptions, as given when subscribing.
        topics: Vec<CompactString>,
        /// Delivery settings to change.
        wish: DeliveryWish,
    },
    /// Request a snapshot of each topic.
    Resync {
        /// Subscribed topics.
        topics: Vec<CompactString>,
    },
    /// List the subscribed topics with their settings.
    Subscriptions,
    /// List the instruments of the server.
    Instruments {
        /// Symbol, `*`, or a prefix ending in `*`.
        pattern: String,
    },
    /// Request the ledger.
    Ledger,
    /// Request the server time.
    Ping {
        /// Value that the response repeats.
        t: i64,
    },
    /// Authentication of the client.
    Auth {
        /// Credential of the client.
        token: String,
    },
}

/// Topics to unsubscribe from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicsAsked {
    /// All topics (`all: true`).
    All,
    /// The named subscriptions.
    These(Vec<CompactString>),
}

/// Parameters of `subscribe`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subscribe {
    /// Topics and patterns; names of up to 24 bytes are stored without allocation.
    pub topics: Vec<CompactString>,
    /// Requested delivery settings.
    pub wish: DeliveryWish,
    /// Requested snapshot; `None` if the request does not specify it.
    pub snapshot: Option<SnapshotWish>,
    /// Position of an earlier connection to resume from.
    pub from: Option<ResumeFrom>,
    /// True if the request succeeds or fails as a whole.
    pub atomic: bool,
    /// Maximum size of a server message from here on, in bytes.
    pub max_message: Option<u64>,
}

/// Snapshot setting of a `subscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWish {
    /// A snapshot of the default size.
    Yes,
    /// No snapshot.
    No,
    /// A snapshot of at most this many events; at least 1.
    Events(u64),
}

/// Position of an earlier connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeFrom {
    /// Epoch of the server.
    pub epoch: String,
    /// Last sequence number received, by topic.
    pub seqs: Vec<(CompactString, Seq)>,
    /// Epochs that differ from that of the server, by topic.
    pub epochs: Vec<(CompactString, CompactString)>,
}

impl Op {
    /// Name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Modify { .. } => "modify",
            Self::Resync { .. } => "resync",
            Self::Subscriptions => "subscriptions",
            Self::Instruments { .. } => "instruments",
            Self::Ledger => "ledger",
            Self::Ping { .. } => "ping",
            Self::Auth { .. } => "auth",
        }
    }
}
