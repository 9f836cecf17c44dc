//! `tickcast top`: rates, latencies and slow consumers, once a second.

mod sample;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use super::Exit;
use super::http_get::{HttpAddress, HttpClient, http_address};
use super::token::TokenArguments;
use super::trust::TrustArguments;
use crate::market::UnixNanos;
use crate::printable::printable;
use crate::protocol::LagLevel;
use crate::server::ConnectionsResponse;
use crate::shard::{ConnectionInfo, Rank, WaitsFor};
use sample::Sample;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Admin address of the server
    #[arg(value_name = "HOST:PORT|URL", default_value = "127.0.0.1:8081", value_parser = http_address)]
    server: HttpAddress,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    token: TokenArguments,
    /// Ranking of connections
    #[arg(long, value_name = "RANK", default_value = "age")]
    by: Ranking,
    /// Refresh interval
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::time)]
    every: Duration,
    /// Print one sample as text and exit; the default without a terminal
    #[arg(long)]
    once: bool,
    /// Print one sample as JSON and exit
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Ranking {
    Age,
    Merged,
    Lost,
    Queued,
    Delivered,
}

impl Ranking {
    const ALL: [Self; 5] = [
        Self::Age,
        Self::Merged,
        Self::Lost,
        Self::Queued,
        Self::Delivered,
    ];

    const fn rank(self) -> Rank {
        match self {
            Self::Age => Rank::Age,
            Self::Merged => Rank::Merged,
            Self::Lost => Rank::Lost,
            Self::Queued => Rank::Queued,
            Self::Delivered => Rank::Delivered,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Age => "age of the oldest queued event",
            Self::Merged => "merged",
            Self::Lost => "lost",
            Self::Queued => "queued bytes",
            Self::Delivered => "delivered",
        }
    }
}

/// Number of connections requested: more than any terminal has lines.
const TOP: usize = 100;

pub(super) fn run(arguments: &Arguments) -> Result<Exit> {
    let by = arguments.by;
    let client = HttpClient::new(&arguments.server, &arguments.trust, &arguments.token)?;
    let first = Sample::take(&client, by.rank(), TOP)?;
    if arguments.json {
        std::thread::park_timeout(arguments.every.min(Duration::from_secs(1)));
        let second = Sample::take(&client, by.rank(), TOP)?;
        return print_json(&second, &first);
    }
    if arguments.once || !std::io::stdout().is_terminal() {
        std::thread::park_timeout(arguments.every.min(Duration::from_secs(1)));
        let second = Sample::take(&client, by.rank(), TOP)?;
        return print(&second, &first, by).map(|()| Exit::Ok);
    }
    let mut terminal = ratatui::try_init()?;
    let ended = watch(arguments, &client, &mut terminal, first);
    ratatui::try_restore()?;
    ended.map(|()| Exit::Ok)
}

fn watch(
    arguments: &Arguments,
    client: &HttpClient,
    terminal: &mut ratatui::DefaultTerminal,
    first: Sample,
) -> Result<()> {
    let mut by = arguments.by;
    let (mut before, mut now) = (None::<Sample>, first);
    let mut last_error = None;
    loop {
        terminal.draw(|frame| {
            draw(
                frame,
                &now,
                before.as_ref().unwrap_or(&now),
                by,
                last_error.as_deref(),
            );
        })?;
        let mut is_reranked = false;
        if poll(arguments.every)? {
            let Event::Key(key) = read()? else { continue };
            match key.code {
                _ if key.kind == KeyEventKind::Release => continue,
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(());
                }
                KeyCode::Char('s') => {
                    let at = Ranking::ALL
                        .iter()
                        .position(|one| one.rank() == by.rank())
                        .unwrap_or(0);
                    by = Ranking::ALL[(at + 1) % Ranking::ALL.len()];
                    is_reranked = true;
                }
                _ => continue,
            }
        }
        match Sample::take(client, by.rank(), TOP) {
            Ok(sample) => {
                last_error = None;
                // A new ranking is shown immediately, with unchanged rates.
                let old = std::mem::replace(&mut now, sample);
                if !is_reranked || before.is_none() {
                    before = Some(old);
                }
            }
            Err(error) => last_error = Some(format!("{error:#}")),
        }
    }
}

const COLUMNS: [(&str, u16); 12] = [
    ("ADDRESS", 21),
    ("AGENT", 18),
    ("ENC", 7),
    ("TOPICS r/c/i", 13),
    ("LEVEL", 8),
    ("WAITS FOR", 11),
    ("SLOW FOR", 8),
    ("BEHIND", 8),
    ("QUEUED", 9),
    ("DELIVERED", 11),
    ("MERGED", 9),
    ("LOST", 8),
];

/// Columns in the order in which a narrow terminal drops them.
const DROPPED_FIRST: [&str; 7] = [
    "AGENT",
    "ENC",
    "TOPICS r/c/i",
    "SLOW FOR",
    "DELIVERED",
    "WAITS FOR",
    "MERGED",
];

