//! The `sources` section.

mod recorded;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use rust_decimal::Decimal;

use super::reader::Section;
use super::shared;
use crate::market::{
    Instrument, Price, PriceRules, SourceKind, Symbol, VALUE_MAX, excerpt, is_printable,
    parse_decimal,
};
use crate::source::push::PushRules;
use crate::source::replay::ReplayConfig;
use crate::source::sim::{Arrivals, Hours, Model, SimConfig, SimInstrument};

/// One source.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Its name in messages, metrics and logs.
    pub name: Arc<str>,
    /// Silence after which it is stale.
    pub stale_after: Duration,
    /// The rest, by kind.
    pub details: SourceDetails,
}

impl SourceConfig {
    /// The symbols that are known before it runs.
    fn symbols(&self) -> Vec<&Symbol> {
        match &self.details {
            SourceDetails::Sim(sim) => sim
                .instruments
                .iter()
                .map(|instrument| &instrument.symbol)
                .collect(),
            SourceDetails::Push { instruments, .. } => instruments
                .iter()
                .map(|instrument| &instrument.symbol)
                .collect(),
            // Files may name more; the bus refuses and counts those.
            SourceDetails::Replay(replay) => replay.symbol.iter().collect(),
        }
    }
}

/// Settings of a source by its kind.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are a few, made once")]
pub enum SourceDetails {
    /// A simulated market.
    Sim(SimConfig),
    /// Recorded files.
    Replay(ReplayConfig),
    /// Prices from outside.
    Push {
        /// Instruments that may be published.
        instruments: Vec<Instrument>,
        /// Rules for published events.
        rules: PushRules,
        /// SHA-256 of the publisher's token; `None`: open to programs on this machine.
        token_sha256: Option<[u8; 32]>,
    },
}

impl SourceDetails {
    /// The symbols that the config lists; those of a replay stand in its files.
    pub fn symbols(&self) -> Vec<Symbol> {
        match self {
            Self::Sim(sim) => sim
                .instruments
                .iter()
                .map(|one| one.symbol.clone())
                .collect(),
            Self::Push { instruments, .. } => {
                instruments.iter().map(|one| one.symbol.clone()).collect()
            }
            Self::Replay(_) => Vec::new(),
        }
    }
}

/// The most characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 200;
/// The most ticks of a simulated price.
const TICKS_MAX: u64 = 1_000_000_000_000;
/// The most sources.
const SOURCES_MAX: usize = 1000;

pub(super) fn read(root: &Section<'_>) -> Vec<SourceConfig> {
    let sections = root.sections("sources");
    if sections.is_empty() {
        let message = if root.has("sources") {
            "expected at least one source"
        } else {
            "missing; expected at least one source of kind sim, replay or push"
        };
        root.problem("sources", message);
    }
    if sections.len() > SOURCES_MAX {
        root.problem(
            "sources",
            format!("too many sources; expected at most {SOURCES_MAX}"),
        );
    }
    let mut names = HashSet::new();
    let sources: Vec<SourceConfig> = sections
        .into_iter()
        .filter_map(|section| read_one(section, &mut names))
        .collect();
    let mut symbols: HashMap<&Symbol, &str> = HashMap::new();
    for source in &sources {
        for symbol in source.symbols() {
            if let Some(other) = symbols
                .insert(symbol, &source.name)
                .filter(|other| *other != &*source.name)
            {
                root.problem(
                    "sources",
                    format!(
                        "duplicate symbol \"{symbol}\": listed by sources {other} and {}",
                        source.name
                    ),
                );
            }
        }
    }
    sources
}

fn read_one(section: Section<'_>, names: &mut HashSet<String>) -> Option<SourceConfig> {
    let name = section.required("name");
    if !name.is_empty() && !names.insert(name.clone()) {
        section.problem(
            "name",
            format!("duplicate source name \"{}\"", name.escape_debug()),
        );
    }
    section.required("kind");
    let kind = section.word("kind");
    let stale_after = section.duration("stale_after");
    if kind.is_empty() {
        return None;
    }
    let section = section.also(kind);
    let details = match kind {
        "sim" => SourceDetails::Sim(read_sim(&section)),
        "replay" => SourceDetails::Replay(recorded::read(&section)),
        _ => read_push(&section),
    };
    section.finish();
    Some(SourceConfig {
        name: shared(&name),
        stale_after,
        details,
    })
}

