//! Detection of changed files.

use std::fs::Metadata;
use std::io;
use std::time::SystemTime;

/// Modification time and length; a change of either counts as a change of the file.
pub(super) type Stamp = Option<(SystemTime, u64)>;

/// Stamp of a file; `None` if it cannot be read.
pub(super) fn stamp(found: io::Result<Metadata>) -> Stamp {
    let found = found.ok()?;
    Some((found.modified().ok()?, found.len()))
}
