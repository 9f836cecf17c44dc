//! Rows of one recording in the merge, with its account.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntCounter;

use super::located::{LocatedRow, Mark};
use super::reader::{Chunk, FilePosition, Recording};
use crate::market::UnixNanos;
use crate::source::Output;
use crate::source::account::{FileAccount, RowFault, Skip};

/// Maximum number of skipped rows with their own log line; others are only counted.
const LOGGED_MAX: u64 = 20;

/// Settings shared by the files of a source.
#[derive(Debug)]
pub(super) struct Strictness {
    pub max_bad: u64,
    pub bad: u64,
    pub logged: u64,
}

/// One open recording of a replay.
#[derive(Debug)]
pub(super) struct FileStream {
    pub rows: VecDeque<LocatedRow>,
    pub has_trades: bool,
    pub has_quotes: bool,
    pub account: Arc<FileAccount>,
    /// True if the file no longer contains the rows played before.
    pub has_changed: bool,
    /// Beyond the limit, no bad row is skipped: the source ends here.
    pub limit: Option<String>,
    /// First skipped row that has a detailed reason.
    pub first_fault: Option<String>,
    name: Arc<str>,
    /// Absent once the file has been read to its end.
    chunks: Option<tokio::sync::mpsc::Receiver<Chunk>>,
    is_sorted: Arc<AtomicBool>,
    trades: IntCounter,
    quotes: IntCounter,
    /// Last replayed row.
    mark: Mark,
    /// Newest event time so far.
    newest: UnixNanos,
}

impl FileStream {
    pub(super) fn new(recording: Recording, positions: &[FilePosition], out: &Output) -> Self {
        let meter = |outcome| {
            let labels = [&*out.name, outcome];
            out.metrics.replay_rows.with_label_values(&labels)
        };
        let before = positions.iter().find(|at| *at.file == *recording.name);
        Self {
            rows: VecDeque::new(),
            has_trades: recording.has_trades,
            has_quotes: recording.has_quotes,
            account: Arc::new(FileAccount::new(recording.name.to_string())),
            has_changed: false,
            limit: None,
            first_fault: None,
            name: recording.name,
            chunks: Some(recording.chunks),
            is_sorted: recording.is_sorted,
            trades: meter("trade"),
            quotes: meter("quote"),
            mark: before.map_or_else(Mark::default, |at| at.mark),
            newest: UnixNanos::default(),
        }
    }

    /// Due time of the next row, in the order of the file.
    pub(super) fn next(&self, at: usize) -> Option<Reverse<(UnixNanos, usize)>> {
        self.rows
            .front()
            .map(|located| Reverse((located.row.ts().max(self.newest), at)))
    }

    /// Removes the next row, which was due at `due`.
    pub(super) fn take(&mut self, due: UnixNanos) -> Option<LocatedRow> {
        let located = self.rows.pop_front()?;
        self.newest = due;
        self.mark = located.mark;
        Some(located)
    }

    pub(super) fn position(&self) -> FilePosition {
        FilePosition {
            file: self.name.to_string(),
            mark: self.mark,
            is_sorted: self.is_sorted.load(Ordering::Relaxed),
        }
    }

    /// Receives the next rows of the file, unless it has ended.
    pub(super) async fn refill(&mut self, strictness: &mut Strictness, out: &Output) {
        while self.rows.is_empty() && self.limit.is_none() {
            let Some(chunks) = &mut self.chunks else {
                return;
            };
            match chunks.recv().await {
                Some(chunk) => self.take_chunk(chunk, strictness, out),
                None => self.end(out),
            }
        }
    }

    fn take_chunk(&mut self, mut chunk: Chunk, strictness: &mut Strictness, out: &Output) {
        self.account.read(chunk.read);
        self.has_changed |= chunk.has_changed;
        for reason in Skip::ALL {
            let rows = chunk.skipped[reason as usize];
            if rows > 0 {
                self.count(reason, rows, out);
            }
        }
        for note in chunk.notes {
            if self.limit.is_some() {
                break;
            }
            self.skip(note.line, &note.fault, strictness, out);
            if note.fault.skip.is_bad() {
                strictness.bad += 1;
                out.metrics
                    .rejected_input
                    .with_label_values(&["bad_line"])
                    .inc();
            }
            if strictness.bad > strictness.max_bad {
                self.limit = Some(format!(
                    "more than {} invalid lines (`max_bad`); last: {}:{}: {}",
                    strictness.max_bad, self.name, note.line, note.fault
                ));
                chunk.rows.truncate(note.before);
            }
        }
        if let Some(remark) = chunk.remark {
            tracing::warn!(source = &*out.name, file = &*self.name, "{remark}");
        }
        if let Some(fault) = chunk.fault {
            tracing::error!(
                source = &*out.name,
                file = &*self.name,
                error = fault,
                "file damaged"
            );
            self.account.fail(&fault);
        }
        self.rows.extend(chunk.rows);
    }

    /// Counts and logs a skipped row.
    pub(super) fn skip(
        &mut self,
        line: u64,
        fault: &RowFault,
        strictness: &mut Strictness,
        out: &Output,
    ) {
        self.count(fault.skip, 1, out);
        strictness.logged += 1;
        let (source, file, reason) = (&*out.name, &*self.name, fault.skip.name());
        let error = fault.to_string();
        if self.first_fault.is_none() && !error.is_empty() {
            self.first_fault = Some(format!("{}:{line}: {error}", self.name));
        }
        if error.is_empty() || strictness.logged > LOGGED_MAX {
            return;
        }
        if fault.skip.is_bad() || fault.skip == Skip::Symbol {
            tracing::warn!(source, file, line, reason, error, "row skipped");
        } else {
            tracing::info!(
                source,
                file,
                line,
                reason,
                error,
                "row skipped; further rows with this reason are only counted"
            );
        }
        if strictness.logged == LOGGED_MAX {
            tracing::warn!(
                source,
                "too many skipped rows to log; further ones are only counted"
            );
        }
    }

    pub(super) fn count_trade(&self) {
        self.account.emit_trade();
        self.trades.inc();
    }

    pub(super) fn count_quote(&self) {
        self.account.emit_quote();
        self.quotes.inc();
    }

    fn count(&self, reason: Skip, rows: u64, out: &Output) {
        self.account.skip(reason, rows);
        let labels = [&*out.name, reason.name()];
        out.metrics
            .replay_rows
            .with_label_values(&labels)
            .inc_by(rows);
    }

    fn end(&mut self, out: &Output) {
        self.chunks = None;
        self.account.finish();
        let report = self.account.report();
        tracing::info!(
            source = &*out.name,
            file = &*self.name,
            rows = report.rows,
            trades = report.trades,
            quotes = report.quotes,
            skipped = report.skipped_text(),
            "file replayed"
        );
    }
}
