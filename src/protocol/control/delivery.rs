//! Messages about the delivery of events: snapshots, gaps, lag and the ledger.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::protocol::{DataEvent, Id, Seq};

/// A topic's state.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The topic.
    pub topic: String,
    /// Its epoch.
    pub epoch: String,
    /// The newest event that is in it.
    pub seq: Seq,
    /// The state; empty where nothing was published yet.
    pub events: Vec<DataEvent>,
}

/// Why events are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The client couldn't keep up.
    Slow,
    /// The server couldn't.
    Bus,
    /// No longer in the history when the client came back.
    Expired,
    /// The source missed something; none of ours is missing.
    Source,
}

impl GapCause {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Slow, Self::Bus, Self::Expired, Self::Source];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Bus => "bus",
            Self::Expired => "expired",
            Self::Source => "source",
        }
    }
}

/// Events that won't come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The topic.
    pub topic: String,
    /// Its epoch.
    pub epoch: String,
    /// The first that is missing.
    pub from: Seq,
    /// The last that is missing.
    pub to: Seq,
    /// Number of events.
    pub n: u64,
    /// Why.
    pub cause: GapCause,
    /// With cause `source`: how many the source missed, where it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
}

/// Lag level of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LagLevel {
    /// Caught up.
    Ok,
    /// Falling behind.
    Warn,
    /// Topics with `on_slow: conflate` jump.
    Degraded,
}

impl LagLevel {
    /// All of them, from the best to the worst.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warn, Self::Degraded];

    /// As it stands on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Degraded => "degraded",
        }
    }
}

/// The level changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// The level now.
    pub level: LagLevel,
    /// Bytes that wait.
    pub queued_bytes: u64,
    /// Age of the oldest event that waits.
    pub behind_ms: u64,
}

/// The accounts' sums since the connection began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The server's time, Unix nanoseconds.
    pub ts: u64,
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
    /// Bytes that wait.
    pub queued_bytes: u64,
}

/// Answers `ledger`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerAnswer {
    /// The request's.
    pub id: Option<Id>,
    /// The account of each topic held.
    pub topics: Vec<LedgerEntry>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// One topic's account: `head` − `start` = `delivered` + `merged` + `lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The topic.
    pub topic: String,
    /// Its epoch.
    pub epoch: String,
    /// Start of the account.
    pub start: Seq,
    /// The newest event that is accounted for.
    pub head: Seq,
    /// Events in data arrays.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Events named in gaps.
    pub lost: u64,
    /// Newer ones that wait.
    pub pending: u64,
}
