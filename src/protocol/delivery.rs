use crate::topic::Channel;

/// The intervals that `interval_ms` may be.
pub const INTERVALS_MS: [u16; 8] = [10, 25, 50, 100, 250, 500, 1000, 5000];

/// Delivery mode for a subscriber that keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every event, in order.
    Raw,
    /// The newest, as soon as the socket takes it.
    Conflate,
    /// The newest, at most once in so many milliseconds; one of [`INTERVALS_MS`].
    Interval(u16),
}

impl Mode {
    /// The words on the wire, in the order of [`Self::index`].
    pub const NAMES: [&str; 3] = ["raw", "conflate", "interval"];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Which of the words.
    pub const fn index(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::Conflate => 1,
            Self::Interval(_) => 2,
        }
    }

    /// The milliseconds of an interval.
    pub const fn interval_ms(self) -> Option<u16> {
        match self {
            Self::Interval(ms) => Some(ms),
            _ => None,
        }
    }
}

/// Policy for a slow consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSlow {
    /// Falls back to the newest until it has caught up.
    Conflate,
    /// The oldest are dropped, and it is told which.
    Gap,
    /// It is sent away.
    Disconnect,
}

impl OnSlow {
    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflate => "conflate",
            Self::Gap => "gap",
            Self::Disconnect => "disconnect",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Conflate, Self::Gap, Self::Disconnect]
            .into_iter()
            .find(|on_slow| on_slow.name() == text)
    }
}

/// The delivery of one subscription, as it is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// While the client keeps up.
    pub mode: Mode,
    /// Policy for when the client does not keep up.
    pub on_slow: OnSlow,
}

/// Requested delivery settings; absent ones are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryWish {
    /// `Interval(0)` where no `interval_ms` was given.
    pub mode: Option<Mode>,
    /// Given beside no mode, or one that isn't `interval`.
    pub interval_ms: Option<u16>,
    /// Slow-consumer policy.
    pub on_slow: Option<OnSlow>,
}

/// A mode or `on_slow` that the channel doesn't know; says which it knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{channel} does not support {field} \"{given}\": expected {known}")]
pub struct SettingsRefused {
    field: &'static str,
    given: &'static str,
    channel: &'static str,
    known: &'static str,
}

impl Settings {
    /// Default delivery settings of a channel.
    pub const fn default_of(channel: Channel) -> Self {
        Self {
            mode: Mode::Raw,
            on_slow: if channel.kind().conflates() {
                OnSlow::Conflate
            } else {
                OnSlow::Gap
            },
        }
    }

    /// These settings with what `wish` says instead, where the channel knows it.
    pub fn with(self, wish: DeliveryWish, channel: Channel) -> Result<Self, SettingsRefused> {
        let mode = match (wish.mode.unwrap_or(self.mode), wish.interval_ms, self.mode) {
            (Mode::Interval(0), None, Mode::Interval(held)) => Mode::Interval(held),
            (Mode::Interval(_), Some(ms), _) => Mode::Interval(ms),
            (mode, _, _) => mode,
        };
        let settings = Self {
            mode,
            on_slow: wish.on_slow.unwrap_or(self.on_slow),
        };
        let refuse = |field, given, known| {
            Err(SettingsRefused {
                field,
                given,
                channel: channel.name(),
                known,
            })
        };
        if channel.kind().conflates() {
            return Ok(settings);
        }
        if settings.mode != Mode::Raw {
            return refuse("mode", settings.mode.name(), "raw");
        }
        if settings.on_slow == OnSlow::Conflate {
            return refuse("on_slow", settings.on_slow.name(), "gap or disconnect");
        }
        Ok(settings)
    }
}
