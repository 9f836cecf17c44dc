//! Report of a test as one self-contained HTML page, without scripts and external resources.

use std::fmt::Write as _;
use std::io::{self, Write};

use hdrhistogram::Histogram;

use super::figures::{bytes, count, time};
use super::{LatencySummary, Outcome};

/// The drawing's size, and the room for its labels.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #d5dae0; --soft: #57606a; --a: #0757b8; --b: #a8420a; --c: #6b6f76; --bad: #b3141d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #14171b; --faint: #343a42; --soft: #9aa4af; --a: #6cb0ff; --b: #ffa15c; --c: #a3a9b1; --bad: #ff8087; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; } p { margin: .2rem 0; color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--faint); font-weight: normal; }
th:first-child { text-align: left; } thead th { color: var(--soft); } .bad { color: var(--bad); }
svg { width: 100%; min-width: 600px; height: auto; display: block; } svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--faint); } .line { fill: none; stroke-width: 2; } .a { stroke: var(--a); } .b { stroke: var(--b); stroke-dasharray: 7 3; } .c { stroke: var(--c); stroke-dasharray: 2 3; }
";

/// Shortest span that is shown as a second.
const SHORTEST_S: f64 = 0.3;

/// One way across a drawing: from what to what, and what is written there.
struct Axis {
    from: f64,
    to: f64,
    labels: Vec<(f64, String)>,
}

struct Line {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
}

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into a few.
fn step(range: f64) -> f64 {
    let rough = (range / 5.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|times| times * power >= rough)
        .unwrap_or(10.0);
    times * power
}

impl Axis {
    fn linear(to: f64, label: impl Fn(f64) -> String) -> Self {
        let step = step(to);
        let steps = (to / step).ceil().max(1.0) as u32;
        Self {
            from: 0.0,
            to: step * f64::from(steps),
            labels: (0..=steps)
                .map(|at| step * f64::from(at))
                .map(|at| (at, label(at)))
                .collect(),
        }
    }

    /// Decades of nanoseconds.
    fn decades(values: impl Iterator<Item = f64>) -> Self {
        let (least, most) = values.fold((f64::INFINITY, 1.0f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let from = least.min(most).max(1.0).log10().floor();
        let to = most.log10().ceil().max(from + 1.0);
        let labels = (from as i32..=to as i32)
            .map(|power| (f64::from(power), time(10u64.pow(power.unsigned_abs()))))
            .collect();
        Self { from, to, labels }
    }

    /// Nines: 90 %, 99 %, 99.9 %, …
    fn nines(most: f64) -> Self {
        let names = [
            "0 %",
            "90 %",
            "99 %",
            "99.9 %",
            "99.99 %",
            "99.999 %",
            "99.9999 %",
            "99.99999 %",
        ];
        let to = most.ceil().clamp(1.0, names.len() as f64 - 1.0);
        Self {
            from: 0.0,
            to,
            labels: names
                .iter()
                .enumerate()
                .take(to as usize + 1)
                .map(|(at, name)| (at as f64, (*name).to_owned()))
                .collect(),
        }
    }

    fn share(&self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

fn chart(title: &str, across: &Axis, up: &Axis, lines: &[Line]) -> Result<String, std::fmt::Error> {
    let x = |value| LEFT + across.share(value) * (WIDTH - LEFT - RIGHT);
    let y = |value| HEIGHT - BOTTOM - up.share(value) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<h2>{title}</h2>\n<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
    );
    for (at, label) in &up.labels {
        let y = y(*at);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        )?;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        )?;
    }
    for (at, label) in &across.labels {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            x(*at),
            HEIGHT - 12.0
        )?;
    }
    for (at, line) in lines
        .iter()
        .filter(|line| !line.points.is_empty())
        .enumerate()
    {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py)))
            .collect();
        writeln!(
            svg,
            "<polyline class=\"line {}\" points=\"{}\"/>",
            line.class,
            points.join(" ")
        )?;
        let from = LEFT + 12.0 + at as f64 * 190.0;
        writeln!(
            svg,
            "<line class=\"line {}\" x1=\"{from}\" x2=\"{}\" y1=\"22\" y2=\"22\"/>",
            line.class,
            from + 28.0
        )?;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"26\">{}</text>",
            from + 34.0,
            line.name
        )?;
    }
    svg.push_str("</svg></div>\n");
    Ok(svg)
}

