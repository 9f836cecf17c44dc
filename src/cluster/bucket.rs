//! The checkpoints of a cluster in the object store of NATS: one object per checkpoint, with the
//! number of its record as name.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::object_store::{self, ObjectInfo, ObjectStore};
use async_nats::jetstream::stream::{StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode, context::GetStreamErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use super::checkpoint::Place;
use super::settings::ClusterSettings;
use super::store::{Store, StoreError};
use crate::market::UnixNanos;

/// Time limit of a request, and of a wait for the next bytes of a checkpoint.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit to store a checkpoint, beside that of its size.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Slowest rate at which a checkpoint may be stored, in bytes per second.
const WRITE_RATE_MIN: usize = 1 << 20;
/// Number of objects that are listed, at most.
const LISTED_MAX: usize = 10_000;
/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;

/// A checkpoint in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Origin of the epochs of the log.
    pub origin: u64,
    /// Number of the last record that the checkpoint contains.
    pub number: u64,
    /// Time at which it was stored.
    pub time: UnixNanos,
    /// Size, in bytes.
    pub bytes: usize,
    /// Identifier of its parts.
    nuid: String,
}

/// Name of the object of a checkpoint.
fn name_of(origin: u64, number: u64) -> String {
    format!("{origin:016x}-{number:020}")
}

impl Stored {
    /// Reads an entry of the list; `None` for an object that is not a checkpoint.
    fn read(info: &ObjectInfo) -> Option<Self> {
        let (origin, number) = info.name.split_once('-')?;
        let origin = u64::from_str_radix(origin, 16).ok()?;
        let number = number.parse().ok()?;
        let is_link = info.options.as_ref().is_some_and(|it| it.link.is_some());
        let is_token = info.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_own = name_of(origin, number) == info.name && is_token && !info.nuid.is_empty();
        let time = info.modified?.unix_timestamp_nanos();
        (is_own && !is_link).then(|| Self {
            origin,
            number,
            time: UnixNanos(u64::try_from(time).unwrap_or_default()),
            bytes: info.size,
            nuid: info.nuid.clone(),
        })
    }

    #[cfg(test)]
    pub(super) const fn for_tests(origin: u64, number: u64, time: UnixNanos) -> Self {
        Self {
            origin,
            number,
            time,
            bytes: 0,
            nuid: String::new(),
        }
    }

    /// True if its state is that of the place.
    pub const fn is_of(&self, place: &Place) -> bool {
        self.origin == place.origin && self.number == place.position.number
    }
}

/// The bucket of a cluster.
#[derive(Clone)]
pub struct Bucket {
    name: String,
    objects: ObjectStore,
    stream: Stream,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Name of the bucket of a cluster.
pub(super) fn bucket_name(cluster: &str) -> String {
    format!("TC_CHECKPOINTS_{cluster}")
}

fn failed(error: impl fmt::Display) -> StoreError {
    StoreError::Request(error.to_string())
}

/// Result of a request within the time limit.
async fn in_time<T, E: fmt::Display>(
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    within(REQUEST_TIMEOUT, request).await
}

/// Result of a request within this time.
async fn within<T, E: fmt::Display>(
    limit: Duration,
    request: impl Future<Output = Result<T, E>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(failed),
        Err(_late) => Err(failed("no answer in time")),
    }
}

/// Time limit to store this many bytes.
fn write_limit(bytes: usize) -> Duration {
    WRITE_TIMEOUT + Duration::from_secs((bytes / WRITE_RATE_MIN) as u64)
}

impl Bucket {
    /// Opens the bucket; `None` if there is none.
    pub async fn find(store: &Store, cluster: &str) -> Result<Option<Self>, StoreError> {
        let name = bucket_name(cluster);
        let context = store.context();
        match context.get_stream(format!("OBJ_{name}")).await {
            Ok(stream) => Self::of(context, stream, name).await.map(Some),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(failed(error)),
            },
        }
    }

    /// Opens the bucket, or creates it. Checkpoints expire with the records that follow them.
    pub async fn open(store: &Store, settings: &ClusterSettings) -> Result<Self, StoreError> {
        if let Some(found) = Self::find(store, &settings.name).await? {
            return Ok(found);
        }
        let name = bucket_name(&settings.name);
        let config = object_store::Config {
            bucket: name.clone(),
            max_age: settings.log_age,
            storage: StorageType::File,
            num_replicas: settings.replicas,
            ..object_store::Config::default()
        };
        let context = store.context();
        in_time(context.create_object_store(config)).await?;
        let stream = in_time(context.get_stream(format!("OBJ_{name}"))).await?;
        Self::of(context, stream, name).await
    }

    async fn of(context: &Context, stream: Stream, name: String) -> Result<Self, StoreError> {
        Ok(Self {
            objects: in_time(context.get_object_store(&name)).await?,
            stream,
            name,
        })
    }

    /// Checkpoints in the bucket, in no order. Other objects are ignored.
    pub async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let mut objects = in_time(self.objects.list()).await?;
        let mut found = Vec::new();
        for _ in 0..LISTED_MAX {
            let next = tokio::time::timeout(REQUEST_TIMEOUT, objects.next()).await;
            match next.map_err(|_late| failed("no answer in time"))? {
                Some(Ok(info)) => found.extend(Stored::read(&info)),
                Some(Err(error)) => tracing::warn!(%error, "foreign object among checkpoints"),
                None => break,
            }
        }
        Ok(found)
    }

    /// Reads a checkpoint of at most `bytes_max`.
    pub async fn read(&self, stored: &Stored, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
        let name = name_of(stored.origin, stored.number);
        let mut object = in_time(self.objects.get(&name)).await?;
        let mut bytes = Vec::new();
        let mut part = vec![0; READ_BYTES];
        // Parts that were deleted meanwhile never arrive.
        while let count @ 1.. = in_time(object.read(&mut part)).await? {
            if bytes.len() + count > bytes_max {
                return Err(failed(format!("larger than {bytes_max} bytes")));
            }
            bytes.extend_from_slice(&part[..count]);
        }
        Ok(bytes)
    }

    /// Stores a checkpoint, within a time limit that grows with its size.
    pub async fn write(&self, place: &Place, bytes: &Bytes) -> Result<(), StoreError> {
        let name = name_of(place.origin, place.position.number);
        let mut content = &bytes[..];
        let stored = self.objects.put(name.as_str(), &mut content);
        within(write_limit(bytes.len()), stored).await.map(drop)
    }

    /// Deletes a checkpoint, without the marker that a delete of the object store leaves.
    pub async fn delete(&self, stored: &Stored) -> Result<(), StoreError> {
        let name = name_of(stored.origin, stored.number);
        let name = data_encoding::BASE64URL.encode(name.as_bytes());
        let bucket = &self.name;
        let parts = &stored.nuid;
        for subject in [
            format!("$O.{bucket}.M.{name}"),
            format!("$O.{bucket}.C.{parts}"),
        ] {
            in_time(self.stream.purge().filter(subject).into_future()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than every limit in the test.
    const PATIENCE: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_fails_the_request_in_time() {
        let never = std::future::pending::<Result<(), StoreError>>;
        let in_time = tokio::time::timeout(PATIENCE, in_time(never())).await;
        assert!(in_time.is_ok_and(|answer| answer.is_err()));
        let limit = write_limit(30 << 20);
        assert_eq!(limit, WRITE_TIMEOUT + Duration::from_secs(30));
        let written = tokio::time::timeout(PATIENCE, within(limit, never())).await;
        assert!(written.is_ok_and(|answer| answer.is_err()));
    }
}
