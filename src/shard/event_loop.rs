//! The loop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::ShardLimits;
use slab::Slab;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::command::{Command, ShardHandle};
use super::connection::{Connection, ConnectionKey, Flushed, Generation};
use super::lifecycle::TOO_SLOW;
use super::meters::Meters;
use super::pause::{LOOK_EVERY, PauseDetector};
use super::read::READ_BYTES;
use super::reader::websocket_config;
use super::ready::ReadyList;
use super::registry::Registry;
use super::snapshots::Snapshots;
use super::timers::{Due, Timer, Timers};
use super::turn_events::{Rotation, TurnEvents};
use crate::bus::Emitter;
use crate::clock::Clock;
use crate::log::DemandSignal;
use crate::log::{Checkpoint, Log, Next, Replica, SourceId, TopicId};
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::outbox::{Counts, LastValueCache, Outbox, OverflowAction, SlotId, View};
use crate::protocol::{Code, Epoch, Limits};

/// Items of the log after which sockets are served; the last batch of a turn is taken whole.
const ITEMS_A_TURN: usize = 2048;
/// Commands taken in one turn.
const COMMANDS_A_TURN: usize = 64;
/// Time that a turn spends on requests; a single slice of a request is far shorter.
pub(super) const SERVING_MAX: Duration = Duration::from_micros(500);
/// Memory of buffers kept for the next who has something to write.
const POOL_BYTES_MAX: usize = 1024 * 1024;
/// A buffer that grew larger isn't kept.
const POOLED_BUFFER_BYTES_MAX: usize = 512 * 1024;

/// What a shard is told when it starts.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The clock of the whole server.
    pub clock: Clock,
    /// The epoch in which topics begin.
    pub epoch: Epoch,
    /// What a reload may change.
    pub limits: ShardLimits,
    /// By source: opened by the first subscription to one of its topics.
    pub demand: Arc<[Arc<DemandSignal>]>,
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    pub(super) number: usize,
    pub(super) config: ShardConfig,
    pub(super) websocket: WebSocketConfig,
    /// What each client may ask.
    pub(super) limits: Arc<Limits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) handle: ShardHandle,
    pub(super) log: Arc<Log>,
    /// Number of the next batch to read.
    pub(super) next: u64,
    pub(super) bus: Emitter,
    pub(super) restoring: Option<oneshot::Receiver<Arc<Checkpoint>>>,
    pub(super) replica: Replica,
    pub(super) registry: Registry,
    pub(super) connections: Slab<Connection>,
    pub(super) generation: u32,
    pub(super) last_values: LastValueCache,
    /// The events of this turn.
    pub(super) turn_events: TurnEvents,
    /// The connections that have some of them; used again.
    pub(super) order: Vec<ConnectionKey>,
    /// What connections did in this turn.
    pub(super) counts: Counts,
    pub(super) meters: Meters,
    pub(super) pauses: PauseDetector,
    pub(super) ready: Arc<ReadyList>,
    pub(super) timers: Timers,
    pub(super) dirty: Vec<ConnectionKey>,
    /// Asked for by outboxes while they fill.
    pub(super) intervals: Vec<(UnixNanos, SlotId)>,
    pub(super) pool: Vec<Vec<u8>>,
    pub(super) pool_bytes: usize,
    /// Where all sockets are read into.
    pub(super) read_buffer: Box<[u8]>,
    pub(super) now: UnixNanos,
    /// New clients are sent away.
    pub(super) draining: bool,
    /// Answers to HTTP that are being made.
    pub(super) snapshots: VecDeque<Snapshots>,
    /// Told when the last client has left.
    pub(super) drained: Option<oneshot::Sender<()>>,
    /// Shifts who is flushed first, so that nobody is always the last.
    pub(super) rotation: Rotation,
    /// With a flush window: when the gathered events are written.
    flush_at: UnixNanos,
}

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
    let (handle, commands) = ShardHandle::new(runtime.handle().clone());
    let shard = Shard {
        number,
        limits: Arc::new(config.limits.requests),
        websocket: websocket_config(config.limits.requests.message_bytes as usize),
        handle: handle.clone(),
        next: log.head(),
        log,
        bus,
        restoring: None,
        replica: Replica::new(config.epoch, config.limits.history),
        registry: Registry::default(),
        connections: Slab::new(),
        generation: 0,
        last_values: LastValueCache::default(),
        turn_events: TurnEvents::default(),
        order: Vec::new(),
        counts: Counts::new(&metrics),
        meters: Meters::new(metrics.add_shard(number)),
        metrics,
        pauses: PauseDetector::default(),
        ready: Arc::default(),
        timers: Timers::default(),
        dirty: Vec::new(),
        intervals: Vec::new(),
        pool: Vec::new(),
        pool_bytes: 0,
        read_buffer: vec![0; READ_BYTES].into(),
        now: config.clock.now(),
        draining: false,
        snapshots: VecDeque::new(),
        drained: None,
        rotation: Rotation::default(),
        flush_at: UnixNanos::default(),
        config,
    };
    let run = move || {
        let _fatal = crate::fatal::FatalPanic("shard");
        runtime.block_on(tokio::task::coop::unconstrained(shard.run(commands)));
    };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(run)?;
    Ok((handle, thread))
}

