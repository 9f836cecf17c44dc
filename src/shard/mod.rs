//! Shard: a thread with its own runtime that owns the sockets of its clients.
//!
//! A turn of its loop: commands, ready sockets, batches of the log, timers, then one flush for each
//! connection with data due. The path of an event has no lock, and no atomic operation except the
//! handover of the batch.
//!
//! Invariant: a connection is accessed by its shard's thread alone; other threads send a
//! [`Command`].

mod actions;
mod agents;
mod authentication;
mod command;
mod connection;
mod connections;
mod delay;
#[cfg(feature = "echo")]
mod echo;
mod entitle;
mod event_loop;
mod feed;
mod flush;
mod inspect;
mod lifecycle;
#[cfg(feature = "internals")]
pub mod memory_socket;
mod meters;
mod pacing;
mod pause;
mod read;
mod reader;
mod recovery;
pub mod registry;
mod route;
#[cfg(feature = "internals")]
pub mod simulated;
mod snapshots;
mod sockets;
mod timers;
mod tls;
mod transport;
pub mod turn_events;

pub use command::{Command, ConnectionInfo, Rank, ShardHandle, SnapshotAnswer, WaitsFor};
pub use connection::{Adopted, ConnectionKey, Credentials, Permit};
pub use event_loop::spawn;
pub use feed::ShardConfig;
#[cfg(feature = "internals")]
pub use read::FAILPOINT;
#[cfg(feature = "internals")]
pub use reader::{Incoming, MessageReader};
pub use snapshots::SNAPSHOT_NAMES_MAX;
pub use transport::Transport;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::bus::Emitter;
use crate::log::Log;
use crate::market::UnixNanos;
use crate::metrics::Metrics;
use crate::protocol::Limits;
use agents::Agents;
use authentication::Checks;
use connections::Connections;
use delay::DelayLine;
use entitle::Reviews;
use feed::Feed;
use meters::Meters;
use pacing::Pacing;
use pause::PauseDetector;
use snapshots::Snapshots;
use sockets::{Ready, Sockets};
use timers::Timers;
use turn_events::FanOut;

/// Time that a turn spends on requests; a single slice of a request is far shorter.
const SERVING_MAX: Duration = Duration::from_micros(500);
/// Items of the log after which sockets are served; the last batch of a turn is taken whole.
const ITEMS_A_TURN: usize = 2048;

/// Surroundings of a new shard.
struct Parts {
    number: usize,
    config: ShardConfig,
    log: Arc<Log>,
    bus: Emitter,
    metrics: Arc<Metrics>,
    sockets: Sockets,
    connected: Arc<AtomicUsize>,
}

/// Thread that owns a share of the connections.
#[derive(Debug)]
pub struct Shard {
    number: usize,
    feed: Feed,
    connections: Connections,
    agents: Agents,
    fan_out: FanOut,
    websocket: WebSocketConfig,
    /// Limits of a client's requests.
    limits: Arc<Limits>,
    /// Number of connections, for other threads.
    connected: Arc<AtomicUsize>,
    /// Tokens that are checked elsewhere.
    checks: Checks,
    meters: Meters,
    pauses: PauseDetector,
    pacing: Pacing,
    sockets: Sockets,
    /// List of ready sockets, empty between turns.
    ready: Vec<Ready>,
    timers: Timers,
    /// Read buffer of all sockets.
    read_buffer: Box<[u8]>,
    /// New clients are refused.
    draining: bool,
    /// Batches that are not old enough for its clients; `None` for a shard without delay.
    delay_line: Option<DelayLine>,
    /// Connections whose rights have changed.
    reviews: Reviews,
    /// HTTP snapshots in progress.
    snapshots: VecDeque<Snapshots>,
    /// Answered when the last client has left.
    drained: Option<oneshot::Sender<()>>,
    /// With a flush window: the time at which gathered events are written.
    flush_at: UnixNanos,
}
