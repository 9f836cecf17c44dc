//! `POST /v1/publish`: prices from outside.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Request, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Server;
use super::caller::Caller;
use super::http::{Answer, refusal, text, with_type};
use crate::metrics::Refused;
use crate::protocol::Code;
use crate::source::push::{PublishedEvent, PushFault, PushInlet};

/// A push source as publishers reach it.
#[derive(Debug)]
pub struct PushSource {
    /// SHA-256 of the publisher's token; `None`: the source is open to programs on this machine.
    pub token_sha256: Option<[u8; 32]>,
    /// The way in.
    pub inlet: PushInlet,
}

/// The report; `errors` tells the first [`ERRORS_TOLD`] of those that were refused.
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

/// Errors that a report names; `refused` counts all.
const ERRORS_TOLD: usize = 1000;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Nesting of a published event; it has none.
const MSGPACK_DEPTH_MAX: usize = 16;

pub(super) async fn answer(
    server: &Arc<Server>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Answer {
    let settings = server.settings.load();
    if !caller.may_use(&settings.allowed_origins, request.headers()) {
        server.metrics.count_refused(Refused::Origin);
        return refusal(
            StatusCode::FORBIDDEN,
            "this page's origin may not publish (allowed_origins)",
        );
    }
    drop(settings);
    let allowed = match allowed_sources(server, caller, request.headers()) {
        Ok(allowed) => allowed,
        Err(refused) => return refused,
    };
    let format = match request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(media_type)
    {
        Some("application/x-ndjson") => Format::Ndjson,
        Some("application/msgpack") => Format::Msgpack,
        _ => {
            return refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "publish application/x-ndjson or application/msgpack",
            );
        }
    };
    if !server.is_ready() {
        return come_back("the sources are starting");
    }
    // A few at once, because each is held whole.
    let Ok(_turn) = server.publish_turns.acquire().await else {
        return come_back("the server is stopping");
    };
    let bytes_max = server.settings.load().publish_bytes_max;
    let body = Limited::new(request.into_body(), bytes_max).collect();
    let Ok(body) = tokio::time::timeout(BODY_TIMEOUT, body).await else {
        return refusal(StatusCode::REQUEST_TIMEOUT, "the body didn't come in time");
    };
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("at most {bytes_max} bytes at once (limits.publish)");
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
        Err(_) => return refusal(StatusCode::BAD_REQUEST, "the body broke off"),
    };
    let (worker, now) = (Arc::clone(server), server.clock.now());
    // Elsewhere than on the shard's thread: a large body takes its time.
    let publish = move || {
        publish(&worker, &allowed, &body, format, now).map(|report| written(&report, format))
    };
    match tokio::task::spawn_blocking(publish).await {
        Ok(Ok(answer) | Err(answer)) => answer,
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "publishing failed"),
    }
}

fn come_back(message: &str) -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// The sources that the token opens; without one, those that ask for none, from this machine.
fn allowed_sources(
    server: &Server,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Vec<Arc<PushSource>>, Answer> {
    let settings = server.settings.load();
    let sources = &settings.publishers;
    if sources.is_empty() {
        return Err(refusal(
            StatusCode::NOT_FOUND,
            "no source of kind push is configured",
        ));
    }
    let unauthorized = |message: &str| {
        let mut answer = refusal(StatusCode::UNAUTHORIZED, message);
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        answer
    };
    if let Some(header) = headers.get(AUTHORIZATION) {
        let token = header
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let opened = |source: &&Arc<PushSource>| {
            source
                .token_sha256
                .is_some_and(|own| own.ct_eq(&hash).into())
        };
        let opened: Vec<_> = sources.iter().filter(opened).cloned().collect();
        return if opened.is_empty() {
            Err(unauthorized("the token is of no push source"))
        } else {
            Ok(opened)
        };
    }
    let open: Vec<_> = sources
        .iter()
        .filter(|source| source.token_sha256.is_none())
        .cloned()
        .collect();
    if open.is_empty() {
        return Err(unauthorized("publish with `Authorization: Bearer TOKEN`"));
    }
    if !caller.is_local {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "without a token, publish from the server's own machine, to a loopback address, and not through a proxy",
        ));
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
        Format::Msgpack => {
            read_msgpack(body).map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))?
        }
    };
    let mut errors = Vec::new();
    let mut accepted = 0;
    // By source, each in the order of the lines; what no source knows goes to the first, which refuses it.
    let mut parts: Vec<Vec<(usize, &PublishedEvent)>> = vec![Vec::new(); sources.len()];
    for (line, event) in &lines {
        match event {
            Ok(event) => {
                let source = sources
                    .iter()
                    .position(|source| source.inlet.knows(event))
                    .unwrap_or(0);
                parts[source].push((*line, event));
            }
            Err(fault) => errors.push((*line, fault.clone())),
        }
    }
    for (source, part) in sources
        .iter()
        .zip(parts)
        .filter(|(_, part)| !part.is_empty())
    {
        let events: Vec<_> = part.iter().map(|(_, event)| *event).collect();
        let Ok(results) = source.inlet.publish(&events, now) else {
            if accepted == 0 {
                return Err(come_back(
                    "the bus' queue is full (bus.queue); nothing of this was taken",
                ));
            }
            // Another source has taken its part already: these lines alone are to be sent again.
            errors.extend(part.iter().map(|(line, _)| (*line, PushFault::Full)));
            continue;
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
        server
            .metrics
            .bad_input
            .with_label_values(&[fault.reason()])
            .inc();
    }
    let told = errors
        .iter()
        .take(ERRORS_TOLD)
        .map(|(line, fault)| line_error(*line, fault))
        .collect();
    Ok(Report {
        accepted,
        refused: errors.len(),
        errors: told,
    })
}

fn line_error(line: usize, fault: &PushFault) -> LineError {
    let code = match fault {
        PushFault::Symbol(_) | PushFault::Channel(_) => Code::UnknownTopic,
        PushFault::Full => Code::Draining,
        _ => Code::BadRequest,
    };
    LineError {
        line,
        code: code.number(),
        message: fault.to_string(),
    }
}

fn read_ndjson(body: &[u8]) -> Vec<Line> {
    let lines = body.split(|byte| *byte == b'\n').enumerate();
    let filled = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
    let read = |line: &[u8]| {
        serde_json::from_slice(line).map_err(|error| PushFault::Malformed(error.to_string()))
    };
    filled.map(|(at, line)| (at + 1, read(line))).collect()
}

fn read_msgpack(body: &[u8]) -> Result<Vec<Line>, String> {
    let mut rest = body;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, MSGPACK_DEPTH_MAX);
    let values = match value {
        Ok(rmpv::Value::Array(values)) if rest.is_empty() => values,
        Ok(_) => {
            return Err("the body is one MessagePack array of events, and nothing else".to_owned());
        }
        Err(error) => {
            return Err(format!(
                "the body is no MessagePack array of events: {error}"
            ));
        }
    };
    // Each is read by itself, so that one that isn't right leaves the others alone.
    let read = |value| {
        rmpv::ext::from_value(value)
            .map_err(|error: rmpv::ext::Error| PushFault::Malformed(error.to_string()))
    };
    Ok(values
        .into_iter()
        .enumerate()
        .map(|(at, value)| (at + 1, read(value)))
        .collect())
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
