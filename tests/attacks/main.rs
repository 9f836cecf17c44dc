//! Attacks over real sockets, each beside healthy clients whose ledgers must balance. A separate
//! binary, because an attack takes the machine's processor time from other tests.

mod ambiguous;
mod arena;
mod attackers;
mod connections;
mod frames;
mod half_open;
mod heads;
mod herd;
mod kills;
mod pairs;
mod panics;
mod peers;
mod shortage;
mod texts;
mod threads;
