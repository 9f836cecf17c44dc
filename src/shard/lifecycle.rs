//! Keepalive, closing and draining of connections.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shard;
use super::connection::{Closing, ConnectionKey, Permit};
use super::timers::{Due, Timer};
use crate::admission::Admitted;
use crate::log::TopicId;
use crate::market::UnixNanos;
use crate::metrics::PanicIn;
use crate::outbox::{Opcode, Outbox, SlotId};
use crate::protocol::{Bye, Code, Control, LagLevel};

/// Period over which disconnected clients are asked to reconnect.
const JITTER_MS: u64 = 1000;
/// Time limit for a client to close its side after ours.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Interval at which a closing connection is checked for bytes that the kernel hasn't sent.
const CLOSE_LOOK: Duration = Duration::from_millis(100);
/// Lag checks per `fanout.behind` of a client with queued data.
const WATCHES: u32 = 8;
/// Reason for 1012.
pub(super) const SHUTTING_DOWN: &str = "server shutting down; reconnect to resume";
/// Reasons for 4407.
pub(super) const TOO_SLOW: &str = "slow consumer: messages arrive faster than the client reads; subscribe to fewer topics or use mode conflate";
const STALLED: &str = "slow consumer: the client has stopped reading";

impl Shard {
    /// Closes with 4407, after the `lag` that precedes it.
    pub(super) fn disconnect_slow_consumer(&mut self, key: ConnectionKey, message: &str) {
        self.with_outbox(key, Outbox::warn);
        let bye = Bye {
            code: Code::SlowConsumer.number(),
            message: message.to_owned(),
            reconnect: true,
            after_ms: 1000,
        };
        self.close(key, &bye, Code::SlowConsumer);
    }

