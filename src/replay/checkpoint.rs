//! The position of a replay, kept while the server is down.

use serde::{Deserialize, Serialize};

use super::reader::FilePosition;
use crate::market::{Instrument, Symbol, UnixNanos};

/// The position of a replay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub progress: Progress,
    /// Position in each file.
    pub files: Vec<FilePosition>,
    /// The names on the wire, so that a symbol keeps its own whatever files are added.
    pub names: Vec<Named>,
    /// All instruments that were told, so that they are there again at once, wherever in the files
    /// they come.
    pub told: Vec<Instrument>,
}

/// The replay's own time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Number of repetitions.
    pub round: u32,
    /// Due time of the first row.
    pub begun: UnixNanos,
    /// The first row's time.
    pub first: UnixNanos,
    /// The newest time that was played.
    pub last: UnixNanos,
    /// The next time mark, in recorded time.
    pub next_mark: UnixNanos,
}

/// The name on the wire of a file's symbol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Named {
    pub venue: Option<Symbol>,
    pub symbol: Symbol,
    pub wire: Symbol,
}
