//! Requests of operators, as the leading publisher answers them.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::command::Command;
use super::control::{Answer, CHECKPOINT_TIMEOUT, Done, Request, control_subject};
use super::settings::ClusterSettings;
use super::store::Store;

/// Time limit to send an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers the requests of operators, one after the other.
pub async fn answer_operators(
    store: Store,
    settings: ClusterSettings,
    uplink: mpsc::Sender<Command>,
) {
    let subject = control_subject(&settings.name);
    let Some(mut requests) = subscribe(&store, subject).await else {
        return;
    };
    while let Some(message) = requests.next().await {
        let answer = match Request::read(&message.payload) {
            Some(Request::Checkpoint) => checkpoint(&settings.node, &uplink).await,
            None => Answer::Refused("unknown request".to_owned()),
        };
        respond(&store, message, &answer).await;
    }
}

async fn subscribe(store: &Store, subject: String) -> Option<Subscriber> {
    match store.client().subscribe(subject).await {
        Ok(requests) => Some(requests),
        Err(error) => {
            tracing::warn!(%error, "cannot listen for requests of operators");
            None
        }
    }
}

/// Sends an answer. The operator reports one that is missing.
async fn respond(store: &Store, request: Message, answer: &Answer) {
    let Some(reply) = request.reply else {
        return;
    };
    let answer = serde_json::to_vec(answer).map(Bytes::from);
    let sent = async {
        let client = store.client();
        let queued = client.publish(reply, answer.unwrap_or_default()).await;
        queued.is_ok() && client.flush().await.is_ok()
    };
    if tokio::time::timeout(SEND_TIMEOUT, sent).await != Ok(true) {
        tracing::warn!("cannot answer a request of an operator");
    }
}

/// Stores a checkpoint.
async fn checkpoint(node: &str, uplink: &mpsc::Sender<Command>) -> Answer {
    let (asker, written) = oneshot::channel();
    let asked = async {
        uplink.send(Command::Checkpoint(asker)).await.ok()?;
        written.await.ok()
    };
    match tokio::time::timeout(CHECKPOINT_TIMEOUT, asked).await {
        Ok(Some(Ok(written))) => Answer::Done(Done {
            node: node.to_owned(),
            record: written.record,
            bytes: written.bytes,
        }),
        Ok(Some(Err(error))) => {
            Answer::Refused(format!("{node} cannot store a checkpoint: {error}"))
        }
        Ok(None) => Answer::Refused(format!("{node} no longer leads")),
        Err(_late) => Answer::Refused(format!(
            "{node} has not stored a checkpoint within {CHECKPOINT_TIMEOUT:?}"
        )),
    }
}
