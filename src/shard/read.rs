//! Reading: from ready sockets to sessions.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::connection::{Closing, ConnectionKey};
use super::reader::{Incoming, SMALL_FRAMES_SPAN, SmallFrames, read_messages};
use super::sockets::Ready;
use super::{SERVING_MAX, Shard};
use crate::market::UnixNanos;
use crate::metrics::PanicIn;
use crate::protocol::{Bye, Code};
use crate::session::{Action, View};

/// Maximum number of requests of one connection per turn.
const REQUESTS_A_TURN: usize = 4;
/// Maximum number of reads of one connection per turn.
const READS_A_TURN: usize = 2;

/// Request that makes a server with the feature `internals` panic, for the test of its isolation.
#[cfg(feature = "internals")]
pub const FAILPOINT: &[u8] = b"failpoint: panic";

/// A panic while serving one connection, which has been logged by the panic hook.
#[derive(Debug)]
struct Panicked;

impl Shard {
    /// Serves a connection whose socket is ready, or that has requests left.
    pub(super) fn on_ready(&mut self, ready: Ready) {
        let Ready {
            key,
            is_writable,
            ends_short,
        } = ready;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let was_deferred =
            connection.outbox.is_unheard() && connection.peer.backpressure().paused_since.is_none();
        if was_deferred {
            connection.outbox.hear();
        }
        if is_writable && connection.outbox.frames.blocked {
            connection.unblock();
            self.connections.mark_dirty(key);
        }
        self.take_inbox(key);
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let is_drained = self.read_some(key, ends_short, &mut buffer);
        self.read_buffer = buffer;
        if was_deferred {
            self.watch(key);
        }
        if !is_drained {
            // There may be more; other connections are served first.
            self.sockets.serve_next(key);
        }
    }

    /// Executes some of the received requests, in order; the others wait for the next turn or for
    /// room.
    fn take_inbox(&mut self, key: ConnectionKey) {
        for taken in 0..REQUESTS_A_TURN {
            if taken > 0 && self.feed.config.clock.now().since(self.feed.now) >= SERVING_MAX {
                break;
            }
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if connection.closing.is_some() {
                return connection.peer.inbox.clear();
            }
            if connection.holds_requests(self.feed.config.limits.outbox.control_bytes) {
                // The flush that makes room continues here.
                connection.left_unread = true;
                return;
            }
            if connection.peer.session.awaits_check() {
                return;
            }
            match self.answer(key) {
                Ok(Some(actions)) => self.act(key, actions),
                Ok(None) => return,
                Err(Panicked) => return self.close_after_panic(key, PanicIn::Request),
            }
        }
        if self.connections.get(key).is_some_and(|connection| {
            let session = &connection.peer.session;
            // A check continues the requests with its outcome.
            let has_more = session.is_busy() || !connection.peer.inbox.is_empty();
            has_more && !session.awaits_check()
        }) {
            self.sockets.serve_next(key);
        }
    }

    /// Executes the next request, or the next slice of one; `None` if there is none. A session
    /// only reads the state that it shares with others, so a panic leaves that intact.
    fn answer(&mut self, key: ConnectionKey) -> Result<Option<Vec<Action>>, Panicked> {
        let connection = &mut self.connections[key];
        let (outbox, peer) = (&connection.outbox, &mut *connection.peer);
        let view = View {
            replica: &self.feed.replica,
            principal: &peer.principal,
            held: outbox,
            now: self.feed.now,
        };
        let (session, inbox) = (&mut peer.session, &mut peer.inbox);
        let answered = catch_unwind(AssertUnwindSafe(|| {
            if session.is_busy() {
                return Some(session.go_on(view));
            }
            let (bytes, encoding) = inbox.pop()?;
            #[cfg(feature = "internals")]
            assert!(bytes != FAILPOINT, "requested by a test");
            Some(session.on_request(&bytes, encoding, view))
        }));
        answered.map_err(|_logged| Panicked)
    }

