//! Tables of all cases and figures: as text, Markdown and JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::case::{Case, Latency, Round};
use crate::figures::{Figure, Found, Rounds, median};
use crate::setup::Setup;

const MIB: f64 = (1 << 20) as f64;

/// Column of a case's table: its head, its width in text, and its value.
struct Column {
    head: &'static str,
    width: usize,
    value: fn(&[Round]) -> String,
}

const fn column(head: &'static str, width: usize, value: fn(&[Round]) -> String) -> Column {
    Column { head, width, value }
}

fn us(rounds: &[Round], of: fn(&Round) -> &Latency, at: fn(&Latency) -> f64) -> String {
    format!("{:.0}", median(rounds, |round| at(of(round))))
}

fn number(rounds: &[Round], digits: usize, of: fn(&Round) -> f64) -> String {
    format!("{:.digits$}", median(rounds, of))
}

fn spread_of_rates(rounds: &[Round]) -> String {
    let rates = || rounds.iter().map(|round| round.delivered_per_s);
    let (least, most) = (
        rates().fold(f64::INFINITY, f64::min),
        rates().fold(0.0, f64::max),
    );
    if most < 1e4 {
        format!("{least:.0} – {most:.0}")
    } else {
        format!("{:.2}M – {:.2}M", least / 1e6, most / 1e6)
    }
}

const COLUMNS: &[Column] = &[
    column("deliveries/s", 14, |rounds| {
        number(rounds, 0, |round| round.delivered_per_s)
    }),
    column("min – max", 17, spread_of_rates),
    column("user/M", 8, |rounds| {
        number(rounds, 3, |round| round.user_per_million)
    }),
    column("sys/M", 8, |rounds| {
        number(rounds, 3, |round| round.system_per_million)
    }),
    column("core", 6, |rounds| number(rounds, 2, |round| round.serving)),
    column("gen", 6, |rounds| {
        number(rounds, 2, |round| round.generator)
    }),
    column("client", 8, |rounds| {
        number(rounds, 2, |round| round.client_busy)
    }),
    column("late", 6, |rounds| {
        number(rounds, 0, |round| round.client_late)
    }),
    column("p50 µs", 9, |rounds| {
        us(rounds, |round| &round.published, |latency| latency.p50)
    }),
    column("p99 µs", 9, |rounds| {
        us(rounds, |round| &round.published, |latency| latency.p99)
    }),
    column("p99.9 µs", 9, |rounds| {
        us(rounds, |round| &round.published, |latency| latency.p99_9)
    }),
    column("due p50", 9, |rounds| {
        us(rounds, |round| &round.due, |latency| latency.p50)
    }),
    column("due p99", 9, |rounds| {
        us(rounds, |round| &round.due, |latency| latency.p99)
    }),
    column("ev/msg", 8, |rounds| {
        format!("{:.1}", 1.0 / median(rounds, |round| round.messages_each))
    }),
    column("RSS MiB", 9, |rounds| {
        number(rounds, 1, |round| round.memory_bytes as f64 / MIB)
    }),
];

fn title(case: &Case) -> String {
    format!(
        "{}: {} connections x {} of {} topics, {:.0} events/s, {:.0} deliveries/s offered",
        case.name,
        case.connections,
        case.topics_each,
        case.instruments,
        case.rate,
        case.asked()
    )
}

/// Memory and system calls, for cases that measure them.
fn details(rounds: &[Round]) -> Vec<String> {
    let mut lines = Vec::new();
    if rounds.iter().all(|round| round.calls.is_some()) {
        let serving = |round: &Round| round.calls.map_or(f64::NAN, |calls| calls.serving);
        let other = |round: &Round| round.calls.map_or(f64::NAN, |calls| calls.other);
        lines.push(format!(
            "system calls per event: {:.1} of the serving thread, {:.1} of the generator and others",
            median(rounds, serving),
            median(rounds, other)
        ));
    }
    if rounds.iter().all(|round| round.memory.is_some()) {
        let mib = |of: fn(&crate::memory::Memory) -> u64| {
            median(rounds, |round| {
                round
                    .memory
                    .map_or(f64::NAN, |memory| of(&memory) as f64 / MIB)
            })
        };
        let drained = |round: &Round| round.memory?.drained_s;
        lines.push(format!(
            "RSS in MiB: {:.0} before the first client, {:.0} at the peak with {:.0} queued, {:.0} after draining, {:.0} after all left; drained in {:.1} s",
            mib(|memory| memory.start),
            mib(|memory| memory.peak),
            mib(|memory| memory.queued_peak),
            mib(|memory| memory.drained),
            mib(|memory| memory.left),
            median(rounds, |round| drained(round).unwrap_or(f64::NAN)),
        ));
    }
    lines
}

