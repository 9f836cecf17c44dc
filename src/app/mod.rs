//! Wiring of all components: the only module that depends on every other. Shutdown reverses the
//! order of startup.

mod auth;
mod bounds;
mod certificates;
mod cluster;
mod config_file;
mod cpus;
mod file_stamp;
mod http_threads;
mod jwks;
mod keep_time;
mod leading;
mod operate;
mod reload;
mod saved;
mod sources;
mod start;
mod stop;
mod watch_memory;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

pub use config_file::ConfigWatch;
pub use operate::{Operated, Signals, Stopper, operate};
pub use reload::Reloaded;

use crate::access::{Entitlements, Principal};
use crate::bus::{Emitter, SavedState};
use crate::clock::Clock;
use crate::cluster::{FollowError, StoreError};
use crate::config::{AuthFileError, Config};
use crate::log::Log;
use crate::metrics::Metrics;
use crate::protocol::Epoch;
use crate::replay::FileReport;
use crate::server::{Server, Settings};
use crate::state::StateDir;
use crate::tls::TlsError;
use certificates::TlsService;
pub use cluster::ClusterFailure;
use cluster::Membership;
use http_threads::HttpThreads;
use sources::Sources;

/// Max wait, at a start or a reload, for sources to announce their instruments.
const START_TIMEOUT: Duration = Duration::from_millis(1500);

/// Reason why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Cannot listen on an address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Listen address.
        address: SocketAddr,
        /// Cause.
        error: std::io::Error,
    },
    /// The files of the authentication cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthFileError),
    /// Cannot use the NATS servers of the cluster.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Cannot follow the shared log.
    #[error("cannot follow the shared log: {0}")]
    Follow(#[from] FollowError),
    /// A gateway found no record.
    #[error("the shared log is empty: start a publisher of the cluster first")]
    EmptyLog,
    /// Cannot start a thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The config has no address for clients.
    #[error("no address for clients: listen and tls.listen are off")]
    NoAddress,
    /// Cannot use the certificates.
    #[error("cannot use the certificates of section tls: {0}")]
    Tls(#[from] TlsError),
    /// Cannot use the state directory.
    #[error("cannot use state_dir {}: {error}", folder.display())]
    State {
        /// State directory.
        folder: PathBuf,
        /// Cause.
        error: std::io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct App {
    server: Arc<Server>,
    admin: Option<SocketAddr>,
    bus: Emitter,
    bus_thread: std::thread::JoinHandle<SavedState>,
    epoch: Epoch,
    sources: Sources,
    /// Current config.
    config: Config,
    /// Task that accepts clients and serves the admin address.
    accepting: Option<JoinHandle<()>>,
    tls: Option<TlsService>,
    admin_task: Option<JoinHandle<()>>,
    /// Task that synchronizes the clock with the wall clock.
    time_keeper: JoinHandle<()>,
    memory_watch: JoinHandle<()>,
    drain: (Duration, Duration),
    state_dir: Option<StateDir>,
    log: Arc<Log>,
    cluster: Option<Box<Membership>>,
    /// Threads that accept connections and serve HTTP.
    _http: HttpThreads,
}

/// Outcome of a server's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Graceful shutdown.
    Complete,
    /// Shutdown without the saved state that `state_dir` requests.
    WithoutState,
    /// Graceful shutdown, because the server could not be a part of its cluster any more.
    OutOfCluster,
}

impl App {
    /// Address of the feed without TLS; if it has none, that with TLS.
    pub fn address(&self) -> SocketAddr {
        self.server.listener.address
    }

    /// Address of the feed with TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        let endpoint = self.server.tls.as_ref();
        endpoint.map(|endpoint| endpoint.listener.address)
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Metrics of the server.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.server.metrics
    }

    /// Sources that failed permanently, each with the reason.
    pub fn failed_sources(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let settings = self.server.settings.load();
        let failed = settings.sources.iter();
        failed
            .filter_map(|(name, status)| Some((Arc::clone(name), status.failure()?)))
            .collect()
    }

    /// Reports of the files that a replay currently plays.
    #[cfg(feature = "internals")]
    pub fn file_reports(&self, source: &str) -> Vec<FileReport> {
        let settings = self.server.settings.load();
        let found = settings.sources.iter().find(|(name, _)| &**name == source);
        found.map_or_else(Vec::new, |(_, status)| {
            status.files().iter().map(|file| file.report()).collect()
        })
    }

    /// Number of instruments and topics.
    pub async fn sizes(&self) -> (usize, usize) {
        let Some(catalog) = self.server.shards[0].catalog().await else {
            return (0, 0);
        };
        (catalog.instruments().len(), catalog.len())
    }

    /// Clock shared by all components.
    #[cfg(feature = "internals")]
    pub fn clock(&self) -> Clock {
        self.server.clock
    }
}

/// Rights of all clients.
fn entitlements_of(config: &Config) -> Entitlements {
    Entitlements {
        without_credentials: Principal::anonymous(&config.roles),
        roles: config.roles.clone(),
    }
}

/// Settings of handshakes and HTTP that a reload can change.
fn settings_of(config: &Config, sources: &Sources) -> Settings {
    Settings::of(
        config,
        sources.publishers(),
        sources.statuses(),
        sources.publisher_statuses(),
    )
}
