//! `POST /v1/publish`: events from external publishers.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use serde::Serialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Server;
use super::caller::Caller;
use super::commit_wait::CommitWait;
use super::identity::{authenticate, unauthorized};
use super::incoming::{self, BodyBytes, BodyLimit};
use super::publish_body::{BodyError, BodyFormat, records};
use super::response::{HttpResponse, busy, refusal, text, with_type};
use crate::access::Principal;
use crate::market::excerpt;
use crate::protocol::Code;
use crate::source::push::{BatchRefused, Field, PublishedEvent, PushBatch, PushFault, PushInlet};

/// Push source as seen by publishers.
#[derive(Debug)]
pub struct PushSource {
    /// Name in the config.
    pub name: Arc<str>,
    /// SHA-256 of the publisher's token; `None` if programs on this machine may publish without
    /// one.
    pub token_sha256: Option<[u8; 32]>,
    /// Inlet of the source.
    pub inlet: PushInlet,
}

/// Source that a publisher may use, and the symbols.
struct Allowed {
    source: Arc<PushSource>,
    right: Right,
}

/// Right to publish to a source.
enum Right {
    /// The token of the source, or an open source: all of its symbols.
    Whole,
    /// The role of the publisher decides by symbol.
    OfRole(Principal),
}

impl Allowed {
    /// True if the publisher has the right to the event's symbol, which need not exist. An event
    /// without a symbol is refused later.
    fn permits(&self, event: &PublishedEvent<'_>) -> bool {
        match (&self.right, &event.sym) {
            (Right::OfRole(client), Some(Field::Text(symbol))) => {
                client.may_publish(&self.source.name, symbol)
            }
            _ => true,
        }
    }
}

/// Fault of an event whose symbol the publisher has no right to, whether it exists or not.
fn not_entitled(principal: &Principal, event: &PublishedEvent<'_>) -> PushFault {
    let role = principal.role().map_or("", |role| &role.name);
    let symbol = match &event.sym {
        Some(Field::Text(symbol)) => excerpt(symbol),
        _ => String::new(),
    };
    PushFault::NotEntitled {
        role: role.to_owned(),
        symbol,
    }
}

/// Report of a request; `errors` lists the first [`ERRORS_MAX`] rejected records.
#[derive(Debug, Serialize)]
struct Report {
    accepted: usize,
    refused: usize,
    errors: Vec<LineError>,
}

#[derive(Debug, Serialize)]
struct LineError {
    line: u32,
    code: u16,
    message: String,
}

/// Max errors in a report; `refused` counts all.
const ERRORS_MAX: usize = 1000;

/// Publish request that is admitted, before its body is read.
pub(super) struct Admitted {
    allowed: Vec<Allowed>,
    format: BodyFormat,
}

/// Responds to a request of a client of this server.
pub(super) async fn respond(
    server: &Arc<Server>,
    mut caller: Caller,
    request: Request<Incoming>,
) -> HttpResponse {
    let admitted = match admit(server, &mut caller, request.headers()).await {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let limit = BodyLimit::of_config(server);
    match incoming::read(server, request.into_body(), limit).await {
        Ok(body) => publish(server, caller.principal, admitted, body).await,
        Err(refused) => refused,
    }
}

/// Checks by its head whether a request may publish.
pub(super) async fn admit(
    server: &Server,
    caller: &mut Caller,
    headers: &HeaderMap,
) -> Result<Admitted, HttpResponse> {
    let settings = server.settings.load();
    // The token of a source is none of a client.
    let header = headers.get(AUTHORIZATION);
    let is_of_source =
        header.is_some_and(|header| of_token(&settings.publishers, header).next().is_some());
    drop(settings);
    if !is_of_source {
        authenticate(server, caller, headers, None).await?;
    }
    let allowed = allowed_sources(server, caller, headers)?;
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(media_type);
    let format = match media_type {
        Some("application/x-ndjson") => BodyFormat::Ndjson,
        Some("application/msgpack") => BodyFormat::Msgpack,
        _ => {
            return Err(refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported Content-Type: expected application/x-ndjson or application/msgpack",
            ));
        }
    };
    if !server.takes_publishes() {
        return Err(busy("push sources are still starting; retry later"));
    }
    Ok(Admitted { allowed, format })
}

