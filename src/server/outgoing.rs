//! Response bodies. A body is passed to the socket in pieces. A long one is generated piece by
//! piece as the client reads, so that an unread response uses little memory.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::admission::Rate;
use crate::market::UnixNanos;

/// Max bytes passed to the socket at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Response body.
pub(super) struct Outgoing {
    content: Content,
    /// Permit of a response in progress; released with the last byte.
    permit: Option<OwnedSemaphorePermit>,
}

enum Content {
    Whole(Bytes),
    Made(Box<dyn Iterator<Item = Bytes> + Send>),
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Whole(rest) => format!("{} bytes", rest.len()),
            Content::Made(_) => "made in pieces".to_owned(),
        };
        f.debug_tuple("Outgoing").field(&kind).finish()
    }
}

impl Outgoing {
    /// Creates a body from complete data.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::Whole(bytes.into()),
            permit: None,
        }
    }

    /// Creates a body whose pieces are generated as the client reads.
    pub(super) fn made(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self {
            content: Content::Made(Box::new(pieces)),
            permit: None,
        }
    }

    /// Permit of the body, which is no longer released with it.
    pub(super) const fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }

    /// Keeps a permit for the lifetime of the body.
    pub(super) fn with_permit(self, permit: OwnedSemaphorePermit) -> Self {
        Self {
            permit: Some(permit),
            ..self
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.content {
            Content::Whole(rest) if rest.is_empty() => None,
            Content::Whole(rest) => Some(rest.split_to(rest.len().min(PIECE_BYTES))),
            Content::Made(pieces) => pieces.next(),
        };
        if piece.is_none() {
            self.permit = None;
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(rest) if rest.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(rest) => SizeHint::with_exact(rest.len() as u64),
            Content::Made(_) => SizeHint::default(),
        }
    }
}

/// Request rate over all clients.
#[derive(Debug, Default)]
pub struct RequestRate(Mutex<Rate>);

impl RequestRate {
    /// Consumes one request; returns false if the rate is exceeded.
    pub(super) fn take(&self, per_second: u32, now: UnixNanos) -> bool {
        let mut rate = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(per_second, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_its_burst_and_then_its_rate() {
        let (rate, second) = (RequestRate::default(), 1_000_000_000);
        let start = UnixNanos(1_700_000_000 * second);
        assert_eq!((0..1000).filter(|_| rate.take(10, start)).count(), 50);
        let later = UnixNanos(start.0 + second);
        assert_eq!((0..1000).filter(|_| rate.take(10, later)).count(), 10);
    }
}
