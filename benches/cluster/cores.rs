//! Cores of the processes that a case starts.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Core of the servers.
pub(crate) const SERVERS: usize = 0;
/// Core of the tester.
pub(crate) const TESTER: usize = 1;

/// Starts processes on one core: they inherit that of this thread.
pub(crate) fn on<T>(core: usize, start: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}
