//! Requests of operators to the leading publisher, over a subject of NATS to which it listens while
//! it leads: their form, and the side of the operator.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{RequestError, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::items::read_lead;
use super::record::Record;
use super::settings::ClusterSettings;
use super::status::ClusterStatus;
use super::store::{Store, StoreError};
use crate::metrics::Metrics;

/// Time limit of the leader to store a checkpoint.
pub(super) const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of the leader to hand the log over, and of another publisher to take over.
pub(super) const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of the leader to begin new epochs.
pub(super) const NEW_EPOCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of a request beyond that of the leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Subject on which publishers that stand by answer.
pub(super) fn standby_subject(cluster: &str) -> String {
    format!("tc.standby.{cluster}")
}

/// Subject of the requests to the leading publisher.
pub(super) fn control_subject(cluster: &str) -> String {
    format!("tc.control.{cluster}")
}

/// Subject on which gateways report that they have read other records than those of the log.
pub(super) fn diverged_subject(cluster: &str) -> String {
    format!("tc.diverged.{cluster}")
}

/// Origin of a report of a gateway.
pub(super) fn read_report(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    u64::from_str_radix(text, 16).ok()
}

/// Request of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Store a checkpoint.
    Checkpoint,
    /// Hand the log over to a publisher that stands by.
    Handover,
    /// Begin new epochs of all topics.
    NewEpoch,
}

impl Request {
    const ALL: [Self; 3] = [Self::Checkpoint, Self::Handover, Self::NewEpoch];

    /// Payload of the request.
    const fn name(self) -> &'static str {
        match self {
            Self::Checkpoint => "checkpoint",
            Self::Handover => "handover",
            Self::NewEpoch => "new-epoch",
        }
    }

    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let is_it = |request: &Self| request.name().as_bytes() == payload;
        Self::ALL.into_iter().find(is_it)
    }
}

/// Answer of the leader, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The request was fulfilled.
    Done(Done),
    /// The reason for which it was not.
    Refused(String),
}

/// Fulfilled request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Name of the leader.
    pub node: String,
    /// Number of the last record that is concerned.
    pub record: u64,
    /// Size of what was stored, in bytes.
    #[serde(default)]
    pub bytes: usize,
}

/// Reason for which a request was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Cannot use NATS.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody listens.
    #[error("no publisher leads cluster {0}")]
    NoLeader(String),
    /// The leader does not answer.
    #[error("the leader of cluster {0} has not answered within {1:?}")]
    Late(String, Duration),
    /// The leader cannot fulfil the request.
    #[error("the leader refuses: {0}")]
    Refused(String),
    /// Nobody has taken over.
    #[error(
        "{node} has handed the log over with record {record}, but no publisher has taken over within {HANDOVER_TIMEOUT:?}; {node} leads again once it is restarted"
    )]
    NotTaken {
        /// Publisher that led before.
        node: String,
        /// Its last record.
        record: u64,
    },
    /// The answer is of another form.
    #[error("the leader has sent an answer that this version cannot read")]
    Malformed,
}

/// Connection of an operator to a cluster.
pub(super) async fn connect(settings: &ClusterSettings) -> Result<Store, StoreError> {
    // The metrics of this connection are not exported.
    let metrics = Metrics::new().add_cluster(settings.role.name());
    let status = Arc::new(ClusterStatus::new(metrics));
    Store::open(settings, status, false).await
}

/// Has the leader store a checkpoint of its present state.
pub async fn request_checkpoint(settings: &ClusterSettings) -> Result<Done, ControlError> {
    let store = connect(settings).await?;
    let limit = CHECKPOINT_TIMEOUT + ANSWER_TIMEOUT;
    ask(&store, settings, Request::Checkpoint, limit).await
}

/// Has the leader begin new epochs of all topics; the record is the one behind which they begin.
pub async fn request_new_epoch(settings: &ClusterSettings) -> Result<Done, ControlError> {
    let store = connect(settings).await?;
    let limit = NEW_EPOCH_TIMEOUT + ANSWER_TIMEOUT;
    ask(&store, settings, Request::NewEpoch, limit).await
}

/// Change of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Publisher that led before.
    pub from: String,
    /// Publisher that leads now.
    pub to: String,
    /// Number of the first record of its term.
    pub record: u64,
    /// Time between the last record of the one and the first of the other.
    pub pause: Duration,
}

/// Has the leader hand the log over; waits until another publisher leads.
pub async fn request_handover(settings: &ClusterSettings) -> Result<Handover, ControlError> {
    let store = connect(settings).await?;
    let mut live = store.subscribe().await?;
    let limit = HANDOVER_TIMEOUT + ANSWER_TIMEOUT;
    let handed_over = ask(&store, settings, Request::Handover, limit).await?;
    let Done {
        node: from,
        record: last,
        ..
    } = handed_over;
    // Behind it the log accepts only the start of another term.
    let taken = async {
        while let Some(message) = live.next().await {
            match Record::read(&message.payload) {
                Ok(record) if record.number > last => break,
                Ok(_) | Err(_) => {}
            }
        }
    };
    if tokio::time::timeout(HANDOVER_TIMEOUT, taken).await.is_err() {
        return Err(ControlError::NotTaken {
            node: from,
            record: last,
        });
    }
    let first = store.get(last + 1).await?;
    let lead = read_lead(&first.body).map_err(|_malformed| ControlError::Malformed)?;
    let (before, after) = (store.time_of(last).await?, store.time_of(last + 1).await?);
    Ok(Handover {
        from,
        to: lead.node,
        record: last + 1,
        pause: after.since(before),
    })
}

async fn ask(
    store: &Store,
    settings: &ClusterSettings,
    request: Request,
    limit: Duration,
) -> Result<Done, ControlError> {
    let name = || settings.name.clone();
    let subject = control_subject(&settings.name);
    let answer = store.ask(&subject, request.name(), limit).await;
    let answer = answer.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => ControlError::NoLeader(name()),
        RequestErrorKind::TimedOut => ControlError::Late(name(), limit),
        RequestErrorKind::InvalidSubject
        | RequestErrorKind::MaxPayloadExceeded
        | RequestErrorKind::Other => StoreError::Request(error.to_string()).into(),
    })?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Done(done)) => Ok(done),
        Ok(Answer::Refused(reason)) => Err(ControlError::Refused(reason)),
        Err(_other_form) => Err(ControlError::Malformed),
    }
}

impl Store {
    /// Reports to the leader that this server has read other records than those of the log, in the
    /// epochs of `origin`. The report may be lost.
    pub(super) async fn report_divergence(&self, cluster: &str, origin: u64) {
        let report = Bytes::from(format!("{origin:016x}"));
        let sent = self.client().publish(diverged_subject(cluster), report);
        if let Err(error) = sent.await {
            tracing::warn!(%error, "cannot report the other records to the leader");
        }
    }

    /// Sends a request to another server and waits for its answer.
    pub(super) async fn ask(
        &self,
        subject: &str,
        request: &'static str,
        limit: Duration,
    ) -> Result<Bytes, RequestError> {
        let payload = Bytes::from_static(request.as_bytes());
        let request = async_nats::Request::new();
        let request = request.payload(payload).timeout(Some(limit));
        let asked = self.client().send_request(subject.to_owned(), request);
        Ok(asked.await?.payload)
    }
}
