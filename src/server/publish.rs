//! `POST /v1/publish`: prices from outside.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Request, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::http::{Answer, refusal, text, with_type};
use super::{Server, origin};
use crate::protocol::Code;
use crate::source::push::{PublishedEvent, PushFault, PushInlet};

/// A push source as publishers reach it.
#[derive(Debug)]
pub struct PushSource {
    /// Whose token it is (SHA-256); without one, anybody on this machine may publish.
    pub token_sha256: Option<[u8; 32]>,
    /// The way in.
    pub inlet: PushInlet,
}

/// All push sources.
#[derive(Debug, Default)]
pub struct Publishers {
    /// In the config's order.
    pub sources: Vec<Arc<PushSource>>,
    /// Bytes of one request (config `limits.publish`).
    pub body_bytes_max: usize,
}

#[derive(Debug, Serialize)]
struct Report {
    accepted: usize,
    refused: usize,
    errors: Vec<LineError>,
}

#[derive(Debug, Serialize)]
struct LineError {
    line: usize,
    code: u16,
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Ndjson,
    Msgpack,
}

type Line = (usize, Result<PublishedEvent, PushFault>);

/// Nesting of a published event; it has none.
const MSGPACK_DEPTH_MAX: usize = 16;

pub(super) async fn answer(server: &Arc<Server>, peer: SocketAddr, request: Request<Incoming>) -> Answer {
    if !origin::is_allowed(request.headers(), server.is_loopback()) {
        return refusal(StatusCode::FORBIDDEN, "this page's origin may not publish");
    }
    let allowed = match allowed_sources(server, peer, request.headers()) {
        Ok(allowed) => allowed,
        Err(refused) => return refused,
    };
    let format = match request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(media_type) {
        Some("application/x-ndjson") => Format::Ndjson,
        Some("application/msgpack") => Format::Msgpack,
        _ => return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "publish application/x-ndjson or application/msgpack"),
    };
    let body = match Limited::new(request.into_body(), server.publishers.body_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("at most {} bytes at once (limits.publish)", server.publishers.body_bytes_max);
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "the body broke off"),
    };
    let (worker, now) = (Arc::clone(server), server.clock.now());
    // Elsewhere than on the shard's thread: a large body takes its time.
    let published = tokio::task::spawn_blocking(move || publish(&worker, &allowed, &body, format, now)).await;
    match published {
        Ok(Ok(report)) => written(&report, format),
        Ok(Err(refused)) => refused,
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "publishing failed"),
    }
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// The sources that the token opens; without one, those that ask for none, from this machine.
fn allowed_sources(server: &Server, peer: SocketAddr, headers: &HeaderMap) -> Result<Vec<Arc<PushSource>>, Answer> {
    let sources = &server.publishers.sources;
    if sources.is_empty() {
        return Err(refusal(StatusCode::NOT_FOUND, "no source of kind push is configured"));
    }
    let unauthorized = |message: &str| {
        let mut answer = refusal(StatusCode::UNAUTHORIZED, message);
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        answer
    };
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let opened = |source: &&Arc<PushSource>| source.token_sha256.is_some_and(|own| own.ct_eq(&hash).into());
        let opened: Vec<_> = sources.iter().filter(opened).cloned().collect();
        return if opened.is_empty() { Err(unauthorized("the token is of no push source")) } else { Ok(opened) };
    }
    let open: Vec<_> = sources.iter().filter(|source| source.token_sha256.is_none()).cloned().collect();
    if open.is_empty() {
        return Err(unauthorized("publish with `Authorization: Bearer TOKEN`"));
    }
    if !peer.ip().to_canonical().is_loopback() {
        return Err(refusal(StatusCode::FORBIDDEN, "without a token, publish from the server's own machine"));
    }
    Ok(open)
}

fn publish(
    server: &Server,
    sources: &[Arc<PushSource>],
    body: &[u8],
    format: Format,
    now: crate::market::UnixNanos,
) -> Result<Report, Answer> {
    let lines = match format {
        Format::Ndjson => read_ndjson(body),
        Format::Msgpack => read_msgpack(body).map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?,
    };
    let mut errors = Vec::new();
    let mut accepted = 0;
    // By source, each in the order of the lines; what no source knows goes to the first, which refuses it.
    let mut parts: Vec<Vec<(usize, &PublishedEvent)>> = vec![Vec::new(); sources.len()];
    for (line, event) in &lines {
        match event {
            Ok(event) => {
                let source = sources.iter().position(|source| source.inlet.knows(event)).unwrap_or(0);
                parts[source].push((*line, event));
            }
            Err(fault) => errors.push((*line, fault.clone())),
        }
    }
    for (source, part) in sources.iter().zip(parts).filter(|(_, part)| !part.is_empty()) {
        let events: Vec<_> = part.iter().map(|(_, event)| *event).collect();
        let Ok(results) = source.inlet.publish(&events, now) else {
            let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, "the bus' queue is full (bus.queue); nothing of this was taken");
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Err(answer);
        };
        for ((line, _), result) in part.iter().zip(results) {
            match result {
                Ok(()) => accepted += 1,
                Err(fault) => errors.push((*line, fault)),
            }
        }
    }
    errors.sort_by_key(|(line, _)| *line);
    for (_, fault) in &errors {
        server.metrics.bad_input.with_label_values(&[fault.reason()]).inc();
    }
    let refused = errors.len();
    Ok(Report { accepted, refused, errors: errors.into_iter().map(|(line, fault)| line_error(line, &fault)).collect() })
}

fn line_error(line: usize, fault: &PushFault) -> LineError {
    let code = match fault {
        PushFault::Symbol(_) | PushFault::Channel(_) => Code::UnknownTopic,
        _ => Code::BadRequest,
    };
    LineError { line, code: code.number(), message: fault.to_string() }
}

fn read_ndjson(body: &[u8]) -> Vec<Line> {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |line: &[u8]| serde_json::from_slice(line).map_err(|error| PushFault::Malformed(error.to_string()));
    filled.map(|(at, line)| (at + 1, read(line))).collect()
}

fn read_msgpack(body: &[u8]) -> Result<Vec<Line>, String> {
    let mut de = rmp_serde::Deserializer::from_read_ref(body);
    de.set_max_depth(MSGPACK_DEPTH_MAX);
    let values: Vec<serde_json::Value> =
        serde::Deserialize::deserialize(&mut de).map_err(|error| format!("the body is no MessagePack array of events: {error}"))?;
    let read = |value| serde_json::from_value(value).map_err(|error| PushFault::Malformed(error.to_string()));
    Ok(values.into_iter().enumerate().map(|(at, value)| (at + 1, read(value))).collect())
}

fn written(report: &Report, format: Format) -> Answer {
    match format {
        Format::Ndjson => {
            let body = serde_json::to_vec(report).expect("a report is plain JSON");
            with_type(text(StatusCode::OK, body), "application/json")
        }
        Format::Msgpack => {
            let body = rmp_serde::to_vec_named(report).expect("a report is plain MessagePack");
            with_type(text(StatusCode::OK, body), "application/msgpack")
        }
    }
}
