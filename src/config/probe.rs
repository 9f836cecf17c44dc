//! Check of the files that a config names: present, regular, and of a known format.

use std::fmt;

use super::{Config, SourceDetails};
use crate::replay::ReplayError;

/// All files of a config that cannot be played.
#[derive(Debug, thiserror::Error)]
pub struct FilesError(Vec<(String, ReplayError)>);

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (source, error)) in self.0.iter().enumerate() {
            let end = if at + 1 < self.0.len() { "\n" } else { "" };
            write!(f, "source {source}: {error}{end}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Opens the files of all replays; the error lists each file that cannot be played. Blocks on
    /// the file system, so it must run on a plain thread.
    pub fn probe_files(&self) -> Result<(), FilesError> {
        let mut wrong = Vec::new();
        for source in &self.sources {
            if let SourceDetails::Replay(replay) = &source.details {
                let of_this = replay.probe().into_iter();
                wrong.extend(of_this.map(|error| (source.name.to_string(), error)));
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(FilesError(wrong))
        }
    }
}
