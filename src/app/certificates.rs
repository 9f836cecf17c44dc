//! TLS of a running server: threads for handshakes, and certificates that are read again when their
//! files change.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::StartError;
use super::http_threads::HttpThreads;
use crate::config::TlsConfig;
use crate::metrics::Metrics;
use crate::server::{Listener, Server, TlsEndpoint, accept_loop};
use crate::tls::{TlsFiles, server_config};

/// Interval at which the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// TLS of a running server.
#[derive(Debug)]
pub(super) struct TlsService {
    pub(super) endpoint: Arc<TlsEndpoint>,
    /// Threads of handshakes, and of connections until they are on the feed.
    _threads: HttpThreads,
    files: Arc<ArcSwap<TlsFiles>>,
    /// Makes the watcher read the files now; the watcher ends when it is dropped.
    read_again: mpsc::SyncSender<()>,
    accepting: Option<JoinHandle<()>>,
}

impl TlsService {
    /// Reads the certificates and starts the threads.
    pub(super) fn start(
        config: &TlsConfig,
        listener: Listener,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        // Read first, so that a later change is noticed.
        let first = stamps(&config.files);
        let now = server_config(&config.files)?;
        report_expiry(metrics, now.expires_s);
        let threads = HttpThreads::start("tls")?;
        let endpoint = Arc::new(TlsEndpoint {
            listener,
            config: ArcSwap::new(now.config),
            runtime: threads.handle().clone(),
        });
        let files = Arc::new(ArcSwap::from_pointee(config.files.clone()));
        let (read_again, asked) = mpsc::sync_channel(1);
        let watcher = Watcher {
            files: Arc::clone(&files),
            endpoint: Arc::clone(&endpoint),
            metrics: Arc::clone(metrics),
        };
        std::thread::Builder::new()
            .name("certificates".to_owned())
            .spawn(move || watcher.run(first, &asked))
            .map_err(StartError::Thread)?;
        Ok(Self {
            endpoint,
            _threads: threads,
            files,
            read_again,
            accepting: None,
        })
    }

    /// Begins to accept clients.
    pub(super) fn accept(&mut self, listener: TcpListener, server: Arc<Server>) {
        let endpoint = Some(Arc::clone(&self.endpoint));
        let accepting = accept_loop(listener, Arc::clone(&server), endpoint);
        self.accepting = Some(server.http.spawn(accepting));
    }

    /// Reads the files again, which may be others than before.
    pub(super) fn reload(&self, files: &TlsFiles) {
        self.files.store(Arc::new(files.clone()));
        // A request that waits already will find these files.
        let _waits = self.read_again.try_send(());
    }

    /// Accepts no more clients.
    pub(super) fn stop_accepting(&self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn report_expiry(metrics: &Metrics, expires_s: Option<i64>) {
    metrics.tls_certificate_expiry.set(expires_s.unwrap_or(0));
}

/// Modification time, length and number of a file; a change of any counts as a change of the file.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamps(files: &TlsFiles) -> Vec<Stamp> {
    let stamp = |path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    files.paths().map(stamp).collect()
}

/// Thread that reads certificates; a file system that hangs holds nothing else up.
struct Watcher {
    files: Arc<ArcSwap<TlsFiles>>,
    endpoint: Arc<TlsEndpoint>,
    metrics: Arc<Metrics>,
}

impl Watcher {
    fn run(&self, first: Vec<Stamp>, asked: &mpsc::Receiver<()>) {
        let (mut read, mut seen) = (first.clone(), first);
        loop {
            let is_asked = match asked.recv_timeout(CHECK_INTERVAL) {
                Ok(()) => true,
                Err(mpsc::RecvTimeoutError::Timeout) => false,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let files = self.files.load_full();
            let now = stamps(&files);
            // Files may still be being written: only stamps that are unchanged since the last check
            // count. A file that is missing will be replaced, or the reload names it.
            if is_asked || (now == seen && now != read) {
                read.clone_from(&now);
                self.read(&files);
            }
            seen = now;
        }
    }

    fn read(&self, files: &TlsFiles) {
        let read = server_config(files);
        let outcome = match &read {
            Ok(_) => "applied",
            Err(error) => {
                tracing::error!(%error, "certificate reload rejected, keeping the previous certificate");
                "rejected"
            }
        };
        if let Ok(new) = read {
            self.endpoint.config.store(new.config);
            report_expiry(&self.metrics, new.expires_s);
            tracing::info!("certificates reloaded");
        }
        self.metrics
            .tls_reload_failed
            .set((outcome == "rejected").into());
        self.metrics.tls_reloads.with_label_values(&[outcome]).inc();
    }
}
