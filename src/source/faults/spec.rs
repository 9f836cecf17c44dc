use std::time::Duration;

use rust_decimal::Decimal;

use crate::market::Symbol;

/// Kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Events are lost; subscribers receive a gap with cause `source`.
    Drop,
    /// Events are emitted twice.
    Duplicate,
    /// Events change places with the next event of their instrument and channel.
    Reorder,
    /// Instruments are silent; the events are lost.
    Freeze,
    /// Quotes are crossed: bid above ask.
    Cross,
    /// Prices are off the market.
    Spike,
    /// Event times are wrong.
    Clock,
    /// The source starts over in a new epoch.
    Restart,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Freeze,
        Self::Cross,
        Self::Spike,
        Self::Clock,
        Self::Restart,
    ];
    /// Names of all kinds, in the same order.
    pub const NAMES: [&str; 8] = [
        "drop",
        "duplicate",
        "reorder",
        "freeze",
        "cross",
        "spike",
        "clock",
        "restart",
    ];

    /// Name in configs, commands and metrics.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some(Self::ALL[at])
    }

    /// Effect on the events of the source and on subscribers.
    pub const fn effect(self) -> &'static str {
        match self {
            Self::Drop => "events are dropped; subscribers receive a gap with cause source",
            Self::Duplicate => "events are published twice",
            Self::Reorder => "events change places with the next one of their channel",
            Self::Freeze => {
                "no events; the instruments become stale, then a gap with cause source follows"
            }
            Self::Cross => "quotes are crossed (bid above ask)",
            Self::Spike => "prices are multiplied by 1 + size",
            Self::Clock => "event times are shifted by step",
            Self::Restart => "the source starts over in a new epoch",
        }
    }
}

/// Symbol, or the beginning of symbols followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymbolPattern(String);

impl SymbolPattern {
    /// Parses a pattern: `BTC-USD`, `BTC-*` or `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let is_valid = if name.is_empty() {
            text == "*"
        } else {
            Symbol::new(name).is_ok()
        };
        is_valid.then(|| Self(text.to_owned()))
    }

    /// True if the pattern covers the symbol.
    pub fn covers(&self, symbol: &Symbol) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => symbol.as_str().starts_with(beginning),
            None => symbol.as_str() == self.0,
        }
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Repetition of a scheduled fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultRepeat {
    /// Time from one beginning to the next.
    pub every: Duration,
    /// Maximum random deviation of each beginning, in both directions.
    pub jitter: Duration,
}

/// A fault to inject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultSpec {
    /// Kind of fault.
    pub kind: FaultKind,
    /// Affected instruments.
    pub symbols: SymbolPattern,
    /// Delay of the first beginning, from the start of the source or from the command.
    pub after: Duration,
    /// Repetition; once if `None`.
    pub repeat: Option<FaultRepeat>,
    /// Duration in the time of the source.
    pub lasting: Duration,
    /// Maximum number of affected events.
    pub count: Option<u64>,
    /// Share of affected events, 0 to 1.
    pub share: Decimal,
    /// Relative price change of a spike.
    pub size: Decimal,
    /// Shift of event times, in nanoseconds.
    pub step_ns: i64,
}
