//! Reserved file descriptor for when the process has no more: clients are rejected instead of left
//! hanging, and the admin address remains available.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::market::UnixNanos;

/// Time for which clients are rejected after descriptors ran out, so that the last ones stay free.
const REFUSE_FOR: Duration = Duration::from_secs(1);
/// Time without a shortage after which it counts as over.
const OVER_AFTER: Duration = Duration::from_secs(60);
/// Time for a rejected client to send its request, which must be read before the response, or the
/// client may miss it.
const REQUEST_TIME: Duration = Duration::from_millis(50);
/// Pause if even the reserve is in use.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
pub(super) const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\n\r\nthe server cannot accept connections\n";

/// Reserved descriptor of a listener, and whether it was needed recently.
#[derive(Debug)]
pub(super) struct Reserve {
    held: Option<File>,
    /// Time at which descriptors last ran out.
    exhausted: Option<UnixNanos>,
    refused: u64,
}

/// True if an error of `accept` means that the process or the system has no more descriptors.
pub(super) fn is_exhausted(error: &std::io::Error) -> bool {
    let number = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE]
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}

impl Reserve {
    pub(super) fn new() -> Self {
        let mut reserve = Self {
            held: None,
            exhausted: None,
            refused: 0,
        };
        reserve.hold();
        reserve
    }

    fn hold(&mut self) {
        if self.held.is_none() {
            self.held = File::open("/dev/null").ok();
        }
    }

    /// Records an accepted client; returns true if it must be rejected, because descriptors have
    /// just run out.
    pub(super) fn note_accepted(&mut self, now: UnixNanos) -> bool {
        self.hold();
        let Some(exhausted) = self.exhausted else {
            return false;
        };
        if now.since(exhausted) >= OVER_AFTER {
            tracing::info!(
                refused = self.refused,
                "file descriptors are available again"
            );
            (self.exhausted, self.refused) = (None, 0);
        }
        now.since(exhausted) < REFUSE_FOR
    }

    /// Accepts one client on the reserved descriptor. Logs the start of the shortage, not each
    /// client.
    pub(super) async fn accept(
        &mut self,
        listener: &TcpListener,
        now: UnixNanos,
    ) -> Option<(TcpStream, SocketAddr)> {
        if self.exhausted.replace(now).is_none() {
            tracing::warn!(
                "out of file descriptors, rejecting new clients with 503; raise the limit (ulimit -n, LimitNOFILE) or lower limits.connections"
            );
        }
        self.held = None;
        match tokio::time::timeout(RETRY_PAUSE, listener.accept()).await {
            Ok(Ok(accepted)) => Some(accepted),
            Ok(Err(_still_none)) => {
                tokio::time::sleep(RETRY_PAUSE).await;
                None
            }
            Err(_left_meanwhile) => None,
        }
    }

    /// Reopens the reserved descriptor once its client is gone.
    pub(super) fn take_back(&mut self) {
        self.refused += 1;
        self.hold();
    }
}

/// Sends a response and closes.
pub(super) async fn refuse(mut stream: TcpStream, response: &[u8]) {
    let mut request = [0; 1024];
    let responded = async {
        // The response does not depend on the request.
        let _asked = tokio::time::timeout(REQUEST_TIME, stream.read(&mut request)).await;
        stream.write_all(response).await?;
        stream.shutdown().await
    };
    // Does not wait for a client that does not read.
    let _gone = tokio::time::timeout(2 * REQUEST_TIME, responded).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_response_has_the_announced_length() {
        let text = std::str::from_utf8(BUSY).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let length = head
            .split_once("Content-Length: ")
            .map(|(_, length)| length);
        assert_eq!(length, Some(body.len().to_string().as_str()));
    }
}
