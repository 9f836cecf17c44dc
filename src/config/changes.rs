use super::table::{Key, keys};
use super::{Config, TlsConfig};
use crate::auth::SchemeSettings;

/// Keys for clients that the config itself lists.
fn keys_of(config: &Config) -> &[crate::auth::Key] {
    match &config.auth.scheme {
        SchemeSettings::Keys { keys, .. } => keys,
        SchemeSettings::None | SchemeSettings::Jwt(_) => &[],
    }
}

/// Keys whose values differ between two configs; `sources` and `roles` stand for all keys below
/// them.
pub fn changes(old: &Config, new: &Config) -> Vec<&'static Key> {
    let sources = |config: &Config| format!("{:?}", config.sources);
    let differs = |key: &&Key| match key.path {
        "sources" => sources(old) != sources(new),
        "roles" => old.roles != new.roles,
        "auth.keys" => keys_of(old) != keys_of(new),
        path if path.starts_with("auth.keys.") => false,
        path if path.starts_with("sources.") || path.starts_with("roles.") => false,
        path => old.values.get(path) != new.values.get(path),
    };
    keys().filter(differs).collect()
}

impl Config {
    /// Restores the values of keys that need a restart from the running config.
    pub fn keep_what_needs_a_restart(&mut self, running: &Self) {
        self.listen = running.listen;
        // The endpoint is fixed, its certificates are not.
        self.tls = match (self.tls.take(), &running.tls) {
            (Some(new), Some(running)) => Some(TlsConfig {
                listen: running.listen,
                ..new
            }),
            (_, running) => running.clone(),
        };
        self.cluster.clone_from(&running.cluster);
        self.shards = running.shards;
        self.pin = running.pin;
        self.state_dir.clone_from(&running.state_dir);
        self.queue_bytes = running.queue_bytes;
        self.log_bytes = running.log_bytes;
        self.delay_line_bytes = running.delay_line_bytes;
        self.limits.outbox.frame_bytes = running.limits.outbox.frame_bytes;
        self.instruments_max = running.instruments_max;
        self.limits.requests.message_bytes = running.limits.requests.message_bytes;
        self.admin = running.admin;
        self.proxy_protocol = running.proxy_protocol;
        self.head_bytes_max = running.head_bytes_max;
        self.http_requests = running.http_requests;
        if std::mem::discriminant(&self.auth.scheme) != std::mem::discriminant(&running.auth.scheme)
        {
            self.auth.clone_from(&running.auth);
        }
        for key in keys().filter(|key| key.needs_restart) {
            match running.values.get(key.path) {
                Some(value) => self.values.insert(key.path.to_owned(), value.clone()),
                None => self.values.remove(key.path),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_compared_and_restart_keys_are_kept() {
        let text = |other: bool| {
            let pick = |one: &'static str, two: &'static str| if other { two } else { one };
            format!(
                "listen: 127.0.0.1:{}\nshards: {}\npin: {m}\nstate_dir: {}\nsources: [{{name: s, kind: push, open: true, instruments: [{{symbol: {}}}]}}]\n\
                 roles: {{{g}: {{topics: [\"{g}:*\"]}}}}\nauth: {{scheme: keys, anonymous: {g}, timeout: {t}, failures_per_minute: {n}, ticket_lifetime: {t}, tickets: {n}, \
                 keys: [{{id: {r}k, sha256: {z}, role: {g}}}], keys_file: {h}, jwt: {{algorithms: [{a}], key_file: {h}, jwks_file: {h}, jwks_url: {h}, jwks_ca: {h}, \
                 jwks_refresh: {t}, jwks_cooldown: {t}, issuer: {h}, audience: {h}, leeway: {t}, role_claim: {h}, role: {g}}}}}\n\
                 allowed_hosts: [{h}]\nallowed_origins: [\"https://{h}\"]\ntrusted_proxies: [{p}]\nproxy_protocol: {x}\n\
                 bus: {{queue: {q}, log: {q}, delay_line: {q}, history: {{events: {n}, bytes: {q}, age: {t}}}}}\n\
                 fanout: {{flush_window: {w}, outbox: {q}, control: {c}, frame: {c}, behind: {t}, unsent: {c}, stall_timeout: {t}}}\n\
                 session: {{heartbeat: {t}, ping_after: {t}, drop_after: {d}, message_timeout: {t}, close_timeout: {t}}}\n\
                 limits: {{connections: {n}, connections_per_address: {n}, connections_per_network: {n}, handshakes_per_s_per_address: {n}, handshakes_per_s: {n}, exempt: [{p}], memory: {q}, head: {c}, control_frames_per_s: {n}, instruments: {n}, topics: {n}, requests_per_s: {n}, message: {c}, snapshot_events: {n}, handshake: {t}, publish: {c}, publish_events: {n}, http_requests: {n}, http_requests_per_s: {n}}}\n\
                 tls: {{listen: 127.0.0.1:{tls}, certificate: {h}, key: {h}, client_ca: {h}, client_certificates: {v}, min_version: {min}, hsts: {t}}}\n\
                 admin: {{listen: 127.0.0.1:{}, metrics_on_feed: {m}}}\nfaults: {{admin: {f}}}\nready: {{require: [{r}]}}\ndrain: {{deadline: {t}, spread: {t}}}\n",
                pick("8080", "9080"),
                pick("1", "2"),
                pick("a", "b"),
                pick("A", "B"),
                pick("8081", "9081"),
                g = pick("quote", "trade"),
                tls = pick("8443", "9443"),
                v = pick("optional", "required"),
                min = pick("1.2", "1.3"),
                a = pick("RS256", "ES256"),
                z = "00".repeat(32),
                h = pick("a.example", "b.example"),
                p = pick("127.0.0.1", "10.0.0.0/8"),
                x = pick("off", "required"),
                m = pick("false", "true"),
                r = pick("", "s"),
                f = pick("sim", "all"),
                q = pick("64MiB", "32MiB"),
                n = pick("100", "200"),
                t = pick("10s", "20s"),
                w = pick("1ms", "2ms"),
                c = pick("64KiB", "32KiB"),
                d = pick("30s", "40s"),
            )
        };
        let [old, new] =
            [false, true].map(|other| Config::parse(&text(other), "test").expect("a valid config"));
        assert_eq!(changes(&old, &old), Vec::<&Key>::new());
        let changed: Vec<_> = changes(&old, &new).iter().map(|key| key.path).collect();
        let kept = |key: &&Key| {
            matches!(key.kind, super::super::Kind::Section)
                && !["sources", "roles", "auth.keys"].contains(&key.path)
        };
        let all = keys().filter(|key| {
            !["sources.", "roles.", "auth.keys.", "cluster."]
                .iter()
                .any(|list| key.path.starts_with(list))
                && key.path != "auth.scheme"
                && !kept(key)
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
