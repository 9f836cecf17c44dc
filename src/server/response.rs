//! Construction of HTTP responses.

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::outgoing::Outgoing;

pub(super) type HttpResponse = Response<Outgoing>;

pub(super) const JSON: &str = "application/json";

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Outgoing::whole(body));
    *response.status_mut() = status;
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

pub(super) fn with_type(mut response: HttpResponse, content_type: &'static str) -> HttpResponse {
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn refusal(status: StatusCode, message: &str) -> HttpResponse {
    text(status, format!("{message}\n"))
}

pub(super) fn not_allowed(methods: &'static str) -> HttpResponse {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("method not allowed; use {methods}"),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

pub(super) fn stopping() -> HttpResponse {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the server is shutting down",
    )
}

/// Response while memory is scarce.
pub(super) fn scarce() -> HttpResponse {
    busy("the server is short of memory (limits.memory); retry later")
}

/// 503 with a retry after one second.
pub(super) fn busy(message: &str) -> HttpResponse {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