/// Publishes the events of an admitted request. In a cluster the response follows once the shared log
/// contains them.
pub(super) async fn publish(
    server: &Arc<Server>,
    principal: Principal,
    admitted: Admitted,
    body: BodyBytes,
) -> HttpResponse {
    let wait = match CommitWait::begin(server) {
        Ok(wait) => wait,
        Err(refused) => return refused,
    };
    // Limited concurrency, because decoding takes memory and time; an incomplete body needs no
    // permit.
    let Ok(permit) = server.publish_permits.acquire().await else {
        return busy("the server is shutting down");
    };
    let Admitted { allowed, format } = admitted;
    let inlet = allowed.first().map(|one| Arc::clone(&one.source));
    let (worker, now) = (Arc::clone(server), server.clock.now());
    let report_max = wait
        .as_ref()
        .map_or(usize::MAX, CommitWait::report_bytes_max);
    // Runs off the shard's thread, because a large body takes time.
    let emit = move || {
        let report = emit(&worker, &principal, &allowed, body.bytes(), format, now)?;
        Ok((report.accepted, written(report, format, report_max)))
    };
    let emitted = tokio::task::spawn_blocking(emit).await;
    drop(permit);
    match (emitted, wait, inlet) {
        (Ok(Ok((accepted, response))), Some(wait), Some(source)) if accepted > 0 => {
            wait.finish(&source.inlet, response).await
        }
        (Ok(Ok((_, response)) | Err(response)), _, _) => response,
        (Err(_), _, _) => refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error while publishing; see the server's log",
        ),
    }
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// Sources that the token or the role of the publisher grants; without credentials, those open to
/// programs on this machine.
fn allowed_sources(
    server: &Server,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Vec<Allowed>, HttpResponse> {
    let settings = server.settings.load();
    let sources = &settings.publishers;
    if sources.is_empty() {
        return Err(refusal(
            StatusCode::NOT_FOUND,
            "no push source is configured; add a source of kind push",
        ));
    }
    let by_role = caller.principal.role();
    // A source that lists none of the role's symbols is not granted.
    let by_role = |source: &&Arc<PushSource>| {
        let symbols = by_role.map(|role| role.symbols_of_publisher(&source.name));
        symbols.is_none_or(|symbols| symbols.is_some_and(|symbols| !symbols.is_empty()))
    };
    if caller.principal.is_authenticated() {
        let granted = sources.iter().filter(by_role);
        let granted = allowed(granted, || Right::OfRole(caller.principal.clone()));
        return if granted.is_empty() {
            let role = caller.principal.role().map_or("", |role| &role.name);
            let message = format!("not entitled: role \"{role}\" may not publish");
            Err(refusal(StatusCode::FORBIDDEN, &message))
        } else {
            Ok(granted)
        };
    }
    if let Some(header) = headers.get(AUTHORIZATION) {
        let granted = allowed(of_token(sources, header), || Right::Whole);
        return if granted.is_empty() {
            Err(unauthorized(
                "unknown token: no push source has its SHA-256",
            ))
        } else {
            Ok(granted)
        };
    }
    let open = sources
        .iter()
        .filter(|source| source.token_sha256.is_none());
    let open = allowed(open.filter(by_role), || match &caller.principal {
        Principal::Everyone => Right::Whole,
        client @ Principal::Client(_) => Right::OfRole(client.clone()),
    });
    if open.is_empty() {
        return Err(unauthorized(
            "missing token: expected `Authorization: Bearer TOKEN`",
        ));
    }
    if !caller.is_local {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "publishing without a token requires a direct request from the server's machine to a loopback address",
        ));
    }
    Ok(open)
}

fn allowed<'s>(
    sources: impl Iterator<Item = &'s Arc<PushSource>>,
    right: impl Fn() -> Right,
) -> Vec<Allowed> {
    let one = |source: &Arc<PushSource>| Allowed {
        source: Arc::clone(source),
        right: right(),
    };
    sources.map(one).collect()
}

/// Sources whose token is in an `Authorization` header.
fn of_token<'s>(
    sources: &'s [Arc<PushSource>],
    header: &HeaderValue,
) -> impl Iterator<Item = &'s Arc<PushSource>> {
    let token = header
        .to_str()
        .ok()
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
    sources.iter().filter(move |source| {
        source
            .token_sha256
            .is_some_and(|own| own.ct_eq(&hash).into())
    })
}

/// Rejected records: the first with their errors, all of them by reason.
#[derive(Debug, Default)]
struct Refusals {
    reported: Vec<(u32, PushFault)>,
    by_reason: HashMap<&'static str, usize>,
}

