//! Operation of a running server: signals, config file changes and graceful shutdown.
//!
//! Invariant: a stop signal is received at any time, including during a config read or reload.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::cluster::Turn;
use super::config_file::{ConfigReader, ConfigWatch, ReloadError};
use super::{App, Reloaded, Stopped};
use crate::config::Config;

/// Time limit for a reload in progress after the first stop signal.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Capacity for unprocessed stop signals: the first stops gracefully, the second immediately.
const STOPS_KEPT: usize = 2;

/// Signals for operators.
#[derive(Debug)]
pub struct Signals {
    stop: mpsc::Sender<()>,
    stops: Stops,
    hangup: Signal,
}

/// Stops a server as a signal does.
#[derive(Debug, Clone)]
pub struct Stopper(mpsc::Sender<()>);

impl Stopper {
    /// Stops the server gracefully if it runs.
    pub fn stop(&self) {
        // A full queue already contains a stop; a closed one is that of a server that has ended.
        let _stops_already = self.0.try_send(());
    }
}

impl Signals {
    /// Registers handlers: SIGINT and SIGTERM stop the server, SIGHUP reloads its config.
    pub fn listen() -> io::Result<Self> {
        let (stop, stops) = mpsc::channel(STOPS_KEPT);
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            tokio::spawn(forward(signal(kind)?, stop.clone()));
        }
        Ok(Self {
            stop,
            stops: Stops(stops),
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Another way to stop the server.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stop.clone())
    }
}

/// Stop signals in order of arrival.
#[derive(Debug)]
struct Stops(mpsc::Receiver<()>);

impl Stops {
    async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

async fn forward(mut signal: Signal, stop: mpsc::Sender<()>) {
    while signal.recv().await.is_some() {
        // A full queue already contains the second stop.
        let _full = stop.try_send(());
    }
}

/// End of a server's operation.
#[derive(Debug)]
pub struct Operated {
    /// Outcome of the shutdown.
    pub stopped: Stopped,
    /// Sources that failed permanently, each with the reason.
    pub failed: Vec<(Arc<str>, Arc<str>)>,
}

/// Runs a server until a stop signal: the first stops gracefully, the second immediately. Reloads
/// the config with `load` when its file changes or SIGHUP arrives.
pub async fn operate<E>(
    mut app: App,
    signals: Signals,
    mut watch: ConfigWatch,
    load: impl Fn() -> Result<Config, E> + Clone + Send + 'static,
) -> Operated
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Signals {
        mut stops,
        mut hangup,
        ..
    } = signals;
    let mut reader = ConfigReader::new();
    let last = loop {
        tokio::select! {
            () = stops.next() => break Reload::Stopping,
            _ = hangup.recv() => {}
            () = watch.changed() => {}
            turn = app.next_turn() => match turn {
                Turn::Lead(claimed) => {
                    let leading = Box::pin(app.lead(*claimed));
                    match unless_stopped(leading, &mut stops, RELOAD_TIMEOUT).await {
                        Reload::Done => continue,
                        stopping => break stopping,
                    }
                }
                Turn::HandOver => {
                    tracing::info!("handing the cluster over to a publisher that stands by");
                    break Reload::Stopping;
                }
                Turn::Failed(failure) => {
                    tracing::error!(%failure, "this server can no longer be a part of its cluster");
                    break Reload::Failed;
                }
            },
        }
        let load = load.clone();
        let read = tokio::select! {
            read = reader.read(move || load().map_err(Into::into)) => read,
            () = stops.next() => break Reload::Stopping,
        };
        let reloading = Box::pin(apply(read, &mut app));
        match unless_stopped(reloading, &mut stops, RELOAD_TIMEOUT).await {
            Reload::Done => {}
            stopping => break stopping,
        }
    };
    let failed = app.failed_sources();
    tracing::info!("shutting down; a second signal exits immediately");
    let stopped = match last {
        Reload::Aborted => Stopped::WithoutState,
        Reload::Failed => {
            app.stop().await;
            Stopped::OutOfCluster
        }
        Reload::Done | Reload::Stopping => tokio::select! {
            stopped = app.stop() => stopped,
            () = stops.next() => Stopped::WithoutState,
        },
    };
    Operated { stopped, failed }
}

/// End of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reload {
    /// The reload is complete; the server continues.
    Done,
    /// The server must stop gracefully.
    Stopping,
    /// The server must stop immediately.
    Aborted,
    /// The server cannot be a part of its cluster any more.
    Failed,
}

/// Completes a reload, so that no source is left half-started: after a stop signal within
/// `timeout`, after a second one not at all.
async fn unless_stopped(
    reloading: impl Future<Output = ()>,
    stops: &mut Stops,
    timeout: Duration,
) -> Reload {
    tokio::pin!(reloading);
    tokio::select! {
        () = &mut reloading => return Reload::Done,
        () = stops.next() => {}
    }
    tokio::select! {
        _late = tokio::time::timeout(timeout, reloading) => Reload::Stopping,
        () = stops.next() => Reload::Aborted,
    }
}

/// Applies a config that was read again; an invalid config changes nothing. Logged before it is
/// counted.
async fn apply(read: Result<Config, ReloadError>, app: &mut App) {
    let outcome = match read {
        Ok(config) => {
            log_reloaded(&app.reload(&config).await);
            "applied"
        }
        Err(error) => {
            for problem in error.to_string().lines() {
                tracing::error!(
                    problem,
                    "config reload rejected, keeping the previous config"
                );
            }
            "rejected"
        }
    };
    let metrics = app.metrics();
    metrics.reloads.with_label_values(&[outcome]).inc();
    metrics.reload_failed.set((outcome == "rejected").into());
}

fn log_reloaded(reloaded: &Reloaded) {
    let applied = if reloaded.applied.is_empty() {
        "no changes".to_owned()
    } else {
        reloaded.applied.join(", ")
    };
    tracing::info!(applied, "config reloaded");
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(", ");
        tracing::warn!(keys, "changes that require a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Outcome of a reload that never completes, after this many stop signals.
    async fn stopped(stops: usize, timeout: Duration) -> Reload {
        let (stop, received) = mpsc::channel(STOPS_KEPT);
        for _ in 0..stops {
            stop.try_send(()).expect("the channel has room");
        }
        let mut received = Stops(received);
        let ended = unless_stopped(std::future::pending(), &mut received, timeout);
        let ended = tokio::time::timeout(DEADLINE, ended).await;
        ended.expect("a stop signal is handled during a reload")
    }

    #[tokio::test]
    async fn a_stop_signal_is_handled_during_a_reload() {
        let timeout = Duration::from_millis(10);
        assert_eq!(stopped(1, timeout).await, Reload::Stopping);
        assert_eq!(stopped(2, DEADLINE * 2).await, Reload::Aborted);
    }

    #[tokio::test]
    async fn a_reload_completes_after_a_stop_signal() {
        let (stop, received) = mpsc::channel(STOPS_KEPT);
        stop.try_send(()).expect("the channel has room");
        let (mut stops, mut has_ended) = (Stops(received), false);
        let reloading = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            has_ended = true;
        };
        let ended = unless_stopped(reloading, &mut stops, DEADLINE).await;
        assert_eq!((ended, has_ended), (Reload::Stopping, true));
        drop(stop);
        assert_eq!(
            unless_stopped(async {}, &mut stops, DEADLINE).await,
            Reload::Done
        );
    }
}
