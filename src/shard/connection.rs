//! One client: its socket, its session, its outbox.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::agents::Agent;
use super::reader::{FrameRateLimit, Partial};
use super::transport::Transport;
use crate::access::{Principal, Seat};
use crate::admission::Admitted;
use crate::auth::Grant;
use crate::log::{SourceId, TopicId};
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::outbox::{Outbox, OverflowAction, View};
use crate::protocol::{Encoding, LagLevel};
use crate::session::{Held, Session};

/// Bytes read at once.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// Number of a connection within its shard; reused after the connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub u32);

/// Distinguishes successive connections with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation(pub u32);

/// Counts as one of `limits.connections` as long as it lives.
#[derive(Debug)]
pub struct Permit(pub std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A socket that has finished its WebSocket handshake.
#[derive(Debug)]
pub struct Adopted {
    /// Its bytes, in both directions.
    pub transport: Transport,
    /// Encoding requested by the client.
    pub encoding: Encoding,
    /// Bytes of the largest message that it takes.
    pub message_max: u32,
    /// Bytes received after the handshake.
    pub read_ahead: Bytes,
    /// Remote address.
    pub peer: SocketAddr,
    /// User agent, truncated and without control characters.
    pub agent: Box<str>,
    /// Identity of the client.
    pub principal: Principal,
    /// True for the echo route.
    #[cfg(feature = "echo")]
    pub is_echo: bool,
    /// Credentials of the handshake.
    pub credentials: Credentials,
    /// `None` for a connection above the limit, which is notified and closed.
    pub permit: Option<Permit>,
    /// Counts for the client's address; `None` for an exempt one.
    pub admitted: Option<Admitted>,
}

/// Credentials of a handshake.
#[derive(Debug)]
pub enum Credentials {
    /// None, and none are needed.
    NotNeeded,
    /// None: the client must authenticate.
    Missing,
    /// Identity that the client has proven.
    Proven(Grant),
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Since this time, `bye` and the close frame are queued behind data that the client has not
    /// read.
    Flushing(UnixNanos),
    /// Everything was sent at this time; the client may close its side.
    Sent(UnixNanos),
    /// The client has closed; the server closes once its answer is sent.
    Answered,
}

/// One client. Fields of the hot path are first and small; the others are in `Peer`.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, a byte each"
)]
pub(super) struct Connection {
    pub transport: Transport,
    pub outbox: Outbox,
    /// Something is due for its socket in this turn.
    pub dirty: bool,
    /// Its conflated values are sent in the next round.
    pub in_round: bool,
    /// Reading was paused; there may be requests in the socket.
    pub left_unread: bool,
    /// Its socket was full, and has not been sent everything since.
    pub waited: bool,
    pub closing: Option<Closing>,
    /// Bytes of this connection included in the gauge of queued bytes.
    pub queued_reported: u32,
    /// Lag level under which the gauge of slow consumers counts it.
    pub level_reported: LagLevel,
    pub peer: Box<Peer>,
}

/// State for a client's requests and timers. Small, because there are very many; the state that
/// only some clients have is in [`Backpressure`] and [`Inbox`].
#[derive(Debug)]
pub(super) struct Peer {
    pub session: Session,
    pub principal: Principal,
    #[cfg(feature = "echo")]
    pub is_echo: bool,
    pub partial: Option<Box<Partial>>,
    pub guard: FrameRateLimit,
    pub generation: Generation,
    /// Time of the last received bytes.
    pub received: UnixNanos,
    /// True if a ping was sent and nothing received since.
    pub pinged: bool,
    /// Time of the next lag check; timers of other times are void.
    pub lag_at: UnixNanos,
    pub next_heartbeat: UnixNanos,
    /// Time of the next keepalive check; timers of other times are void.
    pub checkup_at: UnixNanos,
    /// Heartbeat interval, as in its `welcome`.
    pub heartbeat_ms: u32,
    /// State of a client that is not read from or that does not read.
    pub backpressure: Option<Box<Backpressure>>,
    pub inbox: Inbox,
    pub permit: Option<Permit>,
    /// Counts for the client's address as long as it lives.
    pub admitted: Option<Admitted>,
    /// Counts as a connection of its client.
    pub seat: Option<Box<Seat>>,
    pub ip: IpAddr,
    pub port: u16,
    pub agent: Agent,
    pub connected: UnixNanos,
    /// Events of this connection included in the counter of unaccounted events.
    pub unaccounted: u32,
    /// Sources that are not live, of which the client was notified, with the time of the change.
    #[expect(clippy::box_collection, reason = "a pointer; most clients have none")]
    pub known_sources: Option<Box<Vec<(SourceId, UnixNanos)>>>,
}

