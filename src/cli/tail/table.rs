//! Table that is redrawn in place on a terminal.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use super::follow::Feed;
use super::lines::gap_text;
use super::{View, columns};
use crate::printable::printable;
use crate::protocol::{Control, DataEvent, ServerMessage};

/// Redraw interval.
pub(super) const REDRAW: Duration = Duration::from_millis(100);
/// Idle time from which on it is shown.
const SILENCE: Duration = Duration::from_secs(2);

const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// One row per topic, below a line that shows the state of the connection.
pub(super) struct Table {
    /// By topic: its values and their colour.
    rows: BTreeMap<String, (String, &'static str)>,
    events: u64,
    /// Number of lines last drawn.
    drawn: usize,
    colors: bool,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            events: 0,
            drawn: 0,
            colors: crate::cli::wants_colors(),
        }
    }

    fn set(&mut self, event: &DataEvent) {
        let (row, rises) = columns::row(event);
        let color = match rises {
            Some(true) => GREEN,
            Some(false) => RED,
            None => "",
        };
        self.rows.insert(event.topic.to_string(), (row, color));
    }

    /// The lines of the table, each with its colour.
    fn lines(&self, status: String, height: usize) -> Vec<(String, &'static str)> {
        let mut lines = vec![(status, DIM)];
        let mut channel = "";
        for (shown, (topic, (row, color))) in self.rows.iter().enumerate() {
            let own = topic.split(':').next().unwrap_or_default();
            if own != channel {
                channel = own;
                lines.push((format!("{channel:<20} {}", columns::header(channel)), DIM));
            }
            lines.push((format!("{topic:<20} {row}"), *color));
            let hidden = self.rows.len() - shown - 1;
            if lines.len() >= height && hidden > 0 {
                lines.push((format!("… and {hidden} more"), DIM));
                break;
            }
        }
        lines
    }
}

impl View for Table {
    fn show(&mut self, message: &ServerMessage, _: &[u8], most: u64) -> std::io::Result<u64> {
        match message {
            ServerMessage::Events(events) => {
                for event in events {
                    self.set(event);
                }
                self.events += events.len() as u64;
                return Ok((events.len() as u64).min(most));
            }
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                for event in &snapshot.events {
                    self.set(event);
                }
            }
            ServerMessage::Control(Control::Gap(gap)) => {
                let row = gap_text(gap);
                self.rows
                    .insert(printable(&gap.topic).into_owned(), (row, RED));
            }
            ServerMessage::Control(_) => {}
        }
        Ok(0)
    }

    fn refresh(&mut self, feed: &Feed) -> std::io::Result<()> {
        let size = terminal_size::terminal_size();
        let (width, height) = size.map_or((80, 24), |(width, height)| {
            (usize::from(width.0), usize::from(height.0))
        });
        let silence = match feed.silence() {
            short if short < SILENCE => String::new(),
            long => format!(" · no message for {} s", long.as_secs()),
        };
        let status = format!(
            "{} · {} topics · {} events{silence}",
            feed.state(),
            self.rows.len(),
            self.events
        );
        let lines = self.lines(status, height.saturating_sub(3));
        let mut text = if self.drawn > 0 {
            format!("\x1b[{}A", self.drawn)
        } else {
            String::new()
        };
        for (line, color) in &lines {
            let line: String = line.chars().take(width).collect();
            let line = match (self.colors, *color) {
                (false, _) | (true, "") => format!("\x1b[2K{line}\n"),
                (true, color) => format!("\x1b[2K\x1b[{color}m{line}\x1b[0m\n"),
            };
            text.push_str(&line);
        }
        // Clears the remaining lines of a longer table.
        text += "\x1b[J";
        self.drawn = lines.len();
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}