fn symbol(section: &Section<'_>) -> Option<Symbol> {
    let text = section.required("symbol");
    if text.is_empty() {
        return None;
    }
    Symbol::new(&text)
        .map_err(|error| section.problem("symbol", error.to_string()))
        .ok()
}

fn description(section: &Section<'_>) -> String {
    let text = section.text("description");
    if text.chars().count() > DESCRIPTION_CHARS_MAX || !text.chars().all(is_printable) {
        section.problem(
            "description",
            format!("expected at most {DESCRIPTION_CHARS_MAX} printable characters, without control and format characters (such as U+202E)"),
        );
    }
    text
}

fn distinct_symbols(sections: &[Section<'_>], parent: &Section<'_>) {
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

fn read_sim(section: &Section<'_>) -> SimConfig {
    let mut factors = Vec::new();
    let sections = section.sections("instruments");
    distinct_symbols(&sections, section);
    let prices = price_rules(section);
    let instruments = sections
        .iter()
        .filter_map(|one| read_sim_instrument(one, prices, &mut factors))
        .collect();
    SimConfig {
        seed: section.integer("seed"),
        start: section.time_if_any("start"),
        history: section.duration("history"),
        every: section.duration("every"),
        factors,
        instruments,
    }
}

fn read_sim_instrument(
    section: &Section<'_>,
    prices: PriceRules,
    factors: &mut Vec<String>,
) -> Option<SimInstrument> {
    let symbol = symbol(section);
    let description = description(section);
    section.required("start");
    let (start, tick_size, lot_size) = (
        section.decimal("start"),
        section.decimal("tick_size"),
        section.decimal("lot_size"),
    );
    for (key, value) in [("tick_size", tick_size), ("lot_size", lot_size)] {
        if value <= Decimal::ZERO {
            section.problem(key, "must be greater than zero");
        }
        if value > VALUE_MAX {
            section.problem(key, "must be at most 10^15");
        }
    }
    let least = if prices.negative { start.abs() } else { start };
    if least < tick_size && parse_decimal(&section.text("start")).is_ok() {
        section.problem(
            "start",
            "must be at least one tick_size; below zero the source needs `negative_prices: true`",
        );
    }
    if start.abs() > VALUE_MAX {
        section.problem("start", "must be at most 10^15");
    }
    if start
        .abs()
        .checked_div(tick_size)
        .is_none_or(|ticks| ticks > Decimal::from(TICKS_MAX))
        && tick_size > Decimal::ZERO
    {
        section.problem(
            "start",
            format!("must be at most {TICKS_MAX} times the tick_size"),
        );
    }
    let instrument = SimInstrument {
        description,
        prices,
        start: Price(start),
        tick_size,
        lot_size,
        size_lots: section.number("size"),
        spread_ticks: section.number("spread"),
        rate: section.rate("rate"),
        trades: section.number("trades"),
        model: read_model(section),
        arrivals: read_arrivals(section),
        factor: read_factor(section, factors),
        session_start: section.duration("session"),
        hours: section
            .has("hours")
            .then(|| read_hours(&section.section("hours")))
            .flatten(),
        stale_after: section.duration_if_any("stale_after"),
        symbol: symbol?,
    };
    section.know(&["hours"]);
    section.finish();
    Some(instrument)
}

fn read_model(section: &Section<'_>) -> Model {
    let Some((kind, inner)) = section.variant("model", &["gbm", "jump", "mean_reverting"]) else {
        return Model::Gbm { volatility: 0.3 };
    };
    let volatility = inner.number("volatility");
    let model = match kind {
        "gbm" => Model::Gbm { volatility },
        "jump" => Model::Jump {
            volatility,
            jumps_per_day: inner.number("jumps_per_day"),
            jump: inner.number("jump"),
        },
        _ => Model::MeanReverting {
            volatility,
            half_life: inner.duration("half_life"),
        },
    };
    inner.finish();
    model
}

fn read_arrivals(section: &Section<'_>) -> Arrivals {
    let Some((kind, inner)) = section.variant("arrivals", &["poisson", "hawkes"]) else {
        return Arrivals::Poisson;
    };
    let arrivals = match kind {
        "poisson" => Arrivals::Poisson,
        _ => Arrivals::Hawkes {
            branching: inner.number("branching"),
            decay: inner.duration("decay"),
        },
    };
    inner.finish();
    arrivals
}

fn read_factor(section: &Section<'_>, factors: &mut Vec<String>) -> Option<(usize, f64)> {
    let pairs = section.pairs("factor");
    if !section.has("factor") {
        return None;
    }
    let closeness = |text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
    };
    let [(name, text)] = &pairs[..] else {
        section.problem(
            "factor",
            "expected one factor and the correlation with it, e.g. {crypto: 0.7}",
        );
        return None;
    };
    let Some(closeness) = closeness(text) else {
        section.problem(
            "factor",
            format!(
                "invalid value \"{}\": expected a number from 0 to 1",
                text.escape_debug()
            ),
        );
        return None;
    };
    let at = factors
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            factors.push(name.clone());
            factors.len() - 1
        });
    Some((at, closeness))
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn read_hours(section: &Section<'_>) -> Option<Hours> {
    let of_day = |key: &str| {
        let text = section.required(key);
        let minutes = clock_minutes(&text);
        if minutes.is_none() && !text.is_empty() {
            section.problem(
                key,
                format!(
                    "invalid time of day \"{}\": expected HH:MM, e.g. 09:30",
                    text.escape_debug()
                ),
            );
        }
        minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60))
    };
    let (open, close) = (of_day("open"), of_day("close"));
    let zone = zone(section);
    let text = section.text("days");
    let days = days(&text);
    if days.is_none() {
        section.problem(
            "days",
            format!(
                "invalid value \"{}\": expected days, e.g. mon-fri or mon,wed,sun",
                text.escape_debug()
            ),
        );
    }
    section.finish();
    Some(Hours {
        open: open?,
        close: close?,
        zone: zone?,
        days: days?,
    })
}

