//! Control messages of the server: one map per message, distinguished by `op`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Code, DataEvent, Encoding, Id, Mode, OnSlow, Seq, Settings};
use crate::market::{SourceKind, UnixNanos};

/// A control message (protocol, *Control messages*).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Control {
    /// The first message.
    Welcome(Welcome),
    /// Answers `auth`.
    Authenticated(Authenticated),
    /// Answers `subscribe`, `modify` and `resync`.
    Subscribed(Subscribed),
    /// Answers `unsubscribe`.
    Unsubscribed(Unsubscribed),
    /// Answers `subscriptions`.
    Subscriptions(Subscriptions),
    /// Answers `instruments`.
    Instruments(Instruments),
    /// Answers `ping`.
    Pong(Pong),
    /// A topic's state at a sequence number.
    Snapshot(Snapshot),
    /// Events that won't come.
    Gap(Gap),
    /// Lag level of the client.
    Lag(Lag),
    /// The accounts' sums.
    Heartbeat(Heartbeat),
    /// Answers `ledger`.
    Ledger(LedgerAnswer),
    /// Change of the topics that subscribed patterns match.
    Topics(TopicsChange),
    /// A source of a held topic changed.
    Source(SourceChange),
    /// An instrument of a held topic is described otherwise now.
    Instrument(InstrumentEntry),
    /// A request failed as a whole.
    Error(ProtocolError),
    /// The server closes.
    Bye(Bye),
    /// A message of a later version; a client ignores it.
    #[serde(other)]
    Unknown,
}

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
    super::MESSAGE_BYTES_MAX as u64
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

/// One topic or pattern that is held, with the settings in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The topic or pattern.
    pub topic: String,
    /// The topic's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// `raw`, `conflate` or `interval`.
    pub mode: String,
    /// With `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u16>,
    /// Slow-consumer policy.
    pub on_slow: OnSlow,
    /// The topic's head when the request took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// True if the missed events follow; with `from` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// The topics that a pattern matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Vec<Entry>>,
}

impl Entry {
    /// A name with its settings and nothing else yet.
    pub fn new(topic: String, settings: Settings) -> Self {
        Self {
            topic,
            epoch: None,
            mode: settings.mode.name().to_owned(),
            interval_ms: settings.mode.interval_ms(),
            on_slow: settings.on_slow,
            seq: None,
            recovered: None,
            matched: None,
        }
    }

    /// The settings, where this version knows the mode.
    pub fn settings(&self) -> Option<Settings> {
        let mode = match (self.mode.as_str(), self.interval_ms) {
            ("raw", _) => Mode::Raw,
            ("conflate", _) => Mode::Conflate,
            ("interval", Some(ms)) => Mode::Interval(ms),
            _ => return None,
        };
        Some(Settings {
            mode,
            on_slow: self.on_slow,
        })
    }
}

/// A rejected topic or pattern, with the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// The topic or pattern as it was asked for.
    pub topic: String,
    /// See [`Code`].
    pub code: u16,
    /// Says what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal of `topic` for the reason `code`.
    pub fn new(topic: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            code: code.number(),
            message: message.into(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Answers `subscribe`, `modify` and `resync`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// The request's.
    pub id: Option<Id>,
    /// Subscribed topics and patterns.
    pub ok: Vec<Entry>,
    /// Rejected topics and patterns.
    pub err: Vec<Refusal>,
    /// Topics held now.
    pub count: u64,
    /// Bytes of the largest message from here on, where the request asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message: Option<u64>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Answers `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribed {
    /// The request's.
    pub id: Option<Id>,
    /// No longer held.
    pub topics: Vec<String>,
    /// Still held by another subscription.
    pub ok: Vec<Entry>,
    /// Rejected topics and patterns.
    pub err: Vec<Refusal>,
    /// Topics held now.
    pub count: u64,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Answers `subscriptions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// The request's.
    pub id: Option<Id>,
    /// Subscribed topics and patterns.
    pub ok: Vec<Entry>,
    /// Topics held now.
    pub count: u64,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Answers `instruments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instruments {
    /// The request's.
    pub id: Option<Id>,
    /// Instruments visible to the client.
    pub instruments: Vec<InstrumentEntry>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// One instrument.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstrumentEntry {
    /// Its symbol.
    pub symbol: String,
    /// Its channels, with their params: `trade`, `bar:1m`.
    pub channels: Vec<Cow<'static, str>>,
    /// Usual decimals of a price.
    pub price_scale: u32,
    /// Usual decimals of a quantity.
    pub qty_scale: u32,
    /// Kind of source of its prices.
    pub src: SourceKind,
    /// For people.
    pub description: String,
    /// The venue's own spelling of the symbol, where that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venue_symbol: Option<String>,
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

/// Change of the topics that subscribed patterns match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicsChange {
    /// Matched now, and held.
    pub added: Vec<Entry>,
    /// No longer held.
    pub removed: Vec<Refusal>,
    /// Matched, but refused.
    pub err: Vec<Refusal>,
    /// Another part follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// A source's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It emits.
    Live,
    /// It is silent.
    Stale,
    /// It failed and is being started again.
    Reconnecting,
    /// It has come to its end.
    Ended,
}

impl SourceState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Live, Self::Stale, Self::Reconnecting, Self::Ended];

    /// As it stands on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Reconnecting => "reconnecting",
            Self::Ended => "ended",
        }
    }
}

/// The state of a source, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCondition {
    /// Its state.
    pub state: SourceState,
    /// The time of the change.
    pub since: UnixNanos,
    /// The reason, if the source ended because it failed.
    pub error: Option<Arc<str>>,
}

/// A source of a held topic changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceChange {
    /// Its name in the config.
    pub name: String,
    /// Its state now.
    pub state: SourceState,
    /// Since when, Unix nanoseconds.
    pub since: u64,
    /// Why it ended before its end; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
