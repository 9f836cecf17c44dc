//! Load tester: many connections, a few of which decode and measure everything, and a ledger for
//! each.
//!
//! Latency is measured from the time at which an event was *due* (`ts` of simulated trades and
//! quotes) and from its publication (`tx`) to its receipt, so a stalled generator is visible and
//! results are free of coordinated omission. Probes count for themselves and compare their accounts
//! with the server's; all other connections request the server's ledger, which must balance.
//!
//! ```no_run
//! use tickcast::load::{Plan, run};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Plan { connections: 100, ..Plan::new("127.0.0.1:8080".parse()?, vec!["quote:*".to_owned()]) };
//! let outcome = run(&plan, &mut |_| false)?;
//! println!("{} deliveries/s", outcome.delivered_per_s());
//! # Ok(())
//! # }
//! ```
//!
//! [`Plan`] shows all settings, objectives and results of a run, [`Outcome`] how to compare two
//! runs, and [`RawPlan`] how to test other WebSocket servers.

mod connection;
mod error;
mod figures;
mod handshake;
mod hdr;
mod html;
mod lateness;
mod machine;
mod outcome;
mod plan;
mod plan_error;
mod preflight;
mod probe;
mod raw;
mod recorder;
mod request;
#[cfg(not(feature = "internals"))]
mod scan;
#[cfg(feature = "internals")]
pub mod scan;
mod scenario;
mod slo;
mod stats;
mod stream;
mod table;
mod token;
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

pub use error::LoadError;
pub use hdr::{write_hgrm, write_hlog};
pub use html::write_html;
pub use machine::Machine;
pub use outcome::{Difference, LatencySummary, Outcome, Second, compare};
pub use plan::{Dialect, ModeMix, Plan, Probes, Share, Skew, TopicChoice, parse_mode};
pub use plan_error::PlanError;
pub use preflight::ClockCheck;
pub use raw::{RawPlan, TimePath};
pub use slo::{Slo, Verdict};
pub use stats::{Latency, LedgerSums, Span, Tally};
pub use table::write_table;

use crate::client::server_name;
use crate::clock::{Clock, PollTimer};
use crate::market::UnixNanos;
use crate::printable::printable;
use recorder::TestSettings;
use stream::TlsSettings;
use token::SharedToken;
use worker::{End, Job, Order, Report, Worker};

/// Max time for all connections to subscribe, beyond the ramp.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// Max time for the final ledgers.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);
/// Maximum number of queued reports of a worker.
const REPORTS_MAX: usize = 64;

/// Progress of a running test.
#[derive(Debug)]
pub enum Update<'a> {
    /// Connections are opened.
    Opening,
    /// All connections are subscribed; the warm-up begins.
    WarmingUp,
    /// Latencies are recorded from here on.
    Measuring,
    /// The ledgers are requested.
    Closing,
    /// Results of the last second.
    Second(&'a Span),
}

