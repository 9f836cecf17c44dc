//! Part of a server in a cluster: a gateway follows the shared log, a publisher follows it until
//! it takes over, and then appends what its bus publishes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::leading::{COMMANDS_KEPT, Term};
use super::{App, StartError, settings_of};
use crate::bus::{Emitter, Leading, WriterState};
use crate::clock::Clock;
use crate::cluster::{
    Claimed, ClusterSettings, ClusterStatus, FollowError, Follower, LeadError, LogCheckpoint, Role,
    Store, Uplink, UplinkParts, answer_as_standby, find_start, report_node,
};
use crate::config::Config;
use crate::log::Pace;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::Epoch;
use crate::server::{ClusterPart, accept_publishes};

/// Number of batches that NATS has not acknowledged, at most: half of the log of the process.
const UNSENT_BATCHES_MAX: usize = 8192;

/// Time for the bus to stop, for which it may have to wait for NATS.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason for which a server cannot stay in its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFailure {
    /// The shared log cannot be followed.
    #[error("cannot follow the shared log: {0}")]
    Follow(#[from] FollowError),
    /// The server no longer leads.
    #[error("no longer leading the cluster: {0}")]
    Lead(#[from] LeadError),
}

/// Change of the part that a server has.
#[derive(Debug)]
pub(super) enum Turn {
    /// The server has claimed the log and must start its sources.
    Lead(Box<Claimed>),
    /// An operator has asked for a handover: the server must stop, and may start again.
    HandOver,
    /// The server must stop.
    Failed(ClusterFailure),
}

/// Connection of a server to its cluster.
#[derive(Debug)]
pub(super) struct Membership {
    settings: ClusterSettings,
    store: Store,
    /// State to go on from.
    checkpoint: Option<Box<LogCheckpoint>>,
    /// Epoch in which new topics of the cluster begin.
    pub(super) origin: Epoch,
    status: Arc<ClusterStatus>,
    pace: Arc<Pace>,
    turn: Option<oneshot::Receiver<Turn>>,
    task: Option<JoinHandle<()>>,
    /// While this server leads.
    leading: Option<Term>,
    /// Number of clients, for the reports of this server.
    clients: IntGauge,
    /// Task of these reports.
    reporting: Option<JoinHandle<()>>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(reporting) = &self.reporting {
            reporting.abort();
        }
    }
}

impl Membership {
    /// Connects to the shared log and finds the start from which to read it; `None` for a
    /// standalone server.
    pub(super) async fn open(
        config: &Config,
        now: UnixNanos,
        metrics: &Metrics,
    ) -> Result<Option<Box<Self>>, StartError> {
        let Some(settings) = &config.cluster else {
            return Ok(None);
        };
        let clients = metrics.connections.clone();
        let metrics = metrics.add_cluster(settings.role.name());
        let status = Arc::new(ClusterStatus::new(metrics));
        let creates = settings.role == Role::Publisher;
        let store = Store::open(settings, Arc::clone(&status), creates).await?;
        // A publisher has no clients that resume.
        let history = match settings.role {
            Role::Publisher => Duration::ZERO,
            Role::Gateway => config.limits.history.age,
        };
        let start = find_start(&store, settings, now, history);
        let start = start.await.map_err(FollowError::from)?;
        let (origin, checkpoint) = match (start, settings.role) {
            (Some(start), _) => (start.origin, start.checkpoint),
            (None, Role::Publisher) => (Epoch::first(rand::random()), None),
            (None, Role::Gateway) => return Err(StartError::EmptyLog),
        };
        Ok(Some(Box::new(Self {
            settings: settings.clone(),
            store,
            checkpoint,
            origin,
            status,
            pace: Arc::new(Pace::new(settings.buffer, UNSENT_BATCHES_MAX)),
            turn: None,
            task: None,
            leading: None,
            clients,
            reporting: None,
        })))
    }

    /// Reads the log up to its end, and follows it from then on.
    pub(super) async fn follow(&mut self, clock: Clock, bus: &Emitter) -> Result<(), StartError> {
        let (bus, status) = (bus.clone(), Arc::clone(&self.status));
        let (store, settings) = (Arc::new(self.store.clone()), self.settings.clone());
        let mut follower = Follower::new(store, clock, bus, status, self.origin, settings);
        if let Some(checkpoint) = self.checkpoint.take() {
            follower.restore(*checkpoint).await?;
        }
        let mut live = follower.start().await?;
        let reports = report_node(
            self.store.clone(),
            self.settings.clone(),
            Arc::clone(&self.status),
            clock,
            self.clients.clone(),
        );
        self.reporting = Some(tokio::spawn(reports));
        let (store, settings) = (self.store.clone(), self.settings.clone());
        let (report, turn) = oneshot::channel();
        let run = async move {
            let turn = match settings.role {
                Role::Gateway => {
                    let ended = follower.follow(&mut live, settings.stale_after).await;
                    ended.err().map(|error| Turn::Failed(error.into()))
                }
                Role::Publisher => {
                    let stood_by = tokio::select! {
                        stood_by = follower.stand_by(&mut live) => stood_by,
                        never = answer_as_standby(&store, &settings) => match never {},
                    };
                    Some(match stood_by {
                        Ok(claimed) => Turn::Lead(Box::new(claimed)),
                        Err(error) => Turn::Failed(error.into()),
                    })
                }
            };
            // A send error means that the server is stopping.
            let _stopping = turn.map(|turn| report.send(turn));
        };
        (self.turn, self.task) = (Some(turn), Some(tokio::spawn(run)));
        Ok(())
    }

