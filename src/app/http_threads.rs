//! Threads for the work of clients that are not on the feed yet: accepting connections, TLS
//! handshakes and HTTP. Under attack they must not take the time of the feed's own threads.

use rustix::process::nice;
use tokio::runtime::{Builder, Handle, Runtime};

use super::StartError;

/// Increase of the nice value. On a busy core, a thread of the feed gets about three times the time
/// of a thread with this value.
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
    /// Starts threads with a name.
    pub(super) fn start(name: &str) -> Result<Self, StartError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.div_ceil(CORES_PER_THREAD))
            .thread_name(name)
            .on_thread_start(lower_priority)
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

/// Lowers the priority of the calling thread; on Linux, a nice value belongs to a thread.
fn lower_priority() {
    if let Err(error) = nice(NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}
