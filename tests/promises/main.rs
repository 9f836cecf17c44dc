//! The promises, one module each; `INDEX.md` says which row of the protocol and of the threats each test holds.

mod clients;
mod config_files;
mod errors;
mod golden;
mod handshake;
mod harness;
mod http;
mod index;
mod invariants;
mod join;
mod layers;
mod ledger;
mod load;
mod modes;
mod papers;
mod publish;
mod recorded;
mod reload;
mod requests;
mod restart;
mod resume;
mod slow;
mod sources;
mod stopping;
mod terminal;
mod verdict;
