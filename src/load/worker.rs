//! Worker: a thread of the tester with many connections and one poll.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rand::SeedableRng;

use super::connection::{ConnectionError, LoadConnection, Turn};
use super::lateness::WakeUps;
use super::plan::{Assignment, Plan, PlanRng};
use super::recorder::{Recorder, TestSettings, add_failure};
use super::stats::{LedgerSums, Span};
use super::stream::{LoadStream, connect};
use crate::clock::{Clock, PollTimer, thread_cpu_time};
use crate::market::UnixNanos;
use crate::protocol::ResumeFrom;

/// Interval of progress reports.
pub(super) const SPAN: Duration = Duration::from_secs(1);
/// Read interval of a slow reader.
pub(super) const SLOW_READ: Duration = Duration::from_millis(50);
/// Size of the read buffer, about the size of the CPU cache.
pub(super) const READ_BYTES: usize = 256 * 1024;
/// Maximum number of full reads of one connection before the others are served.
const READS_A_TURN: usize = 4;
const EVENTS_A_TURN: usize = 1024;
/// Connections from one loopback address: fewer than there are ports.
const CONNECTIONS_A_SOURCE: usize = 20_000;
/// The token of the waker, behind all connections.
const WAKE: Token = Token(usize::MAX);
/// The token of the timer of the wake-ups.
const TIMER: Token = Token(usize::MAX - 1);

/// Commands to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Latencies are recorded from now on.
    Measure,
    /// Request all ledgers, from which the connections resume.
    Gather,
    /// Cut all connections with a ledger; they reconnect at once.
    ComeBack,
    /// Request all ledgers and finish.
    Finish,
}

/// Reports of a worker.
#[derive(Debug)]
pub(super) enum Report {
    /// Every connection has subscribed or failed.
    Joined,
    /// All reconnecting clients have their resume positions.
    Gathered,
    /// Results of about a second.
    Span(Box<Span>),
    /// The end.
    Over(Box<End>),
}

/// Final report of a worker.
#[derive(Debug, Default)]
pub(super) struct End {
    pub span: Span,
    pub failures: Vec<String>,
    /// Sums of the servers' ledgers.
    pub ledger: LedgerSums,
    /// Connections that measured latencies.
    pub probes: usize,
}

/// Reason why a connection is cut once it has its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DisconnectReason {
    /// Churn: it reconnects alone, at once.
    Churn,
    /// Storm: it reconnects with all others.
    Storm,
    /// End of the test.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Open(usize),
    /// Release of the held-back handshakes.
    Speak,
    SlowRead(usize),
    LifeSign(usize),
    /// Renewal of a token whose end the server has announced.
    Renew(usize),
    /// Renewal of the token of a connection that does not read such announcements in time.
    RenewUnasked(usize),
    /// All reading connections pause.
    Pause,
    /// The pause of a connection ends.
    Resume(usize),
    Churn,
    Span,
}

/// Stage of the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Handshakes are held back.
    Silent,
    /// Nothing is measured yet.
    Open,
    Measuring,
    /// The ledgers are requested.
    Finishing,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Place {
    pub assignment: Assignment,
    pub link: Option<LoadConnection>,
    pub cut: Option<DisconnectReason>,
    /// True if it reads by its role, not by the poll.
    pub is_held_back: bool,
    /// End of its pause.
    pub paused_until: Option<UnixNanos>,
    pub from: Option<ResumeFrom>,
    /// True if it waits to be cut and to reconnect with all others.
    pub comes_back: bool,
    pub has_joined: bool,
    /// True once a latency of its events was recorded.
    pub has_measured: bool,
}

impl Place {
    fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            link: None,
            cut: None,
            is_held_back: false,
            paused_until: None,
            from: None,
            comes_back: false,
            has_joined: false,
            has_measured: false,
        }
    }
}

