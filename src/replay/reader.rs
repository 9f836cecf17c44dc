//! Reader: a thread per recording that produces chunks of rows.

use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::band::Band;
use super::format::{Format, read_line};
use super::inputs::{Input, Listing, Opened, with_text};
use super::located::{Item, LocatedRow, Mark};
use super::order::{SORTED_ROWS_MAX, Sequencer};
use super::record::{Cells, LINE_BYTES_MAX, Line, Lines};
use super::{ReplayConfig, ReplayError};
use crate::market::UnixNanos;
use crate::source::account::{RowFault, Skip, SkipCounts};

/// Number of rows per chunk.
const CHUNK_ROWS: usize = 1000;
/// Number of lines after which a chunk is sent, whatever it contains.
const CHUNK_LINES: u64 = 50_000;
/// Maximum number of queued chunks, so that memory does not grow with the file.
const CHUNKS_MAX: usize = 4;

/// Position in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    /// Name of the file, as in [`Input::name`].
    pub file: String,
    pub mark: Mark,
    /// The rows were sorted by time, so that `mark` counts sorted rows.
    pub is_sorted: bool,
}

/// Reason of a skipped row, for the log and for `max_bad`.
#[derive(Debug)]
pub(super) struct Note {
    /// Number of rows of the chunk before it.
    pub before: usize,
    pub line: u64,
    pub fault: RowFault,
}

/// Some rows of a file, in its order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub rows: Vec<LocatedRow>,
    /// Number of lines read for this chunk.
    pub read: u64,
    /// Skipped rows by reason, but for those in `notes`.
    pub skipped: SkipCounts,
    /// Every bad row, and the first row of each other reason.
    pub notes: Vec<Note>,
    /// Error after which the file cannot be read.
    pub fault: Option<String>,
    /// Remark on the file for operators.
    pub remark: Option<&'static str>,
    /// True if the file no longer contains the rows replayed before.
    pub has_changed: bool,
}

/// Open recording.
#[derive(Debug)]
pub(super) struct Recording {
    pub name: Arc<str>,
    pub has_trades: bool,
    pub has_quotes: bool,
    pub chunks: mpsc::Receiver<Chunk>,
    /// True if the rows come sorted; known once the first chunk is there.
    pub is_sorted: Arc<std::sync::atomic::AtomicBool>,
}

/// All recordings of a source, and the skipped names.
pub(super) type OpenedAll = (Vec<Recording>, Vec<(String, String)>);

/// Opens all that is listed, at a time of the server's clock. `resume`: where each file was, and
/// the time up to which files that are new since count as played.
pub(super) fn open_all(
    config: &ReplayConfig,
    now: UnixNanos,
    listing: Listing,
    positions: &[FilePosition],
    resumed_at: Option<UnixNanos>,
) -> Result<OpenedAll, ReplayError> {
    let (mut recordings, mut skipped) = (Vec::new(), listing.skipped);
    let mut positions: Vec<Option<&FilePosition>> = positions.iter().map(Some).collect();
    for input in &listing.inputs {
        let name = input.name();
        let found = positions
            .iter_mut()
            .find(|position| position.is_some_and(|position| position.file == name));
        let position = found.and_then(Option::take).cloned();
        let from = StartPoint {
            not_before: resumed_at.filter(|_| position.is_none()),
            position,
            now,
        };
        match open(input, config, from) {
            Ok(recording) => recordings.push(recording),
            Err(error) if input.is_explicit || !error.is_final => return Err(error),
            Err(error) => skipped.push((name, error.error)),
        }
    }
    if recordings.is_empty() {
        let path = config.files.first().map_or(Path::new(""), |path| path);
        let each = skipped.iter();
        let each: Vec<String> = each.map(|(name, why)| format!("{name}: {why}")).collect();
        let error = format!("none of the files can be replayed: {}", each.join("; "));
        return Err(ReplayError::new(path, error, true));
    }
    Ok((recordings, skipped))
}

/// Position at which the replay of a file starts.
#[derive(Debug, Clone, Default)]
pub(super) struct StartPoint {
    pub position: Option<FilePosition>,
    pub not_before: Option<UnixNanos>,
    /// The server's clock.
    pub now: UnixNanos,
}

