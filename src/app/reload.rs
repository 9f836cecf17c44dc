//! Config reload of a running server.

use std::sync::Arc;
use std::time::Duration;

use super::start::read_policy;
use super::{App, auth, entitlements_of, settings_of};
use crate::config::{Config, changes};
use crate::shard::Command;

/// Outcome of a config reload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Applied changes: keys, and sources that were added, removed or restarted.
    pub applied: Vec<String>,
    /// Changed keys that require a restart.
    pub needs_restart: Vec<&'static str>,
}

impl App {
    /// Applies the parts of a new config that a running server supports: limits and timeouts
    /// immediately (values announced in `welcome` keep applying to that connection), sources by
    /// name.
    pub async fn reload(&mut self, config: &Config) -> Reloaded {
        let mut reloaded = Reloaded::default();
        for key in changes(&self.config, config) {
            if key.needs_restart {
                reloaded.needs_restart.push(key.path);
            } else if key.path != "sources" {
                reloaded.applied.push(key.path.to_owned());
            }
        }
        let new_delay = |delay: &Duration| {
            let mut shards = self.server.shards.iter();
            shards.all(|shard| shard.delay != *delay)
        };
        if config.roles.delays().iter().any(new_delay) {
            reloaded.needs_restart.push("roles.delay");
        }
        let mut next = config.clone();
        next.keep_what_needs_a_restart(&self.config);
        let runs_sources = self.runs_sources();
        if runs_sources {
            self.sources.prepare(&next.sources);
        }
        let (limits, demand) = (next.limits, self.sources.demand());
        for shard in &self.server.shards {
            let (done, applied) = tokio::sync::oneshot::channel();
            shard
                .send(Command::Tune {
                    limits,
                    demand: Arc::clone(&demand),
                    done,
                })
                .await;
            // A shard that has ended needs no update.
            let _ended = applied.await;
        }
        if runs_sources {
            let changed = self.sources.reload(&next.sources).await;
            reloaded.applied.extend(changed);
        }
        if let (Some(service), Some(tls)) = (&self.tls, &next.tls) {
            service.reload(&tls.files);
        }
        match read_policy(&next).await {
            Ok(policy) => auth::apply_reloaded(&self.server, policy).await,
            Err(error) => tracing::error!(%error, "keys rejected, keeping the previous ones"),
        }
        self.drain = (next.drain_spread, next.drain_deadline);
        let settings = settings_of(&next, &self.sources);
        self.wait_for(&settings.sources).await;
        // A ready server remains ready while a new source starts slowly.
        for (_, status) in &settings.sources {
            status.overdue("not started yet");
        }
        self.server.settings.store(Arc::new(settings));
        if next.roles != self.config.roles {
            self.entitle(&next).await;
        }
        self.config = next;
        self.export_bounds().await;
        reloaded
    }

    /// Applies the roles of a config to all connections.
    async fn entitle(&self, config: &Config) {
        let entitlements = Arc::new(entitlements_of(config));
        for shard in &self.server.shards {
            let command = Command::Entitle(Arc::clone(&entitlements));
            // A shard that has ended has no connections.
            let _ended = shard.send(command).await;
        }
    }
}