    /// Appends what the bus publishes from batch `first` on.
    fn lead(&mut self, parts: UplinkParts, claimed: Claimed, first: u64) {
        let uplink = Uplink::new(parts, &self.settings, claimed, first);
        let (report, turn) = oneshot::channel();
        let run = async move {
            if let Err(error) = Box::pin(uplink.run()).await {
                // A send error means that the server is stopping.
                let _stopping = report.send(Turn::Failed(error.into()));
            }
        };
        (self.turn, self.task) = (Some(turn), Some(tokio::spawn(run)));
    }

    /// Part and state, for the server.
    pub(super) fn shared(&self) -> ClusterPart {
        ClusterPart {
            role: self.settings.role,
            status: Arc::clone(&self.status),
            unready_after: self.settings.unready_after,
            link: self.store.push_link(&self.settings),
            takes_publishes: AtomicBool::new(false),
        }
    }

    /// True from the start of the uplink to its end.
    pub(super) const fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// Waits for the next change of the part of this server.
    pub(super) async fn next_turn(&mut self) -> Turn {
        let turn = async {
            match &mut self.turn {
                Some(turn) => turn.await.ok(),
                None => std::future::pending().await,
            }
        };
        let asked_to_leave = async {
            match &mut self.leading {
                Some(leading) => leading.asked_to_leave().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = turn => ended,
            () = asked_to_leave => return Turn::HandOver,
        };
        self.turn = None;
        match ended {
            Some(turn) => turn,
            None => std::future::pending().await,
        }
    }

    /// Waits until the bus has stopped, for which it must not wait for NATS for long.
    pub(super) async fn release_late<T>(&self, stopping: impl Future<Output = T>) -> T {
        tokio::pin!(stopping);
        match tokio::time::timeout(STOP_TIMEOUT, &mut stopping).await {
            Ok(stopped) => stopped,
            Err(_late) => {
                self.pace.release();
                stopping.await
            }
        }
    }

    /// Ends the part of this server: as a leader once the log contains what its bus has published,
    /// with its last state as a checkpoint.
    pub(super) async fn stop(&mut self, last: Option<WriterState>) {
        let Some(task) = &mut self.task else {
            return;
        };
        if let Some(leading) = self.leading.take() {
            leading.leave(last, task).await;
        }
        task.abort();
    }
}

impl App {
    /// Waits for the next change of the part of this server in its cluster.
    pub(super) async fn next_turn(&mut self) -> Turn {
        match &mut self.cluster {
            Some(cluster) => cluster.next_turn().await,
            None => std::future::pending().await,
        }
    }

    /// True if the sources of the config run on this server: a gateway and a publisher that stands
    /// by publish what another server has numbered.
    pub(super) fn runs_sources(&self) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.status.is_leading())
    }

    /// Becomes the writer of the shared log and starts the sources.
    pub(super) async fn lead(&mut self, claimed: Claimed) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        let leading = self.bus.lead(Arc::clone(&cluster.pace)).await;
        let Some(Leading { first, tails }) = leading else {
            return;
        };
        tracing::info!(term = claimed.author.term, "leading the cluster");
        let (commands, received) = mpsc::channel(COMMANDS_KEPT);
        let parts = UplinkParts {
            commands: received,
            store: Arc::new(cluster.store.clone()),
            clock: self.server.clock,
            bus: self.bus.clone(),
            log: Arc::clone(&self.log),
            reader: self.server.shards.len(),
            pace: Arc::clone(&cluster.pace),
            status: Arc::clone(&cluster.status),
        };
        let catalog = Arc::clone(&claimed.catalog);
        cluster.lead(parts, claimed, first);
        let (store, settings) = (cluster.store.clone(), cluster.settings.clone());
        cluster.leading = Some(Term::new(store, settings, commands));
        cluster.status.set_leading(cluster.settings.buffer);
        self.sources.adopt(catalog.sources());
        self.sources.prepare(&self.config.sources);
        // Clients are at the gateways, so a publisher does not wait for the first one.
        for demand in self.sources.demand().iter() {
            demand.raise();
        }
        self.sources.go_on(&self.config.sources, &tails).await;
        self.sources.reload(&self.config.sources).await;
        let settings = settings_of(&self.config, &self.sources);
        self.wait_for(&settings.sources).await;
        self.server.settings.store(Arc::new(settings));
        accept_publishes(&self.server).await;
    }
}
