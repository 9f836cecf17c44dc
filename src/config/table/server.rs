//! Keys of the server: addresses, limits, delivery, shutdown.

use super::{Key, Kind, fixed, key, without_default};

/// Addresses, threads and the state directory.
pub(super) const BASE: &[Key] = &[
    fixed(key(
        "listen",
        Kind::Address,
        "127.0.0.1:8080",
        "Listen address of the feed (WebSocket) and HTTP.",
    )),
    key(
        "allowed_hosts",
        Kind::Texts,
        "",
        "Host names accepted in addition to the listeners' own: feed.example.com, with or without a port, *.example.com, or * for any. Requests for other hosts get 421.",
    ),
    key(
        "allowed_origins",
        Kind::Texts,
        "self, loopback",
        "Browser origins allowed to open the feed and read HTTP: https://app.example.com, self (same scheme, host and port), loopback (loopback origins, for clients on this machine while the listener is on loopback), * for any.",
    ),
    key(
        "trusted_proxies",
        Kind::Texts,
        "",
        "Addresses or networks (10.0.0.0/8) of reverse proxies whose X-Forwarded-For, -Host and -Proto headers and PROXY headers are trusted.",
    ),
    fixed(key(
        "proxy_protocol",
        Kind::Word(&["off", "required"]),
        "off",
        "PROXY protocol (version 1 or 2) on the feed's port: required behind a TCP load balancer that sends it; then only addresses in trusted_proxies can connect.",
    )),
    fixed(key(
        "shards",
        Kind::Text,
        "auto",
        "Number of shard threads, which own the client sockets; auto is one less than the number of cores, at least one.",
    )),
    fixed(key(
        "pin",
        Kind::Flag,
        "false",
        "Keep the thread of each shard on one core: the last ones that the process may use. Other threads run on any core.",
    )),
    fixed(key(
        "state_dir",
        Kind::Text,
        "",
        "Directory in which a stopping server saves its state for the next one. Empty: no state is saved, and each start begins a new epoch.",
    )),
];

