//! Responses about subscriptions, and their entries.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::protocol::{Code, Id, Mode, OnSlow, Seq, Settings};

/// Subscribed topic or pattern, with the settings in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the topic or pattern.
    pub topic: String,
    /// Epoch of the topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Delivery mode: `raw`, `conflate` or `interval`.
    pub mode: String,
    /// Conflation interval in milliseconds, for mode `interval`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u16>,
    /// Slow-consumer policy.
    pub on_slow: OnSlow,
    /// Newest sequence number of the topic when the request took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// True if the missed events follow; only in responses to requests with `from`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// Topics that the pattern matches, with their settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<Vec<Entry>>,
}

impl Entry {
    /// Creates an entry with a name and settings only.
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

    /// Delivery settings, if this version knows the mode.
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
    /// Topic or pattern as requested.
    pub topic: String,
    /// Error code, one of [`Code`].
    pub code: u16,
    /// Description of the error and the expected value.
    pub message: String,
}

impl Refusal {
    /// Creates a rejection of `topic` with the reason `code`.
    pub fn new(topic: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            code: code.number(),
            message: message.into(),
        }
    }
}

/// Response to `subscribe`, `modify` and `resync`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscribed {
    /// Id of the request.
    pub id: Option<Id>,
    /// Subscribed topics and patterns.
    pub ok: Vec<Entry>,
    /// Rejected topics and patterns.
    pub err: Vec<Refusal>,
    /// Number of topics currently subscribed.
    pub count: u64,
    /// Maximum size of a server message from here on, in bytes, if the request changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_message: Option<u64>,
    /// True if another part of the response follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Response to `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unsubscribed {
    /// Id of the request.
    pub id: Option<Id>,
    /// Topics no longer subscribed.
    pub topics: Vec<String>,
    /// Topics still subscribed through another subscription.
    pub ok: Vec<Entry>,
    /// Rejected topics and patterns.
    pub err: Vec<Refusal>,
    /// Number of topics currently subscribed.
    pub count: u64,
    /// True if another part of the response follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Response to `subscriptions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// Id of the request.
    pub id: Option<Id>,
    /// Subscribed topics and patterns.
    pub ok: Vec<Entry>,
    /// Number of topics currently subscribed.
    pub count: u64,
    /// True if another part of the response follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// Change of the topics that subscribed patterns match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicsChange {
    /// Topics that newly match and are now subscribed.
    pub added: Vec<Entry>,
    /// Topics no longer subscribed.
    pub removed: Vec<Refusal>,
    /// Topics that match but were rejected.
    pub err: Vec<Refusal>,
    /// True if another part of the message follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}
