//! The shared log in NATS: a stream whose messages are the records. Committed records
//! are republished on a plain subject, from which all servers of the cluster read them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, Republish, State, StorageType, Stream,
};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::append_fault::AppendFault;
use super::push::PushLink;
use super::record::{Record, RecordFault};
use super::settings::{ClusterSettings, NatsLogin};
use super::status::ClusterStatus;
use crate::market::UnixNanos;

/// Time limit of a request to NATS.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Capacity of the subscription to new records. Records beyond it are read from the stream.
const LIVE_RECORDS_MAX: usize = 4096;
/// Time for which NATS remembers the identifiers of records. They are only compared with that of the
/// record before.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(1);
/// Maximum size of the records that are read by one request, in bytes.
const READ_BYTES_MAX: usize = 4 << 20;
/// Records that are sent and not acknowledged, over all windows.
const INFLIGHT_MAX: usize = 8192;

/// Failure of a request to NATS.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection at the start.
    #[error("cannot connect to NATS at {urls}: {error}")]
    Connect {
        /// Configured addresses.
        urls: String,
        /// Cause.
        error: String,
    },
    /// A file named in section `cluster` cannot be read.
    #[error("cannot read the NATS credentials {path}: {error}")]
    Credentials {
        /// Path of the file.
        path: String,
        /// Cause.
        error: std::io::Error,
    },
    /// The stream cannot be created or opened.
    #[error("cannot open stream {stream} in NATS: {error}")]
    Stream {
        /// Name of the stream.
        stream: String,
        /// Cause.
        error: String,
    },
    /// A request failed or timed out.
    #[error("request to NATS failed: {0}")]
    Request(String),
    /// The stream does not exist any more.
    #[error("stream {0} does not exist any more")]
    Lost(String),
    /// The log no longer contains the record.
    #[error("the log no longer contains record {0}")]
    Gone(u64),
    /// A message of the stream is not a record.
    #[error(transparent)]
    Record(#[from] RecordFault),
}

/// Records of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of the first record.
    pub first: u64,
    /// Time of the first record.
    pub first_time: UnixNanos,
    /// Number of the last record; 0 if the log is empty.
    pub last: u64,
    /// Time of the last record.
    pub last_time: UnixNanos,
}

/// Connection to the shared log.
#[derive(Clone)]
pub struct Store {
    client: Client,
    jetstream: Context,
    stream: Stream,
    config: Config,
    live: String,
    reconnected: Arc<Notify>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("stream", &self.config.name)
            .finish_non_exhaustive()
    }
}

/// Time of NATS, which is after 1970.
fn nanos(since_1970: i128) -> UnixNanos {
    UnixNanos(u64::try_from(since_1970).unwrap_or_default())
}

/// Name of the stream of a cluster.
fn stream_name(cluster: &str) -> String {
    format!("TC_LOG_{cluster}")
}

