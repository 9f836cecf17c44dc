//! Check of the files that a config names: present, regular, and of a known format; certificates.

use std::fmt;

use super::{AuthFileError, Config, SourceDetails};
use crate::replay::ReplayError;
use crate::tls::{TlsError, server_config};

/// All files of a config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct FilesError(Vec<WrongFile>);

/// File that cannot be used.
#[derive(Debug, thiserror::Error)]
enum WrongFile {
    /// Certificate or key of the server.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// Recording that cannot be played.
    #[error("source {source_name}: {error}")]
    Replay {
        source_name: String,
        error: ReplayError,
    },
    /// File of the authentication.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Config {
    /// Reads the certificates and the keys of clients, and opens the files of all replays; the error
    /// lists each file that cannot be used. Blocks on the file system, so it must run on a plain
    /// thread.
    pub fn probe_files(&self) -> Result<(), FilesError> {
        let mut wrong = Vec::new();
        for source in &self.sources {
            if let SourceDetails::Replay(replay) = &source.details {
                let of_this = replay.probe().into_iter();
                wrong.extend(of_this.map(|error| WrongFile::Replay {
                    source_name: source.name.to_string(),
                    error,
                }));
            }
        }
        let tls = self.tls.as_ref();
        let tls = tls.and_then(|tls| server_config(&tls.files).err());
        wrong.extend(tls.map(WrongFile::from));
        wrong.extend(self.auth_policy().err().map(WrongFile::from));
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(FilesError(wrong))
        }
    }
}
