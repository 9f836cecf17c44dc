//! Bodies of publish requests as they arrive, with a total memory bound and a minimum rate for
//! each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};

use super::Server;
use super::response::{HttpResponse, busy, refusal};
use crate::config::PUBLISH_BODIES;
use crate::metrics::Refused;

/// Max time for a body, and the time that any body is given.
const TIME_MAX: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(3);
/// Minimum rate after that time.
const BYTES_PER_SECOND_MIN: u32 = 16 * 1024;

/// Bytes of a body, counted towards the total of all bodies in memory.
pub(super) struct BodyBytes {
    bytes: Vec<u8>,
    all: Arc<AtomicUsize>,
}

impl BodyBytes {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends bytes if all bodies together remain within `most` bytes.
    fn add(&mut self, more: &[u8], most: usize) -> bool {
        let before = self.all.fetch_add(more.len(), Ordering::Relaxed);
        if before + more.len() > most {
            self.all.fetch_sub(more.len(), Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(more);
        true
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Max size of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit {
    pub(super) bytes: usize,
    /// Setting that limits it.
    pub(super) key: &'static str,
}

impl BodyLimit {
    /// Limit of the config.
    pub(super) fn of_config(server: &Server) -> Self {
        Self {
            bytes: server.settings.load().publish_bytes_max,
            key: "limits.publish",
        }
    }

    /// The lower one of two limits.
    pub(super) const fn lower(self, other: Self) -> Self {
        if other.bytes < self.bytes {
            other
        } else {
            self
        }
    }

    fn exceeded(self) -> HttpResponse {
        let Self { bytes, key } = self;
        let message = format!("body too large: expected at most {bytes} bytes ({key})");
        refusal(StatusCode::PAYLOAD_TOO_LARGE, &message)
    }
}

/// An empty body, which counts as it grows.
fn empty(server: &Server) -> BodyBytes {
    BodyBytes {
        bytes: Vec::new(),
        all: Arc::clone(&server.body_bytes),
    }
}

/// Appends bytes to a body, unless all bodies together become too large.
fn append(server: &Server, body: &mut BodyBytes, more: &[u8]) -> Result<(), HttpResponse> {
    let bytes_max = server.settings.load().publish_bytes_max;
    if body.add(more, PUBLISH_BODIES * bytes_max) {
        return Ok(());
    }
    server.metrics.count_refused(Refused::Busy);
    Err(busy("too many concurrent publish requests"))
}

/// Takes a body that has arrived.
pub(super) fn take(
    server: &Server,
    bytes: &[u8],
    limit: BodyLimit,
) -> Result<BodyBytes, HttpResponse> {
    if bytes.len() > limit.bytes {
        return Err(limit.exceeded());
    }
    let mut body = empty(server);
    append(server, &mut body, bytes)?;
    Ok(body)
}

/// Time limit, from its start, for a body of which `bytes` have arrived.
fn time_for(bytes: usize) -> Duration {
    let earned = Duration::from_secs(bytes as u64) / BYTES_PER_SECOND_MIN;
    TIME_MAX.min(GRACE + earned)
}

/// Reads a complete body.
pub(super) async fn read(
    server: &Server,
    mut body: Incoming,
    limit: BodyLimit,
) -> Result<BodyBytes, HttpResponse> {
    if body.size_hint().lower() > limit.bytes as u64 {
        return Err(limit.exceeded());
    }
    let mut held = empty(server);
    let begun = server.clock.now();
    loop {
        let end = begun.plus(time_for(held.bytes.len()));
        let left = end.since(server.clock.now());
        let Ok(frame) = tokio::time::timeout(left, body.frame()).await else {
            server.metrics.count_refused(Refused::SlowBody);
            let message =
                format!("body too slow: expected at least {BYTES_PER_SECOND_MIN} bytes per second");
            return Err(refusal(StatusCode::REQUEST_TIMEOUT, &message));
        };
        let frame = match frame {
            None => return Ok(held),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(refusal(StatusCode::BAD_REQUEST, "incomplete body")),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if held.bytes.len() + data.len() > limit.bytes {
            return Err(limit.exceeded());
        }
        append(server, &mut held, &data)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_a_minimum_rate_and_a_maximum_time() {
        assert_eq!(time_for(0), GRACE);
        assert_eq!(time_for(16 * 1024), GRACE + Duration::from_secs(1));
        assert_eq!(time_for(8 << 20), TIME_MAX);
    }

    #[test]
    fn body_bytes_are_counted_while_in_memory() {
        let all = Arc::new(AtomicUsize::new(0));
        let held = || BodyBytes {
            bytes: Vec::new(),
            all: Arc::clone(&all),
        };
        let (mut one, mut other) = (held(), held());
        assert!(one.add(&[0; 60], 100) && !other.add(&[0; 60], 100) && other.add(&[0; 40], 100));
        drop(one);
        assert!(other.add(&[0; 60], 100));
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
