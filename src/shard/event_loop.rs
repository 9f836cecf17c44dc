//! Event loop of a shard.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::agents::Agents;
use super::authentication::{CheckedToken, Checks};
use super::command::{Command, ShardHandle};
use super::connection::READ_BYTES;
use super::connections::Connections;
use super::delay::DelayLine;
use super::entitle::Reviews;
use super::feed::Feed;
use super::feed::ShardConfig;
use super::meters::Meters;
use super::pacing::Pacing;
use super::pause::{LOOK_EVERY, PauseDetector};
use super::reader::websocket_config;
use super::sockets::{Ready, Sockets};
use super::timers::{Due, Timers};
use super::turn_events::FanOut;
use super::{ITEMS_A_TURN, Parts, SERVING_MAX, Shard};
use crate::bus::Emitter;
use crate::limits::ShardLimits;
use crate::log::{Checkpoint, DemandSignal, Log, Next, Replica};
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::outbox::{Counts, LastValueCache};
use crate::protocol::Code;

/// Commands taken in one turn.
const COMMANDS_A_TURN: usize = 64;

/// Starts a shard's thread; its runtime also serves the handshakes of its future clients.
pub fn spawn(
    number: usize,
    config: ShardConfig,
    log: Arc<Log>,
    bus: Emitter,
    metrics: Arc<Metrics>,
) -> std::io::Result<(ShardHandle, std::thread::JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (handle, commands) = ShardHandle::new(runtime.handle().clone(), config.delay);
    let sockets = {
        let _registers_with_it = runtime.enter();
        Sockets::new()?
    };
    let shard = Shard::new(Parts {
        number,
        config,
        log,
        bus,
        metrics,
        sockets,
        connected: handle.counter(),
    });
    let run = move || {
        let _fatal = crate::fatal::FatalPanic("shard");
        runtime.block_on(tokio::task::coop::unconstrained(shard.run(commands)));
    };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(run)?;
    Ok((handle, thread))
}

/// Reasons for the end of a wait.
pub(super) enum Woken {
    /// A batch, a socket or a timer.
    Due,
    /// A command; `None` once all handles are dropped.
    Command(Option<Command>),
    /// Outcome of a check of a token.
    Checked(CheckedToken),
    /// Answer to a request for a checkpoint; `None` if the bus has stopped.
    Restored(Option<Arc<Checkpoint>>),
}

