//! Running sources: start, replacement by a reload, and stop at a position from which they can
//! resume.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bus::{Emit, Emitter, SourceSpec, SourceTail};
use crate::clock::Clock;
use crate::config::{SourceConfig, SourceDetails};
use crate::log::{DemandSignal, SourceId};
use crate::metrics::Metrics;
use crate::replay::{Begin, Replay};
use crate::server::PushSource;
use crate::source::push::{Push, PushInlet};
use crate::source::rules::Screen;
use crate::source::sim::Sim;
use crate::source::{Source, SourceStatus, SourceTask, supervise};
use crate::state::{StoppedSource, config_sum};

/// Max time for a source to stop at a position from which it can resume.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A running or ended source.
#[derive(Debug)]
struct RunningSource {
    name: Arc<str>,
    /// Checksum of its config.
    checksum: Bytes,
    /// False once its instruments have been removed.
    is_listed: bool,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<Option<Vec<u8>>>>,
    status: Arc<SourceStatus>,
    push: Option<Arc<PushSource>>,
}

/// All sources of the server. A source keeps its number for the lifetime of the server.
#[derive(Debug)]
pub(super) struct Sources {
    clock: Clock,
    metrics: Arc<Metrics>,
    bus: Emitter,
    demand: Vec<Arc<DemandSignal>>,
    runs: Vec<RunningSource>,
    /// True if other servers must be able to go on with the sources.
    emit_positions: bool,
}

/// Description of a source for the bus.
pub(super) fn spec_of(source: &SourceConfig) -> SourceSpec {
    SourceSpec {
        name: Arc::clone(&source.name),
        stale_after: source.stale_after,
        is_present: !matches!(source.details, SourceDetails::Replay(_)),
        config: checksum_of(source),
    }
}

/// Checksum that identifies a source's config.
fn checksum_of(source: &SourceConfig) -> Bytes {
    config_sum(&(
        &source.details,
        source.stale_after,
        &source.rules,
        &source.faults,
    ))
}

