//! Requests to the uplink of the leading publisher.

use tokio::sync::oneshot;

use super::checkpoints::Asker;
use crate::bus::WriterState;

/// Request to the uplink.
#[derive(Debug)]
pub enum Command {
    /// Store a checkpoint at once.
    Checkpoint(Asker),
    /// Begin new epochs of all topics.
    NewOrigin(NewOrigin),
    /// Append the rest, hand the log over and end.
    Leave(Leave),
}

/// Request to begin new epochs.
#[derive(Debug)]
pub struct NewOrigin {
    /// Origin that is to end: without effect if it has ended. `None`: the present one.
    pub of: Option<u64>,
    /// Receiver of the number of the record behind which the new epochs begin.
    pub done: oneshot::Sender<u64>,
}

/// End of a term.
#[derive(Debug)]
pub struct Leave {
    /// State behind the last batch, to be stored.
    pub state: Option<WriterState>,
    /// Receiver of the number of the record that hands the log over, once the log contains it.
    pub done: oneshot::Sender<u64>,
}
