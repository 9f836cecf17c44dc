use std::path::{Path, PathBuf};

use crate::printable::printable;
use crate::source::SourceError;

/// A recorded file that cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[error("{}", printable(&format!("{}: {error}", path.display())))]
pub struct ReplayError {
    path: PathBuf,
    pub(super) error: String,
    /// True if the file itself is faulty, so that a retry would fail the same way.
    pub(super) is_final: bool,
}

impl ReplayError {
    pub(super) fn new(path: &Path, error: impl ToString, is_final: bool) -> Self {
        Self {
            path: path.to_owned(),
            error: error.to_string(),
            is_final,
        }
    }
}

impl From<ReplayError> for SourceError {
    fn from(error: ReplayError) -> Self {
        let message = error.to_string();
        if error.is_final {
            Self::Final(message)
        } else {
            Self::Failed(message)
        }
    }
}