// Very many of each: a connection fills four lines of the cache, a peer a block of the allocator.
// Sockets of debug builds are larger.
const _: () = assert!(
    size_of::<Connection>() <= 256 || cfg!(debug_assertions),
    "a connection takes 256 bytes"
);
const _: () = assert!(size_of::<Peer>() <= 256, "a peer takes 256 bytes");

/// State of a client that is not read from or that does not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Backpressure {
    /// Time since when reading is paused; its silence does not count from then on.
    pub paused_since: Option<UnixNanos>,
    /// Time since when its socket has accepted no queued data and no pong was received.
    pub stalled_since: Option<UnixNanos>,
    /// Time since when it is continuously late.
    pub late_since: Option<UnixNanos>,
    /// Answer to the latest ping that came while the socket was full.
    pub pong: Option<Box<[u8]>>,
}

static NONE: Backpressure = Backpressure {
    paused_since: None,
    stalled_since: None,
    late_since: None,
    pong: None,
};

impl Peer {
    /// Its state under backpressure.
    pub(super) fn backpressure(&self) -> &Backpressure {
        self.backpressure.as_deref().unwrap_or(&NONE)
    }

    /// Its state under backpressure, to change it.
    pub(super) fn backpressure_mut(&mut self) -> &mut Backpressure {
        self.backpressure.get_or_insert_default()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        self.backpressure.take_if(|state| **state == NONE);
        self.session.shrink();
    }
}

/// Received requests that are executed in later turns, each with its encoding.
#[derive(Debug, Default)]
pub(super) struct Inbox(Option<Box<Requests>>);

/// Memory of an [`Inbox`], which most clients do not need most of the time.
#[derive(Debug, Default)]
struct Requests {
    queue: VecDeque<(Vec<u8>, Encoding)>,
}

impl Inbox {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn push(&mut self, request: Vec<u8>, encoding: Encoding) {
        let requests = self.0.get_or_insert_default();
        requests.queue.push_back((request, encoding));
    }

    /// Takes the oldest request; releases the memory with the last one.
    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, Encoding)> {
        let request = self.0.as_mut()?.queue.pop_front();
        self.0.take_if(|requests| requests.queue.is_empty());
        request
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Memory in bytes.
    fn bytes(&self) -> usize {
        let queue = self.0.iter().flat_map(|requests| &requests.queue);
        queue.map(|(bytes, _)| bytes.len() + REQUEST_BYTES).sum()
    }
}

/// Result of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The socket accepted everything.
    All,
    /// The socket accepts no more now, or the client must read first.
    Blocked,
    /// There is more, but other connections are served first.
    More,
    /// The socket failed with this error.
    Broken(std::io::ErrorKind),
}

/// Bytes written for one connection per turn before the others are served.
const TURN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Memory of a queued request in bytes, in addition to its payload.
const REQUEST_BYTES: usize = 64;
/// Opcode of a pong.
const PONG: u8 = 10;

