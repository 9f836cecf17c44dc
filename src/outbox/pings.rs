//! Pings among the data, which measure how far a client has read.

use std::time::Duration;

use super::frame_buffer::{Opcode, SendLimits};
use super::read_window::{Look, Pace, ReadWindow};
use super::{Outbox, View};
use crate::market::UnixNanos;

impl Outbox {
    /// True if the client must read before more is sent: its socket is full, or its read window is.
    pub const fn is_waiting(&self) -> bool {
        self.frames.blocked || self.frames.is_held()
    }

    fn pace(&self, behind_max: Duration) -> Pace {
        Pace::new(behind_max, self.merging > 0 || self.degraded())
    }

    /// Sends a ping before the first data to measure the round trip.
    pub(super) fn begin_pings(&mut self, view: &View<'_>) {
        if self.read_window.is_none() {
            self.read_window = Some(Box::new(ReadWindow::new()));
            self.ping(view.now, view.limits.behind_max);
        }
    }

    /// Writes a ping unless another one is unanswered.
    #[cold]
    pub fn ping(&mut self, now: UnixNanos, behind_max: Duration) {
        let pace = self.pace(behind_max);
        self.frames.is_pinged();
        let Some(window) = &mut self.read_window else {
            return;
        };
        // An open array is not counted yet.
        self.frames.seal();
        let (at, asked) = (self.frames.position(), self.frames.asked());
        let Some(payload) = window.ping(now, at, asked) else {
            return;
        };
        self.pinged = true;
        self.frames.frame(Opcode::Ping, &payload);
        if let Some(limits) = window.first_limits(pace).filter(|_| !self.is_unheard) {
            self.frames.limit_to(limits);
        }
    }

    /// True if a ping was sent since the last call.
    pub const fn take_pinged(&mut self) -> bool {
        std::mem::replace(&mut self.pinged, false)
    }

    /// Payload of a keepalive ping: that of the unanswered ping, because a client may answer only
    /// the latest one.
    pub fn keepalive_payload(&self) -> Vec<u8> {
        let unanswered = self
            .read_window
            .as_ref()
            .and_then(|window| window.unanswered());
        unanswered.map_or_else(Vec::new, Vec::from)
    }

    /// Processes a pong. Returns false if it does not belong to a ping of the measurement.
    pub fn on_pong(&mut self, payload: &[u8], now: UnixNanos, behind_max: Duration) -> bool {
        let pace = self.pace(behind_max);
        let Some(limits) = self
            .read_window
            .as_mut()
            .and_then(|window| window.pong(payload, now, pace))
        else {
            return false;
        };
        self.frames.limit_to(limits);
        if !self.waiting.are_unused() {
            self.waiting.reads_until = now.plus(behind_max);
        }
        true
    }

    /// Executes the due step of the measurement. Returns the time of the next check, if known.
    pub fn look(&mut self, now: UnixNanos, behind_max: Duration) -> Option<UnixNanos> {
        if self.is_unheard {
            return None;
        }
        let pace = self.pace(behind_max);
        match self.read_window.as_ref()?.look(now, pace) {
            Look::Later(at) => return Some(at),
            Look::Hold => self.frames.hold_here(),
            Look::Release => self.frames.release(),
            Look::Ping => self.frames.ping_next(),
        }
        None
    }

    /// Time of the next check.
    pub fn look_at(&self, behind_max: Duration) -> Option<UnixNanos> {
        let pace = self.pace(behind_max);
        Some(self.read_window.as_ref()?.look_at(pace))
    }

    pub(super) fn unread_since(&self, behind_max: Duration) -> Option<UnixNanos> {
        let window = self.read_window.as_ref().filter(|_| !self.is_unheard);
        window?.unread_since(behind_max)
    }

    /// Notes that reading from the client is paused: pongs that cannot be read do not hold it back.
    pub const fn stop_hearing(&mut self) {
        self.is_unheard = true;
        self.frames.release();
    }

    /// Notes that the socket is not read in this turn: an unanswered ping does not count against
    /// the client.
    pub const fn defer_hearing(&mut self) {
        self.is_unheard = true;
    }

    /// True while an unanswered ping does not count against the client.
    pub const fn is_unheard(&self) -> bool {
        self.is_unheard
    }

    /// Notes that reading from the client continues.
    pub const fn hear(&mut self) {
        self.is_unheard = false;
    }

    /// Excuses a period during which nothing could be received from the client.
    pub fn excuse(&mut self, pause: Duration) {
        if let Some(window) = &mut self.read_window {
            window.excuse(pause);
        }
    }

    /// Ends the measurement and releases the read window.
    pub(super) fn end_pings(&mut self) {
        self.read_window = None;
        self.frames.limit_to(SendLimits::NONE);
    }
}
