//! Readiness of a shard's sockets: one edge-triggered poll set, of which the runtime knows only the
//! set itself. A socket costs the runtime no memory, and an event of a socket no lock.

use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::connection::ConnectionKey;
#[cfg(feature = "internals")]
use super::memory_socket::ReadySockets;
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
    poll: PollSet,
    /// Served in the next turn, whether or not their sockets become ready.
    next: Vec<Ready>,
}

/// Notifier of readiness.
#[derive(Debug)]
enum PollSet {
    Kernel {
        poll: AsyncFd<Poll>,
        events: Events,
    },
    #[cfg(feature = "internals")]
    Simulated(ReadySockets),
}

impl Sockets {
    /// An empty set, registered with the current runtime.
    #[expect(
        deprecated,
        reason = "unsound for types that don't own their descriptor; a Poll does, and the new way is unsafe"
    )]
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: PollSet::Kernel {
                poll: AsyncFd::with_interest(Poll::new()?, Interest::READABLE)?,
                events: Events::with_capacity(EVENTS_AT_ONCE),
            },
            next: Vec::new(),
        })
    }

    /// An empty set of simulated sockets.
    #[cfg(feature = "internals")]
    pub(super) fn simulated() -> Self {
        Self {
            poll: PollSet::Simulated(ReadySockets::default()),
            next: Vec::new(),
        }
    }

    /// True if there is a connection to serve, as far as a simulation knows.
    #[cfg(feature = "internals")]
    pub(super) fn has_ready(&self) -> bool {
        let is_reported = match &self.poll {
            PollSet::Kernel { .. } => false,
            PollSet::Simulated(ready) => !ready.is_empty(),
        };
        is_reported || !self.next.is_empty()
    }

    /// Adds the socket of a connection. It leaves the set when it is closed.
    pub(super) fn add(&self, key: ConnectionKey, transport: &mut Transport) -> io::Result<()> {
        match &self.poll {
            PollSet::Kernel { poll, .. } => {
                transport.register(poll.get_ref().registry(), Token(key.0 as usize))
            }
            #[cfg(feature = "internals")]
            PollSet::Simulated(ready) => {
                if let Transport::Simulated(end) = transport {
                    end.register(key.0, ready);
                }
                Ok(())
            }
        }
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
        if !self.next.is_empty() {
            return;
        }
        match &self.poll {
            PollSet::Kernel { poll, .. } => {
                if let Ok(mut found) = poll.readable().await {
                    // The events are still in the set.
                    found.retain_ready();
                }
            }
            #[cfg(feature = "internals")]
            PollSet::Simulated(ready) => ready.wait().await,
        }
    }

    /// Moves the connections to serve into `into`, which must be empty.
    pub(super) fn take(&mut self, into: &mut Vec<Ready>) {
        std::mem::swap(&mut self.next, into);
        let (poll, events) = match &mut self.poll {
            PollSet::Kernel { poll, events } => (poll, events),
            #[cfg(feature = "internals")]
            PollSet::Simulated(ready) => {
                let found = ready.take().into_iter();
                into.extend(found.map(|(key, readiness)| Ready {
                    key: ConnectionKey(key),
                    is_writable: readiness.is_writable,
                    ends_short: !readiness.is_over,
                }));
                return;
            }
        };
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
