//! WebSocket handshake (RFC 6455, section 4.2), up to the adoption of the socket by the shard.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Server;
use super::admit;
use super::caller::Caller;
use super::guarded::Guarded;
use super::response::{HttpResponse, refusal, text};
use super::secure::{ClientStream, transport_of};
use crate::access::Principal;
use crate::admission::Admitted;
use crate::metrics::Refused;
use crate::protocol::{Encoding, MESSAGE_BYTES_LEAST, MESSAGE_BYTES_MAX};
use crate::shard::{Adopted, Credentials, Permit};

/// Path whose messages are sent back.
#[cfg(feature = "echo")]
pub(super) const ECHO: &str = "/echo";

/// Length of a decoded key (RFC 6455, section 4.1).
const KEY_BYTES: usize = 16;

/// Bytes kept of a client's user agent.
const AGENT_BYTES_MAX: usize = 120;

/// WebSocket that was granted on a connection whose HTTP is about to end.
#[derive(Debug)]
pub(super) struct Upgrade {
    socket: OnUpgrade,
    encoding: Encoding,
    message_max: u32,
    agent: Box<str>,
    principal: Principal,
    #[cfg(feature = "echo")]
    is_echo: bool,
    credentials: Credentials,
    permit: Option<Permit>,
    /// Address of the client, if proxies have reported it; it counts as connected.
    forwarded: Option<(IpAddr, Option<Admitted>)>,
}

/// Hand-over from the handshake to the task that serves the connection. No additional task, so that
/// in a storm no handshake keeps its buffers until all others have started.
pub(super) type Granted = Arc<Mutex<Option<Upgrade>>>;

/// Upgraded connection for a shard, once HTTP has ended; `None` if no WebSocket was granted.
pub(super) async fn adopted(
    granted: &Granted,
    peer: SocketAddr,
    admitted: Option<Admitted>,
) -> Option<Adopted> {
    let taken = granted
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Upgrade {
        socket,
        encoding,
        message_max,
        agent,
        principal,
        #[cfg(feature = "echo")]
        is_echo,
        credentials,
        permit,
        forwarded,
    } = taken?;
    let (peer, admitted) = match forwarded {
        None => (peer, admitted),
        Some((address, admitted)) => (SocketAddr::new(address, 0), admitted),
    };
    let parts = socket
        .await
        .ok()?
        .downcast::<TokioIo<Guarded<ClientStream>>>()
        .ok()?;
    // Copied, because the original would keep hyper's whole buffer in memory.
    let read_ahead = Bytes::copy_from_slice(&parts.read_buf);
    Some(Adopted {
        transport: transport_of(parts.io.into_inner().into_inner()).ok()?,
        encoding,
        message_max,
        read_ahead,
        peer,
        agent,
        principal,
        #[cfg(feature = "echo")]
        is_echo,
        credentials,
        permit,
        admitted,
    })
}

/// Response to `GET /v1/feed`; with 101 the connection is `granted`.
pub(super) fn respond(
    server: &Arc<Server>,
    caller: Caller,
    mut request: Request<Incoming>,
    granted: &Granted,
) -> HttpResponse {
    let accepted = match check(server, &caller, &request) {
        Ok(accepted) => accepted,
        Err(refused) => {
            let reason = match refused.status() {
                StatusCode::FORBIDDEN => Refused::Origin,
                _ => Refused::Handshake,
            };
            server.metrics.count_refused(reason);
            return refused;
        }
    };
    let forwarded = (caller.address != caller.peer).then_some(caller.address);
    let forwarded = match forwarded.map(|address| server.admit(address).map(|it| (address, it))) {
        None => None,
        Some(Ok(admitted)) => Some(admitted),
        Some(Err(refused)) => return admit::response(&refused),
    };
    let before = server.connections.fetch_add(1, Ordering::Relaxed);
    let permit = Permit(Arc::clone(&server.connections));
    let permit = (before < server.settings.load().connections_max).then_some(permit);
    let encoding = accepted.encoding;
    let agent = agent_of(request.headers());
    let upgrade = Upgrade {
        #[cfg(feature = "echo")]
        is_echo: request.uri().path() == ECHO,
        socket: hyper::upgrade::on(&mut request),
        encoding,
        message_max: accepted.message_max,
        agent,
        principal: caller.principal,
        credentials: caller.credentials,
        permit,
        forwarded,
    };
    *granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted.key);
    if accepted.by_subprotocol {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(encoding.subprotocol()),
        );
    }
    response
}

