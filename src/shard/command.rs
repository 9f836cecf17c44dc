use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connection::Adopted;
use crate::bus::Catalog;

/// What others want of a shard; done between batches.
#[derive(Debug)]
pub enum Command {
    /// A socket that has finished its handshake.
    Adopt(Box<Adopted>),
    /// Snapshots as JSON payloads, for HTTP.
    Snapshot {
        /// Topics and patterns.
        topics: Vec<String>,
        /// How many events at most; `None`: as many as a subscription gets.
        events: Option<usize>,
        /// Where they go.
        reply: oneshot::Sender<SnapshotAnswer>,
    },
    /// The instruments and topics as of now.
    Catalog(oneshot::Sender<Arc<Catalog>>),
    /// Say `bye` to everyone, each with a slot within `spread`, and close.
    Drain {
        /// Over how long clients are to come back.
        spread: Duration,
        /// Which of the shards this is, so that no two give the same slots.
        turn: usize,
        /// How many shards there are.
        of: usize,
        /// Answered when the last has left.
        done: oneshot::Sender<()>,
    },
}

/// Answers `GET /v1/snapshot`.
#[derive(Debug)]
pub struct SnapshotAnswer {
    /// `snapshot` maps.
    pub ok: Vec<Vec<u8>>,
    /// What was refused.
    pub err: Vec<crate::protocol::Refusal>,
}

/// How others reach a shard.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    connections: Arc<AtomicUsize>,
    /// The shard's own runtime: handshakes of its future clients run there.
    pub runtime: tokio::runtime::Handle,
}

/// Commands that may wait.
const COMMANDS_MAX: usize = 4096;

impl ShardHandle {
    pub(super) fn new(runtime: tokio::runtime::Handle) -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        (Self { commands, connections: Arc::default(), runtime }, receiver)
    }

    /// Sends a command, waiting while too many wait already. Returns false once the shard has stopped.
    pub async fn send(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// Connections that it has.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn set_connections(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// The catalog as of now; `None` once the shard has stopped.
    pub async fn catalog(&self) -> Option<Arc<Catalog>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Catalog(reply)).await.ok()?;
        answer.await.ok()
    }
}
