//! A shard: a thread with its own runtime, which owns its clients' sockets whole.
//!
//! Each turn of its loop: commands, ready sockets, batches of the log, timers, then one flush for every connection that
//! has something due. On the way of an event there is no lock, and no atomic but the batch's hand-over.
//!
//! Invariant: a connection is touched by its shard's thread alone; what others want comes as a [`Command`].

mod actions;
mod command;
mod connection;
mod connections;
mod event_loop;
mod feed;
mod flush;
mod inspect;
mod lifecycle;
mod meters;
mod pause;
mod read;
mod reader;
mod ready;
mod recovery;
pub mod registry;
mod route;
mod snapshots;
mod timers;
mod transport;
pub mod turn_events;

pub use command::{Command, ConnectionInfo, Rank, ShardHandle, SnapshotAnswer, WaitsFor};
pub use connection::{Adopted, ConnectionKey, Permit};
pub use event_loop::{Shard, ShardConfig, spawn};
pub use snapshots::SNAPSHOT_NAMES_MAX;
pub use transport::Transport;
