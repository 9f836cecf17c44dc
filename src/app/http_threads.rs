//! Threads for the work of clients that are not on the feed yet: accepting connections, TLS
//! handshakes and HTTP. Under attack they must not take the time of the feed's own threads.

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime};

use super::StartError;

/// Nice value above that of the feed's threads. On a busy core, these get about three times the time
/// of a thread with it.
const NICENESS: i32 = 5;
/// Cores per thread.
const CORES_PER_THREAD: usize = 4;

/// A runtime with threads of lower priority.
#[derive(Debug)]
pub(super) struct HttpThreads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl HttpThreads {
    /// Starts threads with a name, from a thread with the priority of the feed.
    pub(super) fn start(name: &str) -> Result<Self, StartError> {
        let feed = getpriority_process(None).map_err(|error| StartError::Thread(error.into()))?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(CORES_PER_THREAD))
            .thread_name(name)
            .on_thread_start(move || set_nice_value(feed + NICENESS))
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Handle for tasks of these threads.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for HttpThreads {
    fn drop(&mut self) {
        // A runtime must not wait for its threads within another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sets the nice value of the calling thread, to which it belongs on Linux. A value, not an increase:
/// a thread of the blocking pool inherits that of the thread that needed it.
fn set_nice_value(value: i32) {
    if let Err(error) = setpriority_process(None, value) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}
