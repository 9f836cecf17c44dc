//! The read window against models of clients, by a simulation of their network.

use std::collections::{BTreeMap, VecDeque};

use super::super::frame_buffer::MESSAGE_COST;
use super::*;

const BEHIND: Duration = Duration::from_secs(10);
const EVENT_BYTES: u64 = 120;

/// A client behind a network, and the stream that it is sent.
#[derive(Clone, Copy)]
struct Model {
    events_per_s: u64,
    topics: u64,
    /// Time that the client takes for a message, and for a byte.
    per_message: Duration,
    per_byte: Duration,
    round_trip: Duration,
    /// From this second on the client takes its time for messages and bytes; before, it takes none.
    slow_from: u64,
    /// The client answers pings.
    answers: bool,
}

const MODEL: Model = Model {
    events_per_s: 1000,
    topics: 20,
    per_message: Duration::ZERO,
    per_byte: Duration::ZERO,
    round_trip: Duration::from_millis(1),
    slow_from: 0,
    answers: true,
};

enum Frame {
    /// Publication times of its events.
    Data(Vec<UnixNanos>),
    Ping([u8; 4]),
}

/// Results of a run.
#[derive(Debug, Default)]
struct Seen {
    /// Age of the oldest price that the client finished, from second 60 on.
    oldest: Duration,
    /// The same, from the beginning.
    oldest_ever: Duration,
    /// Share of the time, from second 60 on, in which the client had something to do.
    busy: f64,
    /// Longest time for which a ping was unanswered beyond its round trip.
    behind: Duration,
    /// Pings a second.
    pings: f64,
    /// Milliseconds in which the client was held back with something to send.
    held_ms: u64,
}

fn at(ms: u64) -> UnixNanos {
    UnixNanos(1_000_000_000).plus(Duration::from_millis(ms))
}

struct Run {
    model: Model,
    window: ReadWindow,
    limits: SendLimits,
    position: u64,
    /// By topic: publication time of its newest event, not sent yet.
    pending: BTreeMap<u64, UnixNanos>,
    /// On the way to the client, with the arrival.
    wire: VecDeque<(Frame, UnixNanos)>,
    pongs: VecDeque<([u8; 4], UnixNanos)>,
    free_at: UnixNanos,
    look_at: UnixNanos,
    pings: u64,
    busy: Duration,
    seen: Seen,
}

impl Run {
    fn ping(&mut self, now: UnixNanos) {
        self.limits.ping_at = u64::MAX;
        if let Some(payload) = self.window.ping(now, self.position, 0) {
            self.pings += 1;
            self.wire
                .push_back((Frame::Ping(payload), now.plus(self.model.round_trip / 2)));
            self.limits = self.window.first_limits(PACE).unwrap_or(self.limits);
            self.look_at = self.window.look_at(PACE);
        }
    }

    fn ping_if_due(&mut self, now: UnixNanos) {
        if self.position >= self.limits.ping_at {
            self.ping(now);
        }
    }

    /// The newest of all topics, as far as the window allows.
    fn flush(&mut self, now: UnixNanos) {
        while !self.pending.is_empty() && self.position < self.limits.hold_at {
            let room = (self.limits.hold_at - self.position).min(self.limits.step);
            let fit = room.div_ceil(EVENT_BYTES).max(1) as usize;
            let topics: Vec<u64> = self.pending.keys().copied().take(fit).collect();
            let events: Vec<_> = topics
                .iter()
                .filter_map(|topic| self.pending.remove(topic))
                .collect();
            self.position += events.len() as u64 * EVENT_BYTES + MESSAGE_COST;
            self.wire
                .push_back((Frame::Data(events), now.plus(self.model.round_trip / 2)));
            self.ping_if_due(now);
        }
        self.ping_if_due(now);
        self.seen.held_ms += u64::from(!self.pending.is_empty());
    }

