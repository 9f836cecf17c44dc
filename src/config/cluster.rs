//! Section `cluster`: the part of this server in a cluster, and its NATS servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::Config;
use super::reader::Section;
use crate::cluster::{CheckpointSettings, ClusterSettings, NatsLogin, Role};

/// Role of a process that is a publisher and a gateway.
const BOTH: &str = "both";

/// Configs of the two parts of a process.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Config of the publisher, which has no clients.
    pub publisher: Config,
    /// Config of the gateway, which has no sources.
    pub gateway: Config,
}

impl Config {
    /// Configs of the parts of a process with `role: both`; `None` for any other one.
    pub fn parts(&self) -> Option<Parts> {
        let cluster = self.cluster.as_ref()?;
        let with_role = |role| ClusterSettings {
            role,
            is_also_gateway: false,
            ..cluster.clone()
        };
        cluster.is_also_gateway.then(|| Parts {
            publisher: Self {
                // The gateway forwards publish requests over NATS.
                listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
                tls: None,
                admin: cluster.publisher_admin,
                cluster: Some(with_role(Role::Publisher)),
                ..self.clone()
            },
            gateway: Self {
                sources: Vec::new(),
                cluster: Some(with_role(Role::Gateway)),
                ..self.clone()
            },
        })
    }
}

/// Reads the section; `None` for a standalone server.
pub(super) fn read(section: &Section<'_>) -> Option<ClusterSettings> {
    let (nats, log) = (section.section("nats"), section.section("log"));
    let checkpoints = section.section("checkpoints");
    let path = |key: &str| Some(nats.text(key)).filter(|path| !path.is_empty());
    let word = section.word("role");
    let is_both = word == BOTH;
    let named = Role::ALL.into_iter().find(|role| role.name() == word);
    let role = named.or(is_both.then_some(Role::Publisher));
    let settings = ClusterSettings {
        role: role.unwrap_or(Role::Gateway),
        is_also_gateway: is_both,
        publisher_admin: section.address_or_off("publisher_admin"),
        name: section.text("name"),
        node: Some(section.text("node"))
            .filter(|node| !node.is_empty())
            .unwrap_or_else(host_name),
        urls: nats.texts("urls"),
        credentials: path("credentials").map(PathBuf::from),
        login: login(&nats),
        tls_ca: path("tls_ca").map(PathBuf::from),
        replicas: log.integer("replicas") as usize,
        log_bytes: log.size("bytes") as u64,
        log_age: log.duration("age"),
        checkpoints: CheckpointSettings {
            interval: checkpoints.duration("interval"),
            kept: checkpoints.integer("kept") as usize,
            bytes: checkpoints.size("bytes"),
        },
        buffer: section.size("buffer"),
        repair: section.size("repair"),
        window: section.integer("window") as usize,
        lease: section.duration("lease"),
        tick: section.duration("tick"),
        stale_after: section.duration("stale_after"),
        unready_after: section.duration("unready_after"),
        publish_timeout: section.duration("publish_timeout"),
    };
    for section in [&nats, &log, &checkpoints] {
        section.finish();
    }
    role?;
    check(&settings, section, &nats, &log);
    Some(settings)
}

/// User and password for NATS.
fn login(nats: &Section<'_>) -> Option<NatsLogin> {
    let (user, file) = (nats.text("user"), nats.text("password_file"));
    if user.is_empty() != file.is_empty() {
        nats.problem("user", "expected both user and password_file, or neither");
    }
    (!user.is_empty()).then(|| NatsLogin {
        user: user.clone(),
        password_file: file.into(),
    })
}

