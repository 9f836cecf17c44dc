//! Operation of a running server: signals, changes of the config file, and the graceful shutdown.
//!
//! Invariant: a signal to stop is heard at any time, also while a config is read or taken up.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::config_file::{ConfigReader, ConfigWatch, ReloadError};
use super::{App, Reloaded, Stopped};
use crate::config::Config;

/// Time for a reload that is under way to end once the server is to stop.
const RELOAD_PATIENCE: Duration = Duration::from_secs(3);
/// Stops that are kept until they are heard: the first stops in order, the second at once.
const STOPS_KEPT: usize = 2;

/// The signals that operators send.
#[derive(Debug)]
pub struct Signals {
    stops: Stops,
    hangup: Signal,
}

impl Signals {
    /// Receives SIGINT and SIGTERM, which stop the server, and SIGHUP, which reloads its config, from now on.
    pub fn listen() -> io::Result<Self> {
        let (stop, stops) = mpsc::channel(STOPS_KEPT);
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            tokio::spawn(forward(signal(kind)?, stop.clone()));
        }
        Ok(Self {
            stops: Stops(stops),
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Signals to stop, in the order of their arrival.
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
        // A full queue holds the second stop already.
        let _full = stop.try_send(());
    }
}

/// End of a server's operation.
#[derive(Debug)]
pub struct Operated {
    /// Outcome of the shutdown.
    pub stopped: Stopped,
    /// The sources that had failed for good, each with the reason.
    pub failed: Vec<(Arc<str>, Arc<str>)>,
}

/// Runs a server until a signal stops it: in order at the first, at once at the second. Reads the config again, by `load`,
/// whenever its file changes or SIGHUP arrives.
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
    } = signals;
    let mut reader = ConfigReader::new();
    let last = loop {
        tokio::select! {
            () = stops.next() => break Reload::Stopping,
            _ = hangup.recv() => {}
            () = watch.changed() => {}
        }
        let load = load.clone();
        let read = tokio::select! {
            read = reader.read(move || load().map_err(Into::into)) => read,
            () = stops.next() => break Reload::Stopping,
        };
        let reloading = take_up(read, &mut app);
        match unless_stopped(reloading, &mut stops, RELOAD_PATIENCE).await {
            Reload::Done => {}
            stopping => break stopping,
        }
    };
    let failed = app.failed_sources();
    tracing::info!("shutting down; a second signal exits immediately");
    let stopped = match last {
        Reload::Aborted => Stopped::WithoutState,
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
    /// The server goes on.
    Done,
    /// The server is to stop, in order.
    Stopping,
    /// The server is to stop, at once.
    Aborted,
}

/// Runs a reload to its end, so that no source is left half-way: a stop gives it `patience`, a second stop none.
async fn unless_stopped(
    reloading: impl Future<Output = ()>,
    stops: &mut Stops,
    patience: Duration,
) -> Reload {
    tokio::pin!(reloading);
    tokio::select! {
        () = &mut reloading => return Reload::Done,
        () = stops.next() => {}
    }
    tokio::select! {
        _late = tokio::time::timeout(patience, reloading) => Reload::Stopping,
        () = stops.next() => Reload::Aborted,
    }
}

/// Takes up a config that was read again; a wrong one changes nothing. Logged first, counted afterwards.
async fn take_up(read: Result<Config, ReloadError>, app: &mut App) {
    let outcome = match read {
        Ok(config) => {
            log_reloaded(&app.reload(&config).await);
            "taken"
        }
        Err(error) => {
            for problem in error.to_string().lines() {
                tracing::error!(
                    problem,
                    "config reload rejected, keeping the previous config"
                );
            }
            "refused"
        }
    };
    let metrics = app.metrics();
    metrics.reloads.with_label_values(&[outcome]).inc();
    metrics.reload_failed.set((outcome == "refused").into());
}

fn log_reloaded(reloaded: &Reloaded) {
    let taken = if reloaded.taken.is_empty() {
        "no changes".to_owned()
    } else {
        reloaded.taken.join(", ")
    };
    tracing::info!(taken, "config reloaded");
    if !reloaded.needs_restart.is_empty() {
        let keys = reloaded.needs_restart.join(", ");
        tracing::warn!(keys, "changes that require a restart");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// End of a reload that never ends by itself, after so many stops.
    async fn stopped(stops: usize, patience: Duration) -> Reload {
        let (stop, received) = mpsc::channel(STOPS_KEPT);
        for _ in 0..stops {
            stop.try_send(()).expect("room");
        }
        let mut received = Stops(received);
        let ended = unless_stopped(std::future::pending(), &mut received, patience);
        let ended = tokio::time::timeout(DEADLINE, ended).await;
        ended.expect("a stop is heard while a reload runs")
    }

    #[tokio::test]
    async fn a_stop_is_heard_while_a_reload_runs() {
        let patience = Duration::from_millis(10);
        assert_eq!(stopped(1, patience).await, Reload::Stopping);
        assert_eq!(stopped(2, DEADLINE * 2).await, Reload::Aborted);
    }

    #[tokio::test]
    async fn a_stop_lets_a_reload_come_to_its_end() {
        let (stop, received) = mpsc::channel(STOPS_KEPT);
        stop.try_send(()).expect("room");
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
