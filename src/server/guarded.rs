//! HTTP socket wrapper: enforces the line ends of RFC 9112 and times out unread responses.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes of a line that are inspected: enough for the headers that define what follows the head.
const LINE_BYTES: usize = 64;

/// Part of the stream that is expected next.
#[derive(Debug, Default)]
enum Part {
    /// Request head.
    #[default]
    Head,
    /// Remaining bytes of a body.
    Body(u64),
    /// Frames, chunks or rejected data: no lines to check.
    Opaque,
}

/// Line-end filter: replaces a line feed without a preceding carriage return by NUL, which hyper
/// rejects with 400. Servers and proxies that disagree about line ends can be made to see different
/// requests (request smuggling).
#[derive(Debug, Default)]
struct LineEnds {
    part: Part,
    /// Start of the current line.
    line: Vec<u8>,
    /// Length of the current line, in bytes.
    length: usize,
    last: u8,
    /// Body length according to the head so far.
    body: u64,
    is_opaque: bool,
    has_request_line: bool,
}

impl LineEnds {
    fn check(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self.part {
                Part::Opaque => return,
                Part::Body(left) => {
                    let skipped = left.min(bytes.len() as u64);
                    bytes = &mut bytes[skipped as usize..];
                    self.part = match left - skipped {
                        0 => Part::Head,
                        left => Part::Body(left),
                    };
                }
                Part::Head => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        self.extend(bytes);
                        return;
                    };
                    let before = end.checked_sub(1).map_or(self.last, |at| bytes[at]);
                    if before != b'\r' {
                        bytes[end] = 0;
                        self.part = Part::Opaque;
                        return;
                    }
                    self.extend(&bytes[..=end]);
                    self.end_line();
                    bytes = &mut bytes[end + 1..];
                }
            }
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(LINE_BYTES - self.line.len());
        self.line.extend_from_slice(&bytes[..kept]);
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    fn end_line(&mut self) {
        let is_empty = self.length == 2;
        let line = std::mem::take(&mut self.line);
        (self.length, self.last) = (0, 0);
        if !is_empty {
            self.has_request_line = true;
            self.header(&line);
        } else if self.has_request_line {
            self.part = match (self.is_opaque, self.body) {
                (true, _) => Part::Opaque,
                (false, 0) => Part::Head,
                (false, length) => Part::Body(length),
            };
            (self.body, self.has_request_line) = (0, false);
        }
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            // hyper rejects a value that is not a number.
            let length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            self.body = length.unwrap_or(0);
        }
        self.is_opaque |= name.eq_ignore_ascii_case(b"transfer-encoding")
            || name.eq_ignore_ascii_case(b"upgrade");
    }
}

/// HTTP socket.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    socket: S,
    lines: LineEnds,
    /// Time limit for a write that makes no progress.
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(socket: S, write_timeout: Duration) -> Self {
        Self {
            socket,
            lines: LineEnds::default(),
            write_timeout,
            stalled: None,
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.socket
    }

    /// Returns the result of a write; an overdue write is an error.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.lines.check(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checked(text: &str, cuts: &[usize]) -> String {
        let (mut lines, mut bytes) = (LineEnds::default(), text.as_bytes().to_vec());
        let mut rest = &mut bytes[..];
        for cut in cuts {
            let (piece, after) = rest.split_at_mut((*cut).min(rest.len()));
            lines.check(piece);
            rest = after;
        }
        lines.check(rest);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    const GOOD: &str = "\r\nPOST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\n\na\nbGET / HTTP/1.1\r\nUpgrade: x\r\n\r\n\n\n";

    #[test]
    fn bare_line_feeds_are_rejected_in_heads_only() {
        for bad in [
            "\nGET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\naGET / HTTP/1.1\n\r\n",
        ] {
            assert!(checked(bad, &[]).contains('\0'), "{bad:?}");
        }
        assert_eq!(checked(GOOD, &[]), GOOD);
    }

    #[tokio::test]
    async fn an_unread_write_times_out() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut guarded = Guarded::new(ours, Duration::from_millis(20));
        let written = tokio::io::AsyncWriteExt::write_all(&mut guarded, &[0; 100]).await;
        assert_eq!(
            written.map_err(|error| error.kind()),
            Err(io::ErrorKind::TimedOut)
        );
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_result(cuts in proptest::collection::vec(1usize..40, 0..8)) {
            prop_assert_eq!(checked(GOOD, &cuts), GOOD);
            let bad = GOOD.replacen("HTTP/1.1\r\nUp", "HTTP/1.1\nUp", 1);
            prop_assert!(checked(&bad, &cuts).contains('\0'));
        }
    }
}
