//! Keys of a push source.

use data_encoding::HEXLOWER_PERMISSIVE;

use super::SourceDetails;
use super::instrument::{description, distinct_symbols, price_rules, symbol};
use crate::config::reader::Section;
use crate::market::{Instrument, PriceRules, SourceKind};
use crate::source::push::PushRules;

pub(super) fn read(section: &Section<'_>) -> SourceDetails {
    let text = section.text("token_sha256");
    let token_sha256 = sha256(&text);
    if token_sha256.is_none() && !text.is_empty() {
        section.problem(
            "token_sha256",
            "expected 64 hexadecimal digits; generate them with: printf %s TOKEN | sha256sum",
        );
    }
    match (section.flag("open"), text.is_empty()) {
        (true, false) => section.problem(
            "open",
            "conflicts with token_sha256; remove one of the two",
        ),
        (false, true) => section.problem(
            "token_sha256",
            "missing; expected the SHA-256 of the publisher's token (printf %s TOKEN | sha256sum), or open: true \
             to let every program on this machine publish",
        ),
        _ => {}
    }
    let sections = section.sections("instruments");
    distinct_symbols(&sections, section);
    let instruments = sections.iter().filter_map(read_push_instrument).collect();
    let rules = PushRules {
        prices: PriceRules {
            zero_size_is_empty: section.flag("zero_size_is_empty"),
            ..price_rules(section)
        },
        late: section.flag("late"),
        ahead_max: section.duration("ahead"),
        behind_max: section.duration("behind"),
    };
    SourceDetails::Push {
        instruments,
        rules,
        token_sha256,
    }
}

fn read_push_instrument(section: &Section<'_>) -> Option<Instrument> {
    let (symbol, description) = (symbol(section), description(section));
    let instrument = Instrument {
        description,
        price_scale: section.integer("price_scale") as u32,
        qty_scale: section.integer("qty_scale") as u32,
        src: SourceKind::Push,
        has_trades: true,
        has_quotes: true,
        stale_after: section.duration_if_any("stale_after"),
        session_start: section.duration("session"),
        venue_symbol: None,
        symbol: symbol?,
    };
    section.finish();
    Some(instrument)
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let hash = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
    hash.try_into().ok()
}
