//! Keys of the roles.

use super::{Key, Kind, key, without_default};

/// `roles` and everything below it, for each role by its name.
pub(super) const ROLES: &[Key] = &[
    key(
        "auth.anonymous",
        Kind::Text,
        "none",
        "Role of clients without credentials. With none and `auth.scheme: none`, they see all topics.",
    ),
    without_default(
        "roles",
        Kind::Section,
        "Roles by name, each a section with the following keys.",
    ),
    key(
        "roles.topics",
        Kind::Texts,
        "",
        "Topics that the role sees: quote:BTC-USD, quote:BTC-*, bar:* (all intervals), *:BTC-USD (all channels), * for all. Empty: none.",
    ),
    key(
        "roles.channels",
        Kind::Texts,
        "",
        "Channels to which `topics` is restricted: quote, bar (all intervals), bar:1m. Empty: all.",
    ),
    key(
        "roles.min_interval",
        Kind::Duration("0", "5s"),
        "0",
        "Shortest delivery interval: 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s or 5s. Other modes and faster intervals are refused, and trade, which has no intervals. 0: any mode.",
    ),
    key(
        "roles.delay",
        Kind::Duration("0", "7d"),
        "0",
        "Delayed view: the role sees events of at least this age only. Another value than those of the roles at the start requires a restart.",
    ),
    without_default(
        "roles.book_depth",
        Kind::Integer(1, 400),
        "Max depth of order books. Without effect in this version, which has no channel `book`; checked, so that a config for later versions is accepted.",
    ),
    without_default(
        "roles.snapshot_events",
        Kind::Integer(1, 1000),
        "Max events per snapshot request; `limits.snapshot_events` if absent.",
    ),
    without_default(
        "roles.limits.connections",
        Kind::Integer(1, 1_000_000),
        "Max concurrent connections of each client of the role; clients without credentials count as one client. Unlimited if absent.",
    ),
    without_default(
        "roles.limits.topics",
        Kind::Integer(1, 60_000),
        "Max topics subscribed per connection; `limits.topics` if absent.",
    ),
    without_default(
        "roles.limits.requests_per_s",
        Kind::Integer(1, 100_000),
        "Max requests per second and connection; `limits.requests_per_s` if absent. If given, also the max HTTP requests per second of each client besides publishing; without credentials, of each address or IPv6 network.",
    ),
    without_default(
        "roles.publish",
        Kind::Section,
        "Symbols that the role may publish, by source of kind push: {in: [BTC-USD, \"ETH-*\"]}.",
    ),
    key(
        "roles.admin",
        Kind::Flag,
        "false",
        "Right to the admin routes.",
    ),
    key("roles.metrics", Kind::Flag, "false", "Right to /metrics."),
];
