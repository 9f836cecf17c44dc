//! Server: from a new socket to an adopted connection, and HTTP on the same port.
//!
//! One task accepts sockets and assigns them to the shards. Handshakes run on the runtime of the
//! shard that then owns the socket. HTTP parsing is left to hyper.

mod accept;
mod admin;
mod admit;
mod caller;
mod client_rates;
mod commit_wait;
mod cors;
#[cfg(feature = "internals")]
pub mod doors;
mod faults;
mod forwarded;
mod guarded;
mod http;
mod identity;
mod incoming;
mod memory;
mod outgoing;
mod page;
mod proxy_header;
mod publish;
mod publish_body;
mod publish_route;
mod publish_service;
mod reserve;
mod response;
mod secure;
mod snapshot_query;
mod ticket;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

pub use accept::{accept_loop, admin_loop, bind};
pub use admin::ConnectionsResponse;
pub use caller::Listener;
pub use client_rates::ClientRates;
pub use memory::{MemoryLevel, MemoryPressure};
pub use outgoing::RequestRate;
pub use publish::PushSource;
pub use publish_service::accept_publishes;
pub use secure::TlsEndpoint;

use arc_swap::ArcSwap;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::access::Principal;
use crate::admission::Admission;
use crate::auth::Gate;
use crate::clock::Clock;
use crate::cluster::{ClusterStatus, PushLink, Role};
use crate::config::{Config, HostRule, OriginRule};
use crate::limits::AdmissionLimits;
use crate::metrics::Metrics;
use crate::shard::ShardHandle;
use crate::source::SourceStatus;

/// State shared by all handshakes and HTTP responses.
#[derive(Debug)]
pub struct Server {
    /// Clock of the server.
    pub clock: Clock,
    /// Shards, which take over the sockets; those of delayed views are the last ones.
    pub shards: Vec<ShardHandle>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Settings that a reload can change.
    pub settings: ArcSwap<Settings>,
    /// Permits for publish requests that are decoded and published concurrently, once their bodies
    /// are complete.
    pub publish_permits: Semaphore,
    /// Permits for publish requests that wait for the shared log of a cluster, or for its leader.
    pub publish_waits: Arc<Semaphore>,
    /// Bytes of publish request bodies currently in memory.
    pub body_bytes: Arc<AtomicUsize>,
    /// Max number of concurrent generated responses.
    pub http_requests: usize,
    /// Permits for concurrent generated responses.
    pub http_permits: Arc<Semaphore>,
    /// Rate limit of generated responses.
    pub http_rate: RequestRate,
    /// Rates of HTTP requests by client (config `roles.limits.requests_per_s`).
    pub client_rates: ClientRates,
    /// Permits for concurrent connections to the admin address.
    pub admin_permits: Semaphore,
    /// Check of credentials.
    pub gate: Arc<Gate>,
    /// Address of the feed without TLS; if it has none, that with TLS.
    pub listener: Listener,
    /// Connections and request rates by client address.
    pub admission: Arc<Admission>,
    /// Memory of the process compared with its limit.
    pub memory: MemoryPressure,
    /// Permits for refused clients whose request is read before the response.
    pub refusals: Arc<Semaphore>,
    /// Endpoint of the feed with TLS.
    pub tls: Option<Arc<TlsEndpoint>>,
    /// Runtime that accepts connections and responds to HTTP requests.
    pub http: Handle,
    /// Number of open WebSocket connections.
    pub connections: Arc<AtomicUsize>,
    /// Number of open sockets in a handshake or serving HTTP.
    pub sockets: Arc<AtomicUsize>,
    /// Number of sockets assigned to shards since startup.
    pub assigned: AtomicUsize,
    /// True once the server is stopping.
    pub is_draining: AtomicBool,
    /// Part of the server in a cluster.
    pub cluster: Option<ClusterPart>,
}