    fn read(&mut self, now: UnixNanos, second: u64) {
        while self
            .wire
            .front()
            .is_some_and(|(_, arrives)| self.free_at.max(*arrives) <= now)
        {
            match self.wire.pop_front() {
                Some((Frame::Data(events), _)) => {
                    let bytes = events.len() as u32 * EVENT_BYTES as u32;
                    let takes = if second >= self.model.slow_from {
                        self.model.per_message + self.model.per_byte * bytes
                    } else {
                        Duration::ZERO
                    };
                    self.free_at = now.plus(takes);
                    let ages = events.iter().map(|tx| self.free_at.since(*tx));
                    let oldest = ages.max().unwrap_or_default();
                    self.seen.oldest_ever = self.seen.oldest_ever.max(oldest);
                    if second >= 60 {
                        self.busy += takes;
                        self.seen.oldest = self.seen.oldest.max(oldest);
                    }
                }
                Some((Frame::Ping(payload), _)) if self.model.answers => self
                    .pongs
                    .push_back((payload, now.plus(self.model.round_trip / 2))),
                _ => {}
            }
        }
    }

    fn step(&mut self, ms: u64) {
        let now = at(ms);
        while let Some((payload, _)) = self.pongs.pop_front_if(|(_, arrives)| *arrives <= now) {
            self.limits = self.window.pong(&payload, now, PACE).expect("its own ping");
            self.look_at = self.window.look_at(PACE);
        }
        if now >= self.look_at {
            self.look_at = UnixNanos(u64::MAX);
            match self.window.look(now, PACE) {
                Look::Later(at) => self.look_at = at,
                Look::Hold => self.limits.hold_at = self.position,
                Look::Release => self.limits = SendLimits::NONE,
                Look::Ping => {
                    self.limits.ping_at = self.limits.ping_at.min(self.position + 1);
                }
            }
        }
        let (before, after) = (
            self.model.events_per_s * ms / 1000,
            self.model.events_per_s * (ms + 1) / 1000,
        );
        for event in before..after {
            // Neighbours differ in how often they trade.
            let topic = event * event % self.model.topics;
            self.pending.insert(topic, now);
        }
        self.flush(now);
        self.read(now, ms / 1000);
        let since = self.window.unread_since(BEHIND);
        let behind = since.map_or(Duration::ZERO, |since| now.since(since));
        self.seen.behind = self.seen.behind.max(behind);
    }
}

const PACE: Pace = Pace::new(BEHIND, true);

fn run(model: Model) -> Seen {
    const SECONDS: u64 = 120;
    let mut run = Run {
        model,
        window: ReadWindow::new(),
        limits: SendLimits::NONE,
        position: 0,
        pending: BTreeMap::new(),
        wire: VecDeque::new(),
        pongs: VecDeque::new(),
        free_at: UnixNanos(0),
        look_at: UnixNanos(u64::MAX),
        pings: 0,
        busy: Duration::ZERO,
        seen: Seen::default(),
    };
    run.ping(at(0));
    (0..SECONDS * 1000).for_each(|ms| run.step(ms));
    run.seen.busy = run.busy.as_secs_f64() / (SECONDS - 60) as f64;
    run.seen.pings = run.pings as f64 / SECONDS as f64;
    run.seen
}

const SLOW: Model = Model {
    events_per_s: 500,
    per_message: Duration::from_millis(20),
    ..MODEL
};

/// Bytes a second, as the time for one.
const fn speed(bytes_per_s: u64) -> Duration {
    Duration::from_nanos(1_000_000_000 / bytes_per_s)
}

#[test]
fn a_slow_client_never_reads_prices_older_than_behind() {
    let far = Model {
        round_trip: Duration::from_millis(200),
        ..SLOW
    };
    let slow_link = Model {
        per_message: Duration::ZERO,
        per_byte: speed(5_000),
        ..far
    };
    let many_topics = Model {
        topics: 500,
        events_per_s: 2_000,
        per_byte: speed(200_000),
        ..SLOW
    };
    let very_slow = Model {
        per_message: Duration::from_millis(100),
        per_byte: speed(5_000),
        ..SLOW
    };
    for model in [SLOW, far, slow_link, many_topics, very_slow] {
        let seen = run(model);
        assert!(seen.oldest < BEHIND / 2, "{seen:?}");
        assert!(seen.oldest_ever < BEHIND, "{seen:?}");
        assert!(seen.busy > 0.8, "the client waits too much: {seen:?}");
    }
}

