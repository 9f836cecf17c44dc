//! Keys of scheduled faults.

use std::time::Duration;

use rust_decimal::Decimal;

use crate::config::reader::Section;
use crate::config::units;
use crate::source::faults::{FaultKind, FaultRepeat, FaultSpec, SymbolPattern};

pub(super) fn read(source: &Section<'_>) -> Vec<FaultSpec> {
    let sections = source.sections("faults");
    sections.iter().filter_map(read_fault).collect()
}

fn read_fault(section: &Section<'_>) -> Option<FaultSpec> {
    section.required("kind");
    let kind = FaultKind::parse(section.word("kind"));
    let text = section.text("symbols");
    let symbols = SymbolPattern::parse(&text);
    if symbols.is_none() {
        let found = text.escape_debug();
        let message =
            format!("invalid value \"{found}\": expected a symbol, e.g. BTC-USD, BTC-* or *");
        section.problem("symbols", message);
    }
    let every = section.duration_if_any("every");
    let jitter = section.duration("jitter");
    if every.is_none_or(|every| jitter > every) && jitter > Duration::ZERO {
        section.problem("jitter", "expected at most the time of `every`");
    }
    let share = section.decimal("share");
    if share <= Decimal::ZERO || share > Decimal::ONE {
        section.problem("share", "expected a share above 0, up to 1");
    }
    let size = section.decimal("size");
    if size <= Decimal::NEGATIVE_ONE || size > Decimal::from(1000) {
        section.problem(
            "size",
            "expected a price change above -1 (-100 %), up to 1000",
        );
    }
    let text = section.text("step");
    let step_ns = units::signed_nanos(&text);
    if step_ns.is_none() {
        let found = text.escape_debug();
        let message = format!("invalid value \"{found}\": expected a duration, e.g. 1h or -90s");
        section.problem("step", message);
    }
    let spec = FaultSpec {
        kind: kind?,
        symbols: symbols?,
        after: section.duration("at"),
        repeat: every.map(|every| FaultRepeat { every, jitter }),
        lasting: section.duration("for"),
        count: Some(section.integer("count")).filter(|count| *count > 0),
        share,
        size,
        step_ns: step_ns?,
    };
    section.finish();
    Some(spec)
}