/// Thread of the load tester that serves a share of the connections.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) poll: Poll,
    pub(super) clock: Clock,
    pub(super) settings: Arc<TestSettings>,
    pub(super) address: SocketAddr,
    pub(super) places: Vec<Place>,
    pub(super) due: BinaryHeap<Reverse<(UnixNanos, Due)>>,
    /// Connections that may have more to read.
    pub(super) again: Vec<usize>,
    pub(super) orders: Receiver<Order>,
    pub(super) reports: SyncSender<Report>,
    pub(super) span: Span,
    pub(super) end: End,
    pub(super) rng: PlanRng,
    pub(super) churn_every: Option<Duration>,
    pub(super) slow_bytes: usize,
    pub(super) pause: Duration,
    pub(super) pause_every: Duration,
    pub(super) spin: bool,
    pub(super) stage: Stage,
    pub(super) sources: usize,
    /// Connections that have not joined yet.
    pub(super) joining: usize,
    /// Connections whose ledger is awaited for a storm, or for the end.
    pub(super) awaited: usize,
    pub(super) idle: Duration,
    pub(super) busy_reported: Duration,
    pub(super) begun: UnixNanos,
    pub(super) wake_ups: WakeUps,
    pub(super) timer: PollTimer,
    pub(super) buffer: Box<[u8]>,
}

/// Task of a worker, beside the plan.
#[derive(Debug)]
pub(super) struct Job {
    pub clock: Clock,
    pub settings: Arc<TestSettings>,
    pub assignments: Vec<Assignment>,
    pub orders: Receiver<Order>,
    pub reports: SyncSender<Report>,
    pub poll: Poll,
    pub timer: PollTimer,
}

/// The token under which a worker's waker is registered.
pub(super) const fn wake_token() -> Token {
    WAKE
}

impl Worker {
    pub(super) fn new(plan: &Plan, job: Job, of: usize) -> Self {
        let Job {
            clock,
            settings,
            assignments,
            orders,
            reports,
            poll,
            timer,
        } = job;
        let begun = clock.now();
        let seed = plan.seed.wrapping_add(
            assignments
                .first()
                .map_or(0, |first| first.number as u64 + 1),
        );
        let places: Vec<Place> = assignments.into_iter().map(Place::new).collect();
        let due = Self::first_due(plan, &places, begun);
        let churn_every =
            (plan.churn_per_s > 0.0).then(|| Duration::from_secs_f64(of as f64 / plan.churn_per_s));
        Self {
            poll,
            clock,
            settings,
            address: plan.address,
            joining: places.len(),
            places,
            due,
            again: Vec::new(),
            orders,
            reports,
            span: Span::default(),
            end: End::default(),
            rng: PlanRng::seed_from_u64(seed),
            churn_every,
            slow_bytes: ((plan.slow_bytes_per_s as f64 * SLOW_READ.as_secs_f64()) as usize).max(1),
            pause: plan.pause,
            pause_every: plan.pause_every,
            spin: plan.spin,
            stage: if plan.silence.is_zero() {
                Stage::Open
            } else {
                Stage::Silent
            },
            sources: plan.connections.div_ceil(CONNECTIONS_A_SOURCE),
            awaited: 0,
            idle: Duration::ZERO,
            busy_reported: Duration::ZERO,
            begun,
            wake_ups: WakeUps::new(begun),
            timer,
            buffer: vec![0; READ_BYTES].into(),
        }
    }

