//! Transport of a connection: bytes to and from its socket, and readiness.

use std::io::{self, Read};
use std::time::Duration;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SendFlags;

/// Non-blocking byte stream of a client. All waiting is by the shard's poll set; no other file of
/// the shard touches a socket.
#[derive(Debug)]
pub enum Transport {
    /// A TCP socket.
    Plain(TcpStream),
}

impl Transport {
    /// Takes a socket out of the runtime that has served its handshake.
    pub fn plain(stream: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self::Plain(TcpStream::from_std(stream.into_std()?)))
    }

    /// Adds the socket to a poll set, which reports each time that it becomes readable or writable.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Plain(stream) => {
                stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
            }
        }
    }

    /// Writes some bytes. Fails with `WouldBlock` while the socket accepts none; the poll set
    /// reports it once it does.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => Ok(rustix::net::send(&*stream, bytes, SendFlags::NOSIGNAL)?),
        }
    }

    /// Reads some bytes. Fails with `WouldBlock` while there are none; the poll set reports the
    /// next ones.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
        }
    }

    /// True if the kernel has sent everything that it accepted since [`Self::expect_all_sent`].
    pub(super) fn is_sent(&self) -> bool {
        match self {
            Self::Plain(stream) => {
                let mut looked_at = [PollFd::new(stream, PollFlags::OUT)];
                let at_once = rustix::time::Timespec::default();
                poll(&mut looked_at, Some(&at_once)).is_ok_and(|ready| ready > 0)
            }
        }
    }

    /// Makes the socket unwritable from now on while the kernel holds unsent bytes.
    pub(super) fn expect_all_sent(&self) {
        match self {
            Self::Plain(stream) => {
                // Where the option is missing, the wait for the client's close frame begins a
                // little early.
                let _missing = socket2::SockRef::from(stream).set_tcp_notsent_lowat(1);
            }
        }
    }

    /// Discards unsent bytes and resets the connection when it is dropped.
    pub(super) fn reset_on_drop(&self) {
        match self {
            Self::Plain(stream) => {
                // A connection that is broken already needs no reset.
                let _gone_already = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}
