//! Graceful shutdown: readiness off, `bye` to every client, stop of the sources and the bus, then
//! state for the next run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::leading::stop_bus;
use super::{App, Stopped};
use crate::bus::SavedState;
use crate::server::Server;
use crate::shard::Command;
use crate::state::{State, StateDir, StoppedSource};

impl App {
    /// Stops the server: sends `bye` with a reconnect slot to each client, flushes and closes
    /// before the deadline, then saves the state.
    pub async fn stop(self) -> Stopped {
        let (spread, deadline) = self.drain;
        self.server.is_draining.store(true, Ordering::Relaxed);
        self.server.metrics.draining.set(1);
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
        if let Some(tls) = &self.tls {
            tls.stop_accepting();
        }
        let drained = drain_shards(&self.server, spread);
        if tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::warn!("drain.deadline exceeded; disconnecting the remaining clients");
        }
        let sources = self.sources.stop().await;
        let cluster = self.cluster;
        let last = match &cluster {
            Some(cluster) => {
                let is_leading = cluster.is_leading();
                cluster.release_late(stop_bus(&self.bus, is_leading)).await
            }
            None => stop_bus(&self.bus, false).await,
        };
        self.time_keeper.abort();
        self.memory_watch.abort();
        let bus_thread = self.bus_thread;
        let bus_state = tokio::task::spawn_blocking(move || bus_thread.join()).await;
        if let Some(mut cluster) = cluster {
            cluster.stop(last).await;
            self.server.finish_publishes().await;
        }
        if let Some(admin) = self.admin_task {
            admin.abort();
        }
        let Some(dir) = self.state_dir else {
            return Stopped::Complete;
        };
        let Ok(Ok(bus_state)) = bus_state else {
            tracing::error!("bus failed; state not saved, the next start begins a new epoch");
            return Stopped::WithoutState;
        };
        save(&self.server, dir, self.epoch.origin, bus_state, sources).await
    }
}

/// Drains the clients of every shard, with reconnect slots spread over all shards.
async fn drain_shards(server: &Server, spread: Duration) {
    let mut drained = Vec::new();
    let of = server.shards.len();
    for (turn, shard) in server.shards.iter().enumerate() {
        let (done, all_left) = oneshot::channel();
        shard
            .send(Command::Drain {
                spread,
                turn,
                of,
                done,
            })
            .await;
        drained.push(all_left);
    }
    for all_left in drained {
        // A shard that has ended has no clients.
        let _ended = all_left.await;
    }
}

/// Saves the topics of a shard, the state of the bus and the resume positions of the sources.
async fn save(
    server: &Arc<Server>,
    dir: StateDir,
    origin: u64,
    bus_state: SavedState,
    sources: Vec<StoppedSource>,
) -> Stopped {
    let (reply, saved) = oneshot::channel();
    server.shards[0].send(Command::Save(reply)).await;
    let Ok(topics) = saved.await else {
        tracing::error!(
            "shard overrun during shutdown; state not saved, the next start begins a new epoch"
        );
        return Stopped::WithoutState;
    };
    let count = topics.len();
    let now = server.clock.moment();
    let state = State::new(now.wall, origin, bus_state, sources, topics);
    match tokio::task::spawn_blocking(move || dir.leave(&state, &now)).await {
        Ok(Ok(())) => {
            tracing::info!(topics = count, "state saved for restart");
            return Stopped::Complete;
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot save the state; the next start begins a new epoch");
        }
        Err(error) => tracing::error!(%error, "panic while saving the state; this is a bug"),
    }
    Stopped::WithoutState
}