    /// Sends `bye` and closes: the frame buffer is still sent, queued entries are not.
    pub(super) fn close(&mut self, key: ConnectionKey, bye: &Bye, code: Code) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.closing.is_some() {
            return;
        }
        // Each client gets its own slot, so that they do not reconnect at once.
        let after_ms =
            bye.after_ms + u64::from(connection.peer.generation.0).wrapping_mul(617) % JITTER_MS;
        let bye = Bye {
            after_ms: if code == Code::Draining {
                bye.after_ms
            } else {
                after_ms
            },
            ..bye.clone()
        };
        connection.outbox.frame_responses();
        connection.outbox.put(&Control::Bye(bye));
        self.count_close(Some(code));
        self.close_frame(key, code.close_code(), code.name());
    }

    /// Closes with 1011 a connection whose session or parser has panicked, and uses neither again.
    pub(super) fn close_after_panic(&mut self, key: ConnectionKey, part: PanicIn) {
        self.feed.metrics.count_panic(part);
        let connection = &mut self.connections[key];
        tracing::error!(
            shard = self.number,
            connection = key.0,
            peer = %connection.peer.ip,
            ?part,
            "panic while serving a connection; this is a bug, the connection is closed"
        );
        connection.peer.inbox.clear();
        connection.peer.partial = None;
        if connection.closing.is_none() {
            self.feed.metrics.closed.with_label_values(&["1011"]).inc();
            self.close_frame(key, 1011, "internal error");
        } else {
            self.remove(key);
        }
    }

    /// Sends the close frame and waits briefly for that of the client.
    pub(super) fn close_frame(&mut self, key: ConnectionKey, code: u16, reason: &str) {
        let connection = &mut self.connections[key];
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        connection.outbox.frames.frame(Opcode::Close, &payload);
        self.begin_closing(key, Closing::Flushing(self.feed.now));
    }

    pub(super) fn begin_closing(&mut self, key: ConnectionKey, closing: Closing) {
        let held: Vec<(TopicId, SlotId)> =
            self.connections[key].outbox.subscribed_topics().collect();
        for (topic, _) in held {
            self.release(key, topic);
        }
        let connection = &mut self.connections[key];
        connection.outbox.drop_waiting();
        connection.closing = Some(closing);
        connection.transport.expect_all_sent();
        self.check_up_at(key, self.feed.now.plus(CLOSE_GRACE));
        self.connections.mark_dirty(key);
    }

    pub(super) fn after_flush_of_closing(&mut self, key: ConnectionKey) {
        match self.connections[key].closing {
            Some(Closing::Answered) => self.remove(key),
            Some(Closing::Flushing(since)) => self.await_close(key, since),
            Some(Closing::Sent(_)) | None => {}
        }
    }

    /// Begins to wait for the client's close frame once everything is sent; a client that does not
    /// read in time is reset.
    fn await_close(&mut self, key: ConnectionKey, since: UnixNanos) {
        let deadline = since.plus(self.feed.config.limits.close_timeout);
        let connection = &mut self.connections[key];
        if connection.is_sent() {
            connection.closing = Some(Closing::Sent(self.feed.now));
            self.check_up_at(key, self.feed.now.plus(CLOSE_GRACE));
        } else if self.feed.now < deadline {
            let next = self.feed.now.plus(CLOSE_LOOK);
            self.check_up_at(key, next.min(deadline));
        } else {
            if !connection.outbox.frames.is_empty() {
                // The kernel has not accepted the close frame, so that sending the rest is of no
                // use.
                connection.transport.reset_on_drop();
            }
            self.remove(key);
        }
    }

    /// Ends a connection that the client has closed or that is broken.
    pub(super) fn end(&mut self, key: ConnectionKey, broken: Option<std::io::ErrorKind>) {
        if self.connections[key].closing.is_none() {
            self.count_close(match broken {
                Some(std::io::ErrorKind::TimedOut) => Some(Code::Timeout),
                _ => None,
            });
        }
        self.remove(key);
    }

    pub(super) fn count_connections(&self) {
        self.connected
            .store(self.connections.len(), Ordering::Relaxed);
    }

    /// Removes a connection and closes its socket.
    pub(super) fn remove(&mut self, key: ConnectionKey) {
        let held: Vec<(TopicId, SlotId)> =
            self.connections[key].outbox.subscribed_topics().collect();
        for (topic, _) in held {
            self.release(key, topic);
        }
        let mut connection = self.connections.remove(key);
        connection.transport.notify_close();
        self.feed
            .metrics
            .queued_bytes
            .sub(connection.queued_reported.into());
        self.feed
            .metrics
            .change_late(connection.level_reported, LagLevel::Ok);
        let _counted: (Option<Permit>, Option<Admitted>) =
            (connection.peer.permit, connection.peer.admitted);
        self.count_connections();
        self.feed.metrics.connections.dec();
        if self.connections.is_empty() {
            debug_assert_eq!(self.fan_out.raw, 0, "each subscription is counted off");
            if let Some(done) = self.drained.take() {
                // The caller may have stopped waiting.
                let _gave_up = done.send(());
            }
        }
    }

    /// Sets the next lag check of a connection: while data is queued for it, and when a ping is
    /// overdue.
    pub(super) fn watch(&mut self, key: ConnectionKey) {
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let outbox = &connection.outbox;
        let waits = outbox
            .is_waiting()
            .then(|| self.feed.now.plus(behind_max / WATCHES));
        let look = outbox.look_at(behind_max).filter(|at| *at > self.feed.now);
        let Some(at) = waits.into_iter().chain(look).min() else {
            return;
        };
        if at < connection.peer.lag_at {
            connection.peer.lag_at = at;
            let generation = connection.peer.generation;
            self.timers.push(Timer {
                at,
                connection: key,
                generation,
                due: Due::Lag,
            });
        }
    }

    pub(super) fn check_lag(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key];
        connection.peer.lag_at = UnixNanos(u64::MAX);
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let next = connection.outbox.look(self.feed.now, behind_max);
        if connection.outbox.is_waiting() {
            self.flush_one(key);
        } else if next.is_some() {
            self.watch(key);
        }
    }

    /// Extends the deadlines of all connections by a pause of the shard.
    pub(super) fn excuse_pause(&mut self, pause: Duration) {
        let paused_ms = pause.as_millis() as u64;
        tracing::warn!(
            shard = self.number,
            paused_ms,
            "server was paused; client deadlines extended"
        );
        self.meters.paused(pause);
        let until = self
            .feed
            .now
            .plus(self.feed.config.limits.outbox.behind_max);
        self.pauses.excuse(pause, until);
        for connection in self.connections.iter_mut() {
            connection.excuse_pause(pause);
        }
    }

    fn check_up_at(&mut self, key: ConnectionKey, at: UnixNanos) {
        let connection = &mut self.connections[key];
        connection.peer.checkup_at = at;
        let generation = connection.peer.generation;
        self.timers.push(Timer {
            at,
            connection: key,
            generation,
            due: Due::Checkup,
        });
    }

    /// Sets the next keepalive check of a connection, unless an earlier one is set.
    pub(super) fn arm_checkup(&mut self, key: ConnectionKey) {
        let connection = &self.connections[key];
        if connection.closing.is_some() {
            return;
        }
        let limits = &self.feed.config.limits;
        let silence = if connection.peer.pinged {
            limits.drop_after
        } else {
            limits.ping_after
        };
        let at = connection.next_checkup(silence, limits);
        if at < connection.peer.checkup_at {
            self.check_up_at(key, at);
        }
    }

    pub(super) fn keepalive(&mut self, key: ConnectionKey) {
        let now = self.feed.now;
        let connection = &mut self.connections[key];
        connection.peer.checkup_at = UnixNanos(u64::MAX);
        if let Some(closing) = connection.closing {
            return match closing {
                Closing::Flushing(since) => self.await_close(key, since),
                // An earlier timer may still fire; it is ignored.
                Closing::Sent(since) if now.since(since) < CLOSE_GRACE => {
                    self.check_up_at(key, since.plus(CLOSE_GRACE));
                }
                Closing::Sent(_) | Closing::Answered => self.remove(key),
            };
        }
        let stalled = connection
            .peer
            .backpressure()
            .stalled_since
            .map(|since| now.since(since));
        if stalled.is_some_and(|stalled| stalled >= self.feed.config.limits.stall_timeout) {
            return self.disconnect_slow_consumer(key, STALLED);
        }
        // While reading is paused, nothing is received from the client.
        let heard_until = connection.peer.backpressure().paused_since.unwrap_or(now);
        let message_over = connection.peer.partial.as_ref().is_some_and(|partial| {
            heard_until.since(partial.since) >= self.feed.config.limits.message_timeout
        });
        let silent = heard_until.since(connection.peer.received);
        if message_over || silent >= self.feed.config.limits.drop_after {
            let message = if message_over {
                "incomplete message timed out"
            } else {
                "idle timeout: no data and no pong received"
            };
            let bye = Bye {
                code: Code::Timeout.number(),
                message: message.to_owned(),
                reconnect: true,
                after_ms: 1000,
            };
            return self.close(key, &bye, Code::Timeout);
        }
        if !self.authentication_holds(key) {
            return;
        }
        let connection = &mut self.connections[key];
        if silent >= self.feed.config.limits.ping_after
            && !std::mem::replace(&mut connection.peer.pinged, true)
        {
            let payload = connection.outbox.keepalive_payload();
            connection.outbox.frames.frame(Opcode::Ping, &payload);
            self.connections.mark_dirty(key);
        }
        let connection = &mut self.connections[key];
        if now >= connection.peer.next_heartbeat {
            let heartbeat = Duration::from_millis(connection.peer.heartbeat_ms.into());
            connection.peer.next_heartbeat = now.plus(heartbeat);
            connection.outbox.shrink();
            connection.outbox.heartbeat();
            connection.check_accounts(&self.feed.metrics);
            connection.peer.shrink();
            self.connections.mark_dirty(key);
        }
        self.arm_checkup(key);
    }

    pub(super) fn drain(
        &mut self,
        spread: Duration,
        turn: usize,
        of: usize,
        done: tokio::sync::oneshot::Sender<()>,
    ) {
        self.draining = true;
        let keys: Vec<_> = self.connections.iter().map(|(key, _)| key).collect();
        let slots = (keys.len() * of).max(1) as u64;
        let spread_ms = spread.as_millis() as u64;
        for (at, key) in keys.iter().enumerate() {
            let after_ms = spread_ms * (at * of + turn) as u64 / slots;
            let bye = Bye {
                code: Code::Draining.number(),
                message: SHUTTING_DOWN.to_owned(),
                reconnect: true,
                after_ms,
            };
            self.with_outbox(*key, |outbox, view| {
                view.counts.begin_flush();
                outbox.fill(view)
            });
            self.close(*key, &bye, Code::Draining);
        }
        if keys.is_empty() {
            // The caller may have stopped waiting.
            let _gave_up = done.send(());
        } else {
            self.drained = Some(done);
        }
    }
}