fn stream_config(settings: &ClusterSettings, subject: &str, live: &str) -> Config {
    Config {
        name: stream_name(&settings.name),
        subjects: vec![subject.to_owned()],
        max_bytes: i64::try_from(settings.log_bytes).unwrap_or(i64::MAX),
        max_age: settings.log_age,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        republish: Some(Republish {
            source: subject.to_owned(),
            destination: live.to_owned(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

async fn connect(
    settings: &ClusterSettings,
    status: Arc<ClusterStatus>,
    reconnected: Arc<Notify>,
) -> Result<Client, StoreError> {
    let has_connected = Arc::new(AtomicBool::new(false));
    let mut options = ConnectOptions::new()
        .event_callback(move |event| {
            let is_first =
                event == Event::Connected && !has_connected.swap(true, Ordering::Relaxed);
            if event == Event::Connected && !is_first {
                reconnected.notify_one();
            }
            status.note(&event, is_first);
            async {}
        })
        .name(format!("tickcast {}", settings.node))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .subscription_capacity(LIVE_RECORDS_MAX);
    if let Some(path) = &settings.credentials {
        let with_credentials = options.credentials_file(path).await;
        options = with_credentials.map_err(|error| StoreError::Credentials {
            path: path.display().to_string(),
            error,
        })?;
    }
    if let Some(NatsLogin {
        user,
        password_file: path,
    }) = &settings.login
    {
        let password = std::fs::read_to_string(path);
        let password = password.map_err(|error| StoreError::Credentials {
            path: path.display().to_string(),
            error,
        })?;
        options = options.user_and_password(user.clone(), password.trim_end().to_owned());
    }
    if let Some(path) = &settings.tls_ca {
        options = options.add_root_certificates(path.clone());
    }
    let connected = options.connect(&settings.urls).await;
    connected.map_err(|error| StoreError::Connect {
        urls: settings.urls.join(", "),
        error: error.to_string(),
    })
}

impl Store {
    /// Connects to NATS and opens the stream; a publisher creates it if it does not exist.
    pub async fn open(
        settings: &ClusterSettings,
        status: Arc<ClusterStatus>,
        creates: bool,
    ) -> Result<Self, StoreError> {
        let reconnected = Arc::new(Notify::new());
        let client = connect(settings, status, Arc::clone(&reconnected)).await?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(settings.lease)
            .max_ack_inflight(INFLIGHT_MAX)
            .build(client.clone());
        let subject = format!("tc.log.{}", settings.name);
        let live = format!("tc.live.{}", settings.name);
        let name = stream_name(&settings.name);
        let config = stream_config(settings, &subject, &live);
        let opened = if creates {
            let opened = jetstream.get_or_create_stream(config.clone()).await;
            opened.map_err(|error| error.to_string())
        } else {
            let opened = jetstream.get_stream(&name).await;
            opened.map_err(|error| error.to_string())
        };
        Ok(Self {
            client,
            jetstream,
            stream: opened.map_err(|error| StoreError::Stream {
                stream: name,
                error,
            })?,
            config,
            live,
            reconnected,
        })
    }

    /// Way of publish requests to the leader.
    pub fn push_link(&self, settings: &ClusterSettings) -> PushLink {
        PushLink::new(self.client.clone(), settings)
    }

    /// Connection to NATS.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Streams of the connection.
    pub(super) const fn context(&self) -> &Context {
        &self.jetstream
    }

    /// Notification that NATS is connected again: it may have lost what was sent before, or only
    /// the answer to it.
    pub(super) const fn reconnected(&self) -> &Arc<Notify> {
        &self.reconnected
    }

    /// Records that the log contains, asked from the NATS server that leads the stream.
    pub async fn extent(&self) -> Result<Extent, StoreError> {
        let state = self.state().await?;
        Ok(Extent {
            first: state.first_sequence,
            first_time: nanos(state.first_timestamp.unix_timestamp_nanos()),
            last: state.last_sequence,
            last_time: nanos(state.last_timestamp.unix_timestamp_nanos()),
        })
    }

    /// Number of the last record, asked from the NATS server that leads the stream; 0 if the log
    /// is empty.
    pub async fn last(&self) -> Result<u64, StoreError> {
        Ok(self.state().await?.last_sequence)
    }

    /// Subscribes to new records. Records are lost if the reader is slow, and must then be read
    /// from the stream.
    pub async fn subscribe(&self) -> Result<Subscriber, StoreError> {
        let subscribed = self.client.subscribe(self.live.clone()).await;
        subscribed.map_err(|error| StoreError::Request(error.to_string()))
    }

    /// Reads a record from any replica of the stream.
    pub async fn get(&self, number: u64) -> Result<Record, StoreError> {
        Ok(Record::read(&self.read(number).await?)?)
    }

    /// Reads consecutive records by one request: from record `first` on, at most `count`, and at most
    /// [`READ_BYTES_MAX`].
    pub async fn get_some(&self, first: u64, count: u64) -> Result<Vec<Record>, StoreError> {
        let failed = |error: &dyn fmt::Display| StoreError::Request(error.to_string());
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let mut answers = answers.map_err(|error| failed(&error))?;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.config.name);
        let request =
            format!("{{\"seq\":{first},\"batch\":{count},\"max_bytes\":{READ_BYTES_MAX}}}");
        let asked = self
            .client
            .publish_with_reply(subject, inbox, Bytes::from(request));
        asked.await.map_err(|error| failed(&error))?;
        let mut records = Vec::new();
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let answer = answer.map_err(|late| failed(&late))?;
            let answer = answer.ok_or_else(|| failed(&"the connection is closed"))?;
            // A status ends the answer: all records are sent, or there are none.
            if answer.status.is_some() {
                return Ok(records);
            }
            let record = Record::read(&answer.payload)?;
            if record.number != first + records.len() as u64 {
                return Ok(records);
            }
            records.push(record);
        }
    }

    /// Time at which the log accepted a record.
    pub(super) async fn time_of(&self, number: u64) -> Result<UnixNanos, StoreError> {
        let message = self.stream.direct_get(number).await;
        let message = message.map_err(|error| StoreError::Request(error.to_string()))?;
        Ok(nanos(message.time.unix_timestamp_nanos()))
    }

    /// Bytes of a record, from any replica of the stream.
    pub(super) async fn read(&self, number: u64) -> Result<Bytes, StoreError> {
        match self.stream.direct_get(number).await {
            Ok(message) => Ok(message.payload),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
                Err(self.missing(number).await?)
            }
            Err(error) => Err(StoreError::Request(error.to_string())),
        }
    }

    /// Reason for which a replica does not have a record: the log has dropped it, or the replica is
    /// behind the others.
    async fn missing(&self, number: u64) -> Result<StoreError, StoreError> {
        let first = self.state().await?.first_sequence;
        Ok(if number < first {
            StoreError::Gone(number)
        } else {
            StoreError::Request(format!("a replica does not have record {number} yet"))
        })
    }

    /// State of the stream, according to the NATS server that leads it.
    async fn state(&self) -> Result<State, StoreError> {
        let name = &self.config.name;
        match self.jetstream.get_stream(name).await {
            Ok(stream) => Ok(stream.cached_info().state.clone()),
            Err(error) => Err(match error.kind() {
                GetStreamErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    StoreError::Lost(name.clone())
                }
                _ => StoreError::Request(error.to_string()),
            }),
        }
    }

    /// Creates the stream again, with a first record of this number, because it is lost.
    pub(super) async fn create_again(&self, first: u64) -> Result<(), StoreError> {
        let name = &self.config.name;
        tracing::warn!(stream = name, first, "creating the lost stream again");
        let config = Config {
            first_sequence: Some(first),
            ..self.config.clone()
        };
        let created = self.jetstream.create_stream(config).await;
        created.map_err(|error| StoreError::Stream {
            stream: name.clone(),
            error: error.to_string(),
        })?;
        Ok(())
    }

    /// Sends a record, which the log accepts only directly behind record `last.number`. If that
    /// record was sent and not acknowledged, it must also have this checksum: by its number alone
    /// it could be one of another publisher.
    pub async fn append(
        &self,
        record: Bytes,
        sum: u64,
        last: Last,
    ) -> Result<PendingAppend, AppendFault> {
        let mut message = PublishMessage::build()
            .payload(record)
            .message_id(message_id(sum))
            .expected_last_sequence(last.number);
        if let Some(sum) = last.unverified {
            message = message.expected_last_message_id(message_id(sum));
        }
        let sent = self
            .jetstream
            .send_publish(self.config.subjects[0].clone(), message);
        let pending = sent.await.map_err(|_not_sent| AppendFault::Unknown)?;
        Ok(PendingAppend(pending))
    }
}

/// Record behind which another one is appended.
#[derive(Debug, Clone, Copy)]
pub struct Last {
    /// Number of the record.
    pub number: u64,
    /// Its checksum, if it is not known that the log contains this record.
    pub unverified: Option<u64>,
}

impl Last {
    /// The log contains this record.
    pub(super) const fn verified(number: u64) -> Self {
        Self {
            number,
            unverified: None,
        }
    }
}

/// Identifier of a record in the stream.
fn message_id(sum: u64) -> String {
    format!("{sum:016x}")
}

/// Record that was sent and not acknowledged yet.
pub struct PendingAppend(PublishAckFuture);

impl fmt::Debug for PendingAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingAppend")
    }
}

impl PendingAppend {
    /// Waits until the log has accepted the record.
    pub async fn accepted(self) -> Result<(), AppendFault> {
        match self.0.await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
                    AppendFault::Refused
                }
                _ => AppendFault::Unknown,
            }),
        }
    }
}