/// Part of a server in a cluster.
#[derive(Debug)]
pub struct ClusterPart {
    /// Publisher or gateway.
    pub role: Role,
    /// State of the server.
    pub status: Arc<ClusterStatus>,
    /// Silence of the log after which a gateway is not ready (config `cluster.unready_after`).
    pub unready_after: Duration,
    /// Way of publish requests to the leader.
    pub link: PushLink,
    /// True while this server leads and its sources have started.
    pub takes_publishes: AtomicBool,
}

/// Settings that a reload can change.
#[derive(Debug)]
pub struct Settings {
    /// Header by which browsers use TLS only (config `tls.hsts`).
    pub hsts: Option<HeaderValue>,
    /// Max number of WebSocket connections (config `limits.connections`).
    pub connections_max: usize,
    /// Limits by client address (config `limits`).
    pub admission: AdmissionLimits,
    /// Addresses without limits of their own (config `limits.exempt`).
    pub exempt: Vec<IpNet>,
    /// Max bytes of a request head (config `limits.head`).
    pub head_bytes_max: usize,
    /// Handshake timeout, for the first byte and again for the complete request head (config
    /// `limits.handshake`).
    pub handshake_timeout: Duration,
    /// Unsent bytes at which a socket counts as full (config `fanout.unsent`).
    pub notsent_bytes: u32,
    /// Max bytes of a publish request (config `limits.publish`).
    pub publish_bytes_max: usize,
    /// Max records of a publish request.
    pub publish_events_max: usize,
    /// Hosts accepted besides the listeners' own (config `allowed_hosts`).
    pub allowed_hosts: Vec<HostRule>,
    /// Browser origins that may open the feed (config `allowed_origins`).
    pub allowed_origins: Vec<OriginRule>,
    /// Proxies whose forwarding and PROXY headers are trusted (config `trusted_proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// True if `/metrics` is also served on the feed's port (config `admin.metrics_on_feed`).
    pub metrics_on_feed: bool,
    /// Max generated responses per second over all clients (config `limits.http_requests_per_s`).
    pub http_requests_per_s: u32,
    /// Push sources, which accept events over HTTP, in config order.
    pub publishers: Vec<Arc<PushSource>>,
    /// Status of each running source by name.
    pub sources: Vec<(Arc<str>, Arc<SourceStatus>)>,
    /// Status of each source of `publishers`.
    pub publisher_statuses: Vec<Arc<SourceStatus>>,
    /// Names of sources without which the server is not ready (config `ready.require`).
    pub required: Vec<String>,
}

/// Readiness, as reported by `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// True if every source has started or failed, and all required sources have started.
    pub is_ready: bool,
    /// Reason for which the server is not ready as a part of its cluster.
    pub cluster: Option<&'static str>,
    /// Sources that have not started, with the reason if one has failed.
    pub not_started: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl Readiness {
    /// Text of the response; reasons may quote files and paths and are for operators only, names of
    /// sources are not for clients that see only some topics.
    pub fn text(&self, audience: Audience) -> String {
        let mut text = if self.is_ready { "ok\n" } else { "not ready\n" }.to_owned();
        if audience == Audience::Clients {
            return text;
        }
        if let Some(reason) = self.cluster {
            text.extend(["cluster: ", reason, "\n"]);
        }
        let with_reasons = audience == Audience::Operators;
        for (name, error) in &self.not_started {
            let state = if error.is_some() {
                "has failed"
            } else {
                "is starting"
            };
            let reason = error.as_ref().filter(|_| with_reasons);
            let reason = reason.map_or_else(String::new, |error| format!(": {}", one_line(error)));
            text.extend(["source ", name, " ", state, &reason, "\n"]);
        }
        text
    }
}

/// Readers of `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Programs on this machine, and clients with the right `admin`.
    Operators,
    /// Anybody, on a server without entitlements.
    Everyone,
    /// Clients with a role.
    Clients,
}

/// Max characters of a source's error that are shown.
const ERROR_CHARS_MAX: usize = 200;

/// Error text without control characters, truncated; it may quote a file.
fn one_line(error: &str) -> String {
    let shown = error.chars().take(ERROR_CHARS_MAX);
    shown.flat_map(char::escape_debug).collect()
}

