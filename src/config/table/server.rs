//! Keys of the server: addresses, limits, delivery, shutdown.

use super::{Key, Kind, fixed, key, without_default};

/// Addresses, threads and the state directory.
pub(super) const BASE: &[Key] = &[
    fixed(key(
        "listen",
        Kind::Address,
        "127.0.0.1:8080",
        "Where the feed and HTTP listen.",
    )),
    key(
        "allowed_hosts",
        Kind::Texts,
        "",
        "Host names accepted besides the listeners' own: feed.example.com, with or without a port, *.example.com, or * for any; a request for another host is refused with 421.",
    ),
    key(
        "allowed_origins",
        Kind::Texts,
        "self, loopback",
        "Browser origins that may open the feed and read HTTP: https://app.example.com, self (same scheme, host and port), loopback (loopback origins, for clients of this machine on a loopback listener), * for any.",
    ),
    key(
        "trusted_proxies",
        Kind::Texts,
        "",
        "Addresses or networks (10.0.0.0/8) of reverse proxies whose X-Forwarded-Host and X-Forwarded-Proto are believed.",
    ),
    fixed(key(
        "shards",
        Kind::Text,
        "auto",
        "Threads that own clients' sockets: a number, or auto (the cores but one, at least one).",
    )),
    fixed(key(
        "state_dir",
        Kind::Text,
        "",
        "Where a stopping server leaves its state for the next one; empty: nowhere, and each start begins a new epoch.",
    )),
];

/// Limits and times, section by section.
pub(super) const LIMITS: &[Key] = &[
    fixed(key(
        "bus.queue",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "What sources may be ahead of the bus.",
    )),
    fixed(key(
        "bus.log",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "What the bus may be ahead of the slowest shard.",
    )),
    key(
        "bus.history.events",
        Kind::Integer(50, 1_000_000),
        "1000",
        "Events of each topic kept for those who come back.",
    ),
    key(
        "bus.history.bytes",
        Kind::Size("1MiB", "64GiB"),
        "64MiB",
        "Memory of the history over all topics, for each shard.",
    ),
    key(
        "bus.history.age",
        Kind::Duration("1s", "7d"),
        "5m",
        "Age up to which events are kept; what snapshots need is kept whatever its age.",
    ),
    key(
        "fanout.flush_window",
        Kind::Duration("0", "50ms"),
        "0",
        "How long events may be gathered before they are written.",
    ),
    key(
        "fanout.outbox",
        Kind::Size("64KiB", "1GiB"),
        "1MiB",
        "Live events that may wait for one client.",
    ),
    key(
        "fanout.control",
        Kind::Size("8KiB", "16MiB"),
        "64KiB",
        "Control messages that may wait for one client without its asking.",
    ),
    fixed(key(
        "fanout.frame",
        Kind::Size("1KiB", "384KiB"),
        "256KiB",
        "The size of a data message at which the next begins.",
    )),
    key(
        "fanout.behind",
        Kind::Duration("50ms", "10m"),
        "10s",
        "Age of the oldest waiting event at which a client counts as slow.",
    ),
    key(
        "fanout.unsent",
        Kind::Size("4KiB", "16MiB"),
        "128KiB",
        "Unsent bytes at which a client's socket counts as full.",
    ),
    key(
        "fanout.stall_timeout",
        Kind::Duration("200ms", "7d"),
        "1h",
        "Time without any reading after which a client with data waiting is disconnected with 4407, whatever its on_slow.",
    ),
    key(
        "session.heartbeat",
        Kind::Duration("10ms", "10m"),
        "5s",
        "Heartbeat interval; a reload applies to new connections.",
    ),
    key(
        "session.ping_after",
        Kind::Duration("100ms", "1h"),
        "20s",
        "Silence after which a client is pinged.",
    ),
    key(
        "session.drop_after",
        Kind::Duration("200ms", "2h"),
        "60s",
        "Silence after which a client is dropped; longer than ping_after.",
    ),
    key(
        "session.message_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "How long a message may take from its first byte to its last.",
    ),
    key(
        "session.close_timeout",
        Kind::Duration("200ms", "10m"),
        "30s",
        "Time a client has, when the server closes, to read what was queued before bye and the close frame.",
    ),
    key(
        "limits.connections",
        Kind::Integer(1, 1_000_000),
        "10000",
        "WebSocket connections at once.",
    ),
    fixed(key(
        "limits.instruments",
        Kind::Integer(1, 1_000_000),
        "20000",
        "Maximum number of instruments over all sources; further symbols are refused by name and their events counted as dropped.",
    )),
    key(
        "limits.topics",
        Kind::Integer(1, 60_000),
        "1024",
        "Topics that one connection may hold.",
    ),
    key(
        "limits.requests_per_s",
        Kind::Integer(1, 100_000),
        "10",
        "Requests a second of one connection; five seconds' worth may come at once.",
    ),
    fixed(key(
        "limits.message",
        Kind::Size("1KiB", "16MiB"),
        "64KiB",
        "The size of a client's message.",
    )),
    key(
        "limits.snapshot_events",
        Kind::Integer(1, 1000),
        "1000",
        "Events that a snapshot may be asked for.",
    ),
    key(
        "limits.handshake",
        Kind::Duration("100ms", "1m"),
        "5s",
        "How long a client may take to say what it wants.",
    ),
    key(
        "limits.publish",
        Kind::Size("1KiB", "256MiB"),
        "8MiB",
        "The size of one POST /v1/publish.",
    ),
    key(
        "limits.publish_events",
        Kind::Integer(1, 10_000_000),
        "200000",
        "Records of one POST /v1/publish, bad ones included.",
    ),
    fixed(key(
        "limits.http_requests",
        Kind::Integer(1, 10_000),
        "64",
        "HTTP answers that may be given at once (instruments, snapshots, metrics); more are refused with 503.",
    )),
    key(
        "limits.http_requests_per_s",
        Kind::Integer(1, 100_000),
        "200",
        "Such answers a second over all clients, five seconds' worth at once; more are refused with 429.",
    ),
    fixed(key(
        "auth.scheme",
        Kind::Word(&["none"]),
        "none",
        "How clients prove who they are.",
    )),
    fixed(key(
        "admin.listen",
        Kind::Text,
        "127.0.0.1:8081",
        "Where metrics and health are served for operators; off for nowhere.",
    )),
    key(
        "admin.metrics_on_feed",
        Kind::Flag,
        "false",
        "Serve /metrics on the feed's port too, to clients of this machine only, and never through a proxy.",
    ),
    without_default(
        "ready.require",
        Kind::Texts,
        "Names of sources that must have started for `/readyz` to answer 200; any other source may fail.",
    ),
    key(
        "drain.deadline",
        Kind::Duration("0", "10m"),
        "10s",
        "How long stopping may take.",
    ),
    key(
        "drain.spread",
        Kind::Duration("0", "10m"),
        "5s",
        "Over how long clients are asked to come back.",
    ),
];
