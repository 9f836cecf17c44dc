//! Settings of subscriptions and positions in topics, as they are on the wire.

use serde_json::Value;

use crate::Violation;

/// Kind of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    State,
    Bar,
}

impl Kind {
    pub(crate) fn of(topic: &str) -> Self {
        match topic.split(':').next() {
            Some("trade") => Self::Event,
            Some("bar") => Self::Bar,
            _ => Self::State,
        }
    }
}

/// Settings as they are on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) mode: String,
    pub(crate) interval_ms: Option<u64>,
    pub(crate) on_slow: String,
}

impl Settings {
    pub(super) fn merges(&self) -> bool {
        self.mode != "raw"
    }

    pub(super) fn degrades(&self) -> bool {
        self.on_slow == "conflate"
    }

    /// Settings of an entry of a response.
    pub(crate) fn of_entry(entry: &Value) -> Result<Self, Violation> {
        let text = |field: &str| {
            let value = entry[field].as_str().map(str::to_owned);
            value.ok_or_else(|| Violation::new(format!("no `{field}` in {entry}")))
        };
        let settings = Self {
            mode: text("mode")?,
            interval_ms: entry["interval_ms"].as_u64(),
            on_slow: text("on_slow")?,
        };
        if settings.interval_ms.is_some() == (settings.mode == "interval") {
            Ok(settings)
        } else {
            Err(Violation::new(format!("mode and interval of {entry}")))
        }
    }
}

/// Number within an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) seq: u64,
}
