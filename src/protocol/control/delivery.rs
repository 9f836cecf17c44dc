//! Messages about the delivery of events: snapshots, gaps, lag and the ledger.

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::is_false;
use crate::protocol::{DataEvent, Id, Seq};

/// Snapshot of a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Name of the topic.
    pub topic: String,
    /// Epoch of the topic.
    pub epoch: String,
    /// Sequence number of the newest event included.
    pub seq: Seq,
    /// Events of the snapshot; empty if nothing has been published yet.
    pub events: Vec<DataEvent>,
}

/// Cause of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The client did not keep up.
    Slow,
    /// The server did not keep up.
    Bus,
    /// The events were no longer in the history when the client resumed.
    Expired,
    /// The source missed data; no event of this server is missing.
    Source,
}

impl GapCause {
    /// All causes.
    pub const ALL: [Self; 4] = [Self::Slow, Self::Bus, Self::Expired, Self::Source];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Bus => "bus",
            Self::Expired => "expired",
            Self::Source => "source",
        }
    }
}

/// Gap notification: events that will not be delivered, or data that the source missed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Gap {
    /// Name of the topic.
    pub topic: String,
    /// Epoch of the topic.
    pub epoch: String,
    /// Sequence number of the first missing event.
    pub from: Seq,
    /// Sequence number of the last missing event.
    pub to: Seq,
    /// Number of missing events.
    pub n: u64,
    /// Cause of the gap.
    pub cause: GapCause,
    /// Number of trades or quotes that the source missed, if known; only with cause `source`, where
    /// an unknown number is `null` on the wire.
    #[serde(default)]
    pub missing: Option<u64>,
}

impl Serialize for Gap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has_missing = self.missing.is_some() || self.cause == GapCause::Source;
        let mut map = serializer.serialize_struct("Gap", 6 + usize::from(has_missing))?;
        map.serialize_field("topic", &self.topic)?;
        map.serialize_field("epoch", &self.epoch)?;
        map.serialize_field("from", &self.from)?;
        map.serialize_field("to", &self.to)?;
        map.serialize_field("n", &self.n)?;
        map.serialize_field("cause", &self.cause)?;
        if has_missing {
            map.serialize_field("missing", &self.missing)?;
        }
        map.end()
    }
}

/// Lag level of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LagLevel {
    /// Caught up.
    Ok,
    /// Falling behind.
    Warn,
    /// Topics with `on_slow: conflate` skip ahead to newer events.
    Degraded,
}

impl LagLevel {
    /// All levels, from best to worst.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Warn, Self::Degraded];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Degraded => "degraded",
        }
    }
}

/// Notification of a changed lag level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Current lag level.
    pub level: LagLevel,
    /// Number of queued bytes.
    pub queued_bytes: u64,
    /// Age of the oldest queued event, in milliseconds.
    pub behind_ms: u64,
}

/// Periodic message with the totals of all ledger entries since the start of the connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Server time, in Unix nanoseconds.
    pub ts: u64,
    /// Number of events delivered in data arrays.
    pub delivered: u64,
    /// Number of events replaced by newer ones.
    pub merged: u64,
    /// Number of events reported in gaps.
    pub lost: u64,
    /// Number of queued bytes.
    pub queued_bytes: u64,
}

/// Response to `ledger`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerAnswer {
    /// Id of the request.
    pub id: Option<Id>,
    /// Ledger entry of each subscribed topic.
    pub topics: Vec<LedgerEntry>,
    /// True if another part of the response follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Ledger entry of one topic: `head` − `start` = `delivered` + `merged` + `lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Name of the topic.
    pub topic: String,
    /// Epoch of the topic.
    pub epoch: String,
    /// Sequence number after which the accounting starts.
    pub start: Seq,
    /// Sequence number of the newest event accounted for.
    pub head: Seq,
    /// Number of events delivered in data arrays.
    pub delivered: u64,
    /// Number of events replaced by newer ones.
    pub merged: u64,
    /// Number of events reported in gaps.
    pub lost: u64,
    /// Number of newer events not accounted for yet.
    pub pending: u64,
}