/// (nines, log10 of nanoseconds) of a histogram.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let points = histogram
        .iter_quantiles(10)
        .map(|value| (value.quantile_iterated_to(), value.value_iterated_to()));
    points
        .filter(|(share, _)| *share < 1.0)
        .map(|(share, ns)| (-(1.0 - share).log10(), (ns.max(1) as f64).log10()))
        .collect()
}

fn percentiles(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let lines = [
        Line {
            name: "due → received",
            class: "a",
            points: curve(&outcome.latency.due),
        },
        Line {
            name: "published → received",
            class: "b",
            points: curve(&outcome.latency.published),
        },
        Line {
            name: "due → published",
            class: "c",
            points: curve(&outcome.latency.lag),
        },
    ];
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let across = Axis::nines(all().map(|(nines, _)| nines).fold(1.0, f64::max));
    chart(
        "Latency by percentile",
        &across,
        &Axis::decades(all().map(|(_, log)| 10f64.powf(log))),
        &lines,
    )
}

fn over_time(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let seconds = &outcome.seconds;
    let across = Axis::linear(outcome.measured_s, |at| format!("{at:.0} s"));
    let latency = |name, class, of: fn(&super::Second) -> u64| Line {
        name,
        class,
        points: seconds
            .iter()
            .filter(|second| of(second) > 0 && second.at_s > SHORTEST_S)
            .map(|second| (second.at_s, (of(second) as f64).log10()))
            .collect(),
    };
    let lines = [
        latency("p50", "a", |second| second.p50),
        latency("p99", "b", |second| second.p99),
        latency("max", "c", |second| second.max),
    ];
    let up = Axis::decades(
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|(_, log)| 10f64.powf(*log))),
    );
    let mut html = if lines[0].points.is_empty() {
        String::new()
    } else {
        chart("Latency over time", &across, &up, &lines)?
    };
    let mut before = 0.0;
    // The first and the last may be fractions of a second, which say nothing of a rate.
    let rates = seconds.iter().filter_map(|second| {
        let span = second.at_s - before;
        if span < SHORTEST_S {
            return None;
        }
        before = second.at_s;
        Some((second.at_s, second.delivered as f64 / span))
    });
    let rates: Vec<(f64, f64)> = rates.collect();
    let most = rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let up = Axis::linear(most, |rate| count(rate as u64));
    html.push_str(&chart(
        "Deliveries per second",
        &across,
        &up,
        &[Line {
            name: "delivered",
            class: "a",
            points: rates,
        }],
    )?);
    Ok(html)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn latency_table(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let rows = [
        ("due → received", outcome.due),
        ("published → received", outcome.published),
        ("due → published", outcome.generator_lag),
        ("tester's wake-ups", outcome.wake_up_lateness),
    ];
    let mut html =
        String::from("<h2>Latency</h2>\n<div class=\"wide\"><table><thead><tr><th></th>");
    for head in ["count", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        write!(html, "<th>{head}</th>")?;
    }
    html.push_str("</tr></thead>\n");
    for (name, row) in rows
        .iter()
        .filter_map(|(name, row)| row.map(|row| (name, row)))
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
        } = row;
        write!(html, "<tr><th>{name}</th><td>{}</td>", count(n))?;
        for value in [p50, p90, p99, p99_9, p99_99, max] {
            write!(html, "<td>{}</td>", time(value))?;
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
    if let Some(published) = outcome.published {
        writeln!(
            html,
            "<p>Latency of {} events on {} of {} connections.</p>",
            count(published.count),
            count(outcome.probes as u64),
            count(outcome.connections as u64)
        )?;
    }
    Ok(html)
}

