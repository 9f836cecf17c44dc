use super::table::{Key, keys};
use super::{Config, SourceConfig};

/// Keys of the config in whose values two differ; `sources` stands for all below it.
pub fn changes(old: &Config, new: &Config) -> Vec<&'static Key> {
    let sources = |config: &Config| {
        config
            .sources
            .iter()
            .map(|source: &SourceConfig| format!("{source:?}"))
            .collect::<Vec<_>>()
    };
    let same = [
        ("listen", old.listen == new.listen),
        ("allowed_hosts", old.allowed_hosts == new.allowed_hosts),
        (
            "allowed_origins",
            old.allowed_origins == new.allowed_origins,
        ),
        (
            "trusted_proxies",
            old.trusted_proxies == new.trusted_proxies,
        ),
        ("shards", old.shards == new.shards),
        ("state_dir", old.state_dir == new.state_dir),
        ("sources", sources(old) == sources(new)),
        ("bus.queue", old.queue_bytes == new.queue_bytes),
        ("bus.log", old.log_bytes == new.log_bytes),
        (
            "bus.history.events",
            old.history.events == new.history.events,
        ),
        ("bus.history.bytes", old.history.bytes == new.history.bytes),
        ("bus.history.age", old.history.age == new.history.age),
        ("fanout.flush_window", old.flush_window == new.flush_window),
        ("fanout.outbox", old.outbox.outbox == new.outbox.outbox),
        ("fanout.control", old.outbox.control == new.outbox.control),
        ("fanout.frame", old.outbox.frame == new.outbox.frame),
        (
            "fanout.behind",
            old.outbox.behind_max == new.outbox.behind_max,
        ),
        ("fanout.unsent", old.unsent_bytes == new.unsent_bytes),
        (
            "fanout.stall_timeout",
            old.stall_timeout == new.stall_timeout,
        ),
        ("session.heartbeat", old.heartbeat == new.heartbeat),
        ("session.ping_after", old.ping_after == new.ping_after),
        ("session.drop_after", old.drop_after == new.drop_after),
        (
            "session.message_timeout",
            old.message_timeout == new.message_timeout,
        ),
        (
            "session.close_timeout",
            old.close_timeout == new.close_timeout,
        ),
        (
            "limits.connections",
            old.connections_max == new.connections_max,
        ),
        (
            "limits.instruments",
            old.instruments_max == new.instruments_max,
        ),
        ("limits.topics", old.limits.topics == new.limits.topics),
        (
            "limits.requests_per_s",
            old.limits.requests_per_s == new.limits.requests_per_s,
        ),
        (
            "limits.message",
            old.limits.message_bytes == new.limits.message_bytes,
        ),
        (
            "limits.snapshot_events",
            old.limits.snapshot_events == new.limits.snapshot_events,
        ),
        (
            "limits.handshake",
            old.handshake_timeout == new.handshake_timeout,
        ),
        (
            "limits.publish",
            old.publish_bytes_max == new.publish_bytes_max,
        ),
        (
            "limits.publish_events",
            old.publish_events_max == new.publish_events_max,
        ),
        (
            "limits.http_requests",
            old.http_requests == new.http_requests,
        ),
        (
            "limits.http_requests_per_s",
            old.http_requests_per_s == new.http_requests_per_s,
        ),
        ("admin.listen", old.admin == new.admin),
        (
            "admin.metrics_on_feed",
            old.metrics_on_feed == new.metrics_on_feed,
        ),
        ("ready.require", old.ready_require == new.ready_require),
        ("drain.deadline", old.drain_deadline == new.drain_deadline),
        ("drain.spread", old.drain_spread == new.drain_spread),
    ];
    let changed = same.iter().filter(|(_, same)| !same).map(|(path, _)| *path);
    changed
        .filter_map(|path| keys().find(|key| key.path == path))
        .collect()
}

impl Config {
    /// What a running server can't change stays as it is there.
    pub fn keep_what_needs_a_restart(&mut self, running: &Self) {
        self.listen = running.listen;
        self.shards = running.shards;
        self.state_dir.clone_from(&running.state_dir);
        self.queue_bytes = running.queue_bytes;
        self.log_bytes = running.log_bytes;
        self.outbox.frame = running.outbox.frame;
        self.instruments_max = running.instruments_max;
        self.limits.message_bytes = running.limits.message_bytes;
        self.admin = running.admin;
        self.http_requests = running.http_requests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_compared_and_what_needs_a_restart_is_kept() {
        let text = |other: bool| {
            let pick = |one: &'static str, two: &'static str| if other { two } else { one };
            format!(
                "listen: 127.0.0.1:{}\nshards: {}\nstate_dir: {}\nsources: [{{name: s, kind: push, open: true, instruments: [{{symbol: {}}}]}}]\n\
                 allowed_hosts: [{h}]\nallowed_origins: [\"https://{h}\"]\ntrusted_proxies: [{p}]\n\
                 bus: {{queue: {q}, log: {q}, history: {{events: {n}, bytes: {q}, age: {t}}}}}\n\
                 fanout: {{flush_window: {w}, outbox: {q}, control: {c}, frame: {c}, behind: {t}, unsent: {c}, stall_timeout: {t}}}\n\
                 session: {{heartbeat: {t}, ping_after: {t}, drop_after: {d}, message_timeout: {t}, close_timeout: {t}}}\n\
                 limits: {{connections: {n}, instruments: {n}, topics: {n}, requests_per_s: {n}, message: {c}, snapshot_events: {n}, handshake: {t}, publish: {c}, publish_events: {n}, http_requests: {n}, http_requests_per_s: {n}}}\n\
                 admin: {{listen: 127.0.0.1:{}, metrics_on_feed: {m}}}\nready: {{require: [{r}]}}\ndrain: {{deadline: {t}, spread: {t}}}\n",
                pick("8080", "9080"),
                pick("1", "2"),
                pick("a", "b"),
                pick("A", "B"),
                pick("8081", "9081"),
                h = pick("a.example", "b.example"),
                p = pick("127.0.0.1", "10.0.0.0/8"),
                m = pick("false", "true"),
                r = pick("", "s"),
                q = pick("64MiB", "32MiB"),
                n = pick("100", "200"),
                t = pick("10s", "20s"),
                w = pick("1ms", "2ms"),
                c = pick("64KiB", "32KiB"),
                d = pick("30s", "40s"),
            )
        };
        let [old, new] =
            [false, true].map(|other| Config::parse(&text(other), "test").expect("a right config"));
        assert_eq!(changes(&old, &old), Vec::<&Key>::new());
        let changed: Vec<_> = changes(&old, &new).iter().map(|key| key.path).collect();
        let kept =
            |key: &&Key| matches!(key.kind, super::super::Kind::Section) && key.path != "sources";
        let all = keys().filter(|key| {
            !key.path.starts_with("sources.") && key.path != "auth.scheme" && !kept(key)
        });
        assert_eq!(changed, all.map(|key| key.path).collect::<Vec<_>>());
        let mut next = new.clone();
        next.keep_what_needs_a_restart(&old);
        assert!(
            changes(&old, &next).iter().all(|key| !key.needs_restart),
            "{:?}",
            changes(&old, &next)
        );
        assert!(
            changes(&next, &new).iter().all(|key| key.needs_restart),
            "{:?}",
            changes(&next, &new)
        );
    }
}