impl Sources {
    /// Creates an empty set with start signals for `count` sources.
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>, bus: Emitter, count: usize) -> Self {
        Self {
            clock,
            metrics,
            bus,
            demand: (0..count).map(|_| Arc::default()).collect(),
            runs: Vec::new(),
            emit_positions: false,
        }
    }

    /// Start signals by source; the first subscription opens them.
    pub(super) fn demand(&self) -> Arc<[Arc<DemandSignal>]> {
        self.demand.clone().into()
    }

    /// Push sources, which accept events over HTTP.
    pub(super) fn publishers(&self) -> Vec<Arc<PushSource>> {
        self.runs
            .iter()
            .filter_map(|run| run.push.clone())
            .collect()
    }

    /// Status of each running source by name.
    pub(super) fn statuses(&self) -> Vec<(Arc<str>, Arc<SourceStatus>)> {
        self.runs
            .iter()
            .filter(|run| run.task.is_some())
            .map(|run| (Arc::clone(&run.name), Arc::clone(&run.status)))
            .collect()
    }

    /// Status of each push source.
    pub(super) fn publisher_statuses(&self) -> Vec<Arc<SourceStatus>> {
        let publishers = self.runs.iter().filter(|run| run.push.is_some());
        publishers.map(|run| Arc::clone(&run.status)).collect()
    }

    /// Checksum of a source's config.
    pub(super) fn checksum(source: &SourceConfig) -> Bytes {
        checksum_of(source)
    }

    /// Starts sources in the order of the config, each from its resume position if it has one.
    pub(super) fn start(&mut self, config: &[SourceConfig], positions: Vec<Option<Vec<u8>>>) {
        let positions = positions.into_iter().chain(std::iter::repeat(None));
        for (source, position) in config.iter().zip(positions) {
            let run = self.run(self.runs.len(), source.clone(), position);
            self.runs.push(run);
        }
    }

    /// Takes over the sources of a log that another server has written; they do not run until
    /// [`Self::go_on`] or [`Self::reload`] starts or removes them.
    pub(super) fn adopt(&mut self, names: &[Arc<str>]) {
        self.emit_positions = true;
        for name in names {
            self.demand.push(Arc::default());
            self.runs.push(RunningSource {
                name: Arc::clone(name),
                checksum: Bytes::new(),
                is_listed: true,
                stop: watch::Sender::new(false),
                task: None,
                status: Arc::new(SourceStatus::new(false, self.metrics.rule_counters(name))),
                push: None,
            });
        }
    }

    /// Lets the sources whose config has not changed go on where the log ends.
    pub(super) async fn go_on(&mut self, config: &[SourceConfig], tails: &[SourceTail]) {
        for source in config {
            let Some(at) = self.index_of(&source.name) else {
                continue;
            };
            let Some(tail) = tails
                .get(at)
                .filter(|tail| tail.config == checksum_of(source))
            else {
                continue;
            };
            // A push source has no position: what was not acknowledged is sent again.
            let is_push = matches!(source.details, SourceDetails::Push { .. });
            if tail.position.is_none() && !is_push {
                continue;
            }
            let emitter = self.bus.of(SourceId(at as u16));
            emitter.emit(&mut vec![Emit::GoOn(spec_of(source))]).await;
            let position = tail.position.as_ref().map(|position| position.to_vec());
            self.runs[at] = self.run(at, source.clone(), position);
            tracing::info!(source = &*source.name, "source goes on where the log ends");
        }
    }

    fn run(&self, at: usize, config: SourceConfig, position: Option<Vec<u8>>) -> RunningSource {
        let emitter = self.bus.of(SourceId(at as u16));
        let demand = Arc::clone(&self.demand[at]);
        let counters = self.metrics.rule_counters(&config.name);
        let screen = Screen::new(config.rules, counters.clone());
        let status = Arc::new(SourceStatus::new(config.takes_faults, counters));
        let mut push = None;
        let source: Box<dyn Source> = match &config.details {
            SourceDetails::Sim(sim) => Box::new(Sim::new(sim.clone(), position)),
            SourceDetails::Replay(replay) => {
                if replay.begin == Begin::Now {
                    demand.raise();
                }
                Box::new(Replay::new(replay.clone(), position))
            }
            SourceDetails::Push {
                instruments,
                rules,
                token_sha256,
            } => {
                let inlet = PushInlet::new(instruments, *rules, emitter.clone(), screen.clone());
                push = Some(Arc::new(PushSource {
                    name: Arc::clone(&config.name),
                    token_sha256: *token_sha256,
                    inlet,
                }));
                Box::new(Push::new(instruments.clone()))
            }
        };
        let (stop, stopped) = watch::channel(false);
        let task = SourceTask {
            name: Arc::clone(&config.name),
            clock: self.clock,
            metrics: Arc::clone(&self.metrics),
            emitter,
            demand,
            stale_after: config.stale_after,
            status: Arc::clone(&status),
            stop: stopped,
            screen,
            faults: config.faults.clone(),
            seed: config.seed(),
            emits_positions: self.emit_positions,
        };
        RunningSource {
            name: Arc::clone(&config.name),
            checksum: checksum_of(&config),
            is_listed: true,
            stop,
            task: Some(tokio::spawn(supervise(task, source))),
            status,
            push,
        }
    }

    /// Adds start signals for new sources of a config; shards must receive them before the sources
    /// start.
    pub(super) fn prepare(&mut self, config: &[SourceConfig]) {
        let new = config
            .iter()
            .filter(|source| self.index_of(&source.name).is_none())
            .count();
        self.demand
            .extend((0..new).map(|_| Arc::<DemandSignal>::default()));
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.runs.iter().position(|run| *run.name == *name)
    }

    /// Applies a new config: restarts changed sources, starts new ones and stops removed ones.
    /// Returns a description of each change.
    pub(super) async fn reload(&mut self, config: &[SourceConfig]) -> Vec<String> {
        let mut done = Vec::new();
        let expected = config
            .iter()
            .flat_map(|source| source.details.symbols())
            .collect();
        self.bus
            .emit(&mut vec![Emit::Expect(Arc::new(expected))])
            .await;
        for at in 0..self.runs.len() {
            let name = Arc::clone(&self.runs[at].name);
            if self.runs[at].is_listed && !config.iter().any(|source| source.name == name) {
                self.runs[at].stop().await;
                self.runs[at].push = None;
                self.runs[at].is_listed = false;
                self.bus
                    .of(SourceId(at as u16))
                    .emit(&mut vec![Emit::Retire])
                    .await;
                done.push(format!("source {name} removed"));
            }
        }
        for source in config {
            let at = self.index_of(&source.name);
            let before = at.map(|at| &self.runs[at]);
            if let Some(run) = before {
                run.status.faults.set_open(source.takes_faults);
            }
            if before.is_some_and(|run| run.task.is_some() && run.checksum == checksum_of(source)) {
                continue;
            }
            if let Some(at) = at {
                self.runs[at].stop().await;
            }
            let number = at.unwrap_or(self.runs.len());
            self.bus
                .of(SourceId(number as u16))
                .emit(&mut vec![Emit::Begin(spec_of(source))])
                .await;
            let run = self.run(number, source.clone(), None);
            match at {
                Some(at) => {
                    self.runs[at] = run;
                    done.push(format!("source {} restarts in a new epoch", source.name));
                }
                None => {
                    self.runs.push(run);
                    done.push(format!("source {} added", source.name));
                }
            }
        }
        done
    }

    /// Stops all sources and returns name, config checksum and resume position of each.
    pub(super) async fn stop(self) -> Vec<StoppedSource> {
        let stop = async |mut run: RunningSource| {
            let position = run.stop().await;
            (
                run.name.to_string(),
                run.checksum,
                position.map(Bytes::from),
            )
        };
        futures_util::future::join_all(self.runs.into_iter().map(stop)).await
    }
}

impl RunningSource {
    async fn stop(&mut self) -> Option<Vec<u8>> {
        // The inlet is closed first, so that no event published after the stop is acknowledged.
        if let Some(push) = &self.push {
            push.inlet.close();
        }
        let mut task = self.task.take()?;
        // A source that has ended has no receiver.
        let _ended = self.stop.send(true);
        match tokio::time::timeout(STOP_TIMEOUT, &mut task).await {
            Ok(ended) => ended.ok().flatten(),
            Err(_late) => {
                task.abort();
                // The source may be in the middle of an operation; its events must not follow later
                // ones.
                let _aborted = task.await;
                None
            }
        }
    }
}
