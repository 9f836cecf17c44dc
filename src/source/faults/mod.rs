//! Fault injection: a source misbehaves on a schedule or on command, so that users can test their
//! own clients. Subscribers are told the truth about every fault: dropped events are a `gap` with
//! cause `source`, silence makes an instrument `stale`, and a restart begins a new epoch.
//!
//! [`Injector`] is pure: it changes what a source emits, between the source and the bus. It follows
//! the time of the source, so the same seed and schedule give the same faults.

mod board;
mod injector;
mod random;
mod spec;
#[cfg(test)]
mod tests;

pub use board::{BoardError, FaultBoard, FaultReport};
pub(crate) use injector::Injector;
pub use spec::{FaultKind, FaultRepeat, FaultSpec, SymbolPattern};
