//! Views that print lines: JSON, CSV, and rows of text.

use std::io::Write;

use super::{View, columns};
use crate::printable::{printable, printable_json};
use crate::protocol::{Control, DataEvent, Gap, GapCause, ServerMessage};

/// One JSON object per line, as received from the server.
pub(super) struct Json {
    pub(super) events_only: bool,
}

impl View for Json {
    fn show(&mut self, message: &ServerMessage, payload: &[u8], most: u64) -> std::io::Result<u64> {
        let mut out = std::io::stdout().lock();
        let ServerMessage::Events(events) = message else {
            if !self.events_only {
                let text = String::from_utf8_lossy(payload);
                writeln!(out, "{}", printable_json(&text))?;
            }
            return Ok(0);
        };
        let texts: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(payload)?;
        for text in texts.iter().take(most as usize) {
            writeln!(out, "{}", printable_json(text.get()))?;
        }
        Ok((events.len() as u64).min(most))
    }
}

/// Comma-separated values (RFC 4180) with a header.
#[derive(Default)]
pub(super) struct Csv {
    has_header: bool,
}

impl View for Csv {
    fn show(&mut self, message: &ServerMessage, _: &[u8], most: u64) -> std::io::Result<u64> {
        let ServerMessage::Events(events) = message else {
            return Ok(0);
        };
        let mut out = csv::Writer::from_writer(std::io::stdout().lock());
        if !std::mem::replace(&mut self.has_header, true) {
            out.write_record(columns::CSV)?;
        }
        for event in events.iter().take(most as usize) {
            out.write_record(columns::csv(event))?;
        }
        out.flush()?;
        Ok((events.len() as u64).min(most))
    }
}

/// One line of text per event; for pipes and terminals without cursor movement.
pub(super) struct Text {
    events_only: bool,
}

impl Text {
    pub(super) fn new(events_only: bool) -> Self {
        Self { events_only }
    }
}

fn line(out: &mut impl Write, event: &DataEvent) -> std::io::Result<()> {
    let topic = event.topic.to_string();
    writeln!(out, "{topic:<24} {}", columns::row(event).0)
}

impl View for Text {
    fn show(&mut self, message: &ServerMessage, _: &[u8], most: u64) -> std::io::Result<u64> {
        let mut out = std::io::stdout().lock();
        match message {
            ServerMessage::Events(events) => {
                for event in events.iter().take(most as usize) {
                    line(&mut out, event)?;
                }
                return Ok((events.len() as u64).min(most));
            }
            ServerMessage::Control(_) if self.events_only => {}
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                for event in &snapshot.events {
                    line(&mut out, event)?;
                }
            }
            ServerMessage::Control(Control::Gap(gap)) => {
                let topic = printable(&gap.topic);
                writeln!(out, "{topic:<24} {}", gap_text(gap))?;
            }
            ServerMessage::Control(_) => {}
        }
        Ok(0)
    }
}
/// One line about a gap.
pub(super) fn gap_text(gap: &Gap) -> String {
    match (gap.cause, gap.missing) {
        (GapCause::Source, Some(missing)) => format!("source missed {missing} events"),
        (GapCause::Source, None) => "source missed events".to_owned(),
        (cause, _) => format!("gap of {} ({})", gap.n, cause.name()),
    }
}
