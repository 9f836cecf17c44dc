//! Medians, spreads, and the figures to reach.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::case::{Case, Round};
use crate::process::Kind;

type Rounds = BTreeMap<Kind, Vec<Round>>;
type Found<'a> = BTreeMap<&'a str, Rounds>;

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The middle of the rounds that aren't void; of all, where every one is.
fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let sound: Vec<f64> = rounds.iter().filter(|round| !round.void).map(&of).collect();
    middle(if sound.is_empty() {
        rounds.iter().map(of).collect()
    } else {
        sound
    })
}

/// The middle of the ratios of rounds that ran one after the other, because the machine's speed
/// drifts.
fn paired(a: &[Round], b: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    middle(a.iter().zip(b).map(|(a, b)| of(a) / of(b)).collect())
}

pub(crate) fn print_case(case: &Case, all: &Rounds) {
    println!(
        "\n{}: {} connections x {} of {} topics, {:.0} events/s, {:.0} deliveries/s offered",
        case.name,
        case.connections,
        case.topics_each,
        case.instruments,
        case.rate,
        case.asked()
    );
    println!(
        "  {:<10}{:>14}{:>17}{:>9}{:>9}{:>10}{:>10}{:>10}{:>8}{:>9}{:>8}{:>8}{:>10}",
        "",
        "deliveries/s",
        "(min - max)",
        "user/M",
        "sys/M",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "lag p99",
        "ev/msg",
        "gen",
        "client",
        "RSS MiB"
    );
    for (kind, rounds) in all {
        let at = |of: fn(&Round) -> f64| median(rounds, of);
        let rate = |round: &Round| round.delivered_per_s;
        let least = rounds.iter().map(rate).fold(f64::INFINITY, f64::min);
        let most = rounds.iter().map(rate).fold(0.0, f64::max);
        let voids = rounds.iter().filter(|round| round.void).count();
        let void = if voids > 0 {
            format!("  {voids} void")
        } else {
            String::new()
        };
        println!(
            "  {:<10}{:>14.0}{:>17}{:>9.3}{:>9.3}{:>10.0}{:>10.0}{:>10.0}{:>8.0}{:>9.1}{:>8.2}{:>8.2}{:>10.1}{void}",
            kind.name(),
            at(rate),
            format!("{:.2}M - {:.2}M", least / 1e6, most / 1e6),
            at(|round| round.user_per_million),
            at(|round| round.system_per_million),
            at(|round| round.p50_us),
            at(|round| round.p99_us),
            at(|round| round.p99_9_us),
            at(|round| round.lag_p99_us),
            1.0 / at(|round| round.messages_each),
            at(|round| round.generator),
            at(|round| round.client_busy),
            at(|round| round.memory_bytes as f64) / f64::from(1 << 20),
        );
        for failure in rounds.iter().flat_map(|round| &round.failures) {
            println!("  FAILED: {failure}");
        }
    }
}

/// A figure to reach.
struct Figure {
    what: &'static str,
    measured: f64,
    bound: f64,
    /// Whether more is better.
    at_least: bool,
}

impl Figure {
    /// How far from the bound: above 1 is reached.
    fn reached(&self) -> f64 {
        if self.at_least {
            self.measured / self.bound
        } else {
            self.bound / self.measured
        }
    }
}

