//! Keys of a replay: files, columns and times.

use super::hours::fixed_offset;
use super::instrument::price_rules;
use crate::config::reader::Section;
use crate::market::{PriceRules, Symbol, excerpt};
use crate::replay::{Begin, Columns, ReplayConfig, Speed, TimeRules, VenueRule};
use crate::source::sim::Hours;

pub(super) fn read(section: &Section<'_>) -> ReplayConfig {
    let files = section.texts("files");
    if files.is_empty() {
        section.problem("files", "expected at least one file");
    }
    let text = section.text("speed");
    let speed = Speed::parse(&text).unwrap_or_else(|| {
        section.problem(
            "speed",
            format!(
                "invalid value \"{}\": expected a number from 0.1 to 1000, or max",
                text.escape_debug()
            ),
        );
        Speed::Max
    });
    let symbol = section.text("symbol");
    let symbol = (!symbol.is_empty()).then(|| {
        Symbol::new(&symbol).map_err(|error| section.problem("symbol", error.to_string()))
    });
    let text = section.text("venue");
    let venue = VenueRule::parse(&text).unwrap_or_else(|| {
        section.problem(
            "venue",
            format!(
                "invalid value \"{}\": expected auto, always, never, or a venue name, e.g. binance",
                text.escape_debug()
            ),
        );
        VenueRule::Auto
    });
    ReplayConfig {
        files: files.into_iter().map(Into::into).collect(),
        speed,
        repeat: section.flag("loop"),
        begin: if section.word("begin") == "now" {
            Begin::Now
        } else {
            Begin::FirstSubscriber
        },
        symbol: symbol.and_then(Result::ok),
        venue,
        max_bad: section.integer("max_bad"),
        expansion_max: section.integer("max_expansion"),
        prices: PriceRules {
            zero_size_is_empty: section.flag("zero_size_is_empty"),
            ..price_rules(section)
        },
        times: read_times(section),
        columns: section
            .has("columns")
            .then(|| read_columns(&section.section("columns"))),
    }
}

fn read_times(section: &Section<'_>) -> TimeRules {
    let (name, format) = (section.text("timezone"), section.text("time_format"));
    let zone = Hours::zone(&name).or_else(|| fixed_offset(&name));
    if zone.is_none() && !name.is_empty() {
        section.problem(
            "timezone",
            format!(
                "unknown time zone \"{}\": expected an IANA name, e.g. America/New_York, or an offset, e.g. -05:00",
                excerpt(&name)
            ),
        );
    }
    if !format.is_empty() && !TimeRules::is_format(&format) {
        section.problem(
            "time_format",
            format!(
                "invalid time format \"{}\": expected strptime directives for date and time, e.g. \"%d.%m.%Y %H:%M:%S%.f\"",
                excerpt(&format)
            ),
        );
    }
    TimeRules {
        zone,
        format: Some(format).filter(|format| !format.is_empty()),
        earliest: section
            .time_if_any("earliest_time")
            .unwrap_or(TimeRules::DEFAULT.earliest),
        ahead: section.duration("ahead"),
        max_step: section.duration("max_time_step"),
    }
}

fn read_columns(section: &Section<'_>) -> Columns {
    let name = |key: &str| Some(section.text(key)).filter(|name| !name.is_empty());
    let columns = Columns {
        time: section.required("time"),
        symbol: name("symbol"),
        venue: name("venue"),
        row_type: name("type"),
        trade: section.text("trade"),
        quote: section.text("quote"),
        price: name("price"),
        qty: name("qty"),
        side: name("side"),
        id: name("id"),
        bid: name("bid"),
        bid_qty: name("bid_qty"),
        ask: name("ask"),
        ask_qty: name("ask_qty"),
    };
    let (trades, quotes) = (
        columns.price.is_some() && columns.qty.is_some(),
        columns.bid.is_some() || columns.ask.is_some(),
    );
    if !trades && !quotes {
        section.problem(
            "price",
            "missing; expected price and qty for trades, or bid and ask for quotes",
        );
    }
    if trades && quotes && columns.row_type.is_none() {
        section.problem(
            "type",
            "missing; a file with trades and quotes needs the column that distinguishes them",
        );
    }
    section.finish();
    columns
}
