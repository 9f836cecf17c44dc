//! HTTP routes besides the feed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, UPGRADE,
};
use hyper::{Method, Request, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;

use super::caller::{Caller, Listener};
use super::cors::{preflight, share};
use super::identity::{admit_operator, authenticate, require};
use super::outgoing::Outgoing;
use super::response::{
    HttpResponse, JSON, busy, not_allowed, refusal, scarce, stopping, text, with_type,
};
use super::snapshot_query::SnapshotQuery;
use super::upgrade::Granted;
use super::{
    Audience, Server, TlsEndpoint, admin, admit, faults, page, publish_route, ticket, upgrade,
};
use crate::access::{InstrumentList, Principal};
use crate::codec::encode_control;
use crate::metrics::Refused;
use crate::outbox::instrument_entry;
use crate::protocol::{Control, Encoding, InstrumentEntry, Instruments};
use crate::shard::{Command, ShardHandle};

/// Instruments per piece of a response.
const INSTRUMENTS_PER_PIECE: usize = 100;
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Path of the feed.
const FEED: &str = "/v1/feed";
/// Path of one-use tickets.
const TICKET: &str = "/v1/ticket";

/// True for routes that show what the caller may see.
fn is_protected(path: &str) -> bool {
    matches!(path, TICKET | "/v1/instruments" | "/v1/snapshot")
}

/// Handles a request on the feed's port.
pub(super) async fn feed(
    server: Arc<Server>,
    shard: ShardHandle,
    peer: SocketAddr,
    endpoint: Option<Arc<TlsEndpoint>>,
    request: Request<Incoming>,
    granted: Granted,
) -> Result<HttpResponse, Infallible> {
    // The lines after such a head cannot be checked, so the connection ends with the response.
    let headers = request.headers();
    let is_last = headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(UPGRADE);
    let listener = match &endpoint {
        Some(endpoint) => &endpoint.listener,
        None => &server.listener,
    };
    let hsts = endpoint.as_ref().and(server.settings.load().hsts.clone());
    let mut response = match identify(&server, listener, peer, &request) {
        Ok(caller) if is_endpoint(request.uri().path()) => {
            open(&server, caller, request, &granted).await
        }
        Ok(caller) => respond(server, shard, caller, request).await,
        Err(refused) => refused,
    };
    if let Some(hsts) = hsts {
        let headers = response.headers_mut();
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts);
    }
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    Ok(response)
}

/// Identifies the sender of a request before any further processing.
fn identify(
    server: &Server,
    listener: &Listener,
    peer: SocketAddr,
    request: &Request<Incoming>,
) -> Result<Caller, HttpResponse> {
    if request.uri().authority().is_some() {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "proxy requests are not supported",
        ));
    }
    let settings = server.settings.load();
    let caller = Caller::identify(listener, &settings, peer.ip(), request.headers());
    let mut caller = caller.inspect_err(|_| server.metrics.count_refused(Refused::Host))?;
    caller.principal = server.gate.policy().without_credentials();
    Ok(caller)
}

/// True for a path of the feed itself.
fn is_endpoint(path: &str) -> bool {
    #[cfg(feature = "echo")]
    if path == upgrade::ECHO {
        return true;
    }
    path == FEED
}

/// Opens a WebSocket, on the thread of the shard that will own it.
async fn open(
    server: &Arc<Server>,
    mut caller: Caller,
    request: Request<Incoming>,
    granted: &Granted,
) -> HttpResponse {
    if !server.serves_clients() {
        return no_clients();
    }
    if request.uri().path() == FEED {
        let (query, headers) = (request.uri().query(), request.headers());
        if let Err(refused) = authenticate(server, &mut caller, headers, query).await {
            return refused;
        }
    }
    upgrade::respond(server, caller, request, granted)
}

/// Response of a server without clients of its own.
fn no_clients() -> HttpResponse {
    refusal(
        StatusCode::NOT_FOUND,
        "this server publishes to a cluster; connect to a gateway",
    )
}

/// Responds to a request on the threads of HTTP: what it takes to read a body or to make a response
/// must not delay the events of the shard whose thread serves the connection.
async fn respond(
    server: Arc<Server>,
    shard: ShardHandle,
    caller: Caller,
    request: Request<Incoming>,
) -> HttpResponse {
    let threads = server.http.clone();
    // Cancels the request if its client leaves.
    let mut response = JoinSet::new();
    response.spawn_on(route(server, shard, caller, request), &threads);
    match response.join_next().await {
        Some(Ok(response)) => response,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Err(_)) | None => stopping(),
    }
}

