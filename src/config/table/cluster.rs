//! Keys of a cluster: several servers with one log.

use super::{Key, Kind, fixed, key};

/// `cluster` and everything below it.
pub(super) const CLUSTER: &[Key] = &[
    fixed(key(
        "cluster.role",
        Kind::Word(&["standalone", "publisher", "gateway", "both"]),
        "standalone",
        "Part of this server: standalone (no cluster), publisher (runs the sources and writes the shared log, or stands by), gateway (reads the shared log and serves clients), or both in one process.",
    )),
    fixed(key(
        "cluster.publisher_admin",
        Kind::Text,
        "off",
        "With role both: address of the metrics and admin routes of the publisher, as admin.listen is for the gateway.",
    )),
    fixed(key(
        "cluster.name",
        Kind::Text,
        "main",
        "Name of the cluster in NATS: its stream is TC_LOG_NAME. Letters, digits, - and _.",
    )),
    fixed(key(
        "cluster.node",
        Kind::Text,
        "",
        "Name of this server, unique in the cluster. Empty: the host name.",
    )),
    fixed(key(
        "cluster.nats.urls",
        Kind::Texts,
        "",
        "Addresses of the NATS servers, e.g. nats://nats-0:4222 or tls://nats-0:4222. Required in a cluster.",
    )),
    fixed(key(
        "cluster.nats.credentials",
        Kind::Text,
        "",
        "File with NATS credentials (.creds). Empty: none.",
    )),
    fixed(key(
        "cluster.nats.user",
        Kind::Text,
        "",
        "Name of a NATS user with a password. Empty: none.",
    )),
    fixed(key(
        "cluster.nats.password_file",
        Kind::Text,
        "",
        "File with the password of that user. Empty: none.",
    )),
    fixed(key(
        "cluster.nats.tls_ca",
        Kind::Text,
        "",
        "PEM file with the authorities that signed the certificates of the NATS servers. Empty: those of the system.",
    )),
    fixed(key(
        "cluster.log.replicas",
        Kind::Integer(1, 5),
        "3",
        "Number of NATS servers that keep the log; used when the stream is created.",
    )),
    fixed(key(
        "cluster.log.bytes",
        Kind::Size("16MiB", "16TiB"),
        "8GiB",
        "Max size of the log; used when the stream is created.",
    )),
    fixed(key(
        "cluster.log.age",
        Kind::Duration("1m", "30d"),
        "24h",
        "Max age of records in the log; used when the stream is created. Longer than checkpoints.interval: a server that starts reads the log from a checkpoint on.",
    )),
    fixed(key(
        "cluster.checkpoints.interval",
        Kind::Duration("1s", "1h"),
        "60s",
        "Interval of the checkpoints that the leading publisher stores in NATS, in bucket TC_CHECKPOINTS_NAME.",
    )),
    fixed(key(
        "cluster.checkpoints.kept",
        Kind::Integer(1, 1000),
        "8",
        "Number of checkpoints kept. With the interval it should cover bus.history.age of the gateways: a gateway starts from a checkpoint of that age, so that clients can resume there.",
    )),
    fixed(key(
        "cluster.checkpoints.bytes",
        Kind::Size("1MiB", "4GiB"),
        "256MiB",
        "Max size of a checkpoint before compression; larger ones are neither stored nor read.",
    )),
    fixed(key(
        "cluster.buffer",
        Kind::Size("1MiB", "4GiB"),
        "32MiB",
        "Max memory of published batches that NATS has not acknowledged; when full, sim and replay block and pushes get 503. At most bus.log.",
    )),
    fixed(key(
        "cluster.repair",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "Max memory of the newest records of the log that a publisher keeps, and appends again if NATS has forgotten them.",
    )),
    fixed(key(
        "cluster.window",
        Kind::Integer(1, 4096),
        "256",
        "Max records sent to NATS and not acknowledged.",
    )),
    fixed(key(
        "cluster.lease",
        Kind::Duration("200ms", "1m"),
        "2s",
        "Silence of the log after which a publisher that stands by takes over.",
    )),
    fixed(key(
        "cluster.tick",
        Kind::Duration("10ms", "1s"),
        "100ms",
        "Interval of the records of a publisher that has nothing to publish.",
    )),
    fixed(key(
        "cluster.stale_after",
        Kind::Duration("200ms", "1m"),
        "1s",
        "Silence of the log after which a gateway reports its sources as reconnecting.",
    )),
    fixed(key(
        "cluster.unready_after",
        Kind::Duration("200ms", "10m"),
        "10s",
        "Silence of the log after which /readyz of a gateway is 503, unless it is connected to NATS and no other server receives records either. At least stale_after.",
    )),
    fixed(key(
        "cluster.publish_timeout",
        Kind::Duration("100ms", "20s"),
        "10s",
        "Time for the shared log to confirm the events of a publish request; after it the request gets 503, and it is unknown whether the log contains them.",
    )),
];
