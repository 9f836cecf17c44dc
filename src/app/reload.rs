//! Taking up another config while the server runs.

use std::sync::Arc;

use super::{App, settings_of};
use crate::config::{Config, changes};
use crate::shard::Command;

/// Outcome of a config reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Applied changes: keys, and sources that were added, removed or restarted.
    pub taken: Vec<String>,
    /// Keys that changed and wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

impl App {
    /// Takes up what a running server can of another config: limits and times at once (what a client was told in its
    /// `welcome` holds for it until it comes again), sources by name.
    pub async fn reload(&mut self, config: &Config) -> Reloaded {
        let mut reloaded = Reloaded::default();
        for key in changes(&self.config, config) {
            if key.needs_restart {
                reloaded.needs_restart.push(key.path);
            } else if key.path != "sources" {
                reloaded.taken.push(key.path.to_owned());
            }
        }
        let mut next = config.clone();
        next.keep_what_needs_a_restart(&self.config);
        self.sources.prepare(&next.sources);
        let (limits, demand) = (next.limits, self.sources.demand());
        for shard in &self.server.shards {
            let (done, told) = tokio::sync::oneshot::channel();
            shard
                .send(Command::Tune {
                    limits,
                    demand: Arc::clone(&demand),
                    done,
                })
                .await;
            // A shard that has ended needs nothing.
            let _ended = told.await;
        }
        reloaded
            .taken
            .extend(self.sources.reload(&next.sources).await);
        self.drain = (next.drain_spread, next.drain_deadline);
        let settings = settings_of(&next, &self.sources);
        self.wait_for(&settings.sources).await;
        // A server that was ready stays so while a new source is slow to start.
        for (_, status) in &settings.sources {
            status.overdue("not started yet");
        }
        self.server.settings.store(Arc::new(settings));
        self.config = next;
        self.show_bounds().await;
        reloaded
    }
}
