//! Shard without a thread, sockets and a runtime, driven step by step by a simulation.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::sync::mpsc;

use super::command::{Command, commands};
use super::connection::ConnectionKey;
use super::sockets::{Ready, Sockets};
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
            outcomes: commands.downgrade(),
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

/// Sockets that became ready since the shard has last taken them.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadySockets(Arc<Mutex<Vec<(ConnectionKey, ClientEnd)>>>);

impl ReadySockets {
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }

    /// Pending while no socket is ready.
    pub(super) async fn wait(&self) {
        std::future::poll_fn(|_| {
            if self.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    pub(super) fn take(&self, into: &mut Vec<Ready>) {
        for (key, end) in locked(&self.0).drain(..) {
            let mut socket = locked(&end.0);
            socket.is_reported = false;
            into.push(Ready {
                key,
                is_writable: socket.room > 0,
                ends_short: !socket.is_ended && !socket.is_broken,
            });
        }
    }
}

/// State of a socket in memory.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Socket {
    /// Bytes of the client that the server has not read.
    to_server: VecDeque<u8>,
    /// Bytes of the server that the client has not read.
    to_client: VecDeque<u8>,
    /// Bytes that the socket still accepts of the server.
    room: usize,
    /// Bytes that the kernel counts as not sent yet.
    is_unsent: bool,
    /// The client has closed its side.
    is_ended: bool,
    /// The connection was reset.
    is_broken: bool,
    /// The server has closed its side.
    is_dropped: bool,
    /// A write has found no room since the last report of readiness.
    is_full: bool,
    /// Its readiness waits to be taken.
    is_reported: bool,
    ready: Option<(ConnectionKey, ReadySockets)>,
}

/// Client's end of a socket in memory.
#[derive(Debug, Clone)]
pub struct ClientEnd(Arc<Mutex<Socket>>);

/// Server's end of a socket in memory.
#[derive(Debug)]
pub struct ServerEnd(Arc<Mutex<Socket>>);

/// Creates a socket in memory that accepts `room` bytes of the server.
pub fn socket(room: usize) -> (ClientEnd, ServerEnd) {
    let socket = Arc::new(Mutex::new(Socket {
        room,
        ..Socket::default()
    }));
    (ClientEnd(Arc::clone(&socket)), ServerEnd(socket))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientEnd {
    /// Notes an edge of readiness; several before the next poll are one, as in a poll set.
    fn report(&self) {
        let mut socket = locked(&self.0);
        if socket.is_dropped || socket.is_reported {
            return;
        }
        if let Some((key, ready)) = socket.ready.clone() {
            socket.is_reported = true;
            drop(socket);
            locked(&ready.0).push((key, self.clone()));
        }
    }

    /// Sends bytes to the server.
    pub fn send(&self, bytes: &[u8]) {
        locked(&self.0).to_server.extend(bytes);
        self.report();
    }

    /// Reads at most `bytes_max` of the bytes that the socket has accepted, in order.
    pub fn receive(&self, bytes_max: usize) -> Vec<u8> {
        let mut socket = locked(&self.0);
        let taken = socket.to_client.len().min(bytes_max);
        socket.to_client.drain(..taken).collect()
    }

    /// Bytes of the server that the client has not read.
    pub fn received(&self) -> usize {
        locked(&self.0).to_client.len()
    }

    /// Lets the socket accept more bytes.
    pub fn give_room(&self, bytes: usize) {
        let mut socket = locked(&self.0);
        socket.room = socket.room.saturating_add(bytes);
        let was_full = std::mem::take(&mut socket.is_full);
        drop(socket);
        if was_full {
            self.report();
        }
    }

    /// Bytes that the socket still accepts.
    pub fn room(&self) -> usize {
        locked(&self.0).room
    }

    /// Takes back room, so that the socket accepts at most `bytes`.
    pub fn limit_room(&self, bytes: usize) {
        let mut socket = locked(&self.0);
        socket.room = socket.room.min(bytes);
    }

    /// Bytes of the client that the server has not read.
    pub fn unread(&self) -> usize {
        locked(&self.0).to_server.len()
    }

    /// Closes the client's side, behind the bytes sent before.
    pub fn end(&self) {
        locked(&self.0).is_ended = true;
        self.report();
    }

    /// Resets the connection.
    pub fn reset(&self) {
        locked(&self.0).is_broken = true;
        self.report();
    }

    /// True if the server has closed the socket.
    pub fn is_closed(&self) -> bool {
        locked(&self.0).is_dropped
    }

    /// True if the connection was reset, by either side.
    pub fn is_reset(&self) -> bool {
        locked(&self.0).is_broken
    }

    /// Sets whether the kernel holds accepted bytes that are not sent.
    pub fn hold_unsent(&self, is_unsent: bool) {
        locked(&self.0).is_unsent = is_unsent;
    }
}

impl ServerEnd {
    pub(super) fn register(&self, key: ConnectionKey, ready: &ReadySockets) {
        locked(&self.0).ready = Some((key, ready.clone()));
        // A poll set reports the state at the registration.
        ClientEnd(Arc::clone(&self.0)).report();
    }

    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = locked(&self.0);
        if socket.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.room == 0 {
            socket.is_full = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(socket.room);
        socket.room -= taken;
        socket.to_client.extend(&bytes[..taken]);
        Ok(taken)
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = locked(&self.0);
        if socket.is_broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.to_server.is_empty() && !socket.is_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = buffer.len().min(socket.to_server.len());
        for (to, from) in buffer.iter_mut().zip(socket.to_server.drain(..taken)) {
            *to = from;
        }
        Ok(taken)
    }

    pub(super) fn is_sent(&self) -> bool {
        !locked(&self.0).is_unsent
    }

    pub(super) fn reset_on_drop(&self) {
        locked(&self.0).is_broken = true;
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut socket = locked(&self.0);
        socket.is_dropped = true;
        // A poll set forgets a socket that is closed.
        if let Some((_, ready)) = socket.ready.take() {
            let is_reported = std::mem::take(&mut socket.is_reported);
            drop(socket);
            if is_reported {
                locked(&ready.0).retain(|(_, end)| !Arc::ptr_eq(&end.0, &self.0));
            }
        }
    }
}
