//! Keys of the server: addresses, limits, delivery, shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::findings::Values;
use super::memory::PUBLISH_SHARE;
use super::reader::Section;
use super::units;
use super::web::{self, HostRule, OriginRule};
use super::{Config, SourceConfig, SourceDetails, auth, cluster, roles, sources, tls};
use crate::cluster::{ClusterSettings, Role};
use crate::limits::{AdmissionLimits, HistoryLimits, OutboxLimits, ShardLimits};
use crate::protocol::Limits;

/// Smallest memory limit, in bytes.
const MEMORY_MIN: usize = 16 << 20;

/// Top-level sections of the file.
struct Sections<'c> {
    bus: Section<'c>,
    history: Section<'c>,
    fanout: Section<'c>,
    session: Section<'c>,
    limits: Section<'c>,
    tls: Section<'c>,
    auth: Section<'c>,
    cluster: Section<'c>,
    admin: Section<'c>,
    faults: Section<'c>,
    drain: Section<'c>,
    ready: Section<'c>,
}

impl<'c> Sections<'c> {
    fn of(root: &Section<'c>) -> Self {
        let bus = root.section("bus");
        Self {
            history: bus.section("history"),
            bus,
            fanout: root.section("fanout"),
            session: root.section("session"),
            limits: root.section("limits"),
            tls: root.section("tls"),
            auth: root.section("auth"),
            cluster: root.section("cluster"),
            admin: root.section("admin"),
            faults: root.section("faults"),
            drain: root.section("drain"),
            ready: root.section("ready"),
        }
    }

    /// Reports unknown keys.
    fn finish(&self) {
        for section in [
            &self.bus,
            &self.history,
            &self.fanout,
            &self.session,
            &self.limits,
            &self.tls,
            &self.auth,
            &self.cluster,
            &self.admin,
            &self.faults,
            &self.drain,
            &self.ready,
        ] {
            section.finish();
        }
    }
}

/// Reads the whole config.
pub(super) fn read(root: &Section<'_>) -> Config {
    let shards = shards(root);
    let sections = Sections::of(root);
    let cluster = cluster::read(&sections.cluster);
    let mut sources = sources_of(root, cluster.as_ref());
    open_for_faults(&mut sources, &sections.faults);
    let roles = roles::read(root, &sections.auth);
    let config = Config {
        listen: root.address_or_off("listen"),
        tls: tls::read(&sections.tls),
        admin: sections.admin.address_or_off("listen"),
        allowed_hosts: root.list(
            "allowed_hosts",
            "a host name without scheme and path, e.g. feed.example.com, *.example.com or *",
            HostRule::parse,
        ),
        allowed_origins: root.list(
            "allowed_origins",
            "an origin, e.g. https://app.example.com, or self, loopback or *",
            OriginRule::parse,
        ),
        trusted_proxies: root.list(
            "trusted_proxies",
            "an address or a network, e.g. 127.0.0.1 or 10.0.0.0/8",
            web::parse_proxy,
        ),
        proxy_protocol: root.word("proxy_protocol") == "required",
        metrics_on_feed: sections.admin.flag("metrics_on_feed"),
        auth: auth::read(&sections.auth, &roles),
        roles,
        cluster,
        shards,
        pin: root.flag("pin"),
        state_dir: Some(root.text("state_dir"))
            .filter(|folder| !folder.is_empty())
            .map(PathBuf::from),
        sources,
        queue_bytes: sections.bus.size("queue"),
        log_bytes: sections.bus.size("log"),
        delay_line_bytes: sections.bus.size("delay_line"),
        limits: shard_limits(&sections),
        unsent_bytes: sections.fanout.size("unsent") as u32,
        connections_max: sections.limits.integer("connections") as usize,
        admission: admission_limits(&sections.limits),
        exempt: sections.limits.list(
            "exempt",
            "an address or a network, e.g. 127.0.0.1 or 10.0.0.0/8",
            web::parse_proxy,
        ),
        memory_max: memory_max(&sections.limits),
        head_bytes_max: sections.limits.size("head"),
        instruments_max: sections.limits.integer("instruments") as usize,
        handshake_timeout: sections.limits.duration("handshake"),
        publish_bytes_max: sections.limits.size("publish"),
        publish_events_max: sections.limits.integer("publish_events") as usize,
        http_requests: sections.limits.integer("http_requests") as usize,
        http_requests_per_s: sections.limits.integer("http_requests_per_s") as u32,
        ready_require: sections.ready.texts("require"),
        drain_deadline: sections.drain.duration("deadline"),
        drain_spread: sections.drain.duration("spread"),
        values: Values::new(),
    };
    check(&config, root, &sections);
    // The sources of a gateway's roles are at the publishers.
    let is_gateway = |cluster: &ClusterSettings| cluster.role == Role::Gateway;
    if !config.cluster.as_ref().is_some_and(is_gateway) {
        roles::check_sources(root, &config.roles, &config.push_sources());
    }
    sections.finish();
    config
}

/// Memory limit; `None` for `auto`.
fn memory_max(limits: &Section<'_>) -> Option<u64> {
    let text = limits.text("memory");
    if text == "auto" {
        return None;
    }
    let bytes = units::size(&text).filter(|bytes| *bytes >= MEMORY_MIN);
    if bytes.is_none() {
        let found = text.escape_debug();
        let message = format!(
            "invalid value \"{found}\": expected auto, or a size of at least 16MiB, e.g. 4GiB"
        );
        limits.problem("memory", message);
    }
    bytes.map(|bytes| bytes as u64)
}