/// Opens and inspects a file; a thread produces its rows.
fn open(input: &Input, config: &ReplayConfig, from: StartPoint) -> Result<Recording, ReplayError> {
    let fail = |error: String, is_final| ReplayError::new(&input.path, error, is_final);
    let (sender, detected) = std::sync::mpsc::sync_channel(1);
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let is_sorted = Arc::<std::sync::atomic::AtomicBool>::default();
    let (own, own_config, sorted) = (input.clone(), config.clone(), Arc::clone(&is_sorted));
    let run = move || {
        let success = sender.clone();
        let send = move |chunk| chunks.blocking_send(chunk).map_err(|_gone| Abandoned);
        // The opener may have stopped waiting.
        let opened = |has| _ = success.send(Ok(has));
        if let Err(error) = read(&own, &own_config, from, Box::new(send), sorted, opened) {
            let _gave_up = sender.send(Err(error));
        }
    };
    std::thread::Builder::new()
        .name("replay".to_owned())
        .spawn(run)
        .map_err(|error| fail(format!("cannot start the reader thread: {error}"), false))?;
    let (has_trades, has_quotes) = detected
        .recv()
        .map_err(|_wrong| fail("the reader thread ended unexpectedly".to_owned(), false))??;
    Ok(Recording {
        name: input.name().into(),
        has_trades,
        has_quotes,
        chunks: receiver,
        is_sorted,
    })
}

/// Receives the chunks of a recording.
pub(super) type ChunkSink<'s> = Box<dyn FnMut(Chunk) -> Result<(), Abandoned> + 's>;

/// Reads a recording on this thread; calls `opened` once its format is known, with true for trades
/// and for quotes if it has any.
pub(super) fn read(
    input: &Input,
    config: &ReplayConfig,
    from: StartPoint,
    chunks: ChunkSink<'_>,
    is_sorted: Arc<std::sync::atomic::AtomicBool>,
    opened: impl FnOnce((bool, bool)),
) -> Result<(), ReplayError> {
    with_text(input, config.expansion_max, |text, name| {
        let start = String::from_utf8_lossy(&text.start);
        let format = Format::detect(&start, name, config)
            .map_err(|error| ReplayError::new(Path::new(&input.name()), error, true))?;
        opened((format.rows.trade.is_some(), format.rows.quote.is_some()));
        let band = Band::new(&config.times, from.now);
        Reader::new(format, band, from, chunks, is_sorted).run(text);
        Ok(())
    })
}

/// The receiver was dropped.
pub(super) struct Abandoned;

struct Reader<'s> {
    format: Format,
    cells: Cells,
    from: StartPoint,
    chunks: ChunkSink<'s>,
    chunk: Chunk,
    noted: [bool; Skip::COUNT],
    crc: crc32fast::Hasher,
    rows: u64,
    band: Band,
    order: Sequencer,
    /// Rows that passed the filter and have their time; empty between two lines.
    passed: Vec<Item>,
    ordered: Vec<Item>,
    is_sorted: Arc<std::sync::atomic::AtomicBool>,
}

impl<'s> Reader<'s> {
    fn new(
        format: Format,
        band: Band,
        from: StartPoint,
        chunks: ChunkSink<'s>,
        is_sorted: Arc<std::sync::atomic::AtomicBool>,
    ) -> Self {
        let was_sorted = from.position.as_ref().is_some_and(|at| at.is_sorted);
        Self {
            format,
            cells: Cells::default(),
            from,
            chunks,
            chunk: Chunk::default(),
            noted: [false; Skip::COUNT],
            crc: crc32fast::Hasher::new(),
            rows: 0,
            band,
            passed: Vec::new(),
            ordered: Vec::new(),
            order: Sequencer::new(was_sorted),
            is_sorted,
        }
    }

    fn run(mut self, opened: Opened<'_>) {
        let reader = BufReader::with_capacity(64 * 1024, opened.reader);
        // A stopped source accepts no more.
        let _abandoned = self.read_all(Lines::new(reader));
    }

    fn read_all<R: std::io::BufRead>(&mut self, mut lines: Lines<R>) -> Result<(), Abandoned> {
        let mut is_first = self.format.header.is_some();
        loop {
            let next = match lines.next() {
                Ok(next) => next,
                Err(error) => {
                    if !lines.line().is_empty() {
                        self.chunk.read += 1;
                        let fault = RowFault::new(Skip::Cut, "the last row is truncated");
                        self.skip(lines.number() + 1, fault)?;
                    }
                    let row = lines.number();
                    self.chunk.fault = Some(format!(
                        "the file is damaged or truncated after line {row}: {error}"
                    ));
                    break;
                }
            };
            let Some(line) = next else { break };
            if std::mem::take(&mut is_first) {
                continue;
            }
            self.chunk.read += 1;
            self.take(lines.number(), line, lines.line())?;
            if self.order.held() > SORTED_ROWS_MAX {
                self.chunk.skipped[Skip::Order as usize] += self.order.held() as u64;
                self.chunk.fault = Some(format!(
                    "more than {SORTED_ROWS_MAX} rows in descending order of time; sort the file by time first"
                ));
                return self.hand_over();
            }
            if self.chunk.read >= CHUNK_LINES {
                self.hand_over()?;
            }
        }
        self.finish()
    }

