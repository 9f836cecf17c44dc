use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Part of a server in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs the sources and writes the shared log, or stands by to do so.
    Publisher,
    /// Reads the shared log and serves clients.
    Gateway,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 2] = [Self::Publisher, Self::Gateway];

    /// Name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Gateway => "gateway",
        }
    }
}

/// Checkpoints of the shared log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Interval between two checkpoints.
    pub interval: Duration,
    /// Number of checkpoints that are kept.
    pub kept: usize,
    /// Maximum size of a checkpoint, in bytes.
    pub bytes: usize,
}

/// User of NATS with a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsLogin {
    /// Name of the user.
    pub user: String,
    /// File with the password.
    pub password_file: PathBuf,
}

/// Settings of a server in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// Part of the server.
    pub role: Role,
    /// True if the process is also a gateway (`role: both`); its role is that of the publisher.
    pub is_also_gateway: bool,
    /// Address of the metrics of the publisher, if the process is also a gateway.
    pub publisher_admin: Option<SocketAddr>,
    /// Name of the cluster, which is part of the subjects in NATS.
    pub name: String,
    /// Name of this server, unique in the cluster.
    pub node: String,
    /// Addresses of the NATS servers.
    pub urls: Vec<String>,
    /// File with the credentials for NATS.
    pub credentials: Option<PathBuf>,
    /// User and password for NATS.
    pub login: Option<NatsLogin>,
    /// File with the authorities whose certificates the NATS servers present.
    pub tls_ca: Option<PathBuf>,
    /// Number of NATS servers that keep the log.
    pub replicas: usize,
    /// Maximum size of the log, in bytes.
    pub log_bytes: u64,
    /// Maximum age of records in the log.
    pub log_age: Duration,
    /// Checkpoints of the log.
    pub checkpoints: CheckpointSettings,
    /// Maximum memory of batches that NATS has not acknowledged, in bytes.
    pub buffer: usize,
    /// Maximum memory of the newest records that a publisher keeps to repair the log, in bytes.
    pub repair: usize,
    /// Maximum number of records sent and not acknowledged.
    pub window: usize,
    /// Silence of the log after which a publisher that stands by takes over.
    pub lease: Duration,
    /// Interval of the records of a publisher that has nothing to publish.
    pub tick: Duration,
    /// Silence of the log after which a gateway reports its sources as reconnecting.
    pub stale_after: Duration,
    /// Silence of the log after which a gateway is not ready, unless no server receives records.
    pub unready_after: Duration,
    /// Maximum time from a published event to the confirmation of the log.
    pub publish_timeout: Duration,
}
