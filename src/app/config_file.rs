//! Reading and watching the config file outside the task that handles signals, because a file
//! system may hang.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::file_stamp::{Stamp, stamp};
use crate::config::Config;

/// Timeout for reading the config and probing the files it names.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval at which the config file is checked for a change.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Error of the program's config loader, displayed as one message.
type ReadError = Box<dyn std::error::Error + Send + Sync>;
type Read = Result<Config, ReadError>;

/// Reason why a config is not applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReloadError {
    /// The config cannot be read or is invalid.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The previous read has not finished.
    #[error("the previous config read has not finished; a file system may hang")]
    Unfinished,
    /// The read exceeded its timeout.
    #[error("cannot read the config, or a file that it names, within {0:?}")]
    Late(Duration),
    /// The reader thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The reader thread ended without a result.
    #[error("panic while reading the config; this is a bug")]
    Panicked,
}

/// Config reader; runs one read at a time, each on its own thread.
#[derive(Debug)]
pub(super) struct ConfigReader {
    timeout: Duration,
    /// Read that exceeded its timeout.
    overdue: Option<oneshot::Receiver<Read>>,
}

impl ConfigReader {
    pub(super) const fn new() -> Self {
        Self {
            timeout: READ_TIMEOUT,
            overdue: None,
        }
    }

    /// Runs `read` on its own thread.
    pub(super) async fn read(
        &mut self,
        read: impl FnOnce() -> Read + Send + 'static,
    ) -> Result<Config, ReloadError> {
        if let Some(overdue) = &mut self.overdue
            && matches!(overdue.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        {
            return Err(ReloadError::Unfinished);
        }
        let (done, mut result) = oneshot::channel();
        let run = move || {
            // The receiver may have stopped waiting.
            let _late = done.send(read());
        };
        std::thread::Builder::new()
            .name("config".to_owned())
            .spawn(run)
            .map_err(ReloadError::Thread)?;
        self.overdue = None;
        match tokio::time::timeout(self.timeout, &mut result).await {
            Ok(read) => Ok(read.map_err(|_gone| ReloadError::Panicked)??),
            Err(_elapsed) => {
                self.overdue = Some(result);
                Err(ReloadError::Late(self.timeout))
            }
        }
    }
}

/// Watcher that reports a change of the config file once the file is stable again.
#[derive(Debug)]
pub struct ConfigWatch {
    changes: watch::Receiver<u64>,
    /// Ends the watcher thread when dropped.
    _alive: mpsc::SyncSender<()>,
}

impl ConfigWatch {
    /// Watches `file` from now on. Without a file, no change is ever reported.
    pub fn start(file: Option<PathBuf>) -> io::Result<Self> {
        let (changed, changes) = watch::channel(0);
        let (alive, ended) = mpsc::sync_channel(0);
        if let Some(file) = file {
            // Read here, so that a change immediately afterwards is detected.
            let first = stamp(std::fs::metadata(&file));
            std::thread::Builder::new()
                .name("config watch".to_owned())
                .spawn(move || watch_file(&file, first, &changed, &ended))?;
        }
        Ok(Self {
            changes,
            _alive: alive,
        })
    }

    /// Waits for the next change.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn watch_file(
    file: &std::path::Path,
    first: Stamp,
    changed: &watch::Sender<u64>,
    ended: &mpsc::Receiver<()>,
) {
    let (mut reported, mut seen) = (first, first);
    while ended.recv_timeout(CHECK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
        let now = stamp(std::fs::metadata(file));
        // The file may still be being written: only a stamp that is unchanged since the last check
        // counts.
        if now.is_some() && now == seen && now != reported {
            reported = now;
            changed.send_modify(|count| *count += 1);
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hanging_read_times_out_and_blocks_the_next_read() {
        let mut reader = ConfigReader::new();
        reader.timeout = Duration::from_millis(20);
        let (release, held) = mpsc::channel::<()>();
        let hangs = move || {
            let _released = held.recv();
            Err("late".into())
        };
        let error = reader.read(hangs).await.expect_err("the read hangs");
        assert!(error.to_string().contains("within 20ms"), "{error}");
        let error = reader
            .read(|| unreachable!())
            .await
            .expect_err("the read hangs");
        assert!(matches!(error, ReloadError::Unfinished), "{error}");
        drop(release);
        reader.timeout = READ_TIMEOUT;
        let again = async {
            loop {
                match reader.read(|| Err("read".into())).await {
                    Err(ReloadError::Read(_)) => break,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(READ_TIMEOUT, again)
            .await
            .expect("the next read completes");
    }
}