/// Text of a code in its column.
const fn waits_for(code: WaitsFor) -> &'static str {
    match code {
        WaitsFor::Socket => "full socket",
        WaitsFor::ReadWindow => "client read",
        WaitsFor::RequestQuota => "responses",
        WaitsFor::Close => "close",
    }
}

fn cells(one: &ConnectionInfo, now: u64) -> [String; COLUMNS.len()] {
    let [raw, conflate, interval] = one.modes;
    [
        one.address.to_string(),
        printable(&one.agent).into_owned(),
        one.encoding.name().to_owned(),
        format!("{raw}/{conflate}/{interval}"),
        one.level.name().to_owned(),
        one.waits_for.map_or("", waits_for).to_owned(),
        one.late_since.map_or_else(String::new, |since| {
            time(UnixNanos(now).since(UnixNanos(since)).as_secs_f64())
        }),
        if one.behind_ms > 0 {
            time(one.behind_ms as f64 / 1e3)
        } else {
            String::new()
        },
        if one.queued_bytes > 0 {
            bytes(one.queued_bytes as f64)
        } else {
            String::new()
        },
        count(one.delivered as f64),
        count(one.merged as f64),
        count(one.lost as f64),
    ]
}

/// Header: figures of the server, in three lines of names and values.
fn head(now: &Sample, before: &Sample) -> [Vec<(&'static str, String)>; 3] {
    let rate = |name| count(now.rate(before, name));
    let quantiles = |name| {
        let [p50, p99] = [0.5, 0.99].map(|share| {
            now.quantile(before, name, share)
                .map_or_else(|| "–".to_owned(), |bound| format!("≤{}", time(bound)))
        });
        format!("{p50} / {p99}")
    };
    [
        vec![
            ("connections", count(now.connections.count as f64)),
            (
                "slow consumers",
                count(now.value("tickcast_slow_consumers")),
            ),
            ("subscriptions", count(now.value("tickcast_subscriptions"))),
            ("opened/s", rate("tickcast_connections_opened_total")),
            ("memory", bytes(now.value("process_resident_memory_bytes"))),
            (
                "cores",
                format!("{:.2}", now.rate(before, "process_cpu_seconds_total")),
            ),
        ],
        vec![
            ("published/s", rate("tickcast_events_published_total")),
            ("delivered/s", rate("tickcast_events_delivered_total")),
            ("merged/s", rate("tickcast_events_merged_total")),
            ("lost/s", rate("tickcast_events_lost_total")),
            (
                "written/s",
                bytes(now.rate(before, "tickcast_written_bytes_total")),
            ),
            (
                "unaccounted",
                count(now.value("tickcast_events_unaccounted_total")),
            ),
        ],
        vec![
            (
                "p50/p99: source",
                quantiles("tickcast_source_latency_seconds"),
            ),
            ("bus", quantiles("tickcast_bus_latency_seconds")),
            ("fan-out", quantiles("tickcast_fanout_latency_seconds")),
            ("turn", quantiles("tickcast_shard_turn_duration_seconds")),
        ],
    ]
}

/// Columns that fit into a width, in order; the least important are dropped first.
fn fitting(width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    let needed = |shown: &[usize]| -> u16 { shown.iter().map(|at| COLUMNS[*at].1 + 1).sum() };
    for name in DROPPED_FIRST {
        if needed(&shown) <= width + 1 {
            break;
        }
        shown.retain(|at| COLUMNS[*at].0 != name);
    }
    shown
}

fn draw(frame: &mut Frame<'_>, now: &Sample, before: &Sample, by: Ranking, error: Option<&str>) {
    let [top, title, table, foot] = Layout::vertical([
        Constraint::Length(4),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let dim = Style::new().fg(Color::DarkGray);
    let lines = head(now, before).map(|pairs| {
        let spans = pairs.into_iter().flat_map(|(name, value)| {
            let bad = matches!(name, "lost/s" | "slow consumers" | "unaccounted") && value != "0";
            let style = if bad {
                Style::new().fg(Color::Red)
            } else {
                Style::new()
            };
            [
                Span::styled(format!("{name} "), dim),
                Span::styled(value, style.add_modifier(Modifier::BOLD)),
                Span::raw("   "),
            ]
        });
        Line::from(spans.collect::<Vec<_>>())
    });
    frame.render_widget(Paragraph::new(lines.to_vec()), top);
    frame.render_widget(
        Paragraph::new(format!("Connections by {}", by.name()))
            .style(Style::new().add_modifier(Modifier::BOLD)),
        title,
    );
    let shown = fitting(table.width);
    let rows = now.connections.connections.iter().map(|one| {
        let style = match one.level {
            LagLevel::Ok => Style::new(),
            LagLevel::Warn => Style::new().fg(Color::Yellow),
            LagLevel::Degraded => Style::new().fg(Color::Red),
        };
        let cells = cells(one, now.connections.ts);
        Row::new(
            shown
                .iter()
                .map(|at| cells[*at].clone())
                .collect::<Vec<_>>(),
        )
        .style(style)
    });
    let widths = shown.iter().map(|at| Constraint::Length(COLUMNS[*at].1));
    let header = Row::new(shown.iter().map(|at| COLUMNS[*at].0)).style(dim);
    frame.render_widget(
        Table::new(rows, widths).header(header).column_spacing(1),
        table,
    );
    let keys = error.map_or_else(
        || Span::styled("q quit   s change ranking", dim),
        |text| Span::styled(text.to_owned(), Color::Red),
    );
    frame.render_widget(Paragraph::new(keys), foot);
}

fn print(now: &Sample, before: &Sample, by: Ranking) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for pairs in head(now, before) {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        writeln!(out, "{}", pairs.join("   "))?;
    }
    writeln!(out, "\nConnections by {}", by.name())?;
    let line = |cells: [String; COLUMNS.len()]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(COLUMNS)
            .map(|(cell, (_, width))| format!("{cell:<width$}", width = usize::from(width)))
            .collect();
        padded.join(" ").trim_end().to_owned()
    };
    writeln!(out, "{}", line(COLUMNS.map(|(name, _)| name.to_owned())))?;
    for one in &now.connections.connections {
        writeln!(out, "{}", line(cells(one, now.connections.ts)))?;
    }
    Ok(())
}

/// One sample for scripts: rates per second, and the connections as the server lists them.
#[derive(Debug, serde::Serialize)]
struct SampleReport<'a> {
    published_per_s: f64,
    delivered_per_s: f64,
    merged_per_s: f64,
    lost_per_s: f64,
    written_bytes_per_s: f64,
    opened_per_s: f64,
    processor_cores: f64,
    resident_bytes: f64,
    subscriptions: f64,
    unaccounted_events: f64,
    connections: &'a ConnectionsResponse,
}

