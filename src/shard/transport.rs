//! Transport of a connection: bytes to and from its socket, and readiness.

use std::io;
use std::task::{Context, Poll, Waker, ready};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::net::TcpStream;

/// Non-blocking byte stream of a client. All waiting is by wakers; no other file of the shard
/// touches a socket.
#[derive(Debug)]
pub enum Transport {
    /// A TCP socket, registered with the shard's own runtime.
    Plain(TcpStream),
}

impl Transport {
    /// Writes some bytes; fails with `WouldBlock` while the socket accepts none.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Straight to the socket: the runtime's own record of it is asked only once it refuses.
            Self::Plain(stream) => match rustix::net::send(&*stream, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => stream.try_write(bytes),
                sent => sent.map_err(io::Error::from),
            },
        }
    }

    /// Ready once a write may succeed; otherwise the waker is set.
    pub(super) fn poll_write_ready(&self, waker: &Waker) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(&mut Context::from_waker(waker)),
        }
    }

    /// Reads some bytes. `Pending`: there are none, and the waker is set.
    pub(super) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => loop {
                ready!(stream.poll_read_ready(&mut Context::from_waker(waker)))?;
                match stream.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
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
                let _gone_already = stream.set_zero_linger();
            }
        }
    }
}