/// User agent of a client, truncated and without control characters.
fn agent_of(headers: &HeaderMap) -> Box<str> {
    let text = headers
        .get(USER_AGENT)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(AGENT_BYTES_MAX)]);
    text.chars()
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect()
}

struct Accepted {
    key: HeaderValue,
    encoding: Encoding,
    message_max: u32,
    by_subprotocol: bool,
}

/// True if a request is a WebSocket handshake.
pub(super) fn is_requested(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

fn check(
    server: &Server,
    caller: &Caller,
    request: &Request<Incoming>,
) -> Result<Accepted, HttpResponse> {
    let headers = request.headers();
    let bad = |message: &str| Err(refusal(StatusCode::BAD_REQUEST, message));
    if request.method() != Method::GET {
        return Err(refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed; the feed requires GET",
        ));
    }
    if request.version() != Version::HTTP_11 {
        return bad("unsupported HTTP version; the feed requires HTTP/1.1");
    }
    if headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
    {
        return bad("a WebSocket handshake must not have a body");
    }
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(upgrade_required(
            "not a WebSocket handshake: expected `Connection: Upgrade` and `Upgrade: websocket`",
        ));
    }
    if one(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required(
            "invalid `Sec-WebSocket-Version`: expected 13, once",
        ));
    }
    if !caller.may_use(&server.settings.load().allowed_origins, headers) {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "origin not allowed to open the feed (allowed_origins; behind a proxy also trusted_proxies)",
        ));
    }
    let is_key = |key: &&HeaderValue| {
        BASE64
            .decode(key.as_bytes())
            .is_ok_and(|bytes| bytes.len() == KEY_BYTES)
    };
    let Some(key) = one(headers, &SEC_WEBSOCKET_KEY).filter(is_key) else {
        return bad("invalid `Sec-WebSocket-Key`: expected 16 bytes in base64, once");
    };
    let key = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .expect("base64 is a header value");
    let (encoding, by_subprotocol) = encoding_of(headers, request.uri().query())?;
    let message_max = message_max_of(request.uri().query())?;
    Ok(Accepted {
        key,
        encoding,
        message_max,
        by_subprotocol,
    })
}

/// Value of a header that must occur exactly once.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn upgrade_required(message: &str) -> HttpResponse {
    let mut response = refusal(StatusCode::UPGRADE_REQUIRED, message);
    response
        .headers_mut()
        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?.split('&').find_map(|pair| pair.strip_prefix(name))
}

/// Max message size that a client accepts, in bytes: `?max_message=`, else the protocol's limit.
pub(super) fn message_max_of(query: Option<&str>) -> Result<u32, HttpResponse> {
    let Some(requested) = parameter(query, "max_message=") else {
        return Ok(MESSAGE_BYTES_MAX as u32);
    };
    let bytes = requested
        .parse()
        .ok()
        .filter(|bytes| *bytes >= MESSAGE_BYTES_LEAST);
    bytes
        .map(|bytes: usize| bytes.min(MESSAGE_BYTES_MAX) as u32)
        .ok_or_else(|| {
            refusal(
                StatusCode::BAD_REQUEST,
                &format!("invalid `max_message`: expected a number of bytes of at least {MESSAGE_BYTES_LEAST}, e.g. max_message=32768"),
            )
        })
}

/// First known subprotocol, else `?encoding=`, else MessagePack; and true if a subprotocol decided.
pub(super) fn encoding_of(
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<(Encoding, bool), HttpResponse> {
    let known = || Encoding::ALL.map(Encoding::subprotocol).join(", ");
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let values = headers
            .get_all(SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut offered = values.flat_map(|value| value.split(',')).map(str::trim);
        let chosen = offered.find_map(|name| {
            Encoding::ALL
                .into_iter()
                .find(|encoding| encoding.subprotocol() == name)
        });
        let unknown = || {
            refusal(
                StatusCode::BAD_REQUEST,
                &format!(
                    "no supported subprotocol offered: expected one of {}",
                    known()
                ),
            )
        };
        return chosen.map(|encoding| (encoding, true)).ok_or_else(unknown);
    }
    match parameter(query, "encoding=").map(Encoding::parse) {
        None => Ok((Encoding::Msgpack, false)),
        Some(Some(encoding)) => Ok((encoding, false)),
        Some(None) => Err(refusal(
            StatusCode::BAD_REQUEST,
            "invalid `encoding`: expected msgpack or json",
        )),
    }
}