impl Connection {
    /// Writes everything due until the socket accepts no more.
    pub(super) fn flush(&mut self, view: &mut View<'_>) -> Flushed {
        let mut written = 0;
        let lags = self.waited || self.outbox.level() != LagLevel::Ok;
        view.counts.serve(lags);
        view.counts.begin_flush();
        let flushed = loop {
            if self.outbox.frames.blocked {
                break Flushed::Blocked;
            }
            let is_held = self.outbox.frames.is_held();
            let is_last = !is_held && self.outbox.fill(view);
            self.outbox.frames.seal();
            if self.outbox.frames.is_ping_due() {
                // The beginning of a long turn is no fair reference: the client had less time.
                let now = view.now.max(view.counts.now());
                self.outbox.ping(now, view.limits.behind_max);
            }
            match self.write(&mut written) {
                Some(flushed) => break flushed,
                None if is_held && self.outbox.has_more() => break Flushed::Blocked,
                None if is_held || is_last => break Flushed::All,
                None if written > TURN_BYTES_MAX => break Flushed::More,
                None if view.counts.has_worked_enough() => break Flushed::More,
                None => {}
            }
        };
        view.counts.flushed(written);
        match flushed {
            Flushed::Blocked => {
                self.waited = true;
                let state = self.peer.backpressure_mut();
                if written > 0 || state.stalled_since.is_none() {
                    state.stalled_since = Some(view.now);
                }
            }
            Flushed::All if self.waited => {
                self.waited = false;
                self.peer.backpressure_mut().stalled_since = None;
            }
            _ => {}
        }
        flushed
    }