impl Refusals {
    fn add(&mut self, line: u32, fault: PushFault) {
        self.add_with(line, fault.reason(), || fault);
    }

    /// Adds a rejected record; builds the fault only if the report lists it.
    fn add_with(&mut self, line: u32, reason: &'static str, fault: impl FnOnce() -> PushFault) {
        *self.by_reason.entry(reason).or_default() += 1;
        if self.reported.len() < ERRORS_MAX {
            self.reported.push((line, fault()));
        }
    }

    fn report(mut self, accepted: usize, server: &Server) -> Report {
        for (reason, count) in &self.by_reason {
            server
                .metrics
                .rejected_input
                .with_label_values(&[reason])
                .inc_by(*count as u64);
        }
        self.reported.sort_by_key(|(line, _)| *line);
        Report {
            accepted,
            refused: self.by_reason.values().sum(),
            errors: self
                .reported
                .iter()
                .map(|(line, fault)| line_error(*line, fault))
                .collect(),
        }
    }
}

/// Emits the valid events of a body.
fn emit(
    server: &Server,
    principal: &Principal,
    allowed: &[Allowed],
    body: &[u8],
    format: BodyFormat,
    now: crate::market::UnixNanos,
) -> Result<Report, HttpResponse> {
    let records_max = server.settings.load().publish_events_max;
    let records = records(body, format, records_max).map_err(|error| {
        let status = match error {
            BodyError::TooMany(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::NotAnArray(_) => StatusCode::BAD_REQUEST,
        };
        refusal(status, &error.to_string())
    })?;
    let mut refusals = Refusals::default();
    // By source, each in line order; records that match no source go to the first, which rejects
    // them.
    let mut batches: Vec<PushBatch> = allowed.iter().map(|_| PushBatch::default()).collect();
    for (line, event) in records {
        let event = match event {
            Ok(event) => event,
            Err(bad) => {
                refusals.add_with(line, PushFault::MALFORMED, || bad.fault());
                continue;
            }
        };
        let mut permitting = allowed
            .iter()
            .enumerate()
            .filter(|(_, one)| one.permits(&event));
        let first = permitting.clone().next();
        let found = permitting.find(|(_, one)| one.source.inlet.knows(&event));
        let Some((at, one)) = found.or(first) else {
            refusals.add_with(line, PushFault::NOT_ENTITLED, || {
                not_entitled(principal, &event)
            });
            continue;
        };
        match one.source.inlet.check(&event, now) {
            Ok(emit) => batches[at].push(line, emit),
            Err(fault) => refusals.add(line, fault),
        }
    }
    let mut accepted = 0;
    for (Allowed { source, .. }, batch) in allowed
        .iter()
        .zip(batches)
        .filter(|(_, batch)| !batch.is_empty())
    {
        match source.inlet.publish(batch, now) {
            Ok(published) => {
                accepted += published.accepted;
                for (line, refused) in published.refused {
                    refusals.add(line, refused.into());
                }
            }
            Err(_) if accepted == 0 => {
                return Err(busy("bus queue full (bus.queue); no record was accepted"));
            }
            // Another source has already accepted its part: only these lines must be sent again.
            Err(BatchRefused(lines)) => {
                for line in lines {
                    refusals.add(line, PushFault::Full);
                }
            }
        }
    }
    Ok(refusals.report(accepted, server))
}

fn line_error(line: u32, fault: &PushFault) -> LineError {
    let code = match fault {
        PushFault::Symbol(_) | PushFault::Channel(_) => Code::UnknownTopic,
        PushFault::NotEntitled { .. } => Code::NotEntitled,
        PushFault::Full => Code::Draining,
        _ => Code::BadRequest,
    };
    LineError {
        line,
        code: code.number(),
        message: fault.to_string(),
    }
}

/// Response with a report of at most `bytes_max`: as many errors as fit.
fn written(mut report: Report, format: BodyFormat, bytes_max: usize) -> HttpResponse {
    loop {
        let (body, content_type) = match format {
            BodyFormat::Ndjson => {
                let body = serde_json::to_vec(&report).expect("a report is plain JSON");
                (body, "application/json")
            }
            BodyFormat::Msgpack => {
                let body = rmp_serde::to_vec_named(&report).expect("a report is plain MessagePack");
                (body, "application/msgpack")
            }
        };
        if body.len() <= bytes_max || report.errors.is_empty() {
            return with_type(text(StatusCode::OK, body), content_type);
        }
        report.errors.truncate(report.errors.len() / 2);
    }
}