async fn route(
    server: Arc<Server>,
    shard: ShardHandle,
    mut caller: Caller,
    request: Request<Incoming>,
) -> HttpResponse {
    let path = request.uri().path().to_owned();
    if !server.serves_clients()
        && !matches!(&*path, "/v1/publish" | "/healthz" | "/readyz" | "/metrics")
    {
        return no_clients();
    }
    if upgrade::is_requested(request.headers()) {
        let message = format!("no WebSocket at {path}; connect to {FEED}");
        return refusal(StatusCode::NOT_FOUND, &message);
    }
    if path == "/v1/publish" {
        return if server.is_memory_scarce() {
            scarce()
        } else if request.method() == Method::POST {
            publish_route::respond(&server, caller, request).await
        } else {
            not_allowed("POST")
        };
    }
    if *request.method() == Method::OPTIONS && is_protected(&path) {
        return preflight(&server, &caller, request.headers());
    }
    let mut response = if is_protected(&path) {
        let admitted = authenticate(&server, &mut caller, request.headers(), None).await;
        match admitted.and_then(|()| charge_client(&server, &caller)) {
            Ok(()) if path == TICKET => {
                ticket::respond(&server, &caller, request.method(), request.headers())
            }
            Ok(()) => read(&server, &shard, &caller, &path, &request).await,
            Err(refused) => refused,
        }
    } else {
        read(&server, &shard, &caller, &path, &request).await
    };
    share(&server, &caller, request.headers(), response.headers_mut());
    response
}

/// Charges a request to the rate of its client.
fn charge_client(server: &Server, caller: &Caller) -> Result<(), HttpResponse> {
    let (principal, now) = (&caller.principal, server.clock.now());
    let charged = server.client_rates.charge(principal, caller.address, now);
    charged.map_err(|wait| {
        server.metrics.count_refused(Refused::Rate);
        let role = principal.role().map_or("", |role| &role.name);
        let message =
            format!("too many requests per second (limits.requests_per_s of role \"{role}\")");
        admit::too_many_requests(&message, wait)
    })
}

/// Serves the read-only routes, for programs and for pages of origins that may open the feed.
async fn read(
    server: &Server,
    shard: &ShardHandle,
    caller: &Caller,
    path: &str,
    request: &Request<Incoming>,
) -> HttpResponse {
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
            "not found; expected /, /v1/feed, /v1/instruments, /v1/snapshot, /v1/publish, /v1/ticket, /healthz or /readyz",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_allowed("GET, HEAD");
    }
    let made = match (file, path) {
        (Some(file), _) => return file.respond(request.headers()),
        (None, "/healthz" | "/readyz") => return health(server, path, audience(caller)),
        (None, "/metrics") if !serves_metrics(server, caller) => {
            return refusal(
                StatusCode::NOT_FOUND,
                "not served here; metrics are on the admin address, and with admin.metrics_on_feed also here for programs on this machine",
            );
        }
        (None, made) => made,
    };
    if server.is_memory_scarce() {
        return scarce();
    }
    if let Err(refused) = server.charge(caller.address) {
        return admit::response(&refused);
    }
    let permit = match require(caller).and_then(|()| acquire_permit(server)) {
        Ok(permit) => permit,
        Err(refused) => return refused,
    };
    let Some(shard) = server.shard_of(&caller.principal, shard) else {
        return busy("the delayed view of the role requires a restart of the server");
    };
    let response = match made {
        "/v1/instruments" => instruments(shard, caller).await,
        "/v1/snapshot" => {
            let query = request.uri().query().unwrap_or_default();
            snapshot(shard, caller, query).await
        }
        other => health(server, other, audience(caller)),
    };
    response.map(|body| body.with_permit(permit))
}

/// True if the feed's port serves metrics to the caller: a program on this machine, or a client with
/// the right to them.
fn serves_metrics(server: &Server, caller: &Caller) -> bool {
    let may_read = if caller.principal.is_authenticated() {
        caller.principal.may_read_metrics()
    } else {
        caller.is_local
    };
    may_read && server.settings.load().metrics_on_feed
}

/// Acquires a permit for a generated response: limited in concurrency and in rate.
fn acquire_permit(server: &Server) -> Result<OwnedSemaphorePermit, HttpResponse> {
    let Ok(permit) = Arc::clone(&server.http_permits).try_acquire_owned() else {
        server.metrics.count_refused(Refused::Busy);
        return Err(busy("too many concurrent requests (limits.http_requests)"));
    };
    let per_second = server.settings.load().http_requests_per_s;
    if !server.http_rate.take(per_second, server.clock.now()) {
        server.metrics.count_refused(Refused::Rate);
        let mut response = busy("too many requests per second (limits.http_requests_per_s)");
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return Err(response);
    }
    Ok(permit)
}