    /// Writes the frame buffer. `None` if the socket accepted all of it, and everything before it.
    fn write(&mut self, written: &mut usize) -> Option<Flushed> {
        while !self.outbox.frames.is_empty() {
            match self.transport.write(self.outbox.frames.unsent()) {
                Ok(taken) => {
                    self.outbox.frames.advance(taken);
                    *written += taken;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.outbox.frames.blocked = true;
                    return Some(Flushed::Blocked);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Flushed::Broken(error.kind())),
            }
        }
        match self.transport.flush() {
            Ok(()) => None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.outbox.frames.blocked = true;
                Some(Flushed::Blocked)
            }
            Err(error) => Some(Flushed::Broken(error.kind())),
        }
    }

    /// The socket accepts bytes again.
    pub(super) fn unblock(&mut self) {
        self.outbox.frames.blocked = false;
        let state = self.peer.backpressure.as_mut();
        if let Some(pong) = state.and_then(|state| state.pong.take()) {
            self.outbox.frames.frames(&pong);
        }
    }

    /// True if requests wait until the responses before them are sent.
    pub(super) fn holds_requests(&self, control_max: usize) -> bool {
        self.outbox.requested_bytes() > control_max
            || (self.outbox.is_waiting() && self.outbox.responses_wait())
    }

    /// True if the requests read ahead have reached their bound, so that no more are read.
    /// Up to then reading goes on, for the control frames between and behind them.
    pub(super) fn reading_paused(&self, message_bytes_max: usize) -> bool {
        let inbox = &self.peer.inbox;
        !inbox.is_empty() && inbox.bytes() + READ_BYTES > message_bytes_max
    }

    /// Writes pongs and the answer to a close. While the socket is full, only the latest pong is
    /// kept (RFC 6455, section 5.5.3), so that pings need no limit.
    pub(super) fn reply(&mut self, frames: &[u8]) {
        if !self.outbox.frames.blocked {
            return self.outbox.frames.frames(frames);
        }
        let mut rest = frames;
        // Control frames of a server: two bytes, then a payload of at most 125.
        while let [first, len, ..] = rest {
            let (frame, behind) = rest.split_at((2 + usize::from(*len)).min(rest.len()));
            if first & 0x0f == PONG {
                self.peer.backpressure_mut().pong = Some(frame.into());
            } else {
                self.outbox.frames.frames(frame);
            }
            rest = behind;
        }
    }

    /// Extends the deadlines of its silence, its pings and an incomplete message by a period.
    pub(super) fn excuse(&mut self, pause: Duration) {
        self.outbox.excuse(pause);
        self.peer.received = self.peer.received.plus(pause);
        if let Some(partial) = &mut self.peer.partial {
            partial.since = partial.since.plus(pause);
        }
    }

    /// Extends all deadlines by a pause of the server.
    pub(super) fn excuse_pause(&mut self, pause: Duration) {
        self.excuse(pause);
        self.peer.session.excuse(pause);
        if let Some(state) = &mut self.peer.backpressure {
            let paused = state.paused_since.iter_mut();
            for since in paused.chain(&mut state.stalled_since) {
                *since = since.plus(pause);
            }
        }
        if let Some(Closing::Flushing(since) | Closing::Sent(since)) = &mut self.closing {
            *since = since.plus(pause);
        }
    }

    /// True if the kernel has sent everything that it accepted. From the beginning of the close on,
    /// an unsent byte makes the socket unwritable.
    pub(super) fn is_sent(&self) -> bool {
        self.outbox.frames.is_empty() && self.transport.is_sent()
    }

    /// Checks the limits of a client that must read before more is sent.
    pub(super) fn enforce_limits(&mut self, view: &mut View<'_>) -> OverflowAction {
        if !self.outbox.is_waiting() || self.closing.is_some() {
            return OverflowAction::Done;
        }
        self.outbox.enforce_limits(view)
    }

    /// Updates the gauges of queued bytes and slow consumers.
    pub(super) fn report_queued(&mut self, metrics: &Metrics, now: UnixNanos) {
        let level = self.outbox.level();
        if level != self.level_reported {
            metrics.change_late(self.level_reported, level);
            self.level_reported = level;
            let state = self.peer.backpressure_mut();
            let since = state.late_since.unwrap_or(now);
            state.late_since = (level != LagLevel::Ok).then_some(since);
        }
        let queued = self.outbox.queued_bytes() as u32;
        if queued != self.queued_reported {
            metrics
                .queued_bytes
                .add(i64::from(queued) - i64::from(self.queued_reported));
            self.queued_reported = queued;
        }
    }

    /// Adds newly unaccounted events to the metric, once.
    pub(super) fn check_accounts(&mut self, metrics: &Metrics) {
        let unaccounted = u32::try_from(self.outbox.unaccounted()).unwrap_or(u32::MAX);
        if unaccounted > self.peer.unaccounted {
            tracing::error!(
                events = unaccounted - self.peer.unaccounted,
                "events missing from the ledger; this is a bug"
            );
            metrics
                .unaccounted
                .inc_by(u64::from(unaccounted - self.peer.unaccounted));
            self.peer.unaccounted = unaccounted;
        }
    }

    /// Time of the next keepalive check.
    pub(super) fn next_checkup(
        &self,
        silence: Duration,
        limits: &crate::limits::ShardLimits,
    ) -> UnixNanos {
        let peer = &self.peer;
        let message_ends = peer
            .partial
            .as_ref()
            .map(|partial| partial.since.plus(limits.message_timeout));
        let of_reading = message_ends
            .into_iter()
            .chain([peer.received.plus(silence)])
            .filter(|_| peer.backpressure().paused_since.is_none());
        let stall_ends = peer
            .backpressure()
            .stalled_since
            .map(|since| since.plus(limits.stall_timeout));
        of_reading
            .chain(stall_ends)
            .chain(peer.session.auth_deadline())
            .fold(peer.next_heartbeat, UnixNanos::min)
    }
}

impl Held for Outbox {
    fn holds(&self, topic: TopicId) -> bool {
        self.slot_of(topic).is_some()
    }
    fn count(&self) -> usize {
        self.subscribed_topics().len()
    }
    fn topics(&self) -> Vec<TopicId> {
        self.subscribed_topics().map(|(topic, _)| topic).collect()
    }
}
