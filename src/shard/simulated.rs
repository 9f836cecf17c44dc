//! Shard without a thread, sockets and a runtime, driven step by step by a simulation.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc;

use super::command::{Command, commands};
use super::sockets::Sockets;
use super::{Parts, Shard, ShardConfig};
use crate::bus::Emitter;
use crate::log::Log;
use crate::market::UnixNanos;
use crate::metrics::Metrics;

/// Shard of a simulation.
#[derive(Debug)]
pub struct SimulatedShard {
    shard: Shard,
    commands: mpsc::Sender<Command>,
    queue: mpsc::Receiver<Command>,
    /// The last turn has left something to do at once.
    is_busy: bool,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stepped {
    /// It has made a turn.
    Turned,
    /// It sleeps until this time, or until something wakes it.
    Asleep(Option<UnixNanos>),
}

impl SimulatedShard {
    /// A shard without connections, at the end of the log.
    pub fn new(
        number: usize,
        config: ShardConfig,
        log: Arc<Log>,
        bus: Emitter,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (commands, queue) = commands();
        let shard = Shard::new(Parts {
            number,
            config,
            log,
            bus,
            metrics,
            sockets: Sockets::simulated(),
            connected: Arc::<AtomicUsize>::default(),
        });
        Self {
            shard,
            commands,
            queue,
            is_busy: false,
        }
    }

    /// Queues a command; returns false if the queue is full.
    pub fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// Number of connections.
    pub fn connections(&self) -> usize {
        self.shard.connections.len()
    }

    /// Makes a turn, unless the shard has nothing to do.
    pub fn step(&mut self) -> Stepped {
        if !self.is_busy && !self.is_woken() {
            return Stepped::Asleep(self.shard.due_at());
        }
        self.is_busy = self.shard.turn(&mut self.queue);
        Stepped::Turned
    }

    /// Polls the shard's own wait.
    fn is_woken(&mut self) -> bool {
        let Self { shard, queue, .. } = self;
        let again = Arc::new(Again::default());
        let waker = Waker::from(Arc::clone(&again));
        let woken = {
            let mut wait = pin!(shard.wait(queue));
            loop {
                match wait.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(woken) => break woken,
                    Poll::Pending if again.0.swap(false, Ordering::Relaxed) => {}
                    Poll::Pending => return false,
                }
            }
        };
        shard.on_woken(woken)
    }

    /// Work that a shard which sleeps has overlooked.
    pub fn overlooked(&self, now: UnixNanos) -> Option<&'static str> {
        let Self { shard, queue, .. } = self;
        let reads_log = shard.feed.restoring.is_none()
            && shard.leaves_log_until().is_none_or(|until| until <= now);
        if reads_log && shard.feed.next != shard.feed.log.head() {
            return Some("batches of the log");
        }
        if !queue.is_empty() {
            return Some("commands");
        }
        if shard.sockets.has_ready() {
            return Some("ready sockets");
        }
        if shard.due_at().is_some_and(|at| at < now) {
            return Some("a timer");
        }
        None
    }

    /// True if the shard waits for a checkpoint.
    pub fn is_restoring(&self) -> bool {
        self.shard.feed.restoring.is_some()
    }
}

/// Waker that notes that a future is to be polled again.
#[derive(Debug, Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
