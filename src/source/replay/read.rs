//! A recorded file as a stream of rows: decompressed, its form found out by looking, read by a thread of its own.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::format::{Format, Row, RowError};
use super::{Columns, ReplayError};
use crate::files::open_regular;
use crate::market::PriceRules;

/// Rows handed over at once.
const CHUNK_ROWS: usize = 1000;
/// Chunks that may wait, so that memory doesn't grow with the file.
const CHUNKS_MAX: usize = 4;
/// What is looked at to find out the form.
const LOOK_BYTES: u64 = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Some rows of a file, in its order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub rows: Vec<Row>,
    /// Lines that couldn't be read, with their numbers from 1.
    pub bad: Vec<(u64, RowError)>,
    /// The file can't be read any further.
    pub broken: Option<String>,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Recording {
    pub path: Arc<Path>,
    pub has_trades: bool,
    pub has_quotes: bool,
    pub chunks: mpsc::Receiver<Chunk>,
}

/// A file that a thread is opening.
#[derive(Debug)]
pub(super) struct Opening {
    path: PathBuf,
    looked: oneshot::Receiver<Look>,
    chunks: mpsc::Receiver<Chunk>,
}

/// Whether the file has trades and quotes, or the reason why it cannot be played, and whether that is final.
type Look = Result<(bool, bool), (String, bool)>;

/// Opens a file on a thread of its own, because a file system may hang. The thread then reads the rows.
pub(super) fn open(
    path: &Path,
    columns: Option<Columns>,
    symbol: Option<String>,
    prices: PriceRules,
) -> Result<Opening, ReplayError> {
    let (told, looked) = oneshot::channel();
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    let own_path = path.to_owned();
    let read = move || {
        let mut told = Some(told);
        let read = open_regular(&own_path)
            .map_err(|error| (error.to_string(), false))
            .and_then(|file| {
                let read = with_plain(file, &own_path, |reader, name| {
                    let mut reader = reader;
                    let start = look(&mut reader)?;
                    let format = Format::detect(
                        &String::from_utf8_lossy(&start),
                        name,
                        columns.as_ref(),
                        symbol.as_deref(),
                    )?
                    .with_rules(prices);
                    if let Some(told) = told.take() {
                        // The opener waits for exactly this, and may have given up.
                        let _gave_up = told.send(Ok((format.has_trades(), format.has_quotes())));
                    }
                    read_rows(Cursor::new(start).chain(reader), format, &chunks);
                    Ok(())
                });
                read.map_err(|error| (error, true))
            });
        if let (Err(error), Some(told)) = (read, told) {
            let _gave_up = told.send(Err(error));
        }
    };
    std::thread::Builder::new()
        .name("replay".to_owned())
        .spawn(read)
        .map_err(|error| ReplayError {
            path: path.to_owned(),
            error: error.to_string(),
            is_final: false,
        })?;
    Ok(Opening {
        path: path.to_owned(),
        looked,
        chunks: receiver,
    })
}

impl Opening {
    /// The opened file, once its format is known.
    pub(super) async fn opened(mut self) -> Result<Recording, ReplayError> {
        let look = (&mut self.looked).await.ok();
        self.finish(look)
    }

    /// The same for a plain thread, which waits.
    pub(super) fn opened_blocking(mut self) -> Result<Recording, ReplayError> {
        let (_, unused) = oneshot::channel();
        let looked = std::mem::replace(&mut self.looked, unused);
        let look = looked.blocking_recv().ok();
        self.finish(look)
    }

    fn finish(self, look: Option<Look>) -> Result<Recording, ReplayError> {
        let look = look.unwrap_or_else(|| Err(("it can't be read".to_owned(), false)));
        match look {
            Ok((has_trades, has_quotes)) => Ok(Recording {
                path: self.path.into(),
                has_trades,
                has_quotes,
                chunks: self.chunks,
            }),
            Err((error, is_final)) => Err(ReplayError {
                path: self.path,
                error,
                is_final,
            }),
        }
    }
}

