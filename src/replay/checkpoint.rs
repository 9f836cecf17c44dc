//! Checkpoint of a replay, saved for the next server.

use serde::{Deserialize, Serialize};

use super::reader::FilePosition;
use crate::market::{Instrument, Symbol, UnixNanos};

/// Checkpoint of a replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub progress: Progress,
    /// Position in each file.
    pub files: Vec<FilePosition>,
    /// Names on the wire, so that a symbol keeps its name when files are added.
    pub names: Vec<Named>,
    /// All announced instruments, so that they are announced again at the start, wherever they
    /// occur in the files.
    pub announced: Vec<Instrument>,
}

/// Time of the replay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Number of repetitions.
    pub round: u32,
    /// Due time of the first row.
    pub begun: UnixNanos,
    /// Time of the first row.
    pub first: UnixNanos,
    /// Newest replayed time.
    pub last: UnixNanos,
    /// Time of the next watermark, in recorded time.
    pub next_mark: UnixNanos,
}

/// Name on the wire of a symbol of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub venue: Option<Symbol>,
    pub symbol: Symbol,
    pub wire: Symbol,
}
