//! Read window: limits how far the server sends ahead of what a client is known to have read.
//!
//! Kernel and client buffers hide a slow consumer: they take megabytes that the client reads much
//! later. A WebSocket ping among the data measures it: the pong confirms that everything before the
//! ping was read, and the time between the two, less the round trip, is the client's lag. A client
//! of merging subscriptions gets a window of about as much as it reads in an eighth of
//! `fanout.behind`; everything else waits in its outbox, where it is conflated. A client of raw
//! subscriptions has no window, but is held back while a ping is overdue, so that `on_slow` applies
//! to it.
//!
//! Positions count bytes since the connection began, plus [`MESSAGE_COST`] for each message,
//! because clients spend time on messages as well as on bytes. No I/O and no clock: `now` is handed
//! in.

use std::time::Duration;

use super::frame_buffer::SendLimits;
use crate::market::UnixNanos;

/// Window before the first measurement.
const FIRST_WINDOW: u32 = 64 * 1024;
/// Smallest window: a few messages.
const WINDOW_MIN: u64 = 4 * 1024;
/// Largest window; more than any kernel buffers.
const WINDOW_MAX: u64 = u32::MAX as u64;
/// Largest growth of a window by one pong.
const GROWTH_MAX: u64 = 4;
/// Shortest time between two pings, and shortest lag at which a client is held back.
const SPACING_MIN: Duration = Duration::from_millis(50);
/// Traffic between two pings of a client that gets much.
const SPACING_BUSY: Duration = Duration::from_millis(100);

/// Round trip of a client that has answered no ping.
const NO_PONG: u64 = u64::MAX;

/// Thresholds of a connection, as shares of `fanout.behind`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    behind_max: Duration,
    /// The window applies: some subscription merges.
    merges: bool,
}

impl Pace {
    pub(super) const fn new(behind_max: Duration, merges: bool) -> Self {
        Self { behind_max, merges }
    }

    /// Time between two pings. A client whose ping is unanswered for so long, beyond its round
    /// trip, is held back.
    fn spacing(self) -> Duration {
        (self.behind_max / if self.merges { 16 } else { 4 }).max(SPACING_MIN)
    }

    /// Time between two pings while there is much to send.
    fn busy_spacing(self) -> Duration {
        self.spacing().min(SPACING_BUSY)
    }

    /// Lag to which the window shrinks.
    fn target(self) -> Duration {
        (self.behind_max / 8).max(SPACING_MIN)
    }

    /// Lag beyond which the window shrinks.
    fn lag_max(self) -> Duration {
        2 * self.target()
    }
}

/// A ping that is not answered yet.
#[derive(Debug, Clone, Copy)]
struct Ping {
    sent: UnixNanos,
    /// Position of the ping.
    at: u64,
    /// Time since the ping before, in microseconds.
    gap_us: u32,
    /// Most of that data was asked for by the client, so the ping ages later.
    is_asked: bool,
}

/// The next step of a connection whose reading is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The ping is overdue: nothing more is sent until it is answered.
    Hold,
    /// The first ping is overdue: the client may never answer pings and is not held back.
    Release,
    /// A ping is due behind the next data.
    Ping,
    /// Nothing is due before this time.
    Later(UnixNanos),
}

/// Estimate of how far a client has read. Small, because every subscriber has one.
#[derive(Debug)]
pub(super) struct ReadWindow {
    /// Number of the latest ping.
    number: u32,
    /// In bytes, up to [`WINDOW_MAX`].
    window: u32,
    ping: Option<Ping>,
    /// Time of the latest ping.
    pinged: UnixNanos,
    /// Position up to which the client has read.
    read_to: u64,
    /// Bytes that the client had asked for when it was pinged last.
    asked: u64,
    /// Shortest time that a pong has taken, in nanoseconds; [`NO_PONG`] before the first one.
    round_trip_ns: u64,
}

const _: () = assert!(
    size_of::<ReadWindow>() == 64,
    "a read window takes 64 bytes"
);

impl ReadWindow {
    pub(super) const fn new() -> Self {
        Self {
            number: 0,
            ping: None,
            pinged: UnixNanos(0),
            read_to: 0,
            asked: 0,
            window: FIRST_WINDOW,
            round_trip_ns: NO_PONG,
        }
    }

