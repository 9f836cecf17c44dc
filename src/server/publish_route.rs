//! Route of a publish request: this server handles it, unless another one leads the cluster. Then it
//! is forwarded, and the leader decides with its own sources, roles and tokens.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};

use super::Server;
use super::caller::Caller;
use super::commit_wait::{SEND_AGAIN, acquire_wait};
use super::incoming::{self, BodyLimit};
use super::publish;
use super::publish_service::ANSWER_HEADERS;
use super::response::{HttpResponse, busy, refusal, text};
use crate::cluster::{ForwardError, PushAnswer, PushHead, PushLink};
use crate::metrics::Refused;

/// Server that handles publish requests.
enum Place<'s> {
    Here,
    /// This one, once its sources have started.
    HereSoon,
    Leader(&'s PushLink),
}

fn place(server: &Server) -> Place<'_> {
    match &server.cluster {
        None => Place::Here,
        Some(cluster) if cluster.takes_publishes.load(Ordering::Acquire) => Place::Here,
        Some(cluster) if cluster.status.is_leading() => Place::HereSoon,
        Some(cluster) => Place::Leader(&cluster.link),
    }
}

pub(super) async fn respond(
    server: &Arc<Server>,
    caller: Caller,
    request: Request<Incoming>,
) -> HttpResponse {
    let settings = server.settings.load();
    if !caller.may_use(&settings.allowed_origins, request.headers()) {
        server.metrics.count_refused(Refused::Origin);
        return refusal(
            StatusCode::FORBIDDEN,
            "origin not allowed to publish (allowed_origins)",
        );
    }
    drop(settings);
    let responded = match place(server) {
        Place::Here => return publish::respond(server, caller, request).await,
        Place::HereSoon => {
            return busy(
                "this publisher takes over the cluster, and its sources are starting; retry later",
            );
        }
        Place::Leader(link) => forward(server, link, &caller, request).await,
    };
    responded.unwrap_or_else(|refused| refused)
}

/// Forwards a request to the leader. The leader is asked before the body is read: as on a standalone
/// server, a client without the right to publish takes no memory for a body.
async fn forward(
    server: &Server,
    link: &PushLink,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpResponse> {
    let permit = acquire_wait(server)?;
    let headers = request.headers();
    let bytes = |value: &HeaderValue| Bytes::copy_from_slice(value.as_bytes());
    let mut head = PushHead {
        authorization: headers.get_all(AUTHORIZATION).iter().map(bytes).collect(),
        content_type: headers.get(CONTENT_TYPE).map(bytes),
        is_local: caller.is_local,
        address: caller.address,
        has_body: false,
    };
    let asked = link.ask(&head).await;
    let answer = asked.map_err(|error| unanswered(error, &head))?;
    if answer.status != StatusCode::CONTINUE.as_u16() {
        return Ok(response_of(answer));
    }
    head.has_body = true;
    let limit = BodyLimit::of_config(server).lower(BodyLimit {
        bytes: link.body_bytes_max(&head),
        key: "max_payload of NATS, through which the leading publisher gets it",
    });
    let body = incoming::read(server, request.into_body(), limit).await?;
    let answered = link.publish(&head, body.bytes()).await;
    let answer = answered.map_err(|error| unanswered(error, &head))?;
    Ok(response_of(answer).map(|body| body.with_permit(permit)))
}

/// Response without an answer of the leader, which may have published the events of a body.
fn unanswered(error: ForwardError, head: &PushHead) -> HttpResponse {
    match error {
        ForwardError::TooLarge => refusal(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
        ForwardError::NoAnswer if head.has_body => busy(&format!("{error}; {SEND_AGAIN}")),
        ForwardError::NoAnswer | ForwardError::NoLeader => {
            busy(&format!("{error}; nothing was published"))
        }
    }
}

/// Response of HTTP from that of the leader.
fn response_of(answer: PushAnswer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).ok();
    let Some(status) = status.filter(|status| !status.is_informational()) else {
        return refusal(
            StatusCode::BAD_GATEWAY,
            "the leading publisher gave an invalid response",
        );
    };
    let mut response = text(status, answer.body);
    for (name, value) in answer.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok();
        let name = name.filter(|name| ANSWER_HEADERS.contains(name));
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_maybe_shared(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