/// Limits and times, section by section.
pub(super) const LIMITS: &[Key] = &[
    fixed(key(
        "bus.queue",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "Max memory queued between sources and the bus; when full, sim and replay block and pushes get 503.",
    )),
    fixed(key(
        "bus.log",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "Max memory of published batches kept for the slowest shard; a shard that falls further behind loses events (gap with cause bus).",
    )),
    key(
        "bus.history.events",
        Kind::Integer(50, 1_000_000),
        "1000",
        "Events per topic kept for clients that resume.",
    ),
    key(
        "bus.history.bytes",
        Kind::Size("1MiB", "64GiB"),
        "64MiB",
        "Max memory of the history over all topics, per shard.",
    ),
    key(
        "bus.history.age",
        Kind::Duration("1s", "7d"),
        "5m",
        "Max age of events in the history; events that snapshots need are kept at any age.",
    ),
    key(
        "fanout.flush_window",
        Kind::Duration("0", "50ms"),
        "0",
        "Write coalescing: max time events are collected before they are written. Saves CPU at the cost of latency.",
    ),
    key(
        "fanout.outbox",
        Kind::Size("64KiB", "1GiB"),
        "1MiB",
        "Max bytes of live events queued per client; above it the on_slow policy of the subscription applies.",
    ),
    key(
        "fanout.control",
        Kind::Size("8KiB", "16MiB"),
        "64KiB",
        "Max bytes of unsolicited control messages queued per client; above it the client is disconnected with 4407.",
    ),
    fixed(key(
        "fanout.frame",
        Kind::Size("1KiB", "384KiB"),
        "64KiB",
        "Target size of a data message; events beyond it go into the next message.",
    )),
    key(
        "fanout.behind",
        Kind::Duration("50ms", "10m"),
        "10s",
        "Age of the oldest queued event or unanswered ping above which the on_slow policy of the subscription applies.",
    ),
    key(
        "fanout.unsent",
        Kind::Size("4KiB", "16MiB"),
        "128KiB",
        "Unsent bytes in the kernel above which a client's socket counts as full. Lower values detect slow consumers earlier; higher values save wake-ups.",
    ),
    key(
        "fanout.stall_timeout",
        Kind::Duration("200ms", "7d"),
        "1h",
        "Time after which a client that has data queued and reads nothing is disconnected with 4407, regardless of on_slow.",
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
        "Idle time after which the server sends a WebSocket ping.",
    ),
    key(
        "session.drop_after",
        Kind::Duration("200ms", "2h"),
        "60s",
        "Idle timeout: a client that sends nothing for this long is disconnected. Must be longer than ping_after.",
    ),
    key(
        "session.message_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "Max time from the first to the last byte of a client message.",
    ),
    key(
        "session.close_timeout",
        Kind::Duration("200ms", "10m"),
        "30s",
        "Time a client has to read its queued messages after the server closes the connection, before bye and the close frame.",
    ),
    key(
        "limits.connections",
        Kind::Integer(1, 1_000_000),
        "10000",
        "Max concurrent WebSocket connections.",
    ),
    key(
        "limits.connections_per_address",
        Kind::Integer(1, 1_000_000),
        "1000",
        "Max concurrent connections (WebSocket, HTTP and handshakes) of one client address; further ones get 429.",
    ),
    key(
        "limits.connections_per_network",
        Kind::Integer(1, 1_000_000),
        "1000",
        "Max concurrent connections of one IPv6 network (/64).",
    ),
    key(
        "limits.handshakes_per_s_per_address",
        Kind::Integer(1, 100_000),
        "100",
        "Max handshakes and generated HTTP responses per second of one address or IPv6 network, with bursts of up to five seconds' worth; further ones get 429.",
    ),
    key(
        "limits.handshakes_per_s",
        Kind::Integer(1, 1_000_000),
        "2000",
        "Max new connections per second over all clients, with bursts of up to five seconds' worth; further ones get 503.",
    ),
    key(
        "limits.exempt",
        Kind::Texts,
        "127.0.0.0/8, ::1",
        "Addresses or networks without limits per address and rates of handshakes, e.g. of load testers. Remove loopback if an untrusted proxy runs on this machine.",
    ),
    fixed(key(
        "limits.instruments",
        Kind::Integer(1, 1_000_000),
        "20000",
        "Max instruments over all sources; further symbols are refused by name and their events counted as dropped.",
    )),
    key(
        "limits.topics",
        Kind::Integer(1, 60_000),
        "1024",
        "Max topics subscribed per connection.",
    ),
    key(
        "limits.requests_per_s",
        Kind::Integer(1, 100_000),
        "10",
        "Max requests per second and connection; bursts of up to five seconds' worth are accepted.",
    ),
    fixed(key(
        "limits.message",
        Kind::Size("1KiB", "16MiB"),
        "64KiB",
        "Max size of a client message.",
    )),
    key(
        "limits.snapshot_events",
        Kind::Integer(1, 1000),
        "1000",
        "Max events per snapshot request.",
    ),
    key(
        "limits.handshake",
        Kind::Duration("100ms", "1m"),
        "5s",
        "Handshake timeout: for the first byte of a request, and again for its complete head.",
    ),
    key(
        "limits.publish",
        Kind::Size("1KiB", "256MiB"),
        "8MiB",
        "Max body size of one POST /v1/publish.",
    ),
    key(
        "limits.publish_events",
        Kind::Integer(1, 10_000_000),
        "200000",
        "Max records per POST /v1/publish, including invalid ones.",
    ),
    fixed(key(
        "limits.http_requests",
        Kind::Integer(1, 10_000),
        "64",
        "Max concurrent HTTP responses (instruments, snapshots, metrics); further requests get 503.",
    )),
    key(
        "limits.http_requests_per_s",
        Kind::Integer(1, 100_000),
        "200",
        "Max such responses per second over all clients, with bursts of up to five seconds' worth; further requests get 429.",
    ),
    fixed(key(
        "auth.scheme",
        Kind::Word(&["none"]),
        "none",
        "Authentication scheme for subscribers.",
    )),
    fixed(key(
        "admin.listen",
        Kind::Text,
        "127.0.0.1:8081",
        "Admin listen address (metrics, health), or off.",
    )),
    key(
        "admin.metrics_on_feed",
        Kind::Flag,
        "false",
        "Also serve /metrics on the feed's port, to clients on this machine only and never through a proxy.",
    ),
    without_default(
        "ready.require",
        Kind::Texts,
        "Sources that must have started before `/readyz` returns 200; other sources may fail.",
    ),
    key(
        "drain.deadline",
        Kind::Duration("0", "10m"),
        "10s",
        "Graceful shutdown deadline.",
    ),
    key(
        "drain.spread",
        Kind::Duration("0", "10m"),
        "5s",
        "Reconnect window: each client gets its own time slot within it in bye.",
    ),
];