#[test]
fn a_client_that_becomes_slow_gets_fresh_prices_or_a_lag_message() {
    let slow_from = 5;
    let seen = run(Model { slow_from, ..SLOW });
    assert!(seen.oldest_ever < BEHIND / 2, "{seen:?}");
    let seen = run(Model {
        slow_from,
        per_message: Duration::from_millis(100),
        ..SLOW
    });
    assert!(seen.oldest_ever < BEHIND, "{seen:?}");
    assert!(seen.oldest < BEHIND / 4, "{seen:?}");
    assert!(seen.behind > BEHIND / 4, "it is sent `lag`: {seen:?}");
}

#[test]
fn a_client_that_keeps_up_is_pinged_rarely_and_not_held_back() {
    for round_trip in [1, 200] {
        let round_trip = Duration::from_millis(round_trip);
        let seen = run(Model {
            round_trip,
            ..MODEL
        });
        assert_eq!(seen.behind, Duration::ZERO, "{seen:?}");
        assert!(seen.pings <= 10.0, "{seen:?}");
        // At the beginning, a few round trips.
        assert!(seen.held_ms < 700, "{seen:?}");
    }
}

#[test]
fn a_client_that_never_answers_pings_is_not_held_back_for_long() {
    let seen = run(Model {
        answers: false,
        ..MODEL
    });
    assert_eq!(seen.behind, Duration::ZERO, "nothing is known of it");
    assert!(seen.held_ms < 700 && seen.pings < 0.1, "{seen:?}");
}

#[test]
fn only_the_pong_of_the_unanswered_ping_counts() {
    let mut window = ReadWindow::new();
    let (then, now) = (UnixNanos(5), UnixNanos(10_000_005));
    assert_eq!(window.pong(&[0, 0, 0, 1], then, PACE), None);
    assert_eq!(window.ping(then, 100, 0), Some([0, 0, 0, 1]));
    assert_eq!(window.ping(then, 100, 0), None, "one at a time");
    assert_eq!(window.unread_since(BEHIND), None, "nothing is known of it");
    assert_eq!(window.pong(b"", now, PACE), None);
    let limits = window.pong(&[0, 0, 0, 1], now, PACE).expect("its own ping");
    assert_eq!(limits.hold_at, 100 + u64::from(FIRST_WINDOW));
    assert_eq!(window.pong(&[0, 0, 0, 1], now, PACE), None, "once");
    let raw = Pace::new(BEHIND, false);
    assert_eq!(window.ping(now, 900_000, 0), Some([0, 0, 0, 2]));
    let later = now.plus(Duration::from_millis(12));
    assert_eq!(
        window.unread_since(BEHIND),
        Some(later.minus(Duration::from_millis(2))),
        "less the round trip"
    );
    assert_eq!(
        window.pong(&[0, 0, 0, 2], later, raw),
        Some(SendLimits::NONE)
    );
}

#[test]
fn a_ping_behind_requested_data_ages_later() {
    let mut window = ReadWindow::new();
    let now = UnixNanos(1_000_000_000);
    assert!(window.ping(now, 0, 0).is_some());
    assert!(window.pong(&[0, 0, 0, 1], now, PACE).is_some());
    assert!(window.ping(now, 100_000, 80_000).is_some());
    assert_eq!(window.unread_since(BEHIND), Some(now.plus(BEHIND)));
    assert!(window.pong(&[0, 0, 0, 2], now, PACE).is_some());
    assert!(window.ping(now, 200_000, 81_000).is_some());
    assert_eq!(
        window.unread_since(BEHIND),
        Some(now),
        "most of it was live"
    );
    window.excuse(Duration::from_secs(3));
    let excused = now.plus(Duration::from_secs(3));
    assert_eq!(window.unread_since(BEHIND), Some(excused));
    assert_eq!(
        window.look(excused, PACE),
        Look::Later(excused.plus(PACE.spacing()))
    );
}
