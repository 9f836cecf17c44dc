//! The routes beside the feed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::upgrade::Granted;
use super::{Server, admin, origin, page, publish, upgrade};
use crate::protocol::{Control, Encoding, Instruments, encode_control};
use crate::shard::{Command, ShardHandle, instrument_entry};

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const JSON: &str = "application/json";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a request on the feed's port.
pub(super) async fn feed(
    server: Arc<Server>,
    shard: ShardHandle,
    peer: SocketAddr,
    request: Request<Incoming>,
    granted: Granted,
) -> Result<Answer, Infallible> {
    if request.uri().authority().is_some() {
        return Ok(refusal(StatusCode::BAD_REQUEST, "this is no proxy"));
    }
    let path = request.uri().path().to_owned();
    if path == "/v1/feed" {
        return Ok(upgrade::answer(&server, request, &granted));
    }
    if path == "/v1/publish" {
        return Ok(if request.method() == Method::POST {
            publish::answer(&server, peer, request).await
        } else {
            not_allowed("POST")
        });
    }
    let mut answer = read(&server, &shard, &path, &request).await;
    origin::share(
        request.headers(),
        server.is_loopback(),
        answer.headers_mut(),
    );
    Ok(answer)
}

/// What is there to read, for programs and for pages of other origins that may open the feed.
async fn read(
    server: &Server,
    shard: &ShardHandle,
    path: &str,
    request: &Request<Incoming>,
) -> Answer {
    let is_route = matches!(
        path,
        "/v1/instruments" | "/v1/snapshot" | "/healthz" | "/readyz" | "/metrics"
    );
    let file = if is_route {
        None
    } else {
        page::File::at(path.to_owned()).await
    };
    if !is_route && file.is_none() {
        return refusal(
            StatusCode::NOT_FOUND,
            "there is /, /v1/feed, /v1/instruments, /v1/snapshot, /v1/publish, /healthz, /readyz",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    match (file, path) {
        (Some(file), _) => file.answer(request.headers()),
        (None, "/v1/instruments") => instruments(shard).await,
        (None, "/v1/snapshot") => snapshot(shard, request.uri().query().unwrap_or_default()).await,
        (None, "/metrics") if !server.is_loopback() => {
            refusal(StatusCode::NOT_FOUND, "metrics are on the admin address")
        }
        (None, other) => health(server, other),
    }
}

/// Answers a request on the admin address.
pub(super) async fn admin(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(not_allowed("GET, HEAD"));
    }
    Ok(match request.uri().path() {
        path @ ("/metrics" | "/healthz" | "/readyz") => health(&server, path),
        "/v1/admin/connections" => {
            admin::connections(&server, request.uri().query().unwrap_or_default()).await
        }
        _ => refusal(
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz, /readyz, /v1/admin/connections",
        ),
    })
}

fn health(server: &Server, path: &str) -> Answer {
    match path {
        "/metrics" => with_type(
            text(StatusCode::OK, server.metrics.render()),
            PROMETHEUS_TEXT,
        ),
        "/readyz" if server.is_draining.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        "/readyz" if !server.is_ready() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "sources are starting\n")
        }
        _ => text(StatusCode::OK, "ok\n"),
    }
}

async fn instruments(shard: &ShardHandle) -> Answer {
    let Some(catalog) = shard.catalog().await else {
        return stopping();
    };
    // Elsewhere than on the shard's thread: there may be many.
    let encode = move || {
        let instruments = catalog
            .instruments()
            .map(|info| instrument_entry(&info.instrument))
            .collect();
        encode_control(
            &Control::Instruments(Instruments {
                id: None,
                instruments,
                more: false,
            }),
            Encoding::Json,
        )
    };
    let Ok(body) = tokio::task::spawn_blocking(encode).await else {
        return stopping();
    };
    with_type(text(StatusCode::OK, body), JSON)
}

async fn snapshot(shard: &ShardHandle, query: &str) -> Answer {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (mut topics, mut events) = (Vec::new(), None);
    for (key, value) in pairs {
        let value = percent_decoded(value);
        match (key, value.parse::<usize>()) {
            ("topics", _) => topics.extend(
                value
                    .split(',')
                    .filter(|topic| !topic.is_empty())
                    .map(str::to_owned),
            ),
            ("events", Ok(number)) if number > 0 => events = Some(number),
            ("events", _) => {
                return refusal(StatusCode::BAD_REQUEST, "`events` is a number from 1");
            }
            _ => {}
        }
    }
    if topics.is_empty() {
        return refusal(
            StatusCode::BAD_REQUEST,
            "name what is wanted: ?topics=trade:BTC-USD,quote:*",
        );
    }
    let (reply, answer) = oneshot::channel();
    shard
        .send(Command::Snapshot {
            topics,
            events,
            reply,
        })
        .await;
    let Ok(found) = answer.await else {
        return stopping();
    };
    let mut body = b"{\"ok\":[".to_vec();
    body.extend(found.ok.join(&b','));
    body.extend_from_slice(b"],\"err\":");
    serde_json::to_writer(&mut body, &found.err).expect("refusals are plain JSON");
    body.push(b'}');
    with_type(text(StatusCode::OK, body), JSON)
}

/// `%3A` and the like; what is no such pair stays as it is.
fn percent_decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match pair
            .filter(|_| first == b'%')
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let headers = answer.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}

pub(super) fn with_type(mut answer: Answer, content_type: &'static str) -> Answer {
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

pub(super) fn refusal(status: StatusCode, message: &str) -> Answer {
    text(status, format!("{message}\n"))
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn stopping() -> Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
}
