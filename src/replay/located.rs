use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::source::account::RowFault;

/// Position of a row in its file, with a fingerprint of the file up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Number of rows up to and including this one.
    pub rows: u64,
    /// CRC-32 of their lines; of all lines of a sorted file.
    pub fingerprint: u32,
}

/// A row with its position.
#[derive(Debug)]
pub(super) struct LocatedRow {
    pub line: u64,
    pub mark: Mark,
    pub row: Row,
}

/// A row, or a rejected line with the reason.
pub(super) type Item = Result<LocatedRow, (u64, RowFault)>;
