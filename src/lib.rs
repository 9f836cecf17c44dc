//! tickcast.
pub mod app;
pub mod bus;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod market;
pub mod metrics;
pub mod protocol;
pub mod replica;
pub mod server;
pub mod session;
pub mod shard;
pub mod source;
pub mod topic;
