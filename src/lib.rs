//! tickcast: a live market-data feed broadcaster, with its wire protocol, a client and a load
//! tester.
//!
//! The server is the program `tickcast`; [`run`] is its entry point. The library contains what
//! other programs need to work with a feed:
//!
//! | module | content |
//! |---|---|
//! | [`client`] | Connection to a feed, ledger of delivered, merged and lost events, resume positions, codec. |
//! | [`load`] | Load tests: many connections, latency histograms, verified ledgers. |
//! | [`protocol`] | Messages of the wire protocol as types. |
//! | [`market`] | Trades, quotes, bars and tickers; exact decimals and nanosecond times. |
//! | [`topic`] | Channels, topics and patterns. |
//!
//! # Receiving a feed
//!
//! ```no_run
//! # async fn example() -> Result<(), tickcast::client::ClientError> {
//! use tickcast::client::Client;
//! use tickcast::protocol::{Encoding, ServerMessage};
//!
//! let mut client = Client::connect("127.0.0.1:8080", Encoding::Msgpack).await?;
//! client.subscribe(&["trade:BTC-USD", "ticker:*"]).await?;
//! loop {
//!     match client.next().await? {
//!         ServerMessage::Events(events) => println!("{events:?}"),
//!         ServerMessage::Control(control) => println!("{control:?}"),
//!     }
//! }
//! # }
//! ```
//!
//! [`client::Positions`] resumes after a disconnect without loss; `examples/subscribe.rs` shows a
//! complete program.
//!
//! # Decoding messages
//!
//! The codec is independent of the transport, for clients that bring their own WebSocket library:
//!
//! ```
//! use tickcast::client::decode_server_message;
//! use tickcast::market::Body;
//! use tickcast::protocol::{Encoding, Seq, ServerMessage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let message = br#"[{"ch":"trade","sym":"BTC-USD","seq":7,"ts":1700000000000000000,
//!     "tx":1700000000000150000,"px":"64250.10","qty":"0.5","side":"buy"}]"#;
//! let ServerMessage::Events(events) = decode_server_message(message, Encoding::Json)? else {
//!     return Err("a control message".into());
//! };
//! let Body::Trade(trade) = &events[0].body else {
//!     return Err("another channel".into());
//! };
//! assert_eq!(events[0].seq, Seq(7));
//! assert_eq!(trade.px.to_string(), "64250.10");
//! # Ok(())
//! # }
//! ```
//!
//! # Load testing
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tickcast::load::{Plan, run};
//!
//! let server = "127.0.0.1:8080".parse()?;
//! let plan = Plan {
//!     connections: 1_000,
//!     ..Plan::new(server, vec!["quote:*".to_owned()])
//! };
//! let outcome = run(&plan, &mut |_| false)?;
//! println!("{:.0} deliveries/s", outcome.delivered_per_s());
//! # Ok(())
//! # }
//! ```
//!
//! # Internal modules
//!
//! ```text
//! source ──emit──▶ bus ──one log──▶ shard ──▶ outbox ──▶ socket
//! ```
//!
//! The modules of the server are private. A `source` reads a recording or generates a market and
//! emits its values. The `bus` derives tickers and bars, numbers every event within its topic and
//! appends batches to the one `log`. Each `shard` owns the sockets of its clients, keeps a replica
//! of all topics and routes events to the outboxes of its subscribers, which keep the ledger. A
//! `session` turns the requests of a client into actions, and sees topics through `access` alone;
//! `auth` checks credentials; the `server` hands new sockets to the shards. `ARCHITECTURE.md` lists the invariants with the
//! test of each.
//!
//! The feature `internals` makes these modules public for the tests and benches of this package.
//! They have no stable interface.

#![cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        unused_imports,
        reason = "the internal modules are public with the feature"
    )
)]

// Vocabulary and wire contract.
pub mod market;
pub mod protocol;
pub mod topic;

// Programs that connect to a server.
pub mod client;
pub mod load;

// Path of an event.
#[cfg(not(feature = "internals"))]
mod codec;
#[cfg(feature = "internals")]
pub mod codec;

#[cfg(not(feature = "internals"))]
mod source;
#[cfg(feature = "internals")]
pub mod source;

#[cfg(not(feature = "internals"))]
mod replay;
#[cfg(feature = "internals")]
pub mod replay;

#[cfg(not(feature = "internals"))]
mod bus;
#[cfg(feature = "internals")]
pub mod bus;

#[cfg(not(feature = "internals"))]
mod log;
#[cfg(feature = "internals")]
pub mod log;

#[cfg(not(feature = "internals"))]
mod shard;
#[cfg(feature = "internals")]
pub mod shard;

#[cfg(not(feature = "internals"))]
mod access;
#[cfg(feature = "internals")]
pub mod access;

#[cfg(not(feature = "internals"))]
mod auth;
#[cfg(feature = "internals")]
pub mod auth;

#[cfg(not(feature = "internals"))]
mod session;
#[cfg(feature = "internals")]
pub mod session;

#[cfg(not(feature = "internals"))]
mod outbox;
#[cfg(feature = "internals")]
pub mod outbox;

// Surrounding services.
#[cfg(not(feature = "internals"))]
mod server;
#[cfg(feature = "internals")]
pub mod server;

#[cfg(not(feature = "internals"))]
mod app;
#[cfg(feature = "internals")]
pub mod app;

#[cfg(not(feature = "internals"))]
mod cluster;
#[cfg(feature = "internals")]
pub mod cluster;

#[cfg(not(feature = "internals"))]
mod config;
#[cfg(feature = "internals")]
pub mod config;

#[cfg(not(feature = "internals"))]
mod state;
#[cfg(feature = "internals")]
pub mod state;

#[cfg(not(feature = "internals"))]
mod metrics;
#[cfg(feature = "internals")]
pub mod metrics;

#[cfg(not(feature = "internals"))]
mod cli;
#[cfg(feature = "internals")]
pub mod cli;

// Utilities without domain knowledge.
mod fatal;
mod files;

#[cfg(not(feature = "internals"))]
mod clock;
#[cfg(feature = "internals")]
pub mod clock;

#[cfg(not(feature = "internals"))]
mod histogram;
#[cfg(feature = "internals")]
pub mod histogram;

#[cfg(not(feature = "internals"))]
mod admission;
#[cfg(feature = "internals")]
pub mod admission;

#[cfg(not(feature = "internals"))]
mod limits;
#[cfg(feature = "internals")]
pub mod limits;

#[cfg(not(feature = "internals"))]
mod tls;
#[cfg(feature = "internals")]
pub mod tls;

#[cfg(not(feature = "internals"))]
mod printable;
#[cfg(feature = "internals")]
pub mod printable;

/// Runs the `tickcast` program: reads the arguments, executes the command and returns its exit
/// code.
pub fn run() -> std::process::ExitCode {
    cli::main()
}