fn print_json(now: &Sample, before: &Sample) -> Result<Exit> {
    let rate = |name| now.rate(before, name);
    let report = SampleReport {
        published_per_s: rate("tickcast_events_published_total"),
        delivered_per_s: rate("tickcast_events_delivered_total"),
        merged_per_s: rate("tickcast_events_merged_total"),
        lost_per_s: rate("tickcast_events_lost_total"),
        written_bytes_per_s: rate("tickcast_written_bytes_total"),
        opened_per_s: rate("tickcast_connections_opened_total"),
        processor_cores: rate("process_cpu_seconds_total"),
        resident_bytes: now.value("process_resident_memory_bytes"),
        subscriptions: now.value("tickcast_subscriptions"),
        unaccounted_events: now.value("tickcast_events_unaccounted_total"),
        connections: &now.connections,
    };
    super::print(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())
}

fn count(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{:.2}G", value / 1e9),
        value if value >= 1e6 => format!("{:.2}M", value / 1e6),
        value if value >= 1e4 => format!("{:.1}k", value / 1e3),
        value if value.fract() > 0.05 && value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn bytes(value: f64) -> String {
    match value {
        value if value >= 1_073_741_824.0 => format!("{:.2}GiB", value / 1_073_741_824.0),
        value if value >= 1_048_576.0 => format!("{:.1}MiB", value / 1_048_576.0),
        value if value >= 1024.0 => format!("{:.0}KiB", value / 1024.0),
        value => format!("{value:.0}B"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds.is_infinite() => ">10s".to_owned(),
        seconds if seconds >= 3600.0 => format!("{:.1}h", seconds / 3600.0),
        seconds if seconds >= 60.0 => format!("{:.1}m", seconds / 60.0),
        seconds if seconds >= 1.0 => format!("{seconds:.1}s"),
        seconds if seconds >= 1e-3 => format!("{:.0}ms", seconds * 1e3),
        seconds => format!("{:.0}µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waits_for_code_fits_its_column_and_is_documented() {
        let guide = include_str!("../../../docs/operations.md");
        let (_, width) = COLUMNS[COLUMNS
            .map(|(name, _)| name)
            .iter()
            .position(|name| *name == "WAITS FOR")
            .expect("COLUMNS has the column")];
        for code in WaitsFor::ALL {
            let text = waits_for(code);
            assert!(text.len() <= usize::from(width), "{text}");
            let row = format!("| `{}` | {text} |", code.name());
            assert!(guide.contains(&row), "{row} is not in docs/operations.md");
        }
    }

    #[test]
    fn a_narrow_terminal_drops_the_least_important_columns() {
        let names = |width| {
            fitting(width)
                .iter()
                .map(|at| COLUMNS[*at].0)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(200).len(), COLUMNS.len());
        let at_80 = names(80);
        assert!(
            !at_80.contains(&"AGENT") && at_80.contains(&"WAITS FOR") && at_80.contains(&"LOST"),
            "{at_80:?}"
        );
        let needed: u16 = fitting(80).iter().map(|at| COLUMNS[*at].1 + 1).sum();
        assert!(needed <= 81, "{needed}");
        assert_eq!(
            names(1),
            ["ADDRESS", "LEVEL", "BEHIND", "QUEUED", "LOST"],
            "the columns that identify slow consumers stay"
        );
    }
}
