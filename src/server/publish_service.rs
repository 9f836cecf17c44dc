//! Publish requests that other servers of a cluster forward to the leading publisher.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use tokio::sync::Semaphore;

use super::Server;
use super::caller::Caller;
use super::incoming::{self, BodyBytes, BodyLimit};
use super::publish;
use super::response::{HttpResponse, busy, scarce, text};
use crate::cluster::{Leadership, PushAnswer, PushHead, PushRequest, PushRequests};

/// Max number of forwarded requests in progress.
const FORWARDED_AT_ONCE: usize = 1024;

/// Headers of a response that clients of other servers get.
pub(super) const ANSWER_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE];

/// Accepts publish requests on a server that leads and whose sources have started: its own, and
/// those that other servers forward, until its term ends.
pub async fn accept_publishes(server: &Arc<Server>) {
    let Some(cluster) = &server.cluster else {
        return;
    };
    let Some(term) = cluster.status.leadership() else {
        return;
    };
    cluster.takes_publishes.store(true, Ordering::Release);
    match cluster.link.requests().await {
        Ok(requests) => _ = server.http.spawn(serve(Arc::clone(server), requests, term)),
        Err(error) => {
            tracing::error!(%error, "publish requests at gateways are not answered");
        }
    }
}

async fn serve(server: Arc<Server>, mut requests: PushRequests, mut term: Leadership) {
    let permits = Arc::new(Semaphore::new(FORWARDED_AT_ONCE));
    loop {
        let request = tokio::select! {
            request = requests.next() => request,
            () = term.ended() => None,
        };
        let Some(mut request) = request else {
            break;
        };
        let message = std::mem::take(&mut request.body);
        // Counted before anything else, so that messages do not gather.
        let body = incoming::take(&server, &message, BodyLimit::of_config(&server));
        drop(message);
        let permit = Arc::clone(&permits).try_acquire_owned();
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let response = match (body, &permit) {
                (Err(refused), _) => refused,
                (Ok(_), Err(_)) => busy("too many concurrent publish requests"),
                (Ok(body), Ok(_)) => respond(&server, &request.head, body).await,
            };
            answer(request, response).await;
        });
    }
    if let Some(cluster) = &server.cluster {
        cluster.takes_publishes.store(false, Ordering::Release);
    }
}

/// Responds to a request as to one of this server's own clients.
async fn respond(server: &Arc<Server>, head: &PushHead, body: BodyBytes) -> HttpResponse {
    if server.is_memory_scarce() {
        return scarce();
    }
    let mut caller = Caller::forwarded(head.address, head.is_local);
    caller.principal = server.gate.policy().without_credentials();
    let admitted = match publish::admit(server, &mut caller, &headers_of(head)).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    if head.has_body {
        publish::publish(server, caller.principal, admitted, body).await
    } else {
        text(StatusCode::CONTINUE, "")
    }
}

/// Headers of the request that decide about it.
fn headers_of(head: &PushHead) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = |bytes: &Bytes| HeaderValue::from_maybe_shared(bytes.clone()).ok();
    for authorization in head.authorization.iter().filter_map(value) {
        headers.append(AUTHORIZATION, authorization);
    }
    if let Some(content_type) = head.content_type.as_ref().and_then(value) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers
}

async fn answer(request: PushRequest, response: HttpResponse) {
    let (parts, mut body) = response.into_parts();
    let permit = body.take_permit();
    let Ok(body) = body.collect().await;
    let header = |name: HeaderName| {
        let value = parts.headers.get(&name)?;
        Some((
            name.as_str().to_owned(),
            Bytes::copy_from_slice(value.as_bytes()),
        ))
    };
    let answer = PushAnswer {
        status: parts.status.as_u16(),
        headers: ANSWER_HEADERS.into_iter().filter_map(header).collect(),
        body: body.to_bytes(),
    };
    request.answer(&answer).await;
    drop(permit);
}
