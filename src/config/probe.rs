//! Check of the files that a config names: present, regular, and of a known format; certificates.

use std::fmt;

use super::{Config, SourceDetails};
use crate::replay::ReplayError;
use crate::tls::{TlsError, server_config};

/// All files of a config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct FilesError {
    tls: Option<TlsError>,
    sources: Vec<(String, ReplayError)>,
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = self.tls.iter().map(|error| format!("tls: {error}"));
        let sources = self.sources.iter();
        let sources = sources.map(|(source, error)| format!("source {source}: {error}"));
        let lines: Vec<String> = tls.chain(sources).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Config {
    /// Reads the certificates and opens the files of all replays; the error lists each file that
    /// cannot be used. Blocks on the file system, so it must run on a plain thread.
    pub fn probe_files(&self) -> Result<(), FilesError> {
        let mut wrong = Vec::new();
        for source in &self.sources {
            if let SourceDetails::Replay(replay) = &source.details {
                let of_this = replay.probe().into_iter();
                wrong.extend(of_this.map(|error| (source.name.to_string(), error)));
            }
        }
        let tls = self.tls.as_ref();
        let tls = tls.and_then(|tls| server_config(&tls.files).err());
        if wrong.is_empty() && tls.is_none() {
            Ok(())
        } else {
            Err(FilesError {
                tls,
                sources: wrong,
            })
        }
    }
}