fn counts_table(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let rate = |number: u64| count((number as f64 / outcome.measured_s.max(1e-9)) as u64);
    let mut rows = vec![
        (
            "delivered",
            count(outcome.tally.delivered),
            format!("{}/s", rate(outcome.tally.delivered)),
        ),
        (
            "messages",
            count(outcome.tally.messages),
            format!("{}/s", rate(outcome.tally.messages)),
        ),
        (
            "bytes",
            bytes(outcome.tally.bytes),
            format!(
                "{}/s",
                bytes((outcome.tally.bytes as f64 / outcome.measured_s.max(1e-9)) as u64)
            ),
        ),
        (
            "lost",
            count(outcome.tally.lost),
            format!("in {} gaps", count(outcome.tally.gaps)),
        ),
    ];
    if let Some(ledger) = &outcome.ledger {
        rows.push(("merged", count(ledger.merged), String::new()));
        rows.push((
            "ledgers",
            count(ledger.connections),
            format!("of {} topics", count(ledger.topics)),
        ));
    }
    for (code, closed) in &outcome.tally.closed {
        rows.push(("closed", count(*closed), format!("code {code}")));
    }
    let mut html = String::from("<h2>Counts</h2>\n<div class=\"wide\"><table>\n");
    for (name, number, note) in rows {
        writeln!(
            html,
            "<tr><th>{name}</th><td>{number}</td><td>{note}</td></tr>"
        )?;
    }
    html.push_str("</table></div>\n");
    Ok(html)
}

fn page(outcome: &Outcome) -> Result<String, std::fmt::Error> {
    let title = format!(
        "{} connections to {}",
        count(outcome.connections as u64),
        escaped(&outcome.address)
    );
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>tickcast load: {title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    let machine = &outcome.machine;
    let (server, topics) = (
        escaped(&outcome.server),
        escaped(&outcome.topics.join(", ")),
    );
    writeln!(
        html,
        "<p>Server {server}, tester {}; {topics}; {:.1} s measured.</p>",
        outcome.tester, outcome.measured_s
    )?;
    let (processor, kernel, memory) = (
        escaped(&machine.processor),
        escaped(&machine.kernel),
        bytes(machine.memory_bytes),
    );
    writeln!(
        html,
        "<p>Machine of the tester: {processor}, {} cores, {memory}, Linux {kernel}.</p>",
        machine.cores
    )?;
    if let Some(clock) = outcome.clock.filter(|clock| clock.error_ns > 0) {
        let (offset, error) = (time(clock.offset_ns.unsigned_abs()), time(clock.error_ns));
        writeln!(
            html,
            "<p>Clock offset {offset}, estimated by ping; latencies are corrected with an error of up to {error}.</p>"
        )?;
    }
    let named = [
        ("Invalid: ", &outcome.void),
        ("Bottleneck: ", &outcome.bottleneck),
        ("Starved: ", &outcome.starved),
    ];
    let notes = named
        .into_iter()
        .filter_map(|(name, note)| note.as_ref().map(|note| (name, note)));
    for (name, note) in notes.chain(outcome.failures.iter().map(|failure| ("Failed: ", failure))) {
        writeln!(html, "<p class=\"bad\">{name}{}</p>", escaped(note))?;
    }
    if !outcome.latency.published.is_empty() {
        html.push_str(&latency_table(outcome)?);
    }
    html.push_str(&counts_table(outcome)?);
    if !outcome.latency.published.is_empty() {
        html.push_str(&percentiles(outcome)?);
    }
    html.push_str(&over_time(outcome)?);
    html.push_str("</body></html>\n");
    Ok(html)
}

/// Writes the page.
pub fn write_html(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let html = page(outcome).map_err(|_fmt| io::Error::other("cannot format the HTML report"))?;
    out.write_all(html.as_bytes())
}