/// Reports values that contradict each other.
fn check(settings: &ClusterSettings, section: &Section<'_>, nats: &Section<'_>, log: &Section<'_>) {
    let is_token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !is_token(&settings.name) {
        section.problem("name", "expected letters, digits, - and _, e.g. main");
    }
    if settings.urls.is_empty() {
        nats.problem(
            "urls",
            "missing; expected the NATS servers, e.g. nats://nats-0:4222",
        );
    }
    if settings.login.is_some() && settings.credentials.is_some() {
        nats.problem("user", "expected either credentials or user, not both");
    }
    if settings.tick >= settings.lease || settings.tick >= settings.stale_after {
        section.problem("tick", "must be shorter than lease and stale_after");
    }
    if settings.unready_after < settings.stale_after {
        section.problem("unready_after", "must be at least stale_after");
    }
    if settings.log_age <= settings.checkpoints.interval {
        log.problem("age", "must be longer than checkpoints.interval");
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Config, changes, keys};
    use super::{Parts, Role};

    fn text(other: bool) -> String {
        let pick = |one: &'static str, two: &'static str| if other { two } else { one };
        format!(
            "sources: [{{name: s, kind: push, open: true, instruments: [{{symbol: A}}]}}]\n\
             cluster: {{role: publisher, publisher_admin: {a}, name: {t}, node: {t}, nats: {{urls: [{t}], {login}, tls_ca: {t}}}, \
             log: {{replicas: {n}, bytes: {q}, age: {d}}}, checkpoints: {{interval: {l}, kept: {n}, bytes: {q}}}, buffer: {q}, repair: {q}, window: {n}, lease: {l}, tick: {ms}, stale_after: {l}, unready_after: {l}, publish_timeout: {l}}}\n",
            a = pick("off", "127.0.0.1:1"),
            t = pick("a", "b"),
            n = pick("1", "5"),
            q = pick("16MiB", "32MiB"),
            d = pick("60s", "61s"),
            l = pick("5s", "6s"),
            ms = pick("20ms", "30ms"),
            login = pick("credentials: a", "user: b, password_file: b"),
        )
    }

    #[test]
    fn a_config_with_both_parts_is_split() {
        let both = text(false)
            .replace("publisher_admin: off", "publisher_admin: 127.0.0.1:8082")
            .replace("role: publisher", "role: both");
        let config = Config::parse(&both, "f").expect("a valid config");
        let Parts { publisher, gateway } = config.parts().expect("two parts");
        let role = |config: &Config| config.cluster.as_ref().map(|cluster| cluster.role);
        assert_eq!(role(&publisher), Some(Role::Publisher));
        assert_eq!(role(&gateway), Some(Role::Gateway));
        assert_eq!((publisher.sources.len(), gateway.sources.len()), (1, 0));
        assert_eq!(publisher.admin, "127.0.0.1:8082".parse().ok());
        assert_eq!(gateway.admin, config.admin);
        assert!(publisher.listen != config.listen && gateway.listen == config.listen);
        assert!(publisher.parts().is_none() && gateway.parts().is_none());
        let one = Config::parse(&text(false), "f").expect("a valid config");
        assert!(one.parts().is_none());
    }

    fn problems(text: &str) -> String {
        Config::parse(text, "f")
            .expect_err("an invalid config")
            .to_string()
    }

    #[test]
    fn a_reload_reports_and_keeps_every_key_of_the_cluster() {
        let [old, new] =
            [false, true].map(|other| Config::parse(&text(other), "f").expect("a valid config"));
        let changed: Vec<_> = changes(&old, &new).iter().map(|key| key.path).collect();
        let all = keys().map(|key| key.path);
        let all = all.filter(|path| path.starts_with("cluster.") && *path != "cluster.role");
        assert_eq!(changed, all.collect::<Vec<_>>());
        let mut next = new;
        next.keep_what_needs_a_restart(&old);
        assert_eq!(next.cluster, old.cluster);
    }

    #[test]
    fn contradictions_of_a_cluster_are_reported() {
        let gateway = "cluster: {role: gateway, nats: {urls: [a]}}\n";
        assert!(Config::parse(gateway, "f").is_ok_and(|config| config.sources.is_empty()));
        let sources = format!(
            "{gateway}{}",
            "sources: [{name: s, kind: sim, instruments: [{symbol: A, start: 1}]}]\n"
        );
        assert!(problems(&sources).contains("a gateway has no sources"));
        // The sources of its roles are at the publishers.
        let roles = "roles: {desk: {publish: {in: [A]}}}\n";
        assert!(Config::parse(&format!("{gateway}{roles}"), "f").is_ok());
        let publisher = gateway.replace("gateway", "publisher");
        assert!(problems(&format!("{publisher}{roles}")).contains("unknown push source"));
        let cases = [
            (
                "name: \"a b\", nats: {urls: [a]}",
                "cluster.name: expected letters",
            ),
            ("node: x", "cluster.nats.urls: missing"),
            (
                "tick: 1s, lease: 500ms, nats: {urls: [a]}",
                "cluster.tick: must be shorter",
            ),
            (
                "stale_after: 2s, unready_after: 1s, nats: {urls: [a]}",
                "cluster.unready_after: must be at least stale_after",
            ),
            (
                "log: {age: 1m}, checkpoints: {interval: 1m}, nats: {urls: [a]}",
                "cluster.log.age: must be longer than checkpoints.interval",
            ),
            (
                "nats: {urls: [a], user: a}",
                "cluster.nats.user: expected both user and password_file",
            ),
            (
                "nats: {urls: [a], user: a, password_file: b, credentials: c}",
                "cluster.nats.user: expected either credentials or user",
            ),
            (
                "buffer: 1GiB, nats: {urls: [a]}",
                "cluster.buffer: must be at most bus.log",
            ),
        ];
        for (keys, problem) in cases {
            let found = problems(&format!("cluster: {{role: gateway, {keys}}}\n"));
            assert!(found.contains(problem), "{found}");
        }
        assert!(problems(&format!("{gateway}state_dir: a\n")).contains("not with a cluster"));
    }
}
