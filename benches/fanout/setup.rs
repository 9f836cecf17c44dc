//! Settings of a run that are the same for all cases: times, shards and cores.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Settings of all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) measured: Duration,
    /// From the end of draining, and of the last client, to the memory that is measured.
    pub(crate) settle: Duration,
    /// Shards of tickcast; the other servers have one thread.
    pub(crate) shards: usize,
    /// Pin each shard to a core.
    pub(crate) pin: bool,
    pub(crate) cores: Cores,
}

/// Cores of the server's process and of the tester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) server: Vec<usize>,
    pub(crate) tester: Vec<usize>,
}

impl Cores {
    /// One core for a server of one shard, generator included. More shards have a core each, the
    /// generator one of its own, and the tester all others.
    fn of(shards: usize, usable: &[usize]) -> Option<Self> {
        let for_server = if shards == 1 { 1 } else { shards + 1 };
        let (server, rest) = usable.split_at_checked(for_server)?;
        let for_tester = if shards == 1 { 1 } else { rest.len() };
        let tester = rest.get(..for_tester).filter(|tester| !tester.is_empty())?;
        Some(Self {
            server: server.to_vec(),
            tester: tester.to_vec(),
        })
    }

    /// Chooses the cores, and moves this process to the tester's.
    pub(crate) fn take(shards: usize) -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU)
            .filter(|core| all.is_set(*core))
            .collect();
        let cores = Self::of(shards, &usable).or_else(|| {
            println!(
                "{shards} shards and a tester need {} cores: they share two, which shows that they work, not how they scale",
                shards + 2
            );
            Self::of(1, &usable)
        });
        let cores = cores.context("the bench needs two cores")?;
        let mut own = CpuSet::new();
        for core in &cores.tester {
            own.set(*core);
        }
        sched_setaffinity(None, &own)?;
        Ok(cores)
    }

    /// Cores of the server as `taskset` reads them.
    pub(crate) fn server_list(&self) -> String {
        let list: Vec<String> = self.server.iter().map(ToString::to_string).collect();
        list.join(",")
    }
}