#[expect(clippy::too_many_lines, reason = "a report in its order")]
fn figures(found: &Found<'_>) -> Vec<Figure> {
    let of = |case: &str, kind: Kind, of: &dyn Fn(&Round) -> f64| {
        Some(median(found.get(case)?.get(&kind)?, of))
    };
    let own = |case: &str, value: &dyn Fn(&Round) -> f64| of(case, Kind::Tickcast, value);
    let to = |case: &str, other: Kind, value: &dyn Fn(&Round) -> f64| {
        let rounds = found.get(case)?;
        Some(paired(
            rounds.get(&Kind::Tickcast)?,
            rounds.get(&other)?,
            value,
        ))
    };
    let mut list = Vec::new();
    let mut add = |what, measured: Option<f64>, bound, at_least| {
        list.extend(measured.map(|measured| Figure {
            what,
            measured,
            bound,
            at_least,
        }));
    };
    let rate = &|round: &Round| round.delivered_per_s;
    let cpu = &Round::cpu_per_million;
    let user = &|round: &Round| round.user_per_million;
    let (p50, p99) = (&|round: &Round| round.p50_us, &|round: &Round| round.p99_us);
    add(
        "fast: deliveries/s to bare",
        to("fast", Kind::Bare, rate),
        0.90,
        true,
    );
    add(
        "fast: deliveries/s to naive",
        to("fast", Kind::Naive, rate),
        50.0,
        true,
    );
    add(
        "fast: p99 ms",
        own("fast", p99).map(|us| us / 1e3),
        50.0,
        false,
    );
    add(
        "flat out: deliveries/s to bare",
        to("flat_out", Kind::Bare, rate),
        0.80,
        true,
    );
    add(
        "busy: p50 to bare",
        to("busy", Kind::Bare, p50),
        1.10,
        false,
    );
    add(
        "busy: p99 to bare",
        to("busy", Kind::Bare, p99),
        1.15,
        false,
    );
    add(
        "calm: CPU per delivery to bare",
        to("calm", Kind::Bare, cpu),
        1.10,
        false,
    );
    add(
        "calm: user CPU s per million",
        own("calm", user),
        0.9,
        false,
    );
    add(
        "dense: user CPU s per million",
        own("dense", user),
        0.15,
        false,
    );
    add(
        "dense: p99 to bare",
        to("dense", Kind::Bare, p99),
        1.15,
        false,
    );
    add(
        "broadcast: CPU to bare",
        to("broadcast", Kind::Bare, cpu),
        1.15,
        false,
    );
    add(
        "broadcast: p99 to bare",
        to("broadcast", Kind::Bare, p99),
        1.20,
        false,
    );
    add(
        "9,500 connections: CPU per delivery to bare",
        to("many", Kind::Bare, cpu),
        1.15,
        false,
    );
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    add(
        "window of 20 ms: CPU to none",
        ratio(own("window", cpu), own("busy", cpu)),
        0.5,
        false,
    );
    add(
        "window of 20 ms: p99 ms",
        own("window", p99).map(|us| us / 1e3),
        25.0,
        false,
    );
    add(
        "10 % stalled, 10 % slow: p99 to none",
        ratio(own("stalled", p99), own("calm", p99)),
        1.1,
        false,
    );
    let (few, many) = (own("100_connections", user), own("9500_connections", user));
    add(
        "growth: user CPU, 9,500 to 100 connections",
        ratio(many, few),
        1.15,
        false,
    );
    let (few, many) = (own("10_topics", user), own("10000_topics", user));
    add(
        "growth: user CPU, 10,000 to 10 topics",
        ratio(many, few),
        1.15,
        false,
    );
    let each = &|round: &Round| round.memory_each / 1024.0;
    add("idle: KiB per connection", own("idle", each), 2.0, false);
    add(
        "9,500 handshakes at once: KiB per connection",
        own("handshakes", each),
        2.0,
        false,
    );
    let peak = &|round: &Round| round.memory_peak_bytes as f64 / f64::from(1 << 20);
    add(
        "9,500 handshakes at once: MiB at peak",
        own("handshakes", peak),
        64.0,
        false,
    );
    add(
        "storm: s until 9,500 are back",
        own("storm", &|round| round.storm_s.unwrap_or(f64::NAN)),
        5.0,
        false,
    );
    list
}

/// Prints the figures to reach; returns those missed by a factor of two.
pub(crate) fn print_figures(found: &Found<'_>) -> Vec<String> {
    println!("\n  {:<46}{:>10}{:>12}", "figure", "measured", "target");
    let mut missed = Vec::new();
    for figure in figures(found) {
        let sign = if figure.at_least { "≥" } else { "≤" };
        let word = if figure.reached() >= 1.0 {
            ""
        } else {
            "  missed"
        };
        println!(
            "  {:<46}{:>10.3}{:>12}{word}",
            figure.what,
            figure.measured,
            format!("{sign} {}", figure.bound)
        );
        if figure.reached() < 0.5 {
            missed.push(figure.what.to_owned());
        }
    }
    missed
}

pub(crate) fn write_json(path: &Path, found: &Found<'_>) -> Result<()> {
    let named: BTreeMap<_, BTreeMap<_, _>> = found
        .iter()
        .map(|(case, rounds)| {
            (
                case,
                rounds
                    .iter()
                    .map(|(kind, rounds)| (kind.name(), rounds))
                    .collect(),
            )
        })
        .collect();
    let machine = tickcast::load::Machine::read();
    let text =
        serde_json::to_string_pretty(&serde_json::json!({"machine": machine, "cases": named}))?;
    Ok(std::fs::write(path, text)?)
}
