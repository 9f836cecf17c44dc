//! Credentials of a request: a bearer token, or a one-use ticket on the handshake of a browser.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use tokio::sync::oneshot;

use super::Server;
use super::caller::Caller;
use super::response::{HttpResponse, busy, refusal};
use crate::access::Principal;
use crate::auth::{Grant, Outcome, Presented, Refused, event_of};
use crate::shard::Credentials;

/// Scheme of the `Authorization` header.
const BEARER: &str = "Bearer";
/// Parameter of the feed's URL with a ticket.
const TICKET: &str = "ticket=";

/// Identifies the client by its credentials. Without authentication everybody has the same rights.
pub(super) async fn authenticate(
    server: &Server,
    caller: &mut Caller,
    headers: &HeaderMap,
    feed_query: Option<&str>,
) -> Result<(), HttpResponse> {
    let policy = server.gate.policy();
    caller.principal = policy.without_credentials();
    if policy.is_open() {
        return Ok(());
    }
    let is_required = policy.requires_credentials();
    drop(policy);
    let ticket = feed_query.and_then(ticket_of);
    let outcome = match (bearer(headers)?, ticket) {
        (Some(token), _) => check(server, token, caller.address).await,
        (None, Some(ticket)) => {
            let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
            let now = server.clock.now();
            server
                .gate
                .redeem_ticket(ticket, origin, caller.address, now)
        }
        (None, None) => {
            if is_required {
                caller.credentials = Credentials::Missing;
            }
            return Ok(());
        }
    };
    server.metrics.count_auth(event_of(&outcome));
    enter(server, caller, outcome).map_err(refused)
}

fn enter(server: &Server, caller: &mut Caller, outcome: Outcome) -> Result<(), Refused> {
    let grant = outcome?;
    let principal = server.gate.policy().principal(&grant);
    caller.principal = principal.ok_or(Refused::NoRole)?;
    caller.credentials = Credentials::Proven(grant);
    Ok(())
}

/// Checks a token; one that takes long is checked elsewhere.
async fn check(server: &Server, token: &str, address: IpAddr) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    let reply = move |outcome| {
        // The client may have left.
        let _gone = reply.send(outcome);
    };
    let now = server.clock.now();
    match server.gate.present(token, address, now, reply) {
        Presented::Decided(outcome) => outcome,
        Presented::Queued => outcome.await.unwrap_or(Err(Refused::Busy)),
    }
}

/// Token of the `Authorization` header, if there is one; another scheme, or the header twice, is
/// an error.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, HttpResponse> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    let token = parts.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER));
    match (token, values.next()) {
        (Some((_, token)), None) => Ok(Some(token.trim())),
        _ => Err(unauthorized(
            "invalid `Authorization`: expected `Bearer TOKEN`, once",
        )),
    }
}

fn ticket_of(query: &str) -> Option<&str> {
    let mut parameters = query.split('&');
    parameters.find_map(|parameter| parameter.strip_prefix(TICKET))
}

/// Response to credentials that are refused.
fn refused(refused: Refused) -> HttpResponse {
    if refused.is_temporary() {
        let mut response = busy(&refused.to_string());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        return response;
    }
    let mut response = refusal(StatusCode::UNAUTHORIZED, &refused.to_string());
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// 401 for a request without credentials.
pub(super) fn unauthorized(message: &str) -> HttpResponse {
    let mut response = refusal(StatusCode::UNAUTHORIZED, message);
    let challenge = HeaderValue::from_static(BEARER);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// Refuses a request without the credentials that it needs.
pub(super) fn require(caller: &Caller) -> Result<(), HttpResponse> {
    match caller.credentials {
        Credentials::Missing => Err(unauthorized(
            "authentication required: expected `Authorization: Bearer TOKEN`",
        )),
        Credentials::NotNeeded | Credentials::Proven(_) => Ok(()),
    }
}

/// Identity of a request, if it has proven one.
pub(super) const fn proven(caller: &Caller) -> Option<&Grant> {
    match &caller.credentials {
        Credentials::Proven(grant) => Some(grant),
        Credentials::NotNeeded | Credentials::Missing => None,
    }
}

/// Identifies the sender of a request on the admin address. With an authentication, programs on this
/// machine have all rights over a loopback listener; others need credentials.
pub(super) async fn admit_operator(
    server: &Server,
    caller: &mut Caller,
    headers: &HeaderMap,
    path: &str,
) -> Result<(), HttpResponse> {
    let policy = server.gate.policy();
    if policy.is_open() {
        caller.principal = policy.without_credentials();
        return Ok(());
    }
    drop(policy);
    if caller.is_local_on_loopback() {
        caller.principal = Principal::Everyone;
        return Ok(());
    }
    if matches!(path, "/healthz" | "/readyz") {
        return Ok(());
    }
    authenticate(server, caller, headers, None).await?;
    require(caller)
}