    /// Reads a socket up to one turn's share. Returns false if there may be more.
    fn read_some(&mut self, key: ConnectionKey, ends_short: bool, buffer: &mut [u8]) -> bool {
        for _ in 0..READS_A_TURN {
            let Some(connection) = self.connections.get_mut(key) else {
                return true;
            };
            if connection.reading_paused(self.limits.message_bytes as usize) {
                connection.left_unread = true;
                let state = connection.peer.backpressure_mut();
                state.paused_since.get_or_insert(self.feed.now);
                let was_held = connection.outbox.frames.is_held();
                connection.outbox.stop_hearing();
                if was_held {
                    self.connections.mark_dirty(key);
                }
                return true;
            }
            if connection.peer.backpressure().paused_since.is_some()
                && let Some(since) = connection.peer.backpressure_mut().paused_since.take()
            {
                connection.outbox.hear();
                connection.excuse(self.feed.now.since(since));
                self.arm_checkup(key);
                continue;
            }
            let ends_short = ends_short && connection.transport.ends_short();
            match connection.transport.read(buffer) {
                Ok(0) => {
                    self.end(key, None);
                    return true;
                }
                Ok(read) => {
                    self.take_bytes(key, &buffer[..read]);
                    if ends_short && read < buffer.len() {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.end(key, Some(error.kind()));
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn take_bytes(&mut self, key: ConnectionKey, bytes: &[u8]) {
        let connection = &mut self.connections[key];
        connection.peer.received = self.feed.now;
        connection.peer.pinged = false;
        let had_partial = connection.peer.partial.is_some();
        let mut replies = Vec::new();
        let limit = SmallFrames {
            per_second: self.feed.config.limits.control_frames_per_s,
            now: self.feed.now,
        };
        let (websocket, peer) = (self.websocket, &mut *connection.peer);
        let read = catch_unwind(AssertUnwindSafe(|| {
            let (partial, guard) = (&mut peer.partial, &mut peer.guard);
            read_messages(bytes, partial, websocket, guard, limit, &mut replies)
        }));
        let Ok(found) = read else {
            return self.close_after_panic(key, PanicIn::Frames);
        };
        #[cfg(feature = "echo")]
        let found = self.echo(key, found, &mut replies);
        let connection = &mut self.connections[key];
        if !replies.is_empty() && connection.closing.is_none() {
            connection.reply(&replies);
            self.connections.mark_dirty(key);
        }
        let begun = !had_partial && self.connections[key].peer.partial.is_some();
        if begun {
            self.arm_checkup(key);
        }
        for incoming in found {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if connection.closing.is_some() {
                if incoming == Incoming::Closed {
                    self.begin_last_flush(key);
                }
                continue;
            }
            self.take_incoming(key, incoming);
        }
        self.take_inbox(key);
    }

    fn take_incoming(&mut self, key: ConnectionKey, incoming: Incoming) {
        match incoming {
            Incoming::Request(bytes, encoding) => {
                self.connections[key].peer.inbox.push(bytes, encoding);
            }
            Incoming::Pong(payload) => self.take_pong(key, &payload),
            Incoming::Closed => {
                self.count_close(None);
                self.begin_closing(key, Closing::Answered);
            }
            Incoming::Violation(code, reason) => {
                tracing::debug!(
                    shard = self.number,
                    connection = key.0,
                    code,
                    reason,
                    "connection closed: violation of RFC 6455"
                );
                self.feed
                    .metrics
                    .closed
                    .with_label_values(&[&code.to_string()])
                    .inc();
                self.close_frame(key, code, "");
            }
            Incoming::Flood => {
                let message = format!(
                    "too many control frames and fragments; expected at most {} per second over {} s (limits.control_frames_per_s)",
                    self.feed.config.limits.control_frames_per_s,
                    SMALL_FRAMES_SPAN.as_secs()
                );
                let bye = Bye {
                    code: Code::BadRequest.number(),
                    message,
                    reconnect: false,
                    after_ms: 0,
                };
                self.close(key, &bye, Code::BadRequest);
            }
        }
    }

    /// Pong of a ping among the data: the client has read up to there.
    fn take_pong(&mut self, key: ConnectionKey, payload: &[u8]) {
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let connection = &mut self.connections[key];
        let was_held = connection.outbox.frames.is_held();
        if !connection
            .outbox
            .on_pong(payload, self.feed.now, behind_max)
        {
            return;
        }
        connection.peer.guard.forgive();
        if connection.peer.backpressure().stalled_since.is_some() {
            connection.peer.backpressure_mut().stalled_since = Some(self.feed.now);
        }
        if was_held {
            self.connections.mark_dirty(key);
        }
        if self.connections[key].peer.lag_at == UnixNanos(u64::MAX) {
            self.watch(key);
        }
    }

    /// Both sides have closed: the frame buffer is sent, then the connection ends.
    fn begin_last_flush(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        connection.closing = Some(Closing::Answered);
        if connection.outbox.frames.is_empty() {
            self.remove(key);
        } else {
            self.connections.mark_dirty(key);
        }
    }
}
