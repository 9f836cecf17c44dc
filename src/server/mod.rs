//! From a new socket to an adopted one, and HTTP beside it on the same port.
//!
//! One task accepts and deals sockets out to the shards; handshakes run on the shard's own runtime, which then owns the
//! socket. HTTP's rules are hyper's.

mod accept;
mod admin;
mod caller;
mod guarded;
mod http;
mod incoming;
mod outgoing;
mod page;
mod publish;
mod publish_body;
mod reserve;
mod response;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

pub use accept::{accept_loop, admin_loop, bind};
pub use admin::ConnectionsAnswer;
pub use caller::Listener;
pub use outgoing::RequestRate;
pub use publish::PushSource;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{Config, HostRule, OriginRule};
use crate::metrics::Metrics;
use crate::shard::ShardHandle;
use crate::source::SourceStatus;

/// State shared by all handshakes and HTTP responses.
#[derive(Debug)]
pub struct Server {
    /// The clock of the whole server.
    pub clock: Clock,
    /// Shards, which take over the sockets.
    pub shards: Vec<ShardHandle>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Settings that a reload can change.
    pub settings: ArcSwap<Settings>,
    /// Publish requests that are decoded and published at once, each once its body is there; the others wait.
    pub publish_turns: Semaphore,
    /// Bytes of publish requests that are held now.
    pub body_bytes: Arc<AtomicUsize>,
    /// Made answers that may be given at once.
    pub http_turns: Arc<Semaphore>,
    /// Made answers lately.
    pub http_rate: RequestRate,
    /// Connections that the admin address may have at once.
    pub admin_turns: Semaphore,
    /// Address of the feed.
    pub listener: Listener,
    /// WebSocket connections now.
    pub connections: Arc<AtomicUsize>,
    /// Sockets now, in a handshake or serving HTTP.
    pub sockets: Arc<AtomicUsize>,
    /// Sockets dealt out since the start.
    pub dealt: AtomicUsize,
    /// The server is stopping.
    pub is_draining: AtomicBool,
}

/// Settings that a reload can change.
#[derive(Debug)]
pub struct Settings {
    /// WebSocket connections at once (config `limits.connections`).
    pub connections_max: usize,
    /// Handshake timeout, from the first byte to the last (config `limits.handshake`).
    pub handshake_timeout: Duration,
    /// Unsent bytes at which a socket counts as full (config `fanout.unsent`).
    pub notsent_bytes: u32,
    /// Bytes of one publish request (config `limits.publish`).
    pub publish_bytes_max: usize,
    /// Records of one publish request.
    pub publish_events_max: usize,
    /// Hosts accepted besides the listeners' own (config `allowed_hosts`).
    pub allowed_hosts: Vec<HostRule>,
    /// Browser origins that may open the feed (config `allowed_origins`).
    pub allowed_origins: Vec<OriginRule>,
    /// Proxies whose forwarding headers are believed (config `trusted_proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// `/metrics` is on the feed's port too (config `admin.metrics_on_feed`).
    pub metrics_on_feed: bool,
    /// Made answers a second over all clients (config `limits.http_requests_per_s`).
    pub http_requests_per_s: u32,
    /// Sources that take what is published over HTTP, in the config's order.
    pub publishers: Vec<Arc<PushSource>>,
    /// The condition of each source that runs, by its name.
    pub sources: Vec<(Arc<str>, Arc<SourceStatus>)>,
    /// The condition of the sources behind `publishers`.
    pub publisher_statuses: Vec<Arc<SourceStatus>>,
    /// Names of sources without which the server is not ready (config `ready.require`).
    pub required: Vec<String>,
}

/// An answer to `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Every source has started or failed, and those that are required have started.
    pub is_ready: bool,
    /// Every other source, with the reason if it has failed.
    pub not_started: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl Readiness {
    /// The answer's text; reasons may quote files and paths, so they are for operators.
    pub fn text(&self, with_reasons: bool) -> String {
        let mut text = if self.is_ready { "ok\n" } else { "not ready\n" }.to_owned();
        for (name, trouble) in &self.not_started {
            let state = if trouble.is_some() {
                "has failed"
            } else {
                "is starting"
            };
            let reason = trouble.as_ref().filter(|_| with_reasons);
            let reason = reason.map_or_else(String::new, |error| format!(": {}", one_line(error)));
            text.extend(["source ", name, " ", state, &reason, "\n"]);
        }
        text
    }
}

/// Characters of a source's error that are shown.
const ERROR_CHARS_MAX: usize = 200;

/// An error, which may quote a file, without control characters and cut short.
fn one_line(error: &str) -> String {
    let shown = error.chars().take(ERROR_CHARS_MAX);
    shown.flat_map(char::escape_debug).collect()
}

impl Settings {
    /// Those of a config, with the sources as they run.
    pub fn of(
        config: &Config,
        publishers: Vec<Arc<PushSource>>,
        sources: Vec<(Arc<str>, Arc<SourceStatus>)>,
        publisher_statuses: Vec<Arc<SourceStatus>>,
    ) -> Self {
        Self {
            connections_max: config.connections_max,
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
    /// The readiness of the server, with every source that has failed.
    pub fn readiness(&self) -> Readiness {
        let settings = self.settings.load();
        let mut readiness = Readiness {
            is_ready: true,
            not_started: Vec::new(),
        };
        for (name, status) in &settings.sources {
            let is_required = settings
                .required
                .iter()
                .any(|required| **required == **name);
            let trouble = status.trouble();
            if status.is_starting() || (is_required && trouble.is_some()) {
                readiness.is_ready = false;
            }
            if trouble.is_some() || status.is_starting() {
                readiness.not_started.push((Arc::clone(name), trouble));
            }
        }
        readiness
    }

    /// True if every push source takes prices; other sources don't matter to publishers.
    pub fn takes_publishes(&self) -> bool {
        let settings = self.settings.load();
        let mut inlets = settings.publisher_statuses.iter();
        inlets.all(|status| status.has_started())
    }
}
