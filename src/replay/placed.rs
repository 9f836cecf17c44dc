use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::source::account::RowFault;

/// A row's place in its file, and what the file holds up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Rows up to this one, it included.
    pub rows: u64,
    /// CRC-32 of their lines; of all lines of a sorted file.
    pub fingerprint: u32,
}

/// A row and its place.
#[derive(Debug)]
pub(super) struct Placed {
    pub line: u64,
    pub mark: Mark,
    pub row: Row,
}

/// A row, or a line that is refused and the reason.
pub(super) type Item = Result<Placed, (u64, RowFault)>;
