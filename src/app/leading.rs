//! A publisher while it leads its cluster, and the end of its term.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::bus::{Emitter, WriterState};
use crate::cluster::{ClusterSettings, Command, Leave, Store, answer_operators};

/// Time for the last batches to reach the shared log when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to store the last checkpoint after that.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(2);

/// Capacity for requests to the uplink.
pub(super) const COMMANDS_KEPT: usize = 4;

/// Connection to the uplink of this server.
#[derive(Debug)]
pub(super) struct Term {
    commands: mpsc::Sender<Command>,
    /// Task that answers the requests of operators.
    answering: JoinHandle<()>,
}

impl Drop for Term {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Stops the bus; returns its last state if that is to be stored.
pub(super) async fn stop_bus(bus: &Emitter, is_leading: bool) -> Option<WriterState> {
    let state = if is_leading {
        bus.writer_state().await
    } else {
        None
    };
    bus.stop().await;
    state
}

impl Term {
    pub(super) fn new(
        store: Store,
        settings: ClusterSettings,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        let answering = answer_operators(store, settings, commands.clone());
        Self {
            commands,
            answering: tokio::spawn(answering),
        }
    }

    /// Ends the uplink once the log contains what the bus has published, and stores the last
    /// checkpoint; waits for NATS within time limits.
    pub(super) async fn leave(self, state: Option<WriterState>, uplink: &mut JoinHandle<()>) {
        let (done, is_done) = oneshot::channel();
        let leave = Command::Leave(Leave { state, done });
        let left = async {
            self.commands.send(leave).await.ok()?;
            is_done.await.ok()
        };
        match tokio::time::timeout(DRAIN_TIMEOUT, left).await {
            Ok(Some(record)) => tracing::info!(record, "the shared log contains all events"),
            Ok(None) => {
                tracing::warn!("no longer leading; the last events are not in the shared log");
                return;
            }
            Err(_late) => {
                tracing::warn!("NATS does not answer; the last events are not in the shared log");
                return;
            }
        }
        if tokio::time::timeout(CHECKPOINT_TIMEOUT, uplink)
            .await
            .is_err()
        {
            tracing::warn!("the last checkpoint was not stored in time");
        }
    }
}
