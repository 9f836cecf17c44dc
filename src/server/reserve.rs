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
/// Interval between the reports of a shortage that continues.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// Time for a rejected client to send its request, which must be read before the response, or the
/// client may miss it.
const REQUEST_TIME: Duration = Duration::from_millis(50);
/// Pause if even the reserve is in use.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
pub(super) const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\n\r\nthe server cannot accept connections\n";

/// Reserved descriptor of a listener, and whether it was needed recently.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    held: Option<File>,
    /// Time at which descriptors last ran out.
    exhausted: Option<UnixNanos>,
    /// Time of the last report.
    reported: Option<UnixNanos>,
    /// Clients rejected since the last report.
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
        let mut reserve = Self::default();
        reserve.hold();
        reserve
    }

    /// Reopens the reserved descriptor if it is in use.
    pub(super) fn hold(&mut self) {
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
        let since = now.since(exhausted);
        if since >= OVER_AFTER {
            tracing::info!(
                refused = self.refused,
                "file descriptors are available again"
            );
            (self.exhausted, self.reported, self.refused) = (None, None, 0);
        }
        since < REFUSE_FOR
    }

    /// Records that descriptors have run out; returns the number of clients rejected since the last
    /// report if the next one is due.
    fn note_exhausted(&mut self, now: UnixNanos) -> Option<u64> {
        self.exhausted = Some(now);
        let is_due = |reported| now.since(reported) >= REPORT_EVERY;
        if !self.reported.is_none_or(is_due) {
            return None;
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.refused))
    }

    /// Accepts one client on the reserved descriptor, which must be held again once it is gone.
    pub(super) async fn accept(
        &mut self,
        listener: &TcpListener,
        now: UnixNanos,
    ) -> Option<(TcpStream, SocketAddr)> {
        if let Some(refused) = self.note_exhausted(now) {
            tracing::warn!(
                refused,
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

    /// Rejects a client for the lack of descriptors; without a response if it begins with TLS and
    /// could not read one.
    pub(super) async fn refuse(&mut self, stream: TcpStream, is_tls: bool) {
        self.refused += 1;
        if !is_tls {
            refuse(stream, BUSY).await;
        }
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
    #[test]
    fn a_shortage_is_reported_once_a_minute_with_the_number_of_rejected_clients() {
        let at = |seconds: u64| UnixNanos(seconds * 1_000_000_000);
        let mut reserve = Reserve::new();
        assert!(!reserve.note_accepted(at(1)), "no shortage yet");
        assert_eq!(reserve.note_exhausted(at(10)), Some(0));
        reserve.refused = 3;
        for second in 10..70 {
            assert_eq!(reserve.note_exhausted(at(second)), None, "{second}");
        }
        assert_eq!(reserve.note_exhausted(at(70)), Some(3));
        assert!(reserve.note_accepted(at(70)), "the last ones stay free");
        assert!(!reserve.note_accepted(at(71)), "descriptors are free again");
        assert_eq!(reserve.note_exhausted(at(75)), None);
        // The next shortage begins a minute after the end of this one.
        assert!(!reserve.note_accepted(at(135)));
        assert_eq!(reserve.note_exhausted(at(136)), Some(0));
    }
}