/// Value of `Strict-Transport-Security`; none for a time of zero.
fn hsts(time: Duration) -> Option<HeaderValue> {
    let header = HeaderValue::from_str(&format!("max-age={}", time.as_secs()));
    (!time.is_zero()).then(|| header.expect("digits are a header value"))
}

impl Settings {
    /// Settings of a config with its running sources.
    pub fn of(
        config: &Config,
        publishers: Vec<Arc<PushSource>>,
        sources: Vec<(Arc<str>, Arc<SourceStatus>)>,
        publisher_statuses: Vec<Arc<SourceStatus>>,
    ) -> Self {
        Self {
            hsts: config.tls.as_ref().and_then(|tls| hsts(tls.hsts)),
            connections_max: config.connections_max,
            admission: config.admission,
            exempt: config.exempt.clone(),
            head_bytes_max: config.head_bytes_max,
            handshake_timeout: config.handshake_timeout,
            notsent_bytes: config.unsent_bytes,
            publish_bytes_max: config.publish_bytes_max,
            publish_events_max: config.publish_events_max,
            allowed_hosts: config.allowed_hosts.clone(),
            allowed_origins: config.allowed_origins.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            metrics_on_feed: config.metrics_on_feed,
            http_requests_per_s: config.http_requests_per_s,
            publishers,
            sources,
            publisher_statuses,
            required: config.ready_require.clone(),
        }
    }
}

impl Server {
    /// Shards that show events as they are published.
    pub fn shards_without_delay(&self) -> &[ShardHandle] {
        let upto = self.shards.partition_point(|shard| shard.delay.is_zero());
        &self.shards[..upto]
    }

    /// Shard for the view of a client: the assigned one, or that of its delay. `None` if a reload
    /// has added the delay.
    fn shard_of<'s>(
        &'s self,
        principal: &Principal,
        assigned: &'s ShardHandle,
    ) -> Option<&'s ShardHandle> {
        let delay = principal.delay();
        let delayed = self.shards.iter();
        std::iter::once(assigned)
            .chain(delayed)
            .find(|shard| shard.delay == delay)
    }

    /// Permits for refused clients of a new server.
    pub fn new_refusals() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(admit::REFUSALS_AT_ONCE))
    }

    /// Readiness of the server, with every failed source.
    pub fn readiness(&self) -> Readiness {
        let settings = self.settings.load();
        let mut readiness = Readiness {
            is_ready: true,
            cluster: self.cluster_trouble(),
            not_started: Vec::new(),
        };
        readiness.is_ready &= readiness.cluster.is_none();
        for (name, status) in &settings.sources {
            let is_required = settings
                .required
                .iter()
                .any(|required| **required == **name);
            let error = status.trouble();
            if status.is_starting() || (is_required && error.is_some()) {
                readiness.is_ready = false;
            }
            if error.is_some() || status.is_starting() {
                readiness.not_started.push((Arc::clone(name), error));
            }
        }
        readiness
    }

    /// Reason for which the server is not ready as a part of its cluster.
    fn cluster_trouble(&self) -> Option<&'static str> {
        let ClusterPart {
            role,
            status,
            unready_after,
            ..
        } = self.cluster.as_ref()?;
        match role {
            Role::Publisher if !status.is_leading() => Some("standing by; another publisher leads"),
            Role::Gateway if status.is_cut_off(self.clock.now(), *unready_after) => {
                Some("no records of the shared log")
            }
            Role::Publisher | Role::Gateway => None,
        }
    }

    /// True if the server has clients; the publishers of a cluster have none.
    fn serves_clients(&self) -> bool {
        let cluster = self.cluster.as_ref();
        cluster.is_none_or(|cluster| cluster.role != Role::Publisher)
    }

    /// True if every push source accepts events; other sources are irrelevant to publishers.
    pub fn takes_publishes(&self) -> bool {
        let settings = self.settings.load();
        let mut statuses = settings.publisher_statuses.iter();
        statuses.all(|status| status.has_started())
    }
}
