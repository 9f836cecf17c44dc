//! Keys of scheduled faults.

use super::{Key, Kind, key, without_default};
use crate::source::faults::FaultKind;

/// `sources.faults` and everything below it.
pub(super) const FAULTS: &[Key] = &[
    without_default(
        "sources.faults",
        Kind::Section,
        "Scheduled faults of a simulated market or a replay, to test clients.",
    ),
    without_default(
        "sources.faults.kind",
        Kind::Word(&FaultKind::NAMES),
        "Kind of fault.",
    ),
    key(
        "sources.faults.symbols",
        Kind::Text,
        "*",
        "Affected instruments: a symbol, or its beginning followed by `*`.",
    ),
    key(
        "sources.faults.at",
        Kind::Duration("0", "365d"),
        "0",
        "First beginning, in the time of the source since its start.",
    ),
    key(
        "sources.faults.every",
        Kind::Duration("100ms", "365d"),
        "",
        "Time from one beginning to the next; once if absent.",
    ),
    key(
        "sources.faults.jitter",
        Kind::Duration("0", "365d"),
        "0",
        "Max random deviation of each beginning; reproducible by the seed.",
    ),
    key(
        "sources.faults.for",
        Kind::Duration("0", "365d"),
        "10s",
        "Duration, in the time of the source.",
    ),
    key(
        "sources.faults.count",
        Kind::Integer(0, 1_000_000_000),
        "0",
        "Max affected events; 0: no limit.",
    ),
    key(
        "sources.faults.share",
        Kind::Decimal,
        "1",
        "Share of affected events, above 0 and up to 1; not for freeze and restart.",
    ),
    key(
        "sources.faults.size",
        Kind::Decimal,
        "0.1",
        "Relative price change of a spike: 0.1 is +10 %, -0.5 is -50 %.",
    ),
    key(
        "sources.faults.step",
        Kind::Text,
        "1h",
        "Shift of event times by a clock fault, e.g. 1h or -90s.",
    ),
];
