//! A publisher while it leads its cluster, and the end of its term.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::bus::{Emitter, WriterState};
use crate::cluster::{
    ClusterSettings, Command, HandoverRequest, Leave, Store, answer_operators, answer_reports,
};

/// Time for the last batches to reach the shared log when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Time to answer an operator who has asked for the handover.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
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
    handovers: mpsc::Receiver<HandoverRequest>,
    /// Request of an operator to hand the log over.
    handover: Option<HandoverRequest>,
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
        let (handover, handovers) = mpsc::channel(1);
        let (uplink, reported) = (commands.clone(), commands.clone());
        let answering = async move {
            tokio::select! {
                () = answer_operators(store.clone(), settings.clone(), uplink, handover) => {}
                never = answer_reports(&store, &settings, reported) => match never {},
            }
        };
        Self {
            commands,
            answering: tokio::spawn(answering),
            handovers,
            handover: None,
        }
    }

    /// Waits for a request of an operator to hand the log over. Cancel safe.
    pub(super) async fn asked_to_leave(&mut self) {
        match self.handovers.recv().await {
            Some(request) => self.handover = Some(request),
            None => std::future::pending().await,
        }
    }

    /// Ends the uplink once the log contains what the bus has published, hands the log over, and
    /// stores the last checkpoint; waits for NATS within time limits.
    pub(super) async fn leave(mut self, state: Option<WriterState>, uplink: &mut JoinHandle<()>) {
        let (done, is_done) = oneshot::channel();
        let leave = Command::Leave(Leave { state, done });
        let left = async {
            self.commands.send(leave).await.ok()?;
            is_done.await.ok()
        };
        let record = match tokio::time::timeout(DRAIN_TIMEOUT, left).await {
            Ok(Some(record)) => {
                tracing::info!(
                    record,
                    "the shared log contains all events and is handed over"
                );
                Some(record)
            }
            Ok(None) => {
                tracing::warn!("no longer leading; the last events are not in the shared log");
                None
            }
            Err(_late) => {
                tracing::warn!("NATS does not answer; the last events are not in the shared log");
                None
            }
        };
        if let Some(request) = self.handover.take() {
            self.answer(request, record).await;
        }
        if record.is_none() {
            return;
        }
        if tokio::time::timeout(CHECKPOINT_TIMEOUT, uplink)
            .await
            .is_err()
        {
            tracing::warn!("the last checkpoint was not stored in time");
        }
    }

    /// Answers the operator who has asked for the handover.
    async fn answer(&mut self, request: HandoverRequest, record: Option<u64>) {
        if let Some(record) = record {
            // After a send error nobody waits for the answer.
            let _gone = request.send(record);
        } else {
            drop(request);
        }
        // The task ends with its answer; the operator reports one that is missing.
        let _late = tokio::time::timeout(ANSWER_TIMEOUT, &mut self.answering).await;
    }
}
