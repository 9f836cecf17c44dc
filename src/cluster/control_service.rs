//! Requests of operators, as the leading publisher answers them, and those of the leader, as the
//! publishers that stand by do.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::command::{Command, NewOrigin};
use super::control::{
    Answer, CHECKPOINT_TIMEOUT, Done, HANDOVER_TIMEOUT, NEW_EPOCH_TIMEOUT, Request,
    control_subject, diverged_subject, read_report, standby_subject,
};
use super::settings::ClusterSettings;
use super::store::Store;

/// Time limit to send an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between two reports of gateways that have an effect, which bounds what a gateway can
/// cause.
const REPORTS_APART: Duration = Duration::from_secs(10);

/// Time limit of a publisher that stands by to answer.
const STANDBY_TIMEOUT: Duration = Duration::from_secs(2);

/// Request to hand the log over; the answer is the number of the record that does so.
pub type HandoverRequest = oneshot::Sender<u64>;

/// Answers the requests of operators, one after the other, until the log is handed over.
pub async fn answer_operators(
    store: Store,
    settings: ClusterSettings,
    uplink: mpsc::Sender<Command>,
    handovers: mpsc::Sender<HandoverRequest>,
) {
    let subject = control_subject(&settings.name);
    let Some(mut requests) = subscribe(&store, subject).await else {
        return;
    };
    tracing::info!("listening for requests of operators");
    while let Some(message) = requests.next().await {
        let answer = match Request::read(&message.payload) {
            Some(Request::Checkpoint) => checkpoint(&settings.node, &uplink).await,
            Some(Request::NewEpoch) => new_epoch(&settings.node, &uplink).await,
            Some(Request::Handover) if !has_standby(&store, &settings).await => {
                let node = &settings.node;
                Answer::Refused(format!("no publisher stands by; {node} goes on leading"))
            }
            Some(Request::Handover) => {
                let answer = handover(&settings.node, &handovers).await;
                respond(&store, message, &answer).await;
                return;
            }
            None => Answer::Refused("unknown request".to_owned()),
        };
        respond(&store, message, &answer).await;
    }
}

/// Answers, for ever, that a publisher stands by.
pub async fn answer_as_standby(store: &Store, settings: &ClusterSettings) -> Infallible {
    let subject = standby_subject(&settings.name);
    if let Some(mut requests) = subscribe(store, subject).await {
        tracing::info!("standing by");
        while let Some(message) = requests.next().await {
            let standing_by = Answer::Done(Done {
                node: settings.node.clone(),
                record: 0,
                bytes: 0,
            });
            respond(store, message, &standing_by).await;
        }
    }
    std::future::pending().await
}

/// Begins new epochs, for ever, when a gateway reports that it has read other records than those of
/// the log: its clients have seen other events with the numbers that the log uses again.
pub async fn answer_reports(
    store: &Store,
    settings: &ClusterSettings,
    uplink: mpsc::Sender<Command>,
) -> Infallible {
    if let Some(mut reports) = subscribe(store, diverged_subject(&settings.name)).await {
        while let Some(message) = reports.next().await {
            let Some(origin) = read_report(&message.payload) else {
                continue;
            };
            let (done, is_done) = oneshot::channel();
            let of = Some(origin);
            if uplink
                .send(Command::NewOrigin(NewOrigin { of, done }))
                .await
                .is_err()
            {
                break;
            }
            // An error means that this server no longer leads.
            let _ended = is_done.await;
            tokio::time::sleep(REPORTS_APART).await;
        }
    }
    std::future::pending().await
}

/// True if a publisher stands by.
async fn has_standby(store: &Store, settings: &ClusterSettings) -> bool {
    let subject = standby_subject(&settings.name);
    let answer = store.ask(&subject, "standby", STANDBY_TIMEOUT).await;
    answer.is_ok()
}

/// Hands the log over.
async fn handover(node: &str, handovers: &mpsc::Sender<HandoverRequest>) -> Answer {
    let (request, handed_over) = oneshot::channel();
    let asked = async {
        handovers.send(request).await.ok()?;
        handed_over.await.ok()
    };
    match tokio::time::timeout(HANDOVER_TIMEOUT, asked).await {
        Ok(Some(record)) => Answer::Done(Done {
            node: node.to_owned(),
            record,
            bytes: 0,
        }),
        Ok(None) => Answer::Refused(format!("{node} no longer leads, or cannot reach NATS")),
        Err(_late) => Answer::Refused(format!(
            "{node} has not handed the log over within {HANDOVER_TIMEOUT:?}"
        )),
    }
}

async fn subscribe(store: &Store, subject: String) -> Option<Subscriber> {
    match store.client().subscribe(subject).await {
        Ok(requests) => {
            // With the answer to a later request NATS knows the subscription.
            let _answered = store.last().await;
            Some(requests)
        }
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

/// Begins new epochs.
async fn new_epoch(node: &str, uplink: &mpsc::Sender<Command>) -> Answer {
    let (done, begun) = oneshot::channel();
    let asked = async {
        let request = NewOrigin { of: None, done };
        uplink.send(Command::NewOrigin(request)).await.ok()?;
        begun.await.ok()
    };
    match tokio::time::timeout(NEW_EPOCH_TIMEOUT, asked).await {
        Ok(Some(record)) => Answer::Done(Done {
            node: node.to_owned(),
            record,
            bytes: 0,
        }),
        Ok(None) => Answer::Refused(format!(
            "{node} no longer leads, or cannot store a checkpoint"
        )),
        Err(_late) => Answer::Refused(format!(
            "{node} has not begun new epochs within {NEW_EPOCH_TIMEOUT:?}; it may still do so"
        )),
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
