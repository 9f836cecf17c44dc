//! Readiness of a shard's sockets: one edge-triggered poll set, of which the runtime knows only the
//! set itself. A socket costs the runtime no memory, and an event of a socket no lock.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::connection::ConnectionKey;
use super::transport::Transport;

/// Events taken from the kernel at once.
const EVENTS_AT_ONCE: usize = 256;

/// A connection whose turn it is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub key: ConnectionKey,
    /// Its socket accepts bytes again.
    pub is_writable: bool,
    /// A read that does not fill its buffer has emptied the socket: the poll set reports whatever
    /// comes later.
    pub ends_short: bool,
}

/// Sockets of a shard, and the connections that are served in the next turn.
#[derive(Debug)]
pub(super) struct Sockets {
    poll: AsyncFd<Poll>,
    events: Events,
    /// Served in the next turn, whether or not their sockets become ready.
    next: Vec<Ready>,
}

impl Sockets {
    /// An empty set, registered with the current runtime.
    #[expect(
        deprecated,
        reason = "unsound for types that don't own their descriptor; a Poll does, and the new way is unsafe"
    )]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: AsyncFd::with_interest(Poll::new()?, Interest::READABLE)?,
            events: Events::with_capacity(EVENTS_AT_ONCE),
            next: Vec::new(),
        })
    }

    /// Adds the socket of a connection. It leaves the set when it is closed.
    pub(super) fn add(&self, key: ConnectionKey, transport: &mut Transport) -> io::Result<()> {
        transport.register(self.poll.get_ref().registry(), Token(key.0 as usize))
    }

    /// Serves a connection in the next turn.
    pub(super) fn serve_next(&mut self, key: ConnectionKey) {
        self.next.push(Ready {
            key,
            is_writable: false,
            ends_short: false,
        });
    }

    /// Puts back the connections that a turn had no time for, in front of those found ready since.
    pub(super) fn put_back(&mut self, rest: impl Iterator<Item = Ready>) {
        self.next.splice(0..0, rest);
    }

    /// Waits until there is a connection to serve.
    pub(super) async fn ready(&self) {
        if self.next.is_empty()
            && let Ok(mut found) = self.poll.readable().await
        {
            // The events are still in the set.
            found.retain_ready();
        }
    }

    /// Moves the connections to serve into `into`, which must be empty.
    pub(super) fn take(&mut self, into: &mut Vec<Ready>) {
        std::mem::swap(&mut self.next, into);
        let Self { poll, events, .. } = self;
        let mut is_last = false;
        while !is_last {
            let found = poll.try_io_mut(Interest::READABLE, |poll| {
                poll.poll(events, Some(Duration::ZERO))?;
                is_last = events.iter().count() < EVENTS_AT_ONCE;
                into.extend(events.iter().map(|event| Ready {
                    key: ConnectionKey(event.token().0 as u32),
                    is_writable: event.is_writable(),
                    // An end that was reported with the bytes before it is not reported again.
                    ends_short: !(event.is_read_closed() || event.is_error()),
                }));
                // Of a set that has been emptied the runtime waits for the next event.
                if is_last {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(())
            });
            if found.is_err() {
                return;
            }
        }
    }
}