    /// Begins a ping at a position; `asked` counts bytes so far that the client asked for. Returns
    /// its payload, or `None` while another ping is unanswered.
    pub(super) fn ping(&mut self, now: UnixNanos, at: u64, asked: u64) -> Option<[u8; 4]> {
        if self.ping.is_some() {
            return None;
        }
        self.number = self.number.wrapping_add(1);
        let gap = now.since(std::mem::replace(&mut self.pinged, now));
        let in_flight = at.saturating_sub(self.read_to);
        let is_asked = 2 * (asked - self.asked) >= in_flight.max(1);
        self.asked = asked;
        self.ping = Some(Ping {
            sent: now,
            at,
            gap_us: u32::try_from(gap.as_micros()).unwrap_or(u32::MAX),
            is_asked,
        });
        Some(self.number.to_be_bytes())
    }

    fn round_trip(&self) -> Option<Duration> {
        (self.round_trip_ns != NO_PONG).then_some(Duration::from_nanos(self.round_trip_ns))
    }

    /// Payload of the ping that is unanswered.
    pub(super) fn unanswered(&self) -> Option<[u8; 4]> {
        self.ping.map(|_| self.number.to_be_bytes())
    }

    /// Limits until the first pong.
    pub(super) fn first_limits(&self, pace: Pace) -> Option<SendLimits> {
        let ping = self.ping.filter(|_| self.round_trip_ns == NO_PONG)?;
        let limits = self.limits_from(ping.at, pace);
        Some(SendLimits {
            ping_at: u64::MAX,
            ..limits
        })
    }

    /// Takes a pong. Returns the limits from now on, or `None` if it answers no ping of ours.
    pub(super) fn pong(
        &mut self,
        payload: &[u8],
        now: UnixNanos,
        pace: Pace,
    ) -> Option<SendLimits> {
        let ping = self
            .ping
            .take_if(|_| payload == self.number.to_be_bytes())?;
        let took = now.since(ping.sent);
        let round_trip = self.round_trip().map_or(took, |least| least.min(took));
        self.round_trip_ns = round_trip.as_nanos() as u64;
        let in_flight = ping.at.saturating_sub(self.read_to);
        self.read_to = ping.at;
        let lag = took.saturating_sub(round_trip);
        let window = u64::from(self.window);
        if lag > pace.lag_max() {
            let read = scaled(in_flight, pace.target(), lag);
            self.window = read.clamp(WINDOW_MIN, window) as u32;
        } else if lag < pace.target() / 2 && in_flight >= window / 2 {
            // Enough for two pings, so that a client that keeps up never waits for a pong.
            let time = 2 * (pace.busy_spacing() + round_trip);
            let sent = scaled(in_flight, time, Duration::from_micros(ping.gap_us.into()));
            let window_max = WINDOW_MAX.min(window * GROWTH_MAX);
            self.window = sent.clamp(window, window_max) as u32;
        }
        Some(self.limits_from(self.read_to, pace))
    }

    fn limits_from(&self, read_to: u64, pace: Pace) -> SendLimits {
        if !pace.merges {
            return SendLimits::NONE;
        }
        // A ping in the middle, so that its pong comes before the client has read all.
        let window = u64::from(self.window);
        let step = window / 2;
        SendLimits {
            ping_at: read_to + step,
            hold_at: read_to + window,
            step,
        }
    }

    /// Start of the time for which the client has not read what was sent, its round trip taken off;
    /// `None` if all is read, or nothing is known.
    pub(super) fn unread_since(&self, behind_max: Duration) -> Option<UnixNanos> {
        let (ping, round_trip) = (self.ping?, self.round_trip()?);
        let excused = if ping.is_asked {
            behind_max
        } else {
            Duration::ZERO
        };
        Some(ping.sent.plus(round_trip + excused))
    }

    /// The next step, at its time.
    pub(super) fn look(&self, now: UnixNanos, pace: Pace) -> Look {
        let at = self.look_at(pace);
        match (self.ping, self.round_trip()) {
            _ if now < at => Look::Later(at),
            (None, _) => Look::Ping,
            (Some(_), None) => Look::Release,
            (Some(_), Some(_)) => Look::Hold,
        }
    }

    /// Time of the next step.
    pub(super) fn look_at(&self, pace: Pace) -> UnixNanos {
        match self.ping {
            Some(ping) => ping
                .sent
                .plus(self.round_trip().unwrap_or_default() + pace.spacing()),
            None => self.pinged.plus(pace.spacing()),
        }
    }

    /// The client could not be heard for so long.
    pub(super) fn excuse(&mut self, pause: Duration) {
        if let Some(ping) = &mut self.ping {
            ping.sent = ping.sent.plus(pause);
        }
    }
}

/// The part of `bytes` that belongs to `time`, if all of them belong to `whole`.
fn scaled(bytes: u64, time: Duration, whole: Duration) -> u64 {
    let whole = whole.as_micros().max(1);
    u64::try_from(u128::from(bytes) * time.as_micros() / whole).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
