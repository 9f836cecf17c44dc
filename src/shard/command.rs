use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::access::{Entitlements, Principal};
use crate::limits::ShardLimits;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::connection::Adopted;
use crate::log::DemandSignal;
use crate::log::{Catalog, SavedTopic};
use crate::outbox::Totals;
use crate::protocol::{Encoding, LagLevel};

/// Commands to a shard; executed between batches.
#[derive(Debug)]
pub enum Command {
    /// A socket that has finished its handshake.
    Adopt(Box<Adopted>),
    /// Snapshots as JSON payloads, for HTTP.
    Snapshot {
        /// Topics and patterns.
        topics: Vec<String>,
        /// Max number of events; `None`: the default of a subscription.
        events: Option<usize>,
        /// Identity of the caller.
        principal: Principal,
        /// Channel for the result.
        reply: oneshot::Sender<SnapshotAnswer>,
    },
    /// The instruments and topics as of now.
    Catalog(oneshot::Sender<Arc<Catalog>>),
    /// Apply other limits and times.
    Tune {
        /// New limits.
        limits: ShardLimits,
        /// By source, including new ones.
        demand: Arc<[Arc<DemandSignal>]>,
        /// Answered once they are in force.
        done: oneshot::Sender<()>,
    },
    /// Apply other roles.
    Entitle(Arc<Entitlements>),
    /// Compare the identities of all connections with the present policy.
    ReviewCredentials,
    /// All topics as of the end of the log, to be saved for the next server.
    Save(oneshot::Sender<Vec<SavedTopic>>),
    /// Connections of the highest rank.
    Connections {
        /// Ranking of the connections.
        by: Rank,
        /// Max number of connections.
        top: usize,
        /// Channel for the result.
        reply: oneshot::Sender<Vec<ConnectionInfo>>,
    },
    /// Disconnect all clients with `bye`, each with its own slot within `spread`.
    Drain {
        /// Period over which clients are asked to reconnect.
        spread: Duration,
        /// Number of this shard, so that no two shards assign the same slots.
        turn: usize,
        /// Number of shards.
        of: usize,
        /// Answered when the last client has left.
        done: oneshot::Sender<()>,
    },
}

/// Answers `GET /v1/snapshot`.
#[derive(Debug)]
pub struct SnapshotAnswer {
    /// `snapshot` maps.
    pub ok: Vec<Vec<u8>>,
    /// Rejected topics.
    pub err: Vec<crate::protocol::Refusal>,
}

/// Ranking of connections in a list for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// Age of the oldest queued event.
    Age,
    /// Events replaced by newer ones.
    Merged,
    /// Events reported in gaps.
    Lost,
    /// Queued bytes.
    Queued,
    /// Events delivered.
    Delivered,
}

/// The reason why the data or the requests of a connection wait. A closed set of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The socket accepts no more bytes.
    Socket,
    /// The client has not read what was sent.
    ReadWindow,
    /// Requests wait until the responses before them are sent.
    RequestQuota,
    /// The close handshake.
    Close,
}

#[cfg(feature = "internals")]
impl WaitsFor {
    /// All reasons.
    pub const ALL: [Self; 4] = [
        Self::Socket,
        Self::ReadWindow,
        Self::RequestQuota,
        Self::Close,
    ];

    /// The code in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::ReadWindow => "read_window",
            Self::RequestQuota => "request_quota",
            Self::Close => "close",
        }
    }
}

/// Connection as listed for operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Session name, as in its `welcome`.
    pub session: String,
    /// Remote address.
    pub address: SocketAddr,
    /// User agent.
    pub agent: String,
    /// Encoding of the connection.
    pub encoding: Encoding,
    /// Time of the connection, Unix nanoseconds.
    pub since: u64,
    /// Number of subscribed topics.
    pub topics: usize,
    /// Number of topics by mode: raw, conflate, interval.
    pub modes: [usize; 3],
    /// Lag level of its latest `lag` message.
    pub level: LagLevel,
    /// Time since when it is late, Unix nanoseconds.
    pub late_since: Option<u64>,
    /// The reason why data or requests wait; `null` if nothing blocks the connection.
    pub waits_for: Option<WaitsFor>,
    /// Age of the oldest queued event or unanswered ping, in milliseconds.
    pub behind_ms: u64,
    /// Bytes queued for its socket.
    pub queued_bytes: usize,
    /// Events in data arrays since it connected.
    pub delivered: u64,
    /// Events replaced by newer ones.
    pub merged: u64,
    /// Events reported in gaps.
    pub lost: u64,
}

impl ConnectionInfo {
    /// Ranking key: the largest first.
    pub fn rank(&self, by: Rank) -> (u64, u64) {
        let Self {
            behind_ms,
            merged,
            lost,
            delivered,
            ..
        } = *self;
        (
            by.of(
                behind_ms,
                self.queued_bytes,
                Totals {
                    delivered,
                    merged,
                    lost,
                },
            ),
            lost + merged,
        )
    }
}

impl Rank {
    /// Value by which the connections are ranked.
    pub(super) fn of(self, behind_ms: u64, queued_bytes: usize, totals: Totals) -> u64 {
        match self {
            Self::Age => behind_ms,
            Self::Merged => totals.merged,
            Self::Lost => totals.lost,
            Self::Queued => queued_bytes as u64,
            Self::Delivered => totals.delivered,
        }
    }
}

/// Handle of a shard for other threads.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    connections: Arc<AtomicUsize>,
    /// Age of the events that its clients see.
    pub delay: Duration,
    /// The shard's own runtime: handshakes of its future clients run there.
    pub runtime: tokio::runtime::Handle,
}

/// Maximum number of queued commands.
const COMMANDS_MAX: usize = 4096;

/// Queue of commands to a shard.
pub(super) fn commands() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(COMMANDS_MAX)
}

impl ShardHandle {
    pub(super) fn new(
        runtime: tokio::runtime::Handle,
        delay: Duration,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = commands();
        (
            Self {
                commands,
                connections: Arc::default(),
                delay,
                runtime,
            },
            receiver,
        )
    }

    /// Counter of the connections, written by the shard.
    pub(super) fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.connections)
    }

    /// Sends a command, waiting while the queue is full. Returns false once the shard has stopped.
    pub async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Sends a command from a thread without a runtime, waiting while the queue is full.
    pub fn send_blocking(&self, command: Command) -> bool {
        self.commands.blocking_send(command).is_ok()
    }

    /// Number of its connections.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The catalog as of now; `None` once the shard has stopped.
    pub async fn catalog(&self) -> Option<Arc<Catalog>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Catalog(reply)).await.ok()?;
        answer.await.ok()
    }
}
