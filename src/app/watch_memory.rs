//! Periodic comparison of the process's memory with its limit.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::server::{MemoryLevel, Server};

const LOOK_EVERY: Duration = Duration::from_millis(250);
const STATUS: &str = "/proc/self/status";

/// Updates the memory pressure and the metrics of all holders until the task is aborted.
pub(super) async fn watch_memory(server: Arc<Server>, queue_bytes: usize) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        server.report_memory(queue_bytes);
        // A file of the kernel, read without waiting.
        let status = std::fs::read_to_string(STATUS).unwrap_or_default();
        let Some(used) = resident(&status) else {
            continue;
        };
        match server.memory.update(used) {
            None => {}
            Some(MemoryLevel::Enough) => {
                tracing::info!(used, "memory is below its limit again");
            }
            Some(level) => {
                let refused = match level {
                    MemoryLevel::Exhausted => "new connections, publishing and generated responses",
                    _ => "publishing and generated responses",
                };
                tracing::warn!(
                    used,
                    refused,
                    "memory is near its limit (limits.memory); refusing with 503"
                );
            }
        }
    }
}

/// Resident memory in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_read_in_bytes() {
        let status = "Name:\ttickcast\nVmHWM:\t  9 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!(resident(status), Some(2 << 20));
        assert_eq!(resident(""), None);
        let own = std::fs::read_to_string(STATUS).expect("this process has a status");
        assert!(resident(&own).is_some_and(|bytes| bytes > 1 << 20));
    }
}