/// Handles a request on the admin address.
pub(super) async fn admin(
    server: Arc<Server>,
    listener: Arc<Listener>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<HttpResponse, Infallible> {
    let mut caller = match identify(&server, &listener, peer, &request) {
        Ok(caller) => caller,
        Err(refused) => return Ok(refused),
    };
    let (path, headers) = (request.uri().path(), request.headers());
    if let Err(refused) = admit_operator(&server, &mut caller, headers, path).await {
        return Ok(refused);
    }
    if let Some(right) = missing_right(&caller, path) {
        let message = format!("not entitled: the right `{right}` of the role is required");
        return Ok(refusal(StatusCode::FORBIDDEN, &message));
    }
    if path == "/v1/admin/faults" {
        return Ok(faults::respond(&server, &caller, request).await);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(not_allowed("GET, HEAD"));
    }
    let may_see_all = caller.is_local || caller.principal.may_administer();
    let audience = if may_see_all {
        Audience::Operators
    } else {
        Audience::Clients
    };
    Ok(match path {
        path @ ("/metrics" | "/healthz" | "/readyz") => health(&server, path, audience),
        "/v1/admin/connections" => {
            admin::connections(&server, request.uri().query().unwrap_or_default()).await
        }
        "/v1/admin/sources" => admin::sources(&server),
        _ => refusal(
            StatusCode::NOT_FOUND,
            "not found; expected /metrics, /healthz, /readyz, /v1/admin/connections, /v1/admin/sources or /v1/admin/faults",
        ),
    })
}

/// Details of `/readyz` that a caller may see.
fn audience(caller: &Caller) -> Audience {
    let principal = &caller.principal;
    match principal {
        _ if principal.is_authenticated() && principal.may_administer() => Audience::Operators,
        _ if caller.is_local => Audience::Operators,
        Principal::Everyone => Audience::Everyone,
        Principal::Client(_) => Audience::Clients,
    }
}

/// Right that the caller lacks for a route of the admin address. Programs on this machine without
/// credentials have all rights.
fn missing_right(caller: &Caller, path: &str) -> Option<&'static str> {
    let principal = &caller.principal;
    if caller.is_local && !principal.is_authenticated() {
        return None;
    }
    match path {
        "/healthz" | "/readyz" => None,
        "/metrics" => (!principal.may_read_metrics()).then_some("metrics"),
        _ => (!principal.may_administer()).then_some("admin"),
    }
}

fn health(server: &Server, path: &str, audience: Audience) -> HttpResponse {
    match path {
        "/metrics" => with_type(
            text(StatusCode::OK, server.metrics.render()),
            PROMETHEUS_TEXT,
        ),
        "/readyz" if server.is_draining.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
        }
        "/readyz" => {
            let readiness = server.readiness();
            let status = if readiness.is_ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            text(status, readiness.text(audience))
        }
        _ => text(StatusCode::OK, "ok\n"),
    }
}

async fn instruments(shard: &ShardHandle, caller: &Caller) -> HttpResponse {
    let Some(catalog) = shard.catalog().await else {
        return stopping();
    };
    let list = InstrumentList::new(catalog, &caller.principal, "*");
    let mut response = with_type(text(StatusCode::OK, ""), JSON);
    *response.body_mut() = Outgoing::made(InstrumentPieces::new(list));
    response
}

/// Response of `/v1/instruments`, generated some instruments at a time.
struct InstrumentPieces {
    list: InstrumentList,
    has_begun: bool,
    is_done: bool,
}

impl InstrumentPieces {
    const fn new(list: InstrumentList) -> Self {
        Self {
            list,
            has_begun: false,
            is_done: false,
        }
    }
}

/// `instruments` message with some of the instruments.
fn instruments_message(instruments: Vec<InstrumentEntry>) -> Vec<u8> {
    let message = Instruments {
        id: None,
        instruments,
        more: false,
    };
    encode_control(&Control::Instruments(message), Encoding::Json)
}

impl Iterator for InstrumentPieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.is_done {
            return None;
        }
        let frame = instruments_message(Vec::new());
        let list = frame.windows(2).rposition(|pair| pair == b"[]")? + 1;
        let (begin, end) = frame.split_at(list);
        let some = self.list.take(INSTRUMENTS_PER_PIECE);
        let message = instruments_message(some.into_iter().map(instrument_entry).collect());
        let mut piece = if std::mem::replace(&mut self.has_begun, true) {
            vec![b',']
        } else {
            begin.to_vec()
        };
        piece.extend_from_slice(&message[begin.len()..message.len() - end.len()]);
        self.is_done = self.list.is_empty();
        if self.is_done {
            piece.extend_from_slice(end);
        }
        Some(piece.into())
    }
}

async fn snapshot(shard: &ShardHandle, caller: &Caller, query: &str) -> HttpResponse {
    let SnapshotQuery { topics, events } = match SnapshotQuery::parse(query) {
        Ok(query) => query,
        Err(refused) => return refused,
    };
    let (reply, response) = oneshot::channel();
    shard
        .send(Command::Snapshot {
            topics,
            events,
            principal: caller.principal.clone(),
            reply,
        })
        .await;
    let Ok(found) = response.await else {
        return stopping();
    };
    let mut end = b"],\"err\":".to_vec();
    serde_json::to_writer(&mut end, &found.err).expect("refusals are plain JSON");
    end.push(b'}');
    let maps = found.ok.into_iter().enumerate().map(|(at, map)| match at {
        0 => map,
        _ => [&b","[..], &map].concat(),
    });
    let begin = std::iter::once(b"{\"ok\":[".to_vec());
    let pieces = begin.chain(maps).chain([end]).map(Bytes::from);
    let mut response = with_type(text(StatusCode::OK, ""), JSON);
    *response.body_mut() = Outgoing::made(pieces);
    response
}
