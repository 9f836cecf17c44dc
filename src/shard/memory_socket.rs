//! Socket in memory, of which a simulation decides how many bytes it accepts and when.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Sockets that became ready since the shard has last taken them, by number of the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadySockets(Arc<Mutex<Vec<(u32, ClientEnd)>>>);

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

    /// Takes the ready sockets, each with the number of its connection.
    pub(super) fn take(&self) -> Vec<(u32, Readiness)> {
        let readiness = |(key, end): (u32, ClientEnd)| {
            let mut socket = locked(&end.0);
            socket.is_reported = false;
            let readiness = Readiness {
                is_writable: socket.room > 0,
                is_over: socket.is_ended || socket.is_broken,
            };
            (key, readiness)
        };
        locked(&self.0).drain(..).map(readiness).collect()
    }
}

/// Readiness of a socket in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readiness {
    /// The socket accepts bytes.
    pub is_writable: bool,
    /// The client has closed or reset the connection.
    pub is_over: bool,
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
    ready: Option<(u32, ReadySockets)>,
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
    pub(super) fn register(&self, key: u32, ready: &ReadySockets) {
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
