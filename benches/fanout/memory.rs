//! Memory of a server over the course of a round: filled log, clients, drained queues, no clients.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tickcast::clock::Clock;
use tickcast::load::Update;
use tickcast::market::UnixNanos;

use crate::process::Server;

/// Longest time until the log is full, and until the queues are drained.
const PATIENCE: Duration = Duration::from_secs(30);
/// Queues that hold less than this are drained: at a high rate some event is always on its way.
const DRAINED_BYTES: f64 = (1 << 20) as f64;
/// Share of its bound from which on the log counts as full.
const LOG_IS_FULL: f64 = 0.9;
/// Default of `bus.log`.
const LOG_BYTES: f64 = 64.0 * 1024.0 * 1024.0;

/// Resident memory of a server in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Memory {
    /// Before the first client, with a full log.
    pub(crate) start: u64,
    /// Highest number of bytes queued for clients.
    pub(crate) queued_peak: u64,
    /// Highest of the round.
    pub(crate) peak: u64,
    /// Some time after the queues were drained.
    pub(crate) drained: u64,
    /// Some time after the last client left.
    pub(crate) left: u64,
    /// Seconds until the queues were drained, from the last subscription on.
    pub(crate) drained_s: Option<f64>,
}

/// Observer of a round that watches the memory.
pub(crate) struct MemoryWatch {
    clock: Clock,
    settle: Duration,
    memory: Memory,
    subscribed: Option<UnixNanos>,
    drained: Option<UnixNanos>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "memory is returned by time, not by an event"
)]
impl MemoryWatch {
    /// Waits until the log is full. `settle` is the time from the end of draining, and of the
    /// clients, to the measurement.
    pub(crate) fn begin(server: &Server, settle: Duration) -> Result<Self> {
        let clock = Clock::start();
        let begun = clock.now();
        while server.metric("tickcast_log_bytes")? < LOG_BYTES * LOG_IS_FULL
            && clock.now().since(begun) < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(100));
        }
        let memory = Memory {
            start: server.memory()?.0,
            ..Memory::default()
        };
        Ok(Self {
            clock,
            settle,
            memory,
            subscribed: None,
            drained: None,
        })
    }

    /// Takes an update of the test; true once the queues have been drained for the time to settle.
    pub(crate) fn take(&mut self, server: &Server, update: &Update<'_>) -> Result<bool> {
        match update {
            Update::WarmingUp => self.subscribed = Some(self.clock.now()),
            Update::Closing => self.memory.drained = server.memory()?.0,
            Update::Second(_) => return self.on_second(server),
            Update::Opening | Update::Measuring => {}
        }
        Ok(false)
    }

    fn on_second(&mut self, server: &Server) -> Result<bool> {
        let Some(subscribed) = self.subscribed else {
            return Ok(false);
        };
        let queued = server.metric("tickcast_outbox_bytes")?;
        self.memory.queued_peak = self.memory.queued_peak.max(queued as u64);
        if queued > DRAINED_BYTES {
            self.drained = None;
        } else if self.drained.is_none() {
            self.memory.drained_s = Some(self.clock.now().since(subscribed).as_secs_f64());
            self.drained = Some(self.clock.now());
        }
        Ok(self
            .drained
            .is_some_and(|drained| self.clock.now().since(drained) >= self.settle))
    }

    /// Waits, after the last client has left, and measures for the last time.
    pub(crate) fn finish(mut self, server: &Server) -> Result<Memory> {
        std::thread::sleep(self.settle);
        (self.memory.left, self.memory.peak) = server.memory()?;
        Ok(self.memory)
    }
}
