//! Reading of recordings without pacing, for the fuzz targets.

use std::sync::Arc;

use super::config::ReplayConfig;
use super::error::ReplayError;
use super::inputs;
use super::reader::{Chunk, StartPoint, read};
use super::row::RowBody;
use crate::market::{Quote, Trade, UnixNanos};

/// Event of a recording.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// A trade.
    Trade(Trade),
    /// A quote.
    Quote(Quote),
}

/// Account of the lines of recordings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadRecording {
    /// Number of lines without the header.
    pub lines: u64,
    /// Number of skipped lines.
    pub skipped: u64,
    /// First reasons for which lines were skipped.
    pub reasons: Vec<String>,
    /// Error after which a file could not be read.
    pub fault: Option<String>,
}

/// Number of reasons that are kept.
const REASONS_MAX: usize = 10;

impl ReadRecording {
    fn add(&mut self, chunk: Chunk, on_event: &mut dyn FnMut(Recorded)) {
        self.lines += chunk.read;
        self.skipped += chunk.skipped.iter().sum::<u64>() + chunk.notes.len() as u64;
        let room = REASONS_MAX.saturating_sub(self.reasons.len());
        let notes = chunk.notes.iter().take(room);
        self.reasons
            .extend(notes.map(|note| note.fault.to_string()));
        self.fault = self.fault.take().or(chunk.fault);
        for located in chunk.rows {
            on_event(match located.row.body {
                RowBody::Trade(trade) => Recorded::Trade(trade),
                RowBody::Quote(quote) => Recorded::Quote(quote),
            });
        }
    }
}

impl ReplayConfig {
    /// Reads all files on this thread, at a time of the server's clock.
    pub fn read_recordings(
        &self,
        now: UnixNanos,
        on_event: &mut dyn FnMut(Recorded),
    ) -> Result<ReadRecording, ReplayError> {
        let mut found = ReadRecording::default();
        for input in &inputs::list(&self.files)?.inputs {
            let from = StartPoint {
                now,
                ..StartPoint::default()
            };
            let add = |chunk: Chunk| {
                found.add(chunk, on_event);
                Ok(())
            };
            read(input, self, from, Box::new(add), Arc::default(), |_| {})?;
        }
        Ok(found)
    }
}