/// Lets operators inject faults into the sources that section `faults` names.
fn open_for_faults(sources: &mut [SourceConfig], faults: &Section<'_>) {
    let admin = faults.word("admin");
    for source in sources {
        source.takes_faults = match source.details {
            SourceDetails::Sim(_) => admin != "off",
            SourceDetails::Replay(_) => admin == "all",
            SourceDetails::Push { .. } => false,
        };
    }
}

/// Sources of the file; a gateway has none.
fn sources_of(root: &Section<'_>, cluster: Option<&ClusterSettings>) -> Vec<SourceConfig> {
    if cluster.is_none_or(|cluster| cluster.role == Role::Publisher) {
        return sources::read(root);
    }
    if root.has("sources") {
        let message = "a gateway has no sources; they belong to the publishers of the cluster";
        root.problem("sources", message);
    }
    root.mark_known(&["sources"]);
    Vec::new()
}

/// Reports keys that contradict the part of the server in a cluster.
fn check_cluster(config: &Config, root: &Section<'_>, sections: &Sections<'_>) {
    let Some(cluster) = &config.cluster else {
        return;
    };
    if cluster.buffer > config.log_bytes {
        let message = "must be at most bus.log, which contains the batches that are not sent";
        sections.cluster.problem("buffer", message);
    }
    if config.state_dir.is_some() {
        let message = "not with a cluster, whose state is in the shared log";
        root.problem("state_dir", message);
    }
}

fn admission_limits(limits: &Section<'_>) -> AdmissionLimits {
    let number = |key| limits.integer(key) as u32;
    AdmissionLimits {
        connections_per_address: number("connections_per_address"),
        connections_per_network: number("connections_per_network"),
        handshakes_per_s_per_address: number("handshakes_per_s_per_address"),
        handshakes_per_s: number("handshakes_per_s"),
    }
}

fn shard_limits(sections: &Sections<'_>) -> ShardLimits {
    ShardLimits {
        outbox: OutboxLimits {
            outbox_bytes: sections.fanout.size("outbox"),
            control_bytes: sections.fanout.size("control"),
            frame_bytes: sections.fanout.size("frame"),
            behind_max: sections.fanout.duration("behind"),
        },
        history: HistoryLimits {
            events: sections.history.integer("events") as usize,
            bytes: sections.history.size("bytes"),
            age: sections.history.duration("age"),
        },
        requests: Limits {
            topics: sections.limits.integer("topics"),
            requests_per_s: sections.limits.integer("requests_per_s"),
            message_bytes: sections.limits.size("message") as u64,
            snapshot_events: sections.limits.integer("snapshot_events"),
        },
        control_frames_per_s: sections.limits.integer("control_frames_per_s") as u32,
        heartbeat: sections.session.duration("heartbeat"),
        ping_after: sections.session.duration("ping_after"),
        drop_after: sections.session.duration("drop_after"),
        message_timeout: sections.session.duration("message_timeout"),
        close_timeout: sections.session.duration("close_timeout"),
        stall_timeout: sections.fanout.duration("stall_timeout"),
        flush_window: sections.fanout.duration("flush_window"),
    }
}

/// Reports values that contradict each other.
fn check(config: &Config, root: &Section<'_>, sections: &Sections<'_>) {
    if config.limits.drop_after <= config.limits.ping_after {
        sections.session.problem(
            "drop_after",
            "must be longer than ping_after; otherwise no client can answer a ping in time",
        );
    }
    check_addresses(config, sections);
    check_cluster(config, root, sections);
    if config.publish_bytes_max > config.queue_bytes / PUBLISH_SHARE {
        sections.limits.problem(
            "publish",
            format!(
                "must be at most 1/{PUBLISH_SHARE} of bus.queue; otherwise a full request never fits"
            ),
        );
    }
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        let message =
            "required, but no address may send it: list the load balancer in trusted_proxies";
        root.problem("proxy_protocol", message);
    }
    for name in &config.ready_require {
        if !config.sources.iter().any(|source| *source.name == **name) {
            let names: Vec<&str> = config.sources.iter().map(|source| &*source.name).collect();
            sections.ready.problem(
                "require",
                format!(
                    "unknown source \"{}\": expected one of {}",
                    name.escape_debug(),
                    names.join(", ")
                ),
            );
        }
    }
}

/// Reports an address that is used twice, and a server without any.
fn check_addresses(config: &Config, sections: &Sections<'_>) {
    let with_tls = config.tls.as_ref().map(|tls| tls.listen);
    let is_same = |a: Option<SocketAddr>, b| a.is_some_and(|a| Some(a) == b && a.port() != 0);
    let used = "already used by listen; expected another address, or off";
    if is_same(config.admin, config.listen) {
        sections.admin.problem("listen", used);
    }
    if is_same(config.admin, with_tls) {
        let used = "already used by tls.listen; expected another address, or off";
        sections.admin.problem("listen", used);
    }
    if is_same(with_tls, config.listen) {
        sections.tls.problem("listen", used);
    }
    if config.listen.is_none() && with_tls.is_none() {
        sections.tls.problem(
            "listen",
            "no address for clients: listen is off too; expected host:port, e.g. 0.0.0.0:8443",
        );
    }
}

/// Parses `auto` or a number from 1 to 256; used for `shards` in a config and for `--shards`.
pub fn parse_shards(text: &str) -> Option<usize> {
    if text == "auto" {
        let cores = std::thread::available_parallelism();
        return Some(cores.map_or(1, |cores| cores.get().saturating_sub(1).max(1)));
    }
    let shards = text.parse().ok()?;
    (1..=256).contains(&shards).then_some(shards)
}

fn shards(root: &Section<'_>) -> usize {
    let text = root.text("shards");
    parse_shards(&text).unwrap_or_else(|| {
        root.problem(
            "shards",
            format!(
                "invalid value \"{}\": expected auto, or a number from 1 to 256",
                text.escape_debug()
            ),
        );
        1
    })
}
