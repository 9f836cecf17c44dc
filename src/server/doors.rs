//! Entry points to private parsers, for the fuzz targets.

use std::net::SocketAddr;

use futures_util::FutureExt;
use hyper::StatusCode;
use hyper::header::HeaderMap;

pub use super::proxy_header::HeaderError;
pub use super::publish_body::{BodyError, BodyFormat};
use super::response::HttpResponse;
use super::snapshot_query::SnapshotQuery;
use super::{proxy_header as header, publish_body, upgrade};
use crate::protocol::Encoding;
use crate::source::push::{PublishedEvent, PushFault};

/// Receives the records of a body, with their numbers.
pub type OnRecord<'f> = &'f mut dyn FnMut(u32, Result<PublishedEvent<'_>, PushFault>);

/// Reads the records of a publish body.
pub fn for_each_record(
    body: &[u8],
    format: BodyFormat,
    records_max: usize,
    on_record: OnRecord<'_>,
) -> Result<(), BodyError> {
    for (number, record) in publish_body::records(body, format, records_max)? {
        on_record(number, record.map_err(publish_body::BadRecord::fault));
    }
    Ok(())
}

/// Topics and events of a query of `GET /v1/snapshot`.
pub fn snapshot_query(query: &str) -> Result<(Vec<String>, Option<usize>), StatusCode> {
    let parsed = SnapshotQuery::parse(query).map_err(|refused| status(&refused))?;
    Ok((parsed.topics, parsed.events))
}

/// Encoding and message limit of a query of `GET /v1/feed`.
pub fn feed_query(query: &str) -> Result<(Encoding, u32), StatusCode> {
    let (encoding, _) =
        upgrade::encoding_of(&HeaderMap::new(), Some(query)).map_err(|refused| status(&refused))?;
    let limit = upgrade::message_max_of(Some(query)).map_err(|refused| status(&refused))?;
    Ok((encoding, limit))
}

fn status(response: &HttpResponse) -> StatusCode {
    response.status()
}

/// Client of a PROXY header, and the number of bytes behind the header.
pub fn proxy_header(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), HeaderError> {
    let mut rest = bytes;
    let client = header::read(&mut rest).now_or_never();
    let client = client.expect("bytes in memory are always ready")?;
    Ok((client, rest.len()))
}