    /// Parses one line: a row, or a reason to skip it.
    fn take(&mut self, number: u64, line: Line, bytes: &[u8]) -> Result<(), Abandoned> {
        self.crc.update(bytes);
        self.crc.update(b"\n");
        self.rows += 1;
        let mark = Mark {
            rows: self.rows,
            fingerprint: self.crc.clone().finalize(),
        };
        let resume = self.from.position.as_ref().filter(|at| !at.is_sorted);
        if let Some(at) = resume.map(|at| at.mark).filter(|at| mark.rows <= at.rows) {
            self.chunk.has_changed |= mark.rows == at.rows && mark.fingerprint != at.fingerprint;
            self.chunk.skipped[Skip::PlayedBefore as usize] += 1;
            return Ok(());
        }
        let read = match line {
            Line::TooLong => Err(RowFault::new(
                Skip::TooLong,
                format!("the line is longer than {LINE_BYTES_MAX} bytes"),
            )),
            Line::Whole => read_line(&mut self.format, &mut self.cells, bytes),
        };
        let item = match read {
            Err(fault) => Err((number, fault)),
            Ok(row) => Ok(LocatedRow {
                line: number,
                mark,
                row,
            }),
        };
        self.band.push(item, &mut self.passed);
        self.order()
    }

    /// Orders the rows that passed the time band.
    fn order(&mut self) -> Result<(), Abandoned> {
        for item in self.passed.drain(..) {
            self.order.push(item, &mut self.ordered);
        }
        self.pass()
    }

    /// Sends the rows whose order is known.
    fn pass(&mut self) -> Result<(), Abandoned> {
        let mut ordered = std::mem::take(&mut self.ordered);
        for one in ordered.drain(..) {
            match one {
                Err((line, fault)) => self.skip(line, fault)?,
                Ok(located) if self.from.not_before.is_some_and(|at| located.row.ts() < at) => {
                    let why = "the row is older than the resume position, and its file was added after the stop";
                    self.skip(located.line, RowFault::new(Skip::BeforePosition, why))?;
                }
                Ok(located) => {
                    self.chunk.rows.push(located);
                    if self.chunk.rows.len() >= CHUNK_ROWS {
                        self.hand_over()?;
                    }
                }
            }
        }
        self.ordered = ordered;
        Ok(())
    }

    fn skip(&mut self, line: u64, fault: RowFault) -> Result<(), Abandoned> {
        let reason = fault.skip as usize;
        if !fault.skip.is_bad() && std::mem::replace(&mut self.noted[reason], true) {
            self.chunk.skipped[reason] += 1;
            return Ok(());
        }
        let before = self.chunk.rows.len();
        self.chunk.notes.push(Note {
            before,
            line,
            fault,
        });
        if self.chunk.notes.len() >= CHUNK_ROWS {
            self.hand_over()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Abandoned> {
        let fingerprint = self.crc.clone().finalize();
        self.band.finish(&mut self.passed);
        self.order()?;
        self.order.finish(fingerprint, &mut self.ordered);
        self.is_sorted
            .store(self.order.is_sorted(), std::sync::atomic::Ordering::Relaxed);
        let resume = self.from.position.clone().map(|at| (at.mark, at.is_sorted));
        if self.order.is_sorted() {
            let text = "rows are in descending order of time; sorted before the replay";
            self.chunk.remark = Some(text);
        }
        if let Some((at, true)) = resume {
            let rows = self.ordered.iter().flatten().count() as u64;
            self.chunk.has_changed |= fingerprint != at.fingerprint || rows < at.rows;
            let before = |one: &Item| one.as_ref().is_ok_and(|row| row.mark.rows <= at.rows);
            let played = self.ordered.iter().filter(|one| before(one)).count() as u64;
            self.chunk.skipped[Skip::PlayedBefore as usize] += played;
            self.ordered.retain(|one| !before(one));
        }
        if let Some((at, false)) = resume {
            self.chunk.has_changed |= self.rows < at.rows;
        }
        // The fault is the last entry of a file.
        let fault = self.chunk.fault.take();
        self.pass()?;
        self.chunk.fault = fault;
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), Abandoned> {
        let chunk = std::mem::take(&mut self.chunk);
        (self.chunks)(chunk)
    }
}
