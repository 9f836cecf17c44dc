//! Report of a test as a table for the terminal.

use std::io::{self, Write};

use super::figures::{bytes, count, time};
use super::{LatencySummary, Outcome};

fn latencies(out: &mut dyn Write, outcome: &Outcome, measured: u64) -> io::Result<()> {
    let [probes, connections] = [outcome.probes, outcome.connections].map(|n| count(n as u64));
    writeln!(
        out,
        "  measured    {:>16}   events on {probes} of {connections} connections",
        count(measured)
    )?;
    let rows = [
        ("due → received", outcome.due),
        ("published → received", outcome.published),
        ("due → published", outcome.generator_lag),
        ("tester's wake-ups", outcome.wake_up_lateness),
    ];
    writeln!(
        out,
        "\n  {:<22}{:>12}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
        "latency", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"
    )?;
    for (name, summary) in rows
        .iter()
        .filter_map(|(name, summary)| summary.map(|summary| (name, summary)))
    {
        let LatencySummary {
            count: n,
            p50,
            p90,
            p99,
            p99_9,
            p99_99,
            max,
            ..
        } = summary;
        let [p50, p90, p99, p99_9, p99_99, max] = [p50, p90, p99, p99_9, p99_99, max].map(time);
        writeln!(
            out,
            "  {name:<22}{:>12}{p50:>11}{p90:>11}{p99:>11}{p99_9:>11}{p99_99:>11}{max:>11}",
            count(n)
        )?;
    }
    Ok(())
}

/// Writes the report of a test.
pub fn write_table(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let rate = |number: u64| count((number as f64 / outcome.measured_s.max(1e-9)) as u64);
    writeln!(
        out,
        "\n  {} connections to {} {}, {:.1} s measured",
        outcome.connections, outcome.address, outcome.server, outcome.measured_s
    )?;
    writeln!(
        out,
        "  delivered   {:>16}   {}/s",
        count(outcome.tally.delivered),
        rate(outcome.tally.delivered)
    )?;
    writeln!(
        out,
        "  messages    {:>16}   {}/s",
        count(outcome.tally.messages),
        rate(outcome.tally.messages)
    )?;
    writeln!(
        out,
        "  bytes       {:>16}   {}/s",
        bytes(outcome.tally.bytes),
        bytes((outcome.tally.bytes as f64 / outcome.measured_s.max(1e-9)) as u64)
    )?;
    if let Some(ledger) = &outcome.ledger {
        writeln!(out, "  merged      {:>16}", count(ledger.merged))?;
    }
    writeln!(
        out,
        "  lost        {:>16}   in {} gaps",
        count(outcome.tally.lost),
        count(outcome.tally.gaps)
    )?;
    if outcome.tally.recovered + outcome.tally.expired > 0 {
        let (recovered, expired) = (count(outcome.tally.recovered), count(outcome.tally.expired));
        writeln!(
            out,
            "  resumed     {recovered:>16}   topics recovered, {expired} expired, {} connections opened",
            count(outcome.tally.opened)
        )?;
    }
    if let Some(took) = outcome.storm_s {
        writeln!(
            out,
            "  storm       {:>16}   until all connections had resubscribed",
            time((took * 1e9) as u64)
        )?;
    }
    for (code, closed) in &outcome.tally.closed {
        let name = if *code == 1006 {
            "without a close frame".to_owned()
        } else {
            format!("code {code}")
        };
        writeln!(out, "  closed      {:>16}   {name}", count(*closed))?;
    }
    if let Some(published) = &outcome.published {
        latencies(out, outcome, published.count)?;
    }
    write_notes(outcome, out)
}

fn write_notes(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    if let Some(clock) = outcome.clock.filter(|clock| clock.error_ns > 0) {
        let (offset, error) = (time(clock.offset_ns.unsigned_abs()), time(clock.error_ns));
        let ahead = if clock.offset_ns < 0 {
            "behind"
        } else {
            "ahead of"
        };
        writeln!(
            out,
            "  clock: the server is {offset} {ahead} this machine, estimated by ping; latencies are corrected with an error of up to {error}"
        )?;
    }
    if outcome.tally.negative > 0 {
        writeln!(
            out,
            "  clock: {} negative latencies excluded",
            count(outcome.tally.negative)
        )?;
    }
    writeln!(
        out,
        "  tester: {:.0} % busy, {} {}",
        outcome.busy_share * 100.0,
        outcome.workers,
        if outcome.workers == 1 {
            "thread"
        } else {
            "threads"
        }
    )?;
    if outcome.interrupted {
        writeln!(
            out,
            "  INTERRUPTED: figures cover the first {:.1} s",
            outcome.measured_s
        )?;
    }
    let notes = [
        ("STARVED", &outcome.starved),
        ("BOTTLENECK", &outcome.bottleneck),
        ("INVALID", &outcome.void),
    ];
    for note in notes {
        if let (name, Some(text)) = note {
            writeln!(out, "  {name}: {text}")?;
        }
    }
    match &outcome.ledger {
        Some(ledger) if outcome.is_sound() => {
            let (topics, of) = (count(ledger.topics), count(ledger.connections));
            writeln!(
                out,
                "  ledger: balanced for {topics} topics of {of} connections"
            )?;
        }
        _ => {}
    }
    for failure in &outcome.failures {
        writeln!(out, "  FAILED: {failure}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_with_units_and_grouped_digits() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1 000", "1 234 567"]
        );
        assert_eq!(
            [999, 1_500, 2_340_000, 1_000_000_000].map(time),
            ["999 ns", "1.5 µs", "2.34 ms", "1.00 s"]
        );
        assert_eq!(
            [12, 1_500, 2_340_000_000].map(bytes),
            ["12 B", "1.5 kB", "2.34 GB"]
        );
    }
}
