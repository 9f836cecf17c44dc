//! `/v1/admin/faults`: faults that operators inject into a source, to test clients.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::Server;
use super::caller::Caller;
use super::incoming;
use super::response::{HttpResponse, JSON, not_allowed, refusal, text, with_type};
use crate::config::{parse_duration, parse_signed_nanos};
use crate::market::{excerpt, parse_decimal};
use crate::metrics::Refused;
use crate::source::faults::{
    BoardError, FaultBoard, FaultKind, FaultRepeat, FaultReport, FaultSpec, SymbolPattern,
};

/// Maximum duration of a fault, and of the delay before it.
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);
/// Minimum time from one beginning to the next.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// Body of a request to inject a fault. Its keys are those of `sources.faults`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRequest {
    source: String,
    kind: String,
    symbols: Option<String>,
    #[serde(rename = "at")]
    after: Option<String>,
    every: Option<String>,
    jitter: Option<String>,
    #[serde(rename = "for")]
    lasting: Option<String>,
    count: Option<u64>,
    share: Option<String>,
    size: Option<String>,
    step: Option<String>,
}

/// Reason for rejecting a request.
#[derive(Debug, thiserror::Error)]
enum FaultError {
    #[error(
        "invalid JSON: {0}; expected e.g. {{\"source\":\"sim\",\"kind\":\"freeze\",\"symbols\":\"BTC-*\",\"for\":\"10s\"}}"
    )]
    Json(#[from] serde_json::Error),
    #[error("invalid `kind` \"{}\": expected one of {}", excerpt(.0), FaultKind::NAMES.join(", "))]
    Kind(String),
    #[error("invalid `symbols` \"{}\": expected a symbol, e.g. BTC-USD, BTC-* or *", excerpt(.0))]
    Symbols(String),
    #[error("invalid `{key}` \"{}\": expected {expected}", excerpt(.found))]
    Value {
        key: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("unknown source \"{}\": expected one of {known}", excerpt(.name))]
    Source { name: String, known: String },
    #[error(transparent)]
    Board(#[from] BoardError),
}

impl FaultError {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Source { .. } => StatusCode::NOT_FOUND,
            Self::Board(BoardError::Disabled) => StatusCode::FORBIDDEN,
            Self::Board(BoardError::Full) => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A fault with the name of its source.
#[derive(Debug, Serialize)]
struct SourceFault {
    source: String,
    #[serde(flatten)]
    fault: FaultReport,
}

#[derive(Debug, Serialize)]
struct FaultsResponse {
    faults: Vec<SourceFault>,
}

/// GET lists the faults, POST injects one, DELETE ends one, or all of a source, or all.
pub(super) async fn respond(
    server: &Server,
    caller: &Caller,
    request: Request<Incoming>,
) -> HttpResponse {
    let settings = server.settings.load_full();
    if *request.method() != Method::GET
        && !caller.may_use(&settings.allowed_origins, request.headers())
    {
        server.metrics.count_refused(Refused::Origin);
        return refusal(
            StatusCode::FORBIDDEN,
            "origin not allowed to inject faults (allowed_origins)",
        );
    }
    match *request.method() {
        Method::GET => json(StatusCode::OK, &list(server)),
        Method::POST => inject(server, request).await,
        Method::DELETE => end(server, request.uri().query().unwrap_or_default()),
        _ => not_allowed("GET, POST, DELETE"),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> HttpResponse {
    let body = serde_json::to_vec(value).expect("plain values are JSON");
    with_type(text(status, body), JSON)
}

/// Faults of all sources, with the name of each source.
fn boards(server: &Server) -> Vec<(Arc<str>, Arc<FaultBoard>)> {
    let settings = server.settings.load();
    let sources = settings.sources.iter();
    sources
        .map(|(name, status)| (Arc::clone(name), Arc::clone(&status.faults)))
        .collect()
}

fn list(server: &Server) -> FaultsResponse {
    let of_source = |(name, board): (Arc<str>, Arc<FaultBoard>)| {
        let named = move |fault| SourceFault {
            source: name.to_string(),
            fault,
        };
        board.reports().into_iter().map(named)
    };
    FaultsResponse {
        faults: boards(server).into_iter().flat_map(of_source).collect(),
    }
}

async fn inject(server: &Server, request: Request<Incoming>) -> HttpResponse {
    // A page of another origin cannot send this type without asking first.
    let content_type = request.headers().get(CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok());
    if media_type.is_none_or(|value| value.split(';').next().map(str::trim) != Some(JSON)) {
        return refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported Content-Type: expected application/json",
        );
    }
    let limit = incoming::BodyLimit::of_config(server);
    let body = match incoming::read(server, request.into_body(), limit).await {
        Ok(body) => body,
        Err(refused) => return refused,
    };
    match begin(server, body.bytes()) {
        Ok(fault) => json(StatusCode::OK, &fault),
        Err(error) => refusal(error.status(), &error.to_string()),
    }
}

fn begin(server: &Server, body: &[u8]) -> Result<SourceFault, FaultError> {
    let request: FaultRequest = serde_json::from_slice(body)?;
    let boards = boards(server);
    let Some((name, board)) = boards.iter().find(|(name, _)| **name == *request.source) else {
        let names: Vec<&str> = boards.iter().map(|(name, _)| &**name).collect();
        return Err(FaultError::Source {
            known: names.join(", "),
            name: request.source,
        });
    };
    let fault = board.inject(request.spec()?)?;
    Ok(SourceFault {
        source: name.to_string(),
        fault,
    })
}

impl FaultRequest {
    fn spec(&self) -> Result<FaultSpec, FaultError> {
        let symbols = self.symbols.as_deref().unwrap_or("*");
        let every = time("every", self.every.as_deref())?;
        let jitter = time("jitter", self.jitter.as_deref())?.unwrap_or_default();
        if every.is_some_and(|every| every < EVERY_MIN || jitter > every) {
            return Err(FaultError::Value {
                key: "every",
                found: self.every.clone().unwrap_or_default(),
                expected: "a duration of at least 100ms, and not below `jitter`",
            });
        }
        let step = self.step.as_deref().unwrap_or("1h");
        Ok(FaultSpec {
            kind: FaultKind::parse(&self.kind)
                .ok_or_else(|| FaultError::Kind(self.kind.clone()))?,
            symbols: SymbolPattern::parse(symbols)
                .ok_or_else(|| FaultError::Symbols(symbols.to_owned()))?,
            after: time("at", self.after.as_deref())?.unwrap_or_default(),
            repeat: every.map(|every| FaultRepeat { every, jitter }),
            lasting: time("for", self.lasting.as_deref())?.unwrap_or(Duration::from_secs(10)),
            count: self.count.filter(|count| *count > 0),
            share: number("share", self.share.as_deref(), Decimal::ONE, |share| {
                share > Decimal::ZERO && share <= Decimal::ONE
            })?,
            size: number("size", self.size.as_deref(), Decimal::new(1, 1), |size| {
                size > Decimal::NEGATIVE_ONE && size <= Decimal::from(1000)
            })?,
            step_ns: parse_signed_nanos(step).ok_or_else(|| FaultError::Value {
                key: "step",
                found: step.to_owned(),
                expected: "a duration, e.g. \"1h\" or \"-90s\"",
            })?,
        })
    }
}

fn time(key: &'static str, text: Option<&str>) -> Result<Option<Duration>, FaultError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let parsed = parse_duration(text).filter(|time| *time <= TIME_MAX);
    parsed.map(Some).ok_or_else(|| FaultError::Value {
        key,
        found: text.to_owned(),
        expected: "a duration of at most 365d, e.g. \"10s\"",
    })
}

fn number(
    key: &'static str,
    text: Option<&str>,
    default: Decimal,
    is_valid: impl Fn(Decimal) -> bool,
) -> Result<Decimal, FaultError> {
    let Some(text) = text else {
        return Ok(default);
    };
    let parsed = parse_decimal(text).ok().filter(|value| is_valid(*value));
    parsed.ok_or_else(|| FaultError::Value {
        key,
        found: text.to_owned(),
        expected: if key == "share" {
            "a share above 0, up to 1, e.g. \"0.5\""
        } else {
            "a price change above -1 (-100 %), up to 1000, e.g. \"0.1\""
        },
    })
}

/// Ends the faults that the query selects: `source=NAME&id=N`, `source=NAME`, or all.
fn end(server: &Server, query: &str) -> HttpResponse {
    let value = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(name, _)| *name == key);
        values.next().map(|(_, value)| value)
    };
    let source = value("source").map(|name| {
        percent_encoding::percent_decode_str(name)
            .decode_utf8_lossy()
            .into_owned()
    });
    let id = value("id").map(str::parse::<u32>);
    if matches!(id, Some(Err(_))) || (id.is_some() && source.is_none()) {
        return refusal(
            StatusCode::BAD_REQUEST,
            "invalid query: expected ?source=NAME&id=NUMBER, ?source=NAME, or nothing for all faults",
        );
    }
    let id = id.and_then(Result::ok);
    let is_meant = |fault: &SourceFault| {
        source.as_ref().is_none_or(|name| *name == fault.source)
            && id.is_none_or(|id| id == fault.fault.id)
    };
    let ended: Vec<SourceFault> = list(server).faults.into_iter().filter(is_meant).collect();
    for (name, board) in boards(server) {
        for fault in ended.iter().filter(|fault| *fault.source == *name) {
            let _ended_meanwhile = board.end(fault.fault.id);
        }
    }
    if ended.is_empty() && (source.is_some() || id.is_some()) {
        return refusal(StatusCode::NOT_FOUND, "no such fault; GET lists them");
    }
    json(StatusCode::OK, &FaultsResponse { faults: ended })
}
