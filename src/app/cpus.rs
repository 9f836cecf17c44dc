//! CPUs of the shards, if their threads are pinned.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// CPU of each shard: the last ones of `allowed`, so that the first ones are left to the bus and
/// the runtime. Shards share CPUs if there are more of them than CPUs.
fn cpus_of_shards(allowed: &[usize], shards: usize) -> Vec<usize> {
    let first = allowed.len().saturating_sub(shards);
    allowed[first..]
        .iter()
        .copied()
        .cycle()
        .take(shards)
        .collect()
}

/// Affinity of the calling thread while it starts pinned threads, which inherit it.
#[derive(Debug)]
pub(super) struct Pinning {
    before: CpuSet,
    cpus: Vec<usize>,
}

impl Pinning {
    /// Reads the CPUs that the process may use.
    pub(super) fn new(shards: usize) -> io::Result<Self> {
        let before = sched_getaffinity(None)?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| before.is_set(*cpu))
            .collect();
        Ok(Self {
            before,
            cpus: cpus_of_shards(&allowed, shards),
        })
    }

    /// Starts the thread of a shard on its CPU.
    pub(super) fn start<T>(
        &self,
        shard: usize,
        start: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut one = CpuSet::new();
        one.set(self.cpus[shard]);
        sched_setaffinity(None, &one)?;
        let started = start();
        sched_setaffinity(None, &self.before)?;
        tracing::info!(shard, cpu = self.cpus[shard], "shard pinned");
        started
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_take_the_last_cpus_and_share_only_where_they_must() {
        assert_eq!(cpus_of_shards(&[0, 1, 2, 3], 2), [2, 3]);
        assert_eq!(cpus_of_shards(&[4, 6], 2), [4, 6]);
        assert_eq!(cpus_of_shards(&[4, 6], 3), [4, 6, 4]);
        assert_eq!(cpus_of_shards(&[5], 1), [5]);
    }
}
