//! Keys of instruments, common to all kinds of source.

use std::collections::HashSet;

use crate::config::reader::Section;
use crate::market::{PriceRules, Symbol, is_printable};

/// Maximum number of characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 200;

pub(super) fn symbol(section: &Section<'_>) -> Option<Symbol> {
    let text = section.required("symbol");
    if text.is_empty() {
        return None;
    }
    Symbol::new(&text)
        .map_err(|error| section.problem("symbol", error.to_string()))
        .ok()
}

pub(super) fn description(section: &Section<'_>) -> String {
    let text = section.text("description");
    if text.chars().count() > DESCRIPTION_CHARS_MAX || !text.chars().all(is_printable) {
        section.problem(
            "description",
            format!("expected at most {DESCRIPTION_CHARS_MAX} printable characters, without control and format characters (such as U+202E)"),
        );
    }
    text
}

pub(super) fn distinct_symbols(sections: &[Section<'_>], parent: &Section<'_>) {
    if sections.is_empty() {
        parent.problem("instruments", "expected at least one instrument");
    }
    let mut seen = HashSet::new();
    for section in sections {
        let text = section.text("symbol");
        if !text.is_empty() && !seen.insert(text.clone()) {
            section.problem(
                "symbol",
                format!("duplicate symbol \"{}\"", text.escape_debug()),
            );
        }
    }
}

pub(super) fn price_rules(section: &Section<'_>) -> PriceRules {
    PriceRules {
        negative: section.flag("negative_prices"),
        zero: section.flag("zero_prices"),
        crossed: section.flag("crossed"),
        zero_size_is_empty: false,
    }
}