impl Shard {
    /// A shard without connections, at the end of the log.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            number,
            config,
            log,
            bus,
            metrics,
            sockets,
            connected,
        } = parts;
        Self {
            number,
            limits: Arc::new(config.limits.requests),
            websocket: websocket_config(config.limits.requests.message_bytes as usize),
            connected,
            checks: Checks::default(),
            connections: Connections::default(),
            agents: Agents::default(),
            fan_out: FanOut::default(),
            meters: Meters::new(metrics.add_shard(number)),
            pauses: PauseDetector::default(),
            pacing: Pacing::default(),
            sockets,
            ready: Vec::new(),
            timers: Timers::default(),
            read_buffer: vec![0; READ_BYTES].into(),
            draining: false,
            reviews: Reviews::default(),
            delay_line: DelayLine::new(config.delay, config.delay_line_bytes),
            snapshots: VecDeque::new(),
            drained: None,
            flush_at: UnixNanos::default(),
            feed: Feed {
                next: log.head(),
                log,
                bus,
                restoring: None,
                replica: Replica::new(config.epoch, config.limits.history),
                last_values: LastValueCache::default(),
                counts: Counts::delayed(config.delay),
                metrics,
                intervals: Vec::new(),
                now: config.clock.now(),
                config,
            },
        }
    }

    /// Applies other limits and times.
    pub(super) fn tune(&mut self, limits: ShardLimits, demand: Arc<[Arc<DemandSignal>]>) {
        self.feed.config.limits = limits;
        self.feed.config.demand = demand;
        self.limits = Arc::new(limits.requests);
        self.feed.replica.limit(limits.history);
    }

    /// Runs until all handles are dropped.
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut busy = false;
        loop {
            // Every turn ends in the runtime once, which polls the sockets and continues
            // handshakes, however fast the log grows.
            if busy {
                tokio::task::yield_now().await;
            } else {
                let woken = self.wait(&mut commands).await;
                if !self.on_woken(woken) {
                    return;
                }
            }
            busy = self.turn(&mut commands);
        }
    }

    /// One turn. Returns true if there is more to do at once.
    pub(super) fn turn(&mut self, commands: &mut mpsc::Receiver<Command>) -> bool {
        self.feed.now = self.feed.config.clock.now();
        if let Some(pause) = self
            .pauses
            .begin(self.feed.now, !self.connections.is_empty())
        {
            self.excuse_pause(pause);
        }
        self.feed.counts.settle(self.feed.now);
        self.take_checked();
        let mut busy = self.take_commands(commands);
        busy |= self.make_snapshots();
        busy |= self.review_some();
        self.serve();
        let flushes = self.feed.now >= self.flush_at;
        let has_more = self.leaves_log_until().is_none() && self.take_batches();
        busy |= has_more;
        if flushes && (!self.fan_out.events.is_empty() || self.connections.has_dirty()) {
            self.flush_at = self.feed.now.plus(self.feed.config.limits.flush_window);
        }
        self.deliver(flushes);
        self.take_timers();
        busy |= flushes && self.flush();
        self.send_round(has_more);
        let ended = self.feed.config.clock.now();
        self.feed.counts.settle(ended);
        super::meters::report(&mut self.feed.counts, &self.feed.metrics);
        self.meters.turned(self.feed.now, ended);
        busy
    }

    /// Reads ready sockets and executes their requests, for at most [`SERVING_MAX`]; then events
    /// are delivered first.
    fn serve(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.sockets.take(&mut ready);
        let mut found = ready.drain(..);
        for ready in found.by_ref() {
            self.on_ready(ready);
            if self.feed.config.clock.now().since(self.feed.now) >= SERVING_MAX {
                break;
            }
        }
        if found.len() > 0 {
            // Their pongs may be in sockets that a saturated shard reads late.
            for Ready { key, .. } in found.as_slice() {
                if let Some(connection) = self.connections.get_mut(*key) {
                    connection.outbox.defer_hearing();
                }
            }
            self.sockets.put_back(found);
        } else {
            drop(found);
        }
        self.ready = ready;
    }

    /// Time of the next turn if nothing wakes the shard before.
    pub(super) fn due_at(&self) -> Option<UnixNanos> {
        let gathered = self.connections.has_dirty().then_some(self.flush_at);
        let look = (!self.connections.is_empty()).then(|| self.feed.now.plus(LOOK_EVERY));
        self.timers
            .next()
            .into_iter()
            .chain(look)
            .chain(gathered)
            .chain(self.pacing.due_at())
            .chain(self.leaves_log_until())
            .chain(self.delay_line.as_ref().and_then(DelayLine::due_at))
            .chain(self.feed.counts.report_at())
            .min()
    }

    /// Waits for work.
    pub(super) async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) -> Woken {
        let next_timer = self.due_at().map(|at| self.feed.config.clock.timer(at));
        let leaves_log = self.feed.restoring.is_some() || self.leaves_log_until().is_some();
        let mut has_waited = false;
        let woken = {
            let timer = async {
                match next_timer {
                    Some(timer) => timer.await,
                    None => std::future::pending().await,
                }
            };
            let restored = async {
                match &mut self.feed.restoring {
                    Some(request) => request.answer().await,
                    None => std::future::pending().await,
                }
            };
            let woken = async {
                tokio::select! {
                    biased;
                    () = self.feed.log.reader(self.number).notified(), if !leaves_log => Woken::Due,
                    () = self.sockets.ready() => Woken::Due,
                    command = commands.recv() => Woken::Command(command),
                    checked = self.checks.next() => Woken::Checked(checked),
                    checkpoint = restored => Woken::Restored(checkpoint),
                    () = timer => Woken::Due,
                }
            };
            let mut woken = std::pin::pin!(woken);
            std::future::poll_fn(|context| {
                let polled = woken.as_mut().poll(context);
                has_waited |= polled.is_pending();
                polled
            })
            .await
        };
        if !has_waited {
            tokio::task::yield_now().await;
        }
        woken
    }

    /// Begins a turn that something has woken. Returns false once all handles are dropped.
    pub(super) fn on_woken(&mut self, woken: Woken) -> bool {
        self.feed.now = self.feed.config.clock.now();
        match woken {
            Woken::Due => {}
            Woken::Command(None) => return false,
            Woken::Command(Some(command)) => self.on_command(command),
            Woken::Checked(checked) => self.on_checked(checked),
            Woken::Restored(checkpoint) => {
                self.feed.restoring = None;
                if let Some(checkpoint) = checkpoint {
                    self.take_checkpoint(checkpoint);
                }
            }
        }
        true
    }

    fn take_commands(&mut self, commands: &mut mpsc::Receiver<Command>) -> bool {
        for _ in 0..COMMANDS_A_TURN {
            let Ok(command) = commands.try_recv() else {
                return false;
            };
            self.on_command(command);
        }
        true
    }

    /// Routes batches of the log. Returns whether there may be more.
    pub(super) fn take_batches(&mut self) -> bool {
        if self.delay_line.is_some() {
            return self.take_delayed();
        }
        if self.feed.restoring.is_some() {
            return false;
        }
        let mut items = 0;
        while items < ITEMS_A_TURN {
            match self.feed.log.read(self.feed.next) {
                Next::Batch(batch) => {
                    self.feed.next += 1;
                    items += batch.items.len();
                    self.route(&batch);
                }
                Next::Empty => return false,
                Next::Overrun => {
                    self.on_overrun();
                    return false;
                }
            }
        }
        true
    }

    /// True if it has read all of the log.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.feed.restoring.is_none() && self.feed.next == self.feed.log.head()
    }

    fn take_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.feed.now) {
            let key = timer.connection;
            let Some(connection) = self.connections.get_mut(key) else {
                continue;
            };
            if connection.peer.generation != timer.generation {
                continue;
            }
            match timer.due {
                Due::Interval(slot) => {
                    connection.outbox.on_due(slot, self.feed.now);
                    self.connections.mark_dirty(key);
                }
                Due::Checkup if connection.peer.checkup_at == timer.at => self.keepalive(key),
                Due::Checkup => {}
                Due::Lag if connection.peer.lag_at == timer.at => self.check_lag(key),
                Due::Lag => {}
            }
        }
    }

    pub(super) fn count_close(&self, code: Option<Code>) {
        match code {
            Some(code) => self.feed.metrics.count_close(code),
            None => self
                .feed
                .metrics
                .closed
                .with_label_values(&["client"])
                .inc(),
        }
    }
}
