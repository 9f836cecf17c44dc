use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{DeliveryWish, Seq};

/// A client's own name for a request; the answer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// 0 … 2^53 − 1.
    Number(u64),
    /// Up to 36 characters.
    Text(String),
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `None` where it had none.
    pub id: Option<Id>,
    /// Operation requested.
    pub op: Op,
}

/// Operations that a client can request.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Begin to receive topics, or set what is held anew.
    Subscribe(Subscribe),
    /// Stop receiving.
    Unsubscribe(TopicsAsked),
    /// Change the delivery of what is held.
    Modify {
        /// The subscriptions, in the words they were made with.
        topics: Vec<CompactString>,
        /// Delivery settings to change.
        wish: DeliveryWish,
    },
    /// A snapshot for each.
    Resync {
        /// Subscribed topics.
        topics: Vec<CompactString>,
    },
    /// Subscribed topics, with their settings.
    Subscriptions,
    /// Instruments of the server.
    Instruments {
        /// A symbol, which may be `*` or end in `*`.
        pattern: String,
    },
    /// The accounts.
    Ledger,
    /// The server's time.
    Ping {
        /// Comes back as it is.
        t: i64,
    },
    /// Authentication of the client.
    Auth {
        /// Its proof.
        token: String,
    },
}

/// Topics named by `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicsAsked {
    /// `all: true`.
    All,
    /// These subscriptions.
    These(Vec<CompactString>),
}

/// A `subscribe`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subscribe {
    /// Topics and patterns, as texts; those of up to 24 bytes take no allocation of their own.
    pub topics: Vec<CompactString>,
    /// The delivery asked for.
    pub wish: DeliveryWish,
    /// The snapshot asked for; `None` where the request says nothing of it.
    pub snapshot: Option<SnapshotWish>,
    /// Position of a broken connection.
    pub from: Option<ResumeFrom>,
    /// All or nothing.
    pub atomic: bool,
    /// Bytes of the largest message that the client takes from here on.
    pub max_message: Option<u64>,
}

/// Snapshot setting of a `subscribe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWish {
    /// `true`.
    Yes,
    /// `false`.
    No,
    /// At most so many events, at least 1.
    Events(u64),
}

/// Position of a broken connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResumeFrom {
    /// The server's epoch.
    pub epoch: String,
    /// The last sequence number taken in, by topic.
    pub seqs: Vec<(CompactString, Seq)>,
    /// The epoch of topics that have another.
    pub epochs: Vec<(CompactString, CompactString)>,
}

impl Op {
    /// The word on the wire.
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
