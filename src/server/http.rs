//! The routes beside the feed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderMap,
    HeaderValue, ORIGIN, TRANSFER_ENCODING, UPGRADE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::caller::{Caller, Listener};
use super::upgrade::Granted;
use super::{Server, admin, page, publish, upgrade};
use crate::metrics::Refused;
use crate::protocol::{Control, Encoding, Instruments, encode_control};
use crate::shard::{Command, ShardHandle, instrument_entry};

pub(super) type Answer = Response<Full<Bytes>>;

pub(super) const JSON: &str = "application/json";
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The path of the feed.
const FEED: &str = "/v1/feed";

/// Answers a request on the feed's port.
pub(super) async fn feed(
    server: Arc<Server>,
    shard: ShardHandle,
    peer: SocketAddr,
    request: Request<Incoming>,
    granted: Granted,
) -> Result<Answer, Infallible> {
    // The lines of what follows such a head can't be checked, so the connection ends with the answer.
    let headers = request.headers();
    let is_last = headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(UPGRADE);
    let mut answer = match identify(&server, &server.listener, peer, &request) {
        Ok(caller) => route(server, shard, caller, request, granted).await,
        Err(refused) => refused,
    };
    if is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    Ok(answer)
}

/// The sender of a request, before anything else is done with it.
fn identify(
    server: &Server,
    listener: &Listener,
    peer: SocketAddr,
    request: &Request<Incoming>,
) -> Result<Caller, Answer> {
    if request.uri().authority().is_some() {
        return Err(refusal(StatusCode::BAD_REQUEST, "this is no proxy"));
    }
    let settings = server.settings.load();
    let caller = Caller::identify(listener, &settings, peer.ip(), request.headers());
    caller.inspect_err(|_| server.metrics.count_refused(Refused::Host))
}

async fn route(
    server: Arc<Server>,
    shard: ShardHandle,
    caller: Caller,
    request: Request<Incoming>,
    granted: Granted,
) -> Answer {
    let path = request.uri().path().to_owned();
    if path == FEED {
        return upgrade::answer(&server, &caller, request, &granted);
    }
    if upgrade::is_asked(request.headers()) {
        let message = format!("there is no WebSocket at {path}; the feed is at {FEED}");
        return refusal(StatusCode::NOT_FOUND, &message);
    }
    if path == "/v1/publish" {
        return if request.method() == Method::POST {
            publish::answer(&server, &caller, request).await
        } else {
            not_allowed("POST")
        };
    }
    let mut answer = read(&server, &shard, &caller, &path, &request).await;
    share(&server, &caller, request.headers(), answer.headers_mut());
    answer
}

/// Lets pages of an origin that may open the feed read an answer too (CORS).
fn share(server: &Server, caller: &Caller, asked: &HeaderMap, answer: &mut HeaderMap) {
    answer.append(VARY, HeaderValue::from_static("Origin"));
    let may_read = caller.may_use(&server.settings.load().allowed_origins, asked);
    if let Some(origin) = asked.get(ORIGIN).filter(|_| may_read) {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

/// What is there to read, for programs and for pages of other origins that may open the feed.
async fn read(
    server: &Server,
    shard: &ShardHandle,
    caller: &Caller,
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
        (None, "/metrics") if !(caller.is_local && server.settings.load().metrics_on_feed) => {
            refusal(
                StatusCode::NOT_FOUND,
                "metrics are on the admin address; admin.metrics_on_feed shows them to this machine here too",
            )
        }
        (None, other) => health(server, other),
    }
}

/// Answers a request on the admin address.
pub(super) async fn admin(
    server: Arc<Server>,
    listener: Arc<Listener>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    if let Err(refused) = identify(&server, &listener, peer, &request) {
        return Ok(refused);
    }
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
