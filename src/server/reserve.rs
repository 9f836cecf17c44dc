//! A descriptor held back for the time when the process has no more: clients are refused instead of left hanging, and
//! the admin address goes on answering.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::market::UnixNanos;

/// After descriptors ran out, clients are refused for so long, so that the last ones stay free.
const REFUSE_FOR: Duration = Duration::from_secs(1);
/// Descriptors have run out no more once it has not happened for so long.
const OVER_AFTER: Duration = Duration::from_secs(60);
/// Time for a refused client to send its request, which must be read before the answer, or the client may miss it.
const REQUEST_TIME: Duration = Duration::from_millis(50);
/// Rest where not even the reserve helps.
const REST: Duration = Duration::from_millis(100);
pub(super) const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\n\r\nthe server cannot accept connections";

/// A listener's reserve, and whether it was needed of late.
#[derive(Debug)]
pub(super) struct Reserve {
    held: Option<File>,
    /// Time at which descriptors ran out last.
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

    /// Notes an accepted client; whether it is to be refused, because descriptors have just run out.
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

    /// Accepts one client on the reserved descriptor. Logs the beginning of the state, not each client.
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
        match tokio::time::timeout(REST, listener.accept()).await {
            Ok(Ok(accepted)) => Some(accepted),
            Ok(Err(_still_none)) => {
                tokio::time::sleep(REST).await;
                None
            }
            Err(_left_meanwhile) => None,
        }
    }

    /// Takes the descriptor back, once the client that had it is gone.
    pub(super) fn take_back(&mut self) {
        self.refused += 1;
        self.hold();
    }
}

/// Answers 503 and closes.
pub(super) async fn refuse(mut stream: TcpStream) {
    let mut request = [0; 1024];
    let answered = async {
        // Whatever it asks, the answer is the same.
        let _asked = tokio::time::timeout(REQUEST_TIME, stream.read(&mut request)).await;
        stream.write_all(BUSY).await?;
        stream.shutdown().await
    };
    // A client that takes nothing is not waited for.
    let _gone = tokio::time::timeout(2 * REQUEST_TIME, answered).await;
}
