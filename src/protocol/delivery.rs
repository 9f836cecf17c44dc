use crate::topic::Channel;

/// Supported values of `interval_ms`, in milliseconds.
pub const INTERVALS_MS: [u16; 8] = [10, 25, 50, 100, 250, 500, 1000, 5000];

/// Delivery mode for a subscriber that keeps up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every event, in order.
    Raw,
    /// The newest event, as soon as the socket accepts it.
    Conflate,
    /// The newest event, at most once per interval in milliseconds; one of [`INTERVALS_MS`].
    Interval(u16),
}

impl Mode {
    /// Names on the wire, in the order of [`Self::index`].
    pub const NAMES: [&str; 3] = ["raw", "conflate", "interval"];

    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Index into [`Self::NAMES`].
    pub const fn index(self) -> usize {
        match self {
            Self::Raw => 0,
            Self::Conflate => 1,
            Self::Interval(_) => 2,
        }
    }

    /// Length of the interval in milliseconds; `None` for other modes.
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
    /// Conflate: skip to the newest event until the client has caught up.
    Conflate,
    /// Drop the oldest events and report the gap.
    Gap,
    /// Disconnect the client.
    Disconnect,
}

impl OnSlow {
    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflate => "conflate",
            Self::Gap => "gap",
            Self::Disconnect => "disconnect",
        }
    }

    /// Parses the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Conflate, Self::Gap, Self::Disconnect]
            .into_iter()
            .find(|on_slow| on_slow.name() == text)
    }
}

/// Delivery settings in force for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Delivery mode while the client keeps up.
    pub mode: Mode,
    /// Policy while the client does not keep up.
    pub on_slow: OnSlow,
}

/// Requested delivery settings; absent ones are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryWish {
    /// Requested mode; `Interval(0)` if the request specifies no `interval_ms`.
    pub mode: Option<Mode>,
    /// Requested interval in milliseconds, without a mode or with a mode other than `interval`.
    pub interval_ms: Option<u16>,
    /// Slow-consumer policy.
    pub on_slow: Option<OnSlow>,
}

/// Rejection of a mode or `on_slow` policy that the channel does not support; lists the supported
/// ones.
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

    /// These settings, overridden by those in `wish` that the channel supports.
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

/// [`Settings`] in two bytes, for what is kept of each subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedSettings(u16);

/// Bits of the policy; the mode is above them.
const ON_SLOW_BITS: u32 = 2;
/// Codes of modes; an interval is its milliseconds above the last of them.
const RAW: u16 = 0;
const CONFLATE: u16 = 1;
const INTERVAL: u16 = 2;

const _: () = assert!(
    INTERVALS_MS[INTERVALS_MS.len() - 1] + INTERVAL < 1 << (16 - ON_SLOW_BITS),
    "each interval has a code"
);

impl From<Settings> for PackedSettings {
    fn from(settings: Settings) -> Self {
        let mode = match settings.mode {
            Mode::Raw => RAW,
            Mode::Conflate => CONFLATE,
            Mode::Interval(ms) => INTERVAL + ms,
        };
        let on_slow = match settings.on_slow {
            OnSlow::Conflate => 0,
            OnSlow::Gap => 1,
            OnSlow::Disconnect => 2,
        };
        Self((mode << ON_SLOW_BITS) | on_slow)
    }
}

impl From<PackedSettings> for Settings {
    fn from(PackedSettings(bits): PackedSettings) -> Self {
        let mode = match bits >> ON_SLOW_BITS {
            RAW => Mode::Raw,
            CONFLATE => Mode::Conflate,
            interval => Mode::Interval(interval - INTERVAL),
        };
        let on_slow = match bits & ((1 << ON_SLOW_BITS) - 1) {
            0 => OnSlow::Conflate,
            1 => OnSlow::Gap,
            _ => OnSlow::Disconnect,
        };
        Self { mode, on_slow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_settings_are_unpacked_as_they_were() {
        let intervals = INTERVALS_MS.map(Mode::Interval);
        for mode in [Mode::Raw, Mode::Conflate].into_iter().chain(intervals) {
            for on_slow in [OnSlow::Conflate, OnSlow::Gap, OnSlow::Disconnect] {
                let settings = Settings { mode, on_slow };
                assert_eq!(Settings::from(PackedSettings::from(settings)), settings);
            }
        }
    }
}
