//! Keys of a simulated market.

use rust_decimal::Decimal;

use super::hours::read_hours;
use super::instrument::{description, distinct_symbols, price_rules, symbol};
use crate::config::reader::Section;
use crate::market::{Price, PriceRules, VALUE_MAX, parse_decimal};
use crate::source::sim::{Arrivals, Model, SimConfig, SimInstrument};

/// Maximum simulated price, in ticks.
const TICKS_MAX: u64 = 1_000_000_000_000;

pub(super) fn read(section: &Section<'_>) -> SimConfig {
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
    section.mark_known(&["hours"]);
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
