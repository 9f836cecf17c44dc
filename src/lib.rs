//! tickcast: a live market-data feed broadcaster.
//!
//! ```text
//! source ──emit──▶ bus ──one log──▶ shard ──▶ outbox ──▶ socket
//! ```
//!
//! A [`source`] speaks a venue's or a file's language and emits market values. The [`bus`] derives tickers and bars, gives
//! every event its topic's next number, and puts batches onto one log. Each [`shard`] owns its clients' sockets, keeps a
//! [`replica`] of all topics, and routes events to its subscribers' outboxes, which keep the ledger. What a client says and is
//! answered is a [`session`]; the way from a new socket to a shard is the [`server`]'s.
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
pub mod load;
pub mod market;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod printable;
pub mod protocol;
#[doc(hidden)]
pub mod replica;
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
