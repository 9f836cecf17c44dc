use std::path::PathBuf;

use super::config::ReplayConfig;
use super::error::ReplayError;
use super::{inputs, reader};
use crate::market::UnixNanos;

impl ReplayConfig {
    /// Opens every file and detects its format; returns all problems. Blocks on the file system, so
    /// it must run on a plain thread.
    pub fn probe(&self) -> Vec<ReplayError> {
        let probe = |pattern: &PathBuf| {
            let listing = inputs::list(std::slice::from_ref(pattern))?;
            reader::open_all(self, UnixNanos::END, listing, &[], None).map(|_opened| ())
        };
        let each = self.files.iter();
        each.filter_map(|pattern| probe(pattern).err()).collect()
    }
}
