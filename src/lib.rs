//! tickcast: a live market-data feed broadcaster.
//!
//! ```text
//! source ──emit──▶ bus ──one log──▶ shard ──▶ outbox ──▶ socket
//! ```
//!
//! A [`source`] reads a venue's or a file's format and emits market values. The [`bus`] derives tickers and bars, numbers
//! every event within its topic and appends batches to the one [`log`]. Each [`shard`] owns its clients' sockets, keeps a
//! [replica](log::Replica) of all topics, and routes events to its subscribers' [outboxes](outbox), which keep the ledger. A
//! [`session`] turns a client's requests into actions; the [`server`] takes a new socket to its shard.
//!
//! The invariants, each with the test that bears its name, stand in `ARCHITECTURE.md`. Public and documented for other
//! programs: [`market`], [`topic`], [`protocol`], [`client`], [`load`].

#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod bus;
#[doc(hidden)]
pub mod cli;
pub mod client;
#[doc(hidden)]
pub mod clock;
#[doc(hidden)]
pub mod config;
mod fatal;
mod files;
#[doc(hidden)]
pub mod limits;
pub mod load;
#[doc(hidden)]
pub mod log;
pub mod market;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod outbox;
#[doc(hidden)]
pub mod printable;
pub mod protocol;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod shard;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod state;
pub mod topic;