fn zone(section: &Section<'_>) -> Option<TimeZone> {
    let (name, offset) = (section.text("timezone"), section.text("utc_offset"));
    if !name.is_empty() {
        if section.has("utc_offset") {
            section.problem(
                "utc_offset",
                "conflicts with timezone, which defines the offset; remove one of the two",
            );
        }
        let zone = Hours::zone(&name);
        if zone.is_none() {
            section.problem(
                "timezone",
                format!(
                    "unknown time zone \"{}\": expected an IANA name, e.g. America/New_York or Europe/Berlin",
                    excerpt(&name)
                ),
            );
        }
        return zone;
    }
    let zone = fixed_offset(&offset);
    if zone.is_none() {
        section.problem(
            "utc_offset",
            format!(
                "invalid UTC offset \"{}\": expected e.g. -05:00, or a zone: timezone: America/New_York",
                excerpt(&offset)
            ),
        );
    }
    zone
}

/// The zone of an offset such as -05:00.
fn fixed_offset(text: &str) -> Option<TimeZone> {
    let (sign, rest) = text.split_at_checked(1)?;
    let seconds = i32::try_from(clock_minutes(rest)?.checked_mul(60)?).ok()?;
    let seconds = match sign {
        "+" => seconds,
        "-" => seconds.checked_neg()?,
        _ => return None,
    };
    Offset::from_seconds(seconds).ok().map(TimeZone::fixed)
}

/// Minutes after midnight, up to 24:00.
fn clock_minutes(text: &str) -> Option<u32> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let all = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && all <= 24 * 60).then_some(all)
}

fn days(text: &str) -> Option<[bool; 7]> {
    let place = |name: &str| DAYS.iter().position(|day| *day == name.trim());
    let mut days = [false; 7];
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (place(from)?, place(to)?);
        if to < from {
            return None;
        }
        days[from..=to].fill(true);
    }
    Some(days)
}

fn read_push(section: &Section<'_>) -> SourceDetails {
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

fn price_rules(section: &Section<'_>) -> PriceRules {
    PriceRules {
        negative: section.flag("negative_prices"),
        zero: section.flag("zero_prices"),
        crossed: section.flag("crossed"),
        zero_size_is_empty: false,
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
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(hash)
}