    /// Runs until the end was ordered and every ledger has come, or `patience` after that.
    pub(super) fn run(mut self, patience: Duration) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_A_TURN);
        let mut until = None;
        if !self.spin {
            let timer = self.timer.as_raw_fd();
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&timer), TIMER, Interest::READABLE)?;
            self.set_timer()?;
        }
        if self.places.is_empty() {
            self.report(Report::Joined);
        }
        while !(self.stage == Stage::Finishing
            && (self.awaited == 0 || until.is_some_and(|until| self.clock.now() >= until)))
        {
            self.wait(&mut events)?;
            for event in &events {
                match event.token() {
                    WAKE => {}
                    TIMER => self.set_timer()?,
                    Token(at) => self.on_event(at, event.is_writable()),
                }
            }
            for at in std::mem::take(&mut self.again) {
                self.read(at);
            }
            self.take_due();
            while let Ok(order) = self.orders.try_recv() {
                if order == Order::Finish {
                    until = Some(self.clock.now().plus(patience));
                }
                self.handle(order);
            }
        }
        self.finish();
        Ok(())
    }

    /// Wakes the poll when the next wake-up is due; a worker that spins needs no timer.
    fn set_timer(&self) -> io::Result<()> {
        self.timer.set(self.wake_ups.left(self.clock.now()))
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let before = self.clock.now();
        let next = self.due.peek().map(|Reverse((at, _))| at.since(before));
        let timeout = if self.spin || !self.again.is_empty() {
            Some(Duration::ZERO)
        } else {
            next
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            polled => polled?,
        }
        let now = self.clock.now();
        if events.is_empty() && self.again.is_empty() {
            self.idle += now.since(before);
        }
        let lateness = Some(&mut self.span.lateness);
        let lateness = lateness.filter(|_| self.stage == Stage::Measuring);
        self.wake_ups.on_wake(now, lateness);
        Ok(())
    }

    fn on_event(&mut self, at: usize, is_writable: bool) {
        if is_writable && let Some(link) = &mut self.places[at].link {
            let written = link.on_writable(&self.settings);
            self.settle(at, written.map(|()| Turn::On));
        }
        self.read(at);
    }

    /// Reads a connection up to one turn's share.
    fn read(&mut self, at: usize) {
        if self.places[at].is_held_back {
            return;
        }
        for _ in 0..READS_A_TURN {
            match self.read_once(at, READ_BYTES) {
                Some(READ_BYTES) => {}
                _ => return,
            }
        }
        self.again.push(at);
    }

    /// Reads once; how much there was. `None`: nothing, or the connection is gone.
    pub(super) fn read_once(&mut self, at: usize, most: usize) -> Option<usize> {
        let Self {
            places,
            buffer,
            clock,
            settings,
            span,
            end,
            stage,
            ..
        } = self;
        let Place {
            link, has_measured, ..
        } = &mut places[at];
        let link = link.as_mut()?;
        let measured = span.latency.published.len();
        let read = match link.read(&mut buffer[..most]) {
            Ok(None) => return None,
            Ok(Some(read)) => read,
            Err(error) => {
                self.settle(at, Err(error.into()));
                return None;
            }
        };
        let taken = if read == 0 {
            Ok(link.end())
        } else {
            let mut recorder = Recorder {
                tally: &mut span.tally,
                latency: &mut span.latency,
                failures: &mut end.failures,
                measures: *stage == Stage::Measuring,
            };
            link.take(&buffer[..read], clock.now(), settings, &mut recorder)
        };
        *has_measured |= span.latency.published.len() > measured;
        self.settle(at, taken);
        self.renew_if_due(at);
        self.places[at].link.as_ref().map(|_| read)
    }

    pub(super) fn open(&mut self, at: usize) {
        let place = &mut self.places[at];
        place.is_held_back = false;
        place.paused_until = None;
        let from = place.from.take();
        match connect(self.address, &place.assignment, self.sources) {
            Ok(stream) => {
                let stream = match LoadStream::new(stream, self.settings.tls.as_ref()) {
                    Ok(stream) => stream,
                    Err(error) => return self.settle(at, Err(error.into())),
                };
                let token = self.settings.token.as_ref();
                let mut link = LoadConnection::new(
                    place.assignment.clone(),
                    stream,
                    from,
                    token.map(|token| token.at(self.clock.now())),
                    self.stage == Stage::Silent,
                );
                let registered = link.stream.register(self.poll.registry(), Token(at));
                place.link = Some(link);
                self.settle(
                    at,
                    registered.map(|()| Turn::On).map_err(ConnectionError::from),
                );
            }
            Err(error) => self.settle(at, Err(error.into())),
        }
    }

    fn busy(&self) -> Duration {
        if self.spin {
            self.clock.now().since(self.begun).saturating_sub(self.idle)
        } else {
            thread_cpu_time()
        }
    }

    pub(super) fn report_span(&mut self) {
        let busy = self.busy();
        let mut span = std::mem::take(&mut self.span);
        span.busy_s = busy.saturating_sub(self.busy_reported).as_secs_f64();
        span.is_measured = self.stage == Stage::Measuring;
        span.open = self
            .places
            .iter()
            .filter(|place| place.link.is_some())
            .count();
        self.busy_reported = busy;
        self.report(Report::Span(Box::new(span)));
    }

    pub(super) fn report(&self, report: Report) {
        // The receiver may have been dropped.
        let _gone = self.reports.send(report);
    }

    fn finish(mut self) {
        for place in &self.places {
            if let Some(link) = place.link.as_ref().filter(|link| !link.is_over()) {
                let number = place.assignment.number;
                let failure = if link.awaits_ledger() {
                    "no ledger received within 60 s"
                } else {
                    "not subscribed when the test ended"
                };
                add_failure(
                    &mut self.end.failures,
                    format!("connection {number}: {failure}"),
                );
            }
        }
        let mut end = std::mem::take(&mut self.end);
        end.probes = self
            .places
            .iter()
            .filter(|place| place.has_measured)
            .count();
        end.span = std::mem::take(&mut self.span);
        self.report(Report::Over(Box::new(end)));
    }
}