/// Runs a test from the first connection to the last ledger. Blocks; `watch` is notified of each
/// stage and each second, and says by `true` that the test is to end early.
pub fn run(plan: &Plan, watch: &mut dyn FnMut(Update<'_>) -> bool) -> Result<Outcome, LoadError> {
    let clock = Clock::start();
    let probed = match &plan.dialect {
        Dialect::Tickcast => Some(preflight::preflight(plan, clock)?),
        Dialect::Raw(_) => None,
    };
    let known = probed.as_ref().map_or(&[][..], |probed| &probed.topics);
    let server = probed.as_ref().map(|probed| {
        let name = printable(&probed.server).into_owned();
        (name, probed.clock, probed.is_simulated)
    });
    run_known(Clock::start(), plan, known, server, watch)
}

/// Like [`run`], without a preflight and by a clock that the caller may step.
#[cfg(feature = "internals")]
pub fn run_by(
    clock: Clock,
    plan: &Plan,
    watch: &mut dyn FnMut(Update<'_>) -> bool,
) -> Result<Outcome, LoadError> {
    run_known(clock, plan, &[], None, watch)
}

/// Like [`run`], against a server that answers only `subscribe`: `topics` are what it has, all of
/// them simulated, and its clock is this machine's.
#[cfg(feature = "internals")]
pub fn run_with_topics(
    plan: &Plan,
    topics: &[String],
    watch: &mut dyn FnMut(Update<'_>) -> bool,
) -> Result<Outcome, LoadError> {
    let clock = ClockCheck {
        same_machine: true,
        offset_ns: 0,
        error_ns: 0,
    };
    let server = Some((String::new(), clock, true));
    run_known(Clock::start(), plan, topics, server, watch)
}

fn run_known(
    clock: Clock,
    plan: &Plan,
    topics: &[String],
    server: Option<(String, ClockCheck, bool)>,
    watch: &mut dyn FnMut(Update<'_>) -> bool,
) -> Result<Outcome, LoadError> {
    check_files(plan)?;
    let tls = plan.tls.as_ref().map(|tls| {
        server_name(&plan.host).map(|name| TlsSettings {
            config: tls.config(),
            name,
        })
    });
    let token = plan.token.clone();
    let token = token.map(|token| SharedToken::read(token, clock.now()));
    let (server, clock_check, due_is_known) = server
        .map_or((String::new(), None, false), |(name, check, simulated)| {
            (name, Some(check), simulated)
        });
    let settings = Arc::new(TestSettings {
        dialect: plan.dialect.clone(),
        encoding: plan.encoding,
        host: plan.host.clone(),
        path: plan.path.clone(),
        tls: tls.transpose()?,
        token: token.transpose()?,
        clock_offset_ns: clock_check.map_or(0, |check| check.offset_ns),
        due_is_known,
        ledger: plan.ledger && !plan.dialect.is_raw(),
    });
    let mut workers = Workers::start(plan, topics, &settings, clock)?;
    let totals = workers.run_scenario(plan, watch)?;
    Ok(Outcome::new(plan, server, clock_check, totals))
}

fn check_files(plan: &Plan) -> Result<(), LoadError> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    if plan.connections as u64 + 64 > limit {
        return Err(LoadError::Files {
            asked: plan.connections,
            limit,
        });
    }
    Ok(())
}

/// Totals over the reports of all workers.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub begun: UnixNanos,
    pub measured: Duration,
    pub seconds: Vec<(Duration, Span)>,
    pub total: Span,
    /// Counts outside the measured time.
    pub outside: Tally,
    pub failures: Vec<String>,
    pub ledger: LedgerSums,
    /// Time until all connections had subscribed.
    pub joining: Duration,
    /// Time after a storm until all connections had resubscribed.
    pub storm: Option<Duration>,
    pub workers: usize,
    /// Connections that measured latencies.
    pub probes: usize,
    /// The test was cancelled.
    pub interrupted: bool,
}

/// Workers, with their channels.
#[derive(Debug)]
struct Workers {
    clock: Clock,
    orders: Vec<(SyncSender<Order>, Arc<mio::Waker>)>,
    reports: Receiver<Report>,
    threads: Vec<std::thread::JoinHandle<io::Result<()>>>,
    totals: Totals,
    /// Spans of the workers for the same second, until all are there.
    span: Span,
    spans: usize,
    measuring_since: UnixNanos,
}

impl Workers {
    fn start(
        plan: &Plan,
        topics: &[String],
        settings: &Arc<TestSettings>,
        clock: Clock,
    ) -> Result<Self, LoadError> {
        let workers = plan.workers.clamp(1, plan.connections.max(1));
        let mut shares: Vec<Vec<plan::Assignment>> = (0..workers).map(|_| Vec::new()).collect();
        for assignment in plan::assign(plan, topics) {
            let at = assignment.number % workers;
            shares[at].push(assignment);
        }
        let (report, reports) = sync_channel(REPORTS_MAX);
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for (at, assignments) in shares.into_iter().enumerate() {
            let (order, receiver) = sync_channel(8);
            let poll = mio::Poll::new()?;
            let waker = Arc::new(mio::Waker::new(poll.registry(), worker::wake_token())?);
            let job = Job {
                clock,
                settings: Arc::clone(settings),
                assignments,
                orders: receiver,
                reports: report.clone(),
                poll,
                timer: PollTimer::new()?,
            };
            let worker = Worker::new(plan, job, workers);
            let thread = std::thread::Builder::new().name(format!("load-{at}"));
            threads.push(thread.spawn(move || worker.run(LEDGER_PATIENCE))?);
            orders.push((order, waker));
        }
        let totals = Totals {
            begun: clock.now(),
            workers,
            ..Totals::default()
        };
        Ok(Self {
            clock,
            orders,
            reports,
            threads,
            totals,
            span: Span::default(),
            spans: 0,
            measuring_since: UnixNanos::default(),
        })
    }

    fn order(&self, order: Order) -> Result<(), LoadError> {
        for (sender, waker) in &self.orders {
            sender.send(order).map_err(|_gone| LoadError::Worker)?;
            waker.wake()?;
        }
        Ok(())
    }

    /// From the first connection to the last ledger.
    fn run_scenario(
        &mut self,
        plan: &Plan,
        watch: &mut dyn FnMut(Update<'_>) -> bool,
    ) -> Result<Totals, LoadError> {
        let begun = self.clock.now();
        self.announce(Update::Opening, watch);
        if !self.joined_by(begun.plus(plan.ramp + plan.silence + JOIN_PATIENCE), watch)? {
            return Err(LoadError::NotJoined(plan.connections));
        }
        self.totals.joining = self.clock.now().since(begun);
        self.announce(Update::WarmingUp, watch);
        self.pass(plan.warmup, watch)?;
        self.order(Order::Measure)?;
        let since = self.clock.now();
        self.measuring_since = since;
        self.announce(Update::Measuring, watch);
        if plan.storm {
            self.pass(plan.duration / 2, watch)?;
            self.storm(plan.connections, watch)?;
        }
        self.pass(since.plus(plan.duration).since(self.clock.now()), watch)?;
        self.totals.measured = self.clock.now().since(since);
        self.order(Order::Finish)?;
        watch(Update::Closing);
        self.gather_ends(watch)?;
        // A late worker counts until it receives the end; its counts belong to that whole time.
        if let Some((until, _)) = self.totals.seconds.last() {
            self.totals.measured = *until;
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_panicked| LoadError::Worker)??;
        }
        Ok(std::mem::take(&mut self.totals))
    }

    /// Reports a stage; the caller may cancel the test.
    fn announce(&mut self, stage: Update<'_>, watch: &mut dyn FnMut(Update<'_>) -> bool) {
        self.totals.interrupted |= watch(stage);
    }

    fn storm(
        &mut self,
        connections: usize,
        watch: &mut dyn FnMut(Update<'_>) -> bool,
    ) -> Result<(), LoadError> {
        if self.totals.interrupted {
            return Ok(());
        }
        self.order(Order::Gather)?;
        self.await_all(self.clock.now().plus(JOIN_PATIENCE), watch, &|report| {
            matches!(report, Report::Gathered)
        })?;
        let cut = self.clock.now();
        self.order(Order::ComeBack)?;
        if !self.joined_by(cut.plus(JOIN_PATIENCE), watch)? {
            return Err(LoadError::NotJoined(connections));
        }
        self.totals.storm = (!self.totals.interrupted).then(|| self.clock.now().since(cut));
        Ok(())
    }

    fn joined_by(
        &mut self,
        until: UnixNanos,
        watch: &mut dyn FnMut(Update<'_>) -> bool,
    ) -> Result<bool, LoadError> {
        self.await_all(until, watch, &|report| matches!(report, Report::Joined))
    }

    /// Waits until every worker has sent a report of a kind, or the test is interrupted. Returns
    /// false where `until` passed before.
    fn await_all(
        &mut self,
        until: UnixNanos,
        watch: &mut dyn FnMut(Update<'_>) -> bool,
        wanted: &dyn Fn(&Report) -> bool,
    ) -> Result<bool, LoadError> {
        let mut left = self.orders.len();
        while left > 0 && !self.totals.interrupted {
            let Some(report) = self.next_report(until)? else {
                return Ok(false);
            };
            left -= usize::from(wanted(&report));
            self.take(report, watch);
        }
        Ok(true)
    }

    /// Waits for a time, unless the test is interrupted.
    fn pass(
        &mut self,
        time: Duration,
        watch: &mut dyn FnMut(Update<'_>) -> bool,
    ) -> Result<(), LoadError> {
        let until = self.clock.now().plus(time);
        while !self.totals.interrupted
            && let Some(report) = self.next_report(until)?
        {
            self.take(report, watch);
        }
        Ok(())
    }

    fn next_report(&self, until: UnixNanos) -> Result<Option<Report>, LoadError> {
        match self.reports.recv_timeout(until.since(self.clock.now())) {
            Ok(report) => Ok(Some(report)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(LoadError::Worker),
        }
    }

    fn take(&mut self, report: Report, watch: &mut dyn FnMut(Update<'_>) -> bool) {
        let Report::Span(span) = report else {
            return;
        };
        self.span.add(&span);
        self.spans += 1;
        if self.spans < self.orders.len() {
            return;
        }
        self.spans = 0;
        let whole = std::mem::take(&mut self.span);
        self.totals.interrupted |= watch(Update::Second(&whole));
        if whole.is_measured {
            self.totals.total.add(&whole);
            self.totals
                .seconds
                .push((self.clock.now().since(self.measuring_since), whole));
        } else {
            self.totals.outside.add(&whole.tally);
        }
    }

    fn gather_ends(&mut self, watch: &mut dyn FnMut(Update<'_>) -> bool) -> Result<(), LoadError> {
        let mut left = self.orders.len();
        let until = self.clock.now().plus(LEDGER_PATIENCE * 2);
        while left > 0 {
            match self.next_report(until)?.ok_or(LoadError::Worker)? {
                Report::Over(end) => {
                    let End {
                        span,
                        failures,
                        ledger,
                        probes,
                    } = *end;
                    self.totals.outside.add(&span.tally);
                    self.totals.failures.extend(failures);
                    self.totals.ledger.add(&ledger);
                    self.totals.probes += probes;
                    left -= 1;
                }
                report => self.take(report, watch),
            }
        }
        Ok(())
    }
}
