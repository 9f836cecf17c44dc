//! Publish requests between the servers of a cluster: a server that does not lead forwards them to
//! the leading publisher as requests of NATS, and gets its answers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use async_nats::{Client, Message, Request, RequestErrorKind, Subject, SubscribeError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::forms::value;
use super::settings::ClusterSettings;

/// Time for the leader to answer a request without a body.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer in addition to that of the shared log.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Part of a publish request by which the leader decides whether its client may publish.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushHead {
    /// Values of the header `Authorization`.
    pub authorization: Vec<Bytes>,
    /// Value of the header `Content-Type`.
    pub content_type: Option<Bytes>,
    /// True if the client is a program on the machine of the server that forwards.
    pub is_local: bool,
    /// Address of the client.
    pub address: IpAddr,
    /// False for a question in advance, whether the client may send a body.
    pub has_body: bool,
}

impl fmt::Debug for PushHead {
    // Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushHead")
            .field("address", &self.address)
            .field("is_local", &self.is_local)
            .field("has_body", &self.has_body)
            .finish_non_exhaustive()
    }
}

/// Response of the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAnswer {
    /// Status of HTTP; 100 if the client may send its body.
    pub status: u16,
    /// Headers of HTTP.
    pub headers: Vec<(String, Bytes)>,
    /// Body of the response.
    pub body: Bytes,
}

/// Reason for which the leader has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// No server has received the request.
    #[error("no publisher leads the cluster")]
    NoLeader,
    /// The leader may have received the request.
    #[error("the leading publisher does not answer")]
    NoAnswer,
    /// The request is larger than NATS accepts.
    #[error("the request is larger than `max_payload` of NATS")]
    TooLarge,
}

/// Message of a head, and of a body behind it.
fn encode(head: &PushHead, body: &[u8]) -> Bytes {
    [&*value(head), body].concat().into()
}

/// Value at the start of a message, and the bytes behind it.
fn decode<T: DeserializeOwned>(message: &Bytes) -> Option<(T, Bytes)> {
    let mut rest = &message[..];
    let head = rmp_serde::from_read(&mut rest).ok()?;
    let behind = message.len() - rest.len();
    Some((head, message.slice(behind..)))
}

/// Way of publish requests to the leader.
#[derive(Clone)]
pub struct PushLink {
    client: Client,
    subject: String,
    /// Time for the shared log to confirm the events of a request.
    commit_timeout: Duration,
}

impl fmt::Debug for PushLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushLink")
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl PushLink {
    pub(super) fn new(client: Client, settings: &ClusterSettings) -> Self {
        Self {
            client,
            subject: format!("tc.push.{}", settings.name),
            commit_timeout: settings.publish_timeout,
        }
    }

    /// Time for the shared log to confirm the events of a request.
    pub const fn commit_timeout(&self) -> Duration {
        self.commit_timeout
    }

    /// Maximum size of a message, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.client.max_payload()
    }

    /// Maximum size of a body behind a head, in bytes.
    pub fn body_bytes_max(&self, head: &PushHead) -> usize {
        self.message_bytes_max().saturating_sub(value(head).len())
    }

    /// Asks the leader whether a client may send a body.
    pub async fn ask(&self, head: &PushHead) -> Result<PushAnswer, ForwardError> {
        self.send(encode(head, &[]), HEAD_TIMEOUT).await
    }

    /// Sends a request to the leader; it answers once the shared log contains the events.
    pub async fn publish(&self, head: &PushHead, body: &[u8]) -> Result<PushAnswer, ForwardError> {
        let timeout = self.commit_timeout + ANSWER_TIME;
        self.send(encode(head, body), timeout).await
    }

    async fn send(&self, message: Bytes, timeout: Duration) -> Result<PushAnswer, ForwardError> {
        let request = Request::new().payload(message).timeout(Some(timeout));
        let answered = self.client.send_request(self.subject.clone(), request);
        let message = answered.await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => ForwardError::NoLeader,
            RequestErrorKind::MaxPayloadExceeded => ForwardError::TooLarge,
            RequestErrorKind::TimedOut
            | RequestErrorKind::InvalidSubject
            | RequestErrorKind::Other => ForwardError::NoAnswer,
        })?;
        let (answer, _) = decode(&message.payload).ok_or(ForwardError::NoAnswer)?;
        Ok(answer)
    }

    /// Subscribes to the requests that other servers forward, which the leader answers.
    pub async fn requests(&self) -> Result<PushRequests, SubscribeError> {
        let client = self.client.clone();
        let requests = client.subscribe(self.subject.clone()).await?;
        Ok(PushRequests { client, requests })
    }

    /// Waits until NATS has received all answers.
    pub async fn flush(&self) {
        // Without a connection nobody waits for the answers.
        let _disconnected = self.client.flush().await;
    }
}

/// Requests that other servers forward to this one.
#[derive(Debug)]
pub struct PushRequests {
    client: Client,
    requests: Subscriber,
}

impl PushRequests {
    /// Next request; `None` once the connection to NATS has ended. Messages that are no requests
    /// are skipped.
    pub async fn next(&mut self) -> Option<PushRequest> {
        loop {
            let message = self.requests.next().await?;
            if let Some(request) = PushRequest::read(&self.client, message) {
                return Some(request);
            }
        }
    }
}

/// Request that another server has forwarded.
pub struct PushRequest {
    /// Head of the request.
    pub head: PushHead,
    /// Body of the request.
    pub body: Bytes,
    reply: Reply,
}

impl fmt::Debug for PushRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PushRequest").field(&self.head).finish()
    }
}

struct Reply {
    client: Client,
    subject: Subject,
}

impl PushRequest {
    fn read(client: &Client, message: Message) -> Option<Self> {
        let (head, body) = decode(&message.payload)?;
        Some(Self {
            head,
            body,
            reply: Reply {
                client: client.clone(),
                subject: message.reply?,
            },
        })
    }

    /// Answers the request.
    pub async fn answer(self, answer: &PushAnswer) {
        let Reply { client, subject } = self.reply;
        if let Err(error) = client.publish(subject, value(answer)).await {
            tracing::warn!(%error, "cannot answer a forwarded publish request");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> PushHead {
        PushHead {
            authorization: vec![Bytes::from_static(b"Bearer \xff secret")],
            content_type: Some(Bytes::from_static(b"application/x-ndjson")),
            is_local: true,
            address: IpAddr::from([10, 0, 0, 1]),
            has_body: true,
        }
    }

    #[test]
    fn requests_and_answers_are_read_as_written() {
        let message = encode(&head(), b"body");
        let read: Option<(PushHead, Bytes)> = decode(&message);
        assert_eq!(read, Some((head(), Bytes::from_static(b"body"))));
        let answer = PushAnswer {
            status: 503,
            headers: vec![("retry-after".to_owned(), Bytes::from_static(b"1"))],
            body: Bytes::from_static(b"{}"),
        };
        let read: Option<(PushAnswer, Bytes)> = decode(&value(&answer));
        assert_eq!(read, Some((answer, Bytes::new())));
    }

    #[test]
    fn tokens_are_not_shown() {
        assert!(!format!("{:?}", head()).contains("secret"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0usize..200) {
            let message = encode(&head(), &[]);
            let cut = message.slice(..cut.min(message.len()));
            for bytes in [Bytes::from(bytes), cut] {
                let _read: Option<(PushHead, Bytes)> = decode(&bytes);
            }
        }
    }
}
