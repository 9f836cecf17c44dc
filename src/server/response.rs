//! Construction of HTTP responses.

use bytes::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::outgoing::Outgoing;

pub(super) type Answer = Response<Outgoing>;

pub(super) const JSON: &str = "application/json";

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Outgoing::whole(body));
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

pub(super) fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("method not allowed; use {methods}"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

pub(super) fn stopping() -> Answer {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the server is shutting down",
    )
}

/// 503 with a retry after one second.
pub(super) fn busy(message: &str) -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, message);
    answer
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