impl Shard {
    /// Goes by other bounds and times.
    pub(super) fn tune(&mut self, limits: ShardLimits, demand: Arc<[Arc<DemandSignal>]>) {
        self.config.limits = limits;
        self.config.demand = demand;
        self.limits = Arc::new(limits.requests);
        self.replica.limit(limits.history);
    }

    /// Runs until nobody can command it any more.
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ready = Vec::new();
        let mut busy = false;
        loop {
            // Always, so that the runtime looks at the sockets and handshakes go on, however fast the log grows.
            tokio::task::yield_now().await;
            if !busy && !self.wait(&mut commands).await {
                return;
            }
            self.now = self.config.clock.now();
            if let Some(pause) = self.pauses.begin(self.now, !self.connections.is_empty()) {
                self.excuse_pause(pause);
            }
            self.counts.settle(self.now);
            busy = self.take_commands(&mut commands);
            busy |= self.make_snapshots();
            self.ready.take(&mut ready);
            self.serve(&mut ready);
            let flushes = self.now >= self.flush_at;
            busy |= self.take_batches();
            if flushes && !(self.turn_events.is_empty() && self.dirty.is_empty()) {
                self.flush_at = self.now.plus(self.config.limits.flush_window);
            }
            self.deliver(flushes);
            self.take_timers();
            busy |= flushes && self.flush();
            let ended = self.config.clock.now();
            self.counts.settle(ended);
            self.counts.report(&self.metrics);
            self.meters.turned(self.now, ended);
        }
    }

    /// Reads from and answers sockets that are ready, for at most [`SERVING_MAX`]; then events are delivered first.
    fn serve(&mut self, ready: &mut Vec<ConnectionKey>) {
        let mut keys = ready.drain(..);
        for key in keys.by_ref() {
            self.on_ready(key);
            if self.config.clock.now().since(self.now) >= SERVING_MAX {
                break;
            }
        }
        if keys.len() > 0 {
            self.ready.put_back(keys);
        }
    }

    /// Waits until there is something to do. Returns false once every handle is gone.
    async fn wait(&mut self, commands: &mut mpsc::Receiver<Command>) -> bool {
        let gathered = (!self.dirty.is_empty()).then_some(self.flush_at);
        let look = (!self.connections.is_empty()).then(|| self.now.plus(LOOK_EVERY));
        let next_timer = self
            .timers
            .next()
            .into_iter()
            .chain(look)
            .chain(gathered)
            .chain(self.counts.report_at())
            .min()
            .map(|at| self.config.clock.instant_at(at));
        let timer = async {
            match next_timer {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_restoring = self.restoring.is_some();
        let restored = async {
            match &mut self.restoring {
                Some(answer) => answer.await.ok(),
                None => std::future::pending().await,
            }
        };
        let command = tokio::select! {
            biased;
            () = self.log.reader(self.number).notified(), if !is_restoring => None,
            () = self.ready.notified() => None,
            command = commands.recv() => Some(command),
            checkpoint = restored => {
                self.restoring = None;
                if let Some(checkpoint) = checkpoint {
                    self.restore(&checkpoint);
                }
                None
            }
            () = timer => None,
        };
        match command {
            None => true,
            Some(None) => false,
            Some(Some(command)) => {
                self.now = self.config.clock.now();
                self.on_command(command);
                true
            }
        }
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
        if self.restoring.is_some() {
            return false;
        }
        let mut items = 0;
        while items < ITEMS_A_TURN {
            match self.log.read(self.next) {
                Next::Batch(batch) => {
                    self.next += 1;
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

    /// Whether it has read all of the log.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.restoring.is_none() && self.next == self.log.head()
    }

    fn on_overrun(&mut self) {
        self.metrics.overruns.inc();
        tracing::warn!(
            shard = self.number,
            "overrun by the log; asking the bus for a checkpoint"
        );
        let (answer, receiver) = oneshot::channel();
        self.restoring = Some(receiver);
        let bus = self.bus.clone();
        tokio::spawn(async move {
            if let Some(checkpoint) = bus.checkpoint().await {
                // A shard that has stopped meanwhile needs none.
                let _stopped = answer.send(checkpoint);
            }
        });
    }

    fn restore(&mut self, checkpoint: &Checkpoint) {
        let known = self.replica.sources().to_vec();
        self.each_slot(|outbox, slot, view| {
            let topic = outbox.slot(slot).topic;
            let known = view.replica.epoch(topic);
            if checkpoint.epoch(topic) != known {
                let ended_at = checkpoint.ended_at(topic, known);
                outbox.before_overrun_epoch(slot, ended_at, view);
            }
        });
        self.replica.restore(checkpoint);
        self.next = checkpoint.next;
        self.each_slot(Outbox::on_overrun);
        let topics = (0..self.replica.len() as u32).map(TopicId);
        let catalog = self.replica.catalog();
        let (listed, gone): (Vec<_>, Vec<_>) = topics.partition(|topic| catalog.is_listed(*topic));
        self.end_topics(&gone);
        self.offer_topics(&listed);
        let catalog = Arc::clone(self.replica.catalog());
        let states = self.replica.sources().to_vec();
        for (at, state) in states.into_iter().enumerate() {
            let before = known.get(at).and_then(Option::as_ref);
            if let Some(condition) = state.filter(|now| before != Some(now)) {
                self.tell_source(&catalog, SourceId(at as u16), &condition);
            }
        }
    }

    /// Does something to every subscription of every connection.
    fn each_slot(&mut self, mut change: impl FnMut(&mut Outbox, SlotId, &mut View<'_>)) {
        let keys: Vec<_> = self
            .connections
            .iter()
            .map(|(key, _)| ConnectionKey(key as u32))
            .collect();
        for key in keys {
            let Self {
                connections,
                replica,
                last_values,
                config,
                metrics,
                counts,
                intervals,
                ..
            } = self;
            let Some(connection) = connections.get_mut(key.0 as usize) else {
                continue;
            };
            let mut view = View {
                replica,
                last_values,
                limits: &config.limits.outbox,
                metrics,
                counts,
                now: self.now,
                timers: intervals,
            };
            let slots: Vec<SlotId> = connection
                .outbox
                .subscribed_topics()
                .iter()
                .map(|(_, slot)| *slot)
                .collect();
            for slot in slots {
                change(&mut connection.outbox, slot, &mut view);
            }
            self.arm_intervals(key);
            self.mark_dirty(key);
        }
    }

    fn take_timers(&mut self) {
        while let Some(timer) = self.timers.pop(self.now) {
            let key = timer.connection;
            let Some(connection) = self.connections.get_mut(key.0 as usize) else {
                continue;
            };
            if connection.peer.generation != timer.generation {
                continue;
            }
            match timer.due {
                Due::Interval(slot) => {
                    connection.outbox.on_due(slot, self.now);
                    self.mark_dirty(key);
                }
                Due::Checkup if connection.peer.checkup_at == timer.at => self.keepalive(key),
                Due::Checkup => {}
                Due::Lag if connection.peer.lag_at == timer.at => self.check_lag(key),
                Due::Lag => {}
            }
        }
    }

    /// Writes to every other connection that has something due. Returns whether some had more than a turn's worth.
    fn flush(&mut self) -> bool {
        let mut dirty = std::mem::take(&mut self.dirty);
        let (before, from) = dirty.split_at(self.rotation.next().first_of(dirty.len()));
        for key in from.iter().chain(before) {
            if self
                .connections
                .get(key.0 as usize)
                .is_some_and(|connection| connection.dirty)
            {
                self.flush_one(*key);
            }
        }
        dirty.clear();
        if self.dirty.is_empty() {
            self.dirty = dirty;
            return false;
        }
        true
    }

    pub(super) fn flush_one(&mut self, key: ConnectionKey) {
        let Self {
            connections,
            replica,
            last_values,
            config,
            metrics,
            counts,
            intervals,
            pool,
            pool_bytes,
            ..
        } = self;
        let Some(connection) = connections.get_mut(key.0 as usize) else {
            return;
        };
        connection.dirty = false;
        Self::lend_buffer(&mut connection.outbox.frames, pool, pool_bytes);
        let mut view = View {
            replica,
            last_values,
            limits: &config.limits.outbox,
            metrics,
            counts,
            now: self.now,
            timers: intervals,
        };
        let flushed = connection.flush(&mut view);
        view.now = self.pauses.excused(self.now);
        let relief = connection.enforce_limits(&mut view);
        view.now = self.now;
        connection.tell_queued(view.metrics, view.now);
        let (pinged, waits) = (
            connection.outbox.take_pinged(),
            connection.outbox.is_waiting(),
        );
        match flushed {
            Flushed::All => {
                self.after_all_is_sent(key);
                self.read_on(key);
            }
            Flushed::Blocked => {
                let frames = &mut self.connections[key.0 as usize].outbox.frames;
                if frames.is_empty() {
                    Self::keep_buffer(frames, &mut self.pool, &mut self.pool_bytes);
                }
                self.answer_on(key);
            }
            Flushed::More => self.mark_dirty(key),
            Flushed::Broken(error) => return self.end(key, Some(error)),
        }
        if pinged || waits {
            self.watch(key);
        }
        self.arm_intervals(key);
        if relief == OverflowAction::Disconnect {
            self.disconnect_slow_consumer(key, TOO_SLOW);
        }
    }

    /// Requests that were left in the socket while answers waited are read now.
    fn read_on(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key.0 as usize)
            && std::mem::take(&mut connection.left_unread)
        {
            self.ready.push(key);
        }
    }

    /// Requests that were held back are answered once the answers before them are out, though the socket is full of data.
    fn answer_on(&mut self, key: ConnectionKey) {
        let connection = &self.connections[key.0 as usize];
        if connection.left_unread
            && !connection.holds_requests(self.config.limits.outbox.control_bytes)
        {
            self.read_on(key);
        }
    }

    fn after_all_is_sent(&mut self, key: ConnectionKey) {
        let connection = &mut self.connections[key.0 as usize];
        Self::keep_buffer(
            &mut connection.outbox.frames,
            &mut self.pool,
            &mut self.pool_bytes,
        );
        connection.outbox.release_idle_memory();
        self.after_flush_of_closing(key);
    }

    /// A buffer for a connection that has something to write: the one used last, so that few are warm.
    pub(super) fn lend_buffer(
        frames: &mut crate::outbox::FrameBuffer,
        pool: &mut Vec<Vec<u8>>,
        pool_bytes: &mut usize,
    ) {
        if frames.needs_buffer()
            && let Some(buffer) = pool.pop()
        {
            *pool_bytes -= buffer.capacity();
            frames.lend(buffer);
        }
    }

    /// Takes back the buffer of a connection that has nothing more to write.
    pub(super) fn keep_buffer(
        frames: &mut crate::outbox::FrameBuffer,
        pool: &mut Vec<Vec<u8>>,
        pool_bytes: &mut usize,
    ) {
        let buffer = frames.reclaim();
        let room = POOL_BYTES_MAX
            .saturating_sub(*pool_bytes)
            .min(POOLED_BUFFER_BYTES_MAX);
        if (1..=room).contains(&buffer.capacity()) {
            *pool_bytes += buffer.capacity();
            pool.push(buffer);
        }
    }

    /// Hands the intervals that outboxes asked for to the timers.
    pub(super) fn arm_intervals(&mut self, key: ConnectionKey) {
        if self.intervals.is_empty() {
            return;
        }
        let Some(connection) = self.connections.get(key.0 as usize) else {
            return self.intervals.clear();
        };
        let generation = connection.peer.generation;
        for (at, slot) in self.intervals.drain(..) {
            self.timers.push(Timer {
                at,
                connection: key,
                generation,
                due: Due::Interval(slot),
            });
        }
    }

    /// Something is due for this connection's socket in this turn.
    pub(super) fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.get_mut(key.0 as usize)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    pub(super) fn next_generation(&mut self) -> Generation {
        self.generation = self.generation.wrapping_add(1);
        Generation(self.generation)
    }

    pub(super) fn count_close(&self, code: Option<Code>) {
        match code {
            Some(code) => self.metrics.count_close(code),
            None => self.metrics.closed.with_label_values(&["client"]).inc(),
        }
    }
}
