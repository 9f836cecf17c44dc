use std::path::{Path, PathBuf};

use crate::printable::printable;
use crate::source::SourceError;

/// A recorded file that can't be played.
#[derive(Debug, thiserror::Error)]
#[error("{}", printable(&format!("{}: {error}", path.display())))]
pub struct ReplayError {
    path: PathBuf,
    pub(super) error: String,
    /// The file itself is wrong, so trying again would fail the same way.
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
