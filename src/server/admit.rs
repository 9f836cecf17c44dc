//! Admission of clients: refusals before a handshake, by address, rate and memory.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};
use tokio::net::TcpStream;

use super::Server;
use super::forwarded::is_trusted;
use super::memory::MemoryLevel;
use super::reserve;
use super::response::{HttpResponse, refusal};
use crate::admission::{Admitted, NotAdmitted};
use crate::config::{CLIENT_BYTES, RESPONSE_BYTES};
use crate::metrics::{MEMORY_HOLDERS, Refused};

/// Max number of refused clients whose request is read before the response.
pub(super) const REFUSALS_AT_ONCE: usize = 64;
/// Time after which a client above a number of connections may try again.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(5);

impl Server {
    /// True if an address has no limits of its own.
    fn is_exempt(&self, address: IpAddr) -> bool {
        is_trusted(&self.settings.load().exempt, address)
    }

    /// Admits a connection of a client, which counts while the guard lives; `None` for an exempt
    /// address.
    pub(super) fn admit(&self, address: IpAddr) -> Result<Option<Admitted>, NotAdmitted> {
        if self.is_exempt(address) {
            return Ok(None);
        }
        let limits = self.settings.load().admission;
        let admitted = self
            .admission
            .connect(address, &limits, self.clock.now())
            .inspect_err(|refused| self.metrics.count_refused(reason(refused)))?;
        Ok(Some(admitted))
    }

    /// Charges a new connection to the rate of all clients.
    fn charge_all(&self, address: IpAddr) -> Result<(), NotAdmitted> {
        if self.is_exempt(address) {
            return Ok(());
        }
        let limits = self.settings.load().admission;
        let charged = self.admission.charge_all(&limits, self.clock.now());
        charged.inspect_err(|refused| self.metrics.count_refused(reason(refused)))
    }

    /// Charges an HTTP request to the rate of its client.
    pub(super) fn charge(&self, address: IpAddr) -> Result<(), NotAdmitted> {
        if self.is_exempt(address) {
            return Ok(());
        }
        let limits = self.settings.load().admission;
        let charged = self.admission.charge(address, &limits, self.clock.now());
        charged.inspect_err(|_| self.metrics.count_refused(Refused::Rate))
    }

    /// True if memory is scarce, so that generated responses and publishing are refused.
    pub(super) fn is_memory_scarce(&self) -> bool {
        let is_scarce = self.memory.level() >= MemoryLevel::Scarce;
        if is_scarce {
            self.metrics.count_refused(Refused::Memory);
        }
        is_scarce
    }

    /// Reports the memory of each holder, as far as it is counted.
    pub fn report_memory(&self, queue_bytes: usize) {
        let metrics = &self.metrics;
        let connections = self.connections.load(Ordering::Relaxed) * CLIENT_BYTES;
        let handshakes = self.sockets.load(Ordering::Relaxed) * self.settings.load().head_bytes_max;
        let responses =
            (self.http_requests - self.http_permits.available_permits()) * RESPONSE_BYTES;
        let queue = (metrics.queue_fill.get() * queue_bytes as f64) as i64;
        for (holder, bytes) in MEMORY_HOLDERS.into_iter().zip([
            connections as i64,
            metrics.queued_bytes.get(),
            metrics.log_bytes.get(),
            queue,
            handshakes as i64,
            responses as i64,
            self.body_bytes.load(Ordering::Relaxed) as i64,
        ]) {
            metrics.memory_held.with_label_values(&[holder]).set(bytes);
        }
    }

    /// Admits an accepted connection. The clients of proxies are admitted once they are known.
    pub(super) fn admit_peer(&self, address: IpAddr) -> Result<Option<Admitted>, NotAdmitted> {
        self.charge_all(address)?;
        let settings = self.settings.load();
        let is_proxy =
            self.listener.proxy_protocol || is_trusted(&settings.trusted_proxies, address);
        if is_proxy {
            Ok(None)
        } else {
            self.admit(address)
        }
    }
}

const fn reason(refused: &NotAdmitted) -> Refused {
    match refused {
        NotAdmitted::Address | NotAdmitted::Network => Refused::AddressLimit,
        NotAdmitted::ClientRate(_) | NotAdmitted::Rate(_) => Refused::HandshakeRate,
    }
}

/// Status and time until the next attempt.
fn status(refused: &NotAdmitted) -> (StatusCode, Duration) {
    match refused {
        NotAdmitted::Address | NotAdmitted::Network => {
            (StatusCode::TOO_MANY_REQUESTS, RETRY_AFTER_LIMIT)
        }
        NotAdmitted::ClientRate(wait) => (StatusCode::TOO_MANY_REQUESTS, *wait),
        NotAdmitted::Rate(wait) => (StatusCode::SERVICE_UNAVAILABLE, *wait),
    }
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// Response to a request of a client that is not admitted.
pub(super) fn response(refused: &NotAdmitted) -> HttpResponse {
    let (status, wait) = status(refused);
    with_retry_after(refusal(status, &refused.to_string()), wait)
}

/// Response to a client above its rate, which may try again after `wait`.
pub(super) fn too_many_requests(message: &str, wait: Duration) -> HttpResponse {
    with_retry_after(refusal(StatusCode::TOO_MANY_REQUESTS, message), wait)
}

fn with_retry_after(mut response: HttpResponse, wait: Duration) -> HttpResponse {
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    response
}

/// Response to a client that is not admitted, before its request is parsed.
fn raw_response(refused: &NotAdmitted) -> Vec<u8> {
    let (status, wait) = status(refused);
    let body = format!("{refused}\n");
    let (retry_after, length) = (seconds(wait), body.len());
    format!(
        "HTTP/1.1 {status}\r\nRetry-After: {retry_after}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Refuses a new connection with a response, as [`refuse_with`] does.
pub(super) fn refuse(server: &Arc<Server>, stream: TcpStream, refused: &NotAdmitted, is_tls: bool) {
    refuse_with(server, stream, raw_response(refused), is_tls);
}

/// Refuses a new connection with a response, unless its client begins with TLS and could not read
/// one. Under a flood, the response is sent without reading the request first, and some clients see
/// a reset instead.
pub(super) fn refuse_with(
    server: &Arc<Server>,
    stream: TcpStream,
    response: Vec<u8>,
    is_tls: bool,
) {
    if is_tls {
        return;
    }
    let Ok(permit) = Arc::clone(&server.refusals).try_acquire_owned() else {
        // The empty send buffer of a new socket takes this immediately.
        let _left = stream.try_write(&response);
        return;
    };
    tokio::spawn(async move {
        reserve::refuse(stream, &response).await;
        drop(permit);
    });
}