pub(crate) fn print_case(case: &Case, all: &Rounds) {
    println!("\n{}", title(case));
    let heads = COLUMNS.iter().map(|column| pad(column.head, column.width));
    println!("  {:<10}{}", "", heads.collect::<String>());
    for (kind, rounds) in all {
        let values = COLUMNS
            .iter()
            .map(|column| pad(&(column.value)(rounds), column.width));
        let voids = rounds.iter().filter(|round| round.void).count();
        let void = if voids > 0 {
            format!("  {voids} void")
        } else {
            String::new()
        };
        println!("  {:<10}{}{void}", kind.name(), values.collect::<String>());
        for line in details(rounds) {
            println!("    {line}");
        }
        for failure in rounds.iter().flat_map(|round| &round.failures) {
            println!("  FAILED: {failure}");
        }
    }
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

fn target(figure: &Figure) -> String {
    match figure.bound {
        Some(bound) if figure.at_least => format!("≥ {bound}"),
        Some(bound) => format!("≤ {bound}"),
        None => String::new(),
    }
}

/// A number with three or four digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

fn spread(figure: &Figure) -> String {
    let (least, most) = figure.spread();
    format!("{} – {}", short(least), short(most))
}

/// Verdict on a figure that is not reached, or the reason why there is none.
fn remark(figure: &Figure, missed: &str) -> String {
    match figure.doubt {
        _ if figure.reached() >= 1.0 => String::new(),
        Some(doubt) => format!("{missed} ({})", doubt.text()),
        None => missed.to_owned(),
    }
}

/// Prints the figures with their spread over the rounds.
pub(crate) fn print_figures(figures: &[Figure]) {
    println!(
        "\n  {:<58}{:>10}{:>21}{:>10}",
        "figure", "median", "min – max", "target"
    );
    for figure in figures {
        println!(
            "  {:<58}{:>10}{:>21}{:>10}  {}",
            figure.what,
            short(figure.measured()),
            spread(figure),
            target(figure),
            remark(figure, "missed")
        );
    }
}

/// The tables of the performance document.
pub(crate) fn markdown(cases: &[Case], found: &Found<'_>, figures: &[Figure]) -> String {
    let mut text =
        String::from("| figure | median | min – max | target | |\n|---|---|---|---|---|\n");
    for figure in figures {
        let word = match figure.bound {
            Some(_) if figure.reached() >= 1.0 => "reached".to_owned(),
            _ => remark(figure, "**missed**"),
        };
        let line = format!(
            "| {} | {} | {} | {} | {word} |\n",
            figure.what,
            short(figure.measured()),
            spread(figure),
            target(figure)
        );
        text.push_str(&line);
    }
    for case in cases {
        let Some(all) = found.get(case.name) else {
            continue;
        };
        let heads: String = COLUMNS
            .iter()
            .map(|column| format!(" {} |", column.head))
            .collect();
        let rule = "---|".repeat(COLUMNS.len());
        // Writing to a string does not fail.
        let _written = write!(text, "\n**{}**\n\n| |{heads}\n|---|{rule}\n", title(case));
        for (kind, rounds) in all {
            let values = COLUMNS
                .iter()
                .map(|column| format!(" {} |", (column.value)(rounds)));
            let _written = writeln!(text, "| {} |{}", kind.name(), values.collect::<String>());
        }
        for (kind, rounds) in all {
            for line in details(rounds) {
                let _written = write!(text, "\n{}: {line}\n", kind.name());
            }
        }
    }
    text
}

pub(crate) fn write_json(path: &Path, found: &Found<'_>, setup: &Setup) -> Result<()> {
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
    let all = serde_json::json!({
        "machine": machine,
        "shards": setup.shards,
        "pin": setup.pin,
        "cases": named,
    });
    Ok(std::fs::write(path, serde_json::to_string_pretty(&all)?)?)
}