/// Calls `then` with the decompressed bytes and the name that tells the form, of the file or of what is packed in it.
fn with_plain(
    mut file: File,
    path: &Path,
    then: impl FnOnce(Box<dyn Read + '_>, &str) -> Result<(), String>,
) -> Result<(), String> {
    let mut magic = Vec::new();
    file.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(|error| error.to_string())?;
    let whole = Cursor::new(magic.clone()).chain(file);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    match magic[..] {
        [0x1f, 0x8b, ..] => then(Box::new(flate2::read::MultiGzDecoder::new(whole)), &name),
        [0x28, 0xb5, 0x2f, 0xfd] => then(
            Box::new(zstd::Decoder::new(whole).map_err(|error| error.to_string())?),
            &name,
        ),
        [b'P', b'K', 3, 4] => {
            // By its directory, because an entry's own header needn't tell its length.
            let archive = open_regular(path).map_err(|error| error.to_string())?;
            let mut archive = zip::ZipArchive::new(archive).map_err(|error| error.to_string())?;
            let packed = archive
                .by_index(0)
                .map_err(|error| format!("the zip holds no file: {error}"))?;
            let inner = packed
                .name()
                .map_err(|error| error.to_string())?
                .into_owned();
            then(Box::new(packed), inner.rsplit('/').next().unwrap_or(&inner))
        }
        _ => then(Box::new(whole), &name),
    }
}

/// The first lines, without a byte order mark; the reader goes on behind them.
fn look(reader: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut start = Vec::new();
    reader
        .take(LOOK_BYTES)
        .read_to_end(&mut start)
        .map_err(|error| error.to_string())?;
    if start.starts_with(BYTE_ORDER_MARK) {
        start.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(start)
}

fn read_rows(reader: impl Read, mut format: Format, chunks: &mpsc::Sender<Chunk>) {
    let mut csv = csv::ReaderBuilder::new()
        .has_headers(format.has_header())
        .delimiter(format.delimiter())
        .flexible(true)
        .from_reader(reader);
    let mut record = csv::StringRecord::new();
    let mut chunk = Chunk::default();
    loop {
        let more = match csv.read_record(&mut record) {
            Ok(more) => more,
            Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
                let line = error.position().map_or(0, csv::Position::line);
                chunk
                    .bad
                    .push((line, RowError("the line is no UTF-8".to_owned())));
                if chunk.bad.len() >= CHUNK_ROWS
                    && chunks.blocking_send(std::mem::take(&mut chunk)).is_err()
                {
                    return;
                }
                continue;
            }
            Err(error) => {
                chunk.broken = Some(error.to_string());
                false
            }
        };
        if more {
            match format.row(&record) {
                Ok(Some(row)) => chunk.rows.push(row),
                Ok(None) => {}
                Err(error) => chunk
                    .bad
                    .push((record.position().map_or(0, csv::Position::line), error)),
            }
        }
        if !more || chunk.rows.len() >= CHUNK_ROWS || chunk.bad.len() >= CHUNK_ROWS {
            let is_over = chunks.blocking_send(std::mem::take(&mut chunk)).is_err();
            if is_over || !more {
                return;
            }
        }
    }
}

/// The files that the config's names mean, in order.
pub(super) fn expand(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, ReplayError> {
    let mut files = Vec::new();
    for pattern in patterns {
        let name = pattern
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.contains('*') {
            files.push(pattern.clone());
            continue;
        }
        let folder = pattern
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let fail = |error: String| ReplayError {
            path: pattern.clone(),
            error,
            is_final: false,
        };
        let listed = std::fs::read_dir(folder).map_err(|error| fail(error.to_string()))?;
        let mut found: Vec<PathBuf> = listed
            .filter_map(Result::ok)
            .filter(|entry| matches(&name, &entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect();
        if found.is_empty() {
            return Err(fail("no file has such a name".to_owned()));
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

/// Whether a name is meant by a pattern in which each `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(head) else {
        return false;
    };
    (0..=tail.len())
        .filter(|at| tail.is_char_boundary(*at))
        .any(|at| matches(rest, &tail[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        assert!(matches("*.csv.gz", "a.csv.gz") && matches("a*b*c", "aXbYc") && matches("*", ""));
        assert!(!matches("*.csv", "a.csv.gz") && !matches("a*b", "ac"));
    }
}
