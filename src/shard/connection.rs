//! One client: its socket, its session, its outbox.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::reader::{FrameRateLimit, Partial};
use super::transport::Transport;
use crate::access::Principal;
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
    /// `None` for a connection above the limit, which is notified and closed.
    pub permit: Option<Permit>,
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
pub(super) struct Connection {
    pub transport: Transport,
    pub outbox: Outbox,
    /// Something is due for its socket in this turn.
    pub dirty: bool,
    /// Reading was paused; there may be requests in the socket.
    pub left_unread: bool,
    /// Its socket was full, and has not been sent everything since.
    pub waited: bool,
    pub closing: Option<Closing>,
    /// Bytes of this connection included in the gauge of queued bytes.
    pub queued_told: u32,
    /// Lag level under which the gauge of slow consumers counts it.
    pub level_told: LagLevel,
    pub peer: Box<Peer>,
}

/// State for a client's requests and timers.
#[derive(Debug)]
pub(super) struct Peer {
    pub session: Session,
    pub principal: Principal,
    pub partial: Option<Box<Partial>>,
    pub guard: FrameRateLimit,
    pub waker: Waker,
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
    /// Answer to the latest ping that came while the socket was full.
    pub pong: Option<Box<[u8]>>,
    /// Heartbeat interval, as in its `welcome`.
    pub heartbeat: Duration,
    /// Time since when reading is paused; its silence does not count from then on.
    pub paused_since: Option<UnixNanos>,
    /// Time since when its socket has accepted no queued data and no pong was received.
    pub stalled_since: Option<UnixNanos>,
    /// Received requests that are executed in later turns.
    pub inbox: VecDeque<(Vec<u8>, Encoding)>,
    pub permit: Option<Permit>,
    pub address: SocketAddr,
    pub agent: Box<str>,
    pub connected: UnixNanos,
    /// Time since when it is continuously late.
    pub late_since: Option<UnixNanos>,
    /// Events of this connection included in the counter of unaccounted events.
    pub unaccounted: u64,
    /// Sources that are not live, of which the client was notified, with the time of the change.
    pub known_sources: Box<[(SourceId, UnixNanos)]>,
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
                if written > 0 || self.peer.stalled_since.is_none() {
                    self.peer.stalled_since = Some(view.now);
                }
            }
            Flushed::All if self.waited => {
                self.waited = false;
                self.peer.stalled_since = None;
            }
            _ => {}
        }
        flushed
    }

    /// Writes the frame buffer. `None` if the socket accepted all of it.
    fn write(&mut self, written: &mut usize) -> Option<Flushed> {
        while !self.outbox.frames.is_empty() {
            match self.transport.write(self.outbox.frames.unsent()) {
                Ok(taken) => {
                    self.outbox.frames.advance(taken);
                    *written += taken;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let ready = self.transport.poll_write_ready(&self.peer.waker);
                    if ready.is_pending() {
                        self.outbox.frames.blocked = true;
                        return Some(Flushed::Blocked);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Flushed::Broken(error.kind())),
            }
        }
        None
    }

    /// Checks whether the socket is writable again after a notification of the runtime.
    pub(super) fn unblock(&mut self) {
        if self.outbox.frames.blocked
            && self.transport.poll_write_ready(&self.peer.waker).is_ready()
        {
            self.outbox.frames.blocked = false;
            if let Some(pong) = self.peer.pong.take() {
                self.outbox.frames.frames(&pong);
            }
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
        !inbox.is_empty() && {
            let cost = |(bytes, _): &(Vec<u8>, Encoding)| bytes.len() + REQUEST_BYTES;
            inbox.iter().map(cost).sum::<usize>() + READ_BYTES > message_bytes_max
        }
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
                self.peer.pong = Some(frame.into());
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
        let peer = &mut self.peer;
        for since in peer.paused_since.iter_mut().chain(&mut peer.stalled_since) {
            *since = since.plus(pause);
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

    /// Reads some bytes. `Pending` if there are none; the waker is set.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
        self.transport.poll_read(buffer, &self.peer.waker)
    }

    /// Checks the limits of a client that must read before more is sent.
    pub(super) fn enforce_limits(&mut self, view: &mut View<'_>) -> OverflowAction {
        if !self.outbox.is_waiting() || self.closing.is_some() {
            return OverflowAction::Done;
        }
        self.outbox.enforce_limits(view)
    }

    /// Updates the gauges of queued bytes and slow consumers.
    pub(super) fn tell_queued(&mut self, metrics: &Metrics, now: UnixNanos) {
        let level = self.outbox.level();
        if level != self.level_told {
            metrics.change_late(self.level_told, level);
            self.level_told = level;
            let since = self.peer.late_since.unwrap_or(now);
            self.peer.late_since = (level != LagLevel::Ok).then_some(since);
        }
        let queued = self.outbox.queued_bytes() as u32;
        if queued != self.queued_told {
            metrics
                .queued_bytes
                .add(i64::from(queued) - i64::from(self.queued_told));
            self.queued_told = queued;
        }
    }

    /// Adds newly unaccounted events to the metric, once.
    pub(super) fn check_accounts(&mut self, metrics: &Metrics) {
        let unaccounted = self.outbox.unaccounted();
        if unaccounted > self.peer.unaccounted {
            tracing::error!(
                events = unaccounted - self.peer.unaccounted,
                "events missing from the ledger; this is a bug"
            );
            metrics
                .unaccounted
                .inc_by(unaccounted - self.peer.unaccounted);
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
            .filter(|_| peer.paused_since.is_none());
        let stall_ends = peer
            .stalled_since
            .map(|since| since.plus(limits.stall_timeout));
        of_reading
            .chain(stall_ends)
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
