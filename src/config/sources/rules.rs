//! Keys of the rules for bad market data.

use rust_decimal::Decimal;

use crate::config::reader::Section;
use crate::market::parse_decimal;
use crate::source::rules::{RuleAction, SourceRules};

pub(super) fn read(source: &Section<'_>) -> SourceRules {
    let section = source.section("rules");
    let action = |key: &str| RuleAction::parse(section.word(key)).unwrap_or_default();
    let text = section.text("max_move");
    let max_move = percent(&text);
    if max_move.is_none() {
        let found = text.escape_debug();
        let message = format!("invalid value \"{found}\": expected a percentage, e.g. 10%");
        section.problem("max_move", message);
    }
    let rules = SourceRules {
        on_crossed: action("on_crossed"),
        max_move: max_move.unwrap_or_default(),
        move_within: section.duration("move_within"),
        move_confirm: section.integer("move_confirm") as u32,
        on_move: action("on_move"),
        on_duplicate: action("on_duplicate"),
        on_late: action("on_late"),
        max_clock_error: section.duration("max_clock_error"),
        on_clock: action("on_clock"),
        max_rate: section.integer("max_rate") as u32,
        on_flood: action("on_flood"),
        consecutive_ids: section.flag("consecutive_ids"),
    };
    section.finish();
    rules
}

/// Parses `10%`, `0.5%` as a share; 0 needs no sign.
fn percent(text: &str) -> Option<Decimal> {
    let number = match text.strip_suffix('%') {
        Some(number) => number,
        None if text == "0" => text,
        None => return None,
    };
    let percent = parse_decimal(number.trim()).ok()?;
    let is_valid = percent >= Decimal::ZERO && percent <= Decimal::from(100_000);
    is_valid
        .then(|| percent.checked_div(Decimal::ONE_HUNDRED))
        .flatten()
}
