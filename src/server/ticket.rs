//! `POST /v1/ticket`: one-use tickets for browsers, which cannot set a header on a WebSocket
//! handshake.

use hyper::header::{HeaderMap, ORIGIN};
use hyper::{Method, StatusCode};
use serde::Serialize;

use super::Server;
use super::caller::Caller;
use super::identity::{proven, require};
use super::response::{HttpResponse, JSON, busy, not_allowed, refusal, text, with_type};
use crate::metrics::Refused;

/// Response with a ticket.
#[derive(Debug, Serialize)]
struct TicketResponse {
    ticket: String,
    /// End of its lifetime, Unix nanoseconds.
    expires: u64,
}

/// Issues a ticket to an authenticated client, for the origin of the request.
pub(super) fn respond(
    server: &Server,
    caller: &Caller,
    method: &Method,
    headers: &HeaderMap,
) -> HttpResponse {
    if method != Method::POST {
        return not_allowed("POST");
    }
    if server.gate.policy().is_open() {
        let message = "this server has no authentication; connect without a ticket";
        return refusal(StatusCode::NOT_FOUND, message);
    }
    if !caller.may_use(&server.settings.load().allowed_origins, headers) {
        server.metrics.count_refused(Refused::Origin);
        let message = "origin not allowed to get a ticket (allowed_origins)";
        return refusal(StatusCode::FORBIDDEN, message);
    }
    if let Err(refused) = require(caller) {
        return refused;
    }
    let Some(grant) = proven(caller) else {
        let message = "a ticket requires credentials: expected `Authorization: Bearer TOKEN`";
        return super::identity::unauthorized(message);
    };
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let issued = server
        .gate
        .issue_ticket(grant.clone(), origin, server.clock.now());
    match issued {
        Ok((ticket, expires)) => {
            let response = TicketResponse {
                ticket,
                expires: expires.0,
            };
            let body = serde_json::to_vec(&response).expect("plain values are JSON");
            with_type(text(StatusCode::OK, body), JSON)
        }
        Err(_) => busy("too many unused tickets (auth.tickets); retry later"),
    }
}
