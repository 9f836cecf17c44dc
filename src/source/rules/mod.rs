//! Rules for bad market data, the same for every kind of source: crossed quotes, off-market prices,
//! duplicates, late events, wrong clocks, floods, and holes in trade ids.
//!
//! A source of kind `push` or `replay` first rejects what cannot be published at all
//! ([`PriceRules`](crate::market::PriceRules)). [`Screen`] then judges each event before the bus
//! gets it. It is pure, and follows the time of the source.

mod prices;
mod screen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::metrics::RuleCounters;

pub use screen::Screen;

/// A rule that an event violates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The bid is above the ask.
    Crossed,
    /// The price is too far from the last accepted one.
    Move,
    /// A trade with the id of an earlier one.
    Duplicate,
    /// Older than the previous event of its symbol and channel.
    Late,
    /// The event time is too far from the present.
    Clock,
    /// Too many events per second.
    Flood,
}

impl Rule {
    /// All rules, in the order of their metric labels.
    pub const ALL: [Self; 6] = [
        Self::Crossed,
        Self::Move,
        Self::Duplicate,
        Self::Late,
        Self::Clock,
        Self::Flood,
    ];

    /// Name in metrics and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crossed => "crossed",
            Self::Move => "move",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Clock => "clock",
            Self::Flood => "flood",
        }
    }
}

/// Treatment of an event that violates a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleAction {
    /// The event is published; the rule is off.
    #[default]
    Pass,
    /// The event is counted and published.
    Flag,
    /// The event is counted and not published.
    Drop,
    /// As `Drop`, and the instrument is stale until its next accepted event.
    Stale,
    /// As `Drop`, and the instrument is halted until its next accepted event.
    Halt,
}

impl RuleAction {
    /// Names in configs, in the order of the variants.
    pub const NAMES: [&str; 5] = ["pass", "flag", "drop", "stale", "halt"];

    /// Action with this name.
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Pass, Self::Flag, Self::Drop, Self::Stale, Self::Halt];
        let at = Self::NAMES.iter().position(|known| *known == name)?;
        Some(all[at])
    }
}

/// Rules of a source. By default all are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRules {
    /// Crossed quotes that the price rules accept.
    pub on_crossed: RuleAction,
    /// Maximum relative price move; zero: no limit.
    pub max_move: Decimal,
    /// Age from which the last accepted price no longer counts.
    pub move_within: Duration,
    /// Number of consecutive off-market events after which the market has moved.
    pub move_confirm: u32,
    /// Off-market prices.
    pub on_move: RuleAction,
    /// Repeated trade ids.
    pub on_duplicate: RuleAction,
    /// Late events.
    pub on_late: RuleAction,
    /// Maximum deviation of event times from the present; zero: no limit.
    pub max_clock_error: Duration,
    /// Wrong event times.
    pub on_clock: RuleAction,
    /// Maximum number of events per second and symbol; zero: no limit.
    pub max_rate: u32,
    /// Floods.
    pub on_flood: RuleAction,
    /// True if numeric trade ids of a symbol are consecutive, so that a jump is a hole.
    pub consecutive_ids: bool,
}

impl Default for SourceRules {
    fn default() -> Self {
        Self {
            on_crossed: RuleAction::Pass,
            max_move: Decimal::ZERO,
            move_within: Duration::from_secs(60),
            move_confirm: 5,
            on_move: RuleAction::Drop,
            on_duplicate: RuleAction::Pass,
            on_late: RuleAction::Pass,
            max_clock_error: Duration::ZERO,
            on_clock: RuleAction::Drop,
            max_rate: 0,
            on_flood: RuleAction::Drop,
            consecutive_ids: false,
        }
    }
}

impl SourceRules {
    /// True if no rule can apply to any event.
    pub fn are_off(&self) -> bool {
        let by_action = [self.on_crossed, self.on_duplicate, self.on_late];
        by_action.iter().all(|action| *action == RuleAction::Pass)
            && self.max_move.is_zero()
            && self.max_clock_error.is_zero()
            && self.max_rate == 0
            && !self.consecutive_ids
    }
}

/// Violations of one rule, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    rule: &'static str,
    flagged: u64,
    dropped: u64,
}

/// Violations of a source by rule; rules without a violation are left out.
pub fn rule_reports(counters: &RuleCounters) -> Vec<RuleReport> {
    let report = |rule: Rule| {
        let [flagged, dropped] = &counters[rule as usize];
        RuleReport {
            rule: rule.name(),
            flagged: flagged.get(),
            dropped: dropped.get(),
        }
    };
    let all = Rule::ALL.into_iter().map(report);
    all.filter(|report| report.flagged + report.dropped > 0)
        .collect()
}
