//! Access of pages of other origins to the HTTP routes (Cross-Origin Resource Sharing).

use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue, ORIGIN, VARY,
};

use super::Server;
use super::caller::Caller;
use super::response::{HttpResponse, refusal, text};

/// Lets pages of an origin that may open the feed also read a response.
pub(super) fn share(
    server: &Server,
    caller: &Caller,
    request: &HeaderMap,
    response: &mut HeaderMap,
) {
    response.append(VARY, HeaderValue::from_static("Origin"));
    let may_read = caller.may_use(&server.settings.load().allowed_origins, request);
    if let Some(origin) = request.get(ORIGIN).filter(|_| may_read) {
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

/// Response to the question of a browser before a request with credentials.
pub(super) fn preflight(server: &Server, caller: &Caller, request: &HeaderMap) -> HttpResponse {
    let may_ask = caller.may_use(&server.settings.load().allowed_origins, request);
    if !may_ask || !request.contains_key(ORIGIN) {
        let message = "origin not allowed (allowed_origins)";
        return refusal(StatusCode::FORBIDDEN, message);
    }
    let mut response = text(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    share(server, caller, request, headers);
    response
}
