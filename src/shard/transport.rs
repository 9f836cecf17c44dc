//! Transport of a connection: bytes to and from its socket, and readiness.

use std::io::{self, Read, Write};
use std::time::Duration;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendAncillaryBuffer, SendFlags};
use rustls::ServerConnection;

#[cfg(feature = "internals")]
use super::memory_socket::ServerEnd;
use super::tls::TlsStream;

/// Non-blocking byte stream of a client. All waiting is by the shard's poll set; no other file of
/// the shard touches a socket.
#[derive(Debug)]
pub enum Transport {
    /// A TCP socket.
    Plain(TcpStream),
    /// A TCP socket with TLS.
    Tls(Box<TlsStream<Socket>>),
    /// A socket in memory.
    #[cfg(feature = "internals")]
    Simulated(ServerEnd),
}

/// Socket below TLS. Raises no signal if the client has closed it.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut control = SendAncillaryBuffer::default();
        let sent = rustix::net::sendmsg(&self.0, slices, &mut control, SendFlags::NOSIGNAL);
        Ok(sent?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport {
    /// Takes a socket out of the runtime that has served its handshake.
    pub fn plain(stream: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self::Plain(TcpStream::from_std(stream.into_std()?)))
    }

    /// Takes a socket with its TLS session out of the runtime that has served both handshakes.
    pub fn tls(stream: tokio::net::TcpStream, session: ServerConnection) -> io::Result<Self> {
        let socket = TcpStream::from_std(stream.into_std()?);
        Ok(Self::Tls(Box::new(TlsStream::new(Socket(socket), session))))
    }

    /// The socket itself; `None` if it is in memory.
    #[cfg_attr(
        not(feature = "internals"),
        expect(
            clippy::unnecessary_wraps,
            reason = "sockets in memory are of simulations"
        )
    )]
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(stream) => Some(&stream.socket.0),
            #[cfg(feature = "internals")]
            Self::Simulated(_) => None,
        }
    }

    /// Adds the socket to a poll set, which reports each time that it becomes readable or writable.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &mut stream.socket.0,
            #[cfg(feature = "internals")]
            Self::Simulated(_) => return Ok(()),
        };
        stream.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Writes some bytes. Fails with `WouldBlock` while the socket accepts none; the poll set
    /// reports it once it does.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => Ok(rustix::net::send(&*stream, bytes, SendFlags::NOSIGNAL)?),
            Self::Tls(stream) => stream.write(bytes),
            #[cfg(feature = "internals")]
            Self::Simulated(end) => end.write(bytes),
        }
    }

    /// Hands all bytes that were written over to the socket; fails with `WouldBlock` while it
    /// accepts no more of them.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
            #[cfg(feature = "internals")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Reads some bytes. Fails with `WouldBlock` while there are none; the poll set reports the
    /// next ones.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            #[cfg(feature = "internals")]
            Self::Simulated(end) => end.read(buffer),
        }
    }

    /// True if a read that does not fill its buffer has emptied the socket.
    pub(super) const fn ends_short(&self) -> bool {
        !matches!(self, Self::Tls(_))
    }

    /// True if the kernel has sent everything that was written since [`Self::expect_all_sent`].
    pub(super) fn is_sent(&self) -> bool {
        if let Self::Tls(stream) = self
            && !stream.is_flushed()
        {
            return false;
        }
        #[cfg(feature = "internals")]
        if let Self::Simulated(end) = self {
            return end.is_sent();
        }
        let Some(socket) = self.socket() else {
            return true;
        };
        let mut looked_at = [PollFd::new(socket, PollFlags::OUT)];
        let at_once = rustix::time::Timespec::default();
        poll(&mut looked_at, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Makes the socket unwritable from now on while the kernel holds unsent bytes.
    pub(super) fn expect_all_sent(&self) {
        // Where the option is missing, the wait for the client's close frame begins a little early.
        let _missing = self
            .socket()
            .map(|socket| socket2::SockRef::from(socket).set_tcp_notsent_lowat(1));
    }

    /// Ends the stream in the way of its protocol, before it is dropped.
    pub(super) fn notify_close(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Tls(stream) => stream.notify_close(),
            #[cfg(feature = "internals")]
            Self::Simulated(_) => {}
        }
    }

    /// Discards unsent bytes and resets the connection when it is dropped.
    pub(super) fn reset_on_drop(&self) {
        // A connection that is broken already needs no reset.
        let _gone_already = self
            .socket()
            .map(|socket| socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)));
        #[cfg(feature = "internals")]
        if let Self::Simulated(end) = self {
            end.reset_on_drop();
        }
    }
}
