//! Keys of the rules for bad market data.

use super::{Key, Kind, key, without_default};
use crate::source::rules::RuleAction;

const ACTION: Kind = Kind::Word(&RuleAction::NAMES);

/// `sources.rules` and everything below it.
pub(super) const RULES: &[Key] = &[
    without_default(
        "sources.rules",
        Kind::Section,
        "Rules for bad market data. Actions: `pass`, `flag` (count and publish), `drop` (count), `stale` or `halt` (drop, and set the status until the next accepted event).",
    ),
    key(
        "sources.rules.max_move",
        Kind::Text,
        "0",
        "Max price move relative to the last accepted price of the instrument, e.g. 10%; 0: no limit.",
    ),
    key(
        "sources.rules.move_within",
        Kind::Duration("1ms", "365d"),
        "1m",
        "Age from which the last accepted price no longer counts.",
    ),
    key(
        "sources.rules.move_confirm",
        Kind::Integer(1, 1_000_000),
        "5",
        "Consecutive events around another price after which the market has moved: the last of them is accepted.",
    ),
    key(
        "sources.rules.on_move",
        ACTION,
        "drop",
        "Action for prices beyond `max_move`.",
    ),
    key(
        "sources.rules.on_crossed",
        ACTION,
        "pass",
        "Action for crossed quotes; a replay or push source accepts them first with `crossed: true`.",
    ),
    key(
        "sources.rules.on_duplicate",
        ACTION,
        "pass",
        "Action for trades with the id of one of the last 64 trades of the instrument.",
    ),
    key(
        "sources.rules.on_late",
        ACTION,
        "pass",
        "Action for events older than the previous one of their instrument and channel; a push source accepts them first with `late: true`.",
    ),
    key(
        "sources.rules.max_clock_error",
        Kind::Duration("0", "365d"),
        "0",
        "Max deviation of event times from the current time of the source; 0: no limit.",
    ),
    key(
        "sources.rules.on_clock",
        ACTION,
        "drop",
        "Action for event times beyond `max_clock_error`.",
    ),
    key(
        "sources.rules.max_rate",
        Kind::Integer(0, 100_000_000),
        "0",
        "Max events per second and instrument, in the time of the source; 0: no limit.",
    ),
    key(
        "sources.rules.on_flood",
        ACTION,
        "drop",
        "Action for events beyond `max_rate`; dropped ones are reported as a gap with cause source.",
    ),
    key(
        "sources.rules.consecutive_ids",
        Kind::Flag,
        "false",
        "Numeric trade ids of an instrument are consecutive: a jump is reported as a gap with cause source.",
    ),
];
