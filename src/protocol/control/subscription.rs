//! Answers about subscriptions, and what they hold.

use serde::{Deserialize, Serialize};

use super::is_false;
use crate::protocol::{Code, Id, Mode, OnSlow, Seq, Settings};

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
