//! Thread of the authentication: expensive checks, and changes of the files with keys.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::file_stamp::{Stamp, stamp};
use super::jwks::RemoteKeys;
use crate::auth::{Gate, Job, Policy};
use crate::config::{auth_files, auth_policy};
use crate::market::UnixNanos;
use crate::server::Server;
use crate::shard::Command;

/// Interval at which the files are checked for a change.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Starts the thread; it ends with the server.
pub(super) fn spawn(server: &Arc<Server>, jobs: Receiver<Job>) -> std::io::Result<()> {
    let (server, clock) = (Arc::downgrade(server), server.clock);
    let run = move || {
        let mut worker = Worker {
            server,
            files: HashMap::new(),
            remote: RemoteKeys::default(),
            next_look: UnixNanos(0),
        };
        worker.look();
        loop {
            match jobs.recv_timeout(CHECK_INTERVAL) {
                Ok(job) => worker.execute(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = clock.now();
            if now >= worker.next_look {
                worker.next_look = now.plus(CHECK_INTERVAL);
                if !worker.look() {
                    return;
                }
            }
        }
    };
    let thread = std::thread::Builder::new().name("auth".to_owned());
    thread.spawn(run).map(|_thread| ())
}

struct Worker {
    server: Weak<Server>,
    /// By file: the stamp whose contents are in force, and the one seen last.
    files: HashMap<PathBuf, (Stamp, Stamp)>,
    remote: RemoteKeys,
    next_look: UnixNanos,
}

impl Worker {
    fn execute(&mut self, job: Job) {
        if let Some(server) = self.server.upgrade() {
            let now = server.clock.now();
            server
                .gate
                .execute(job, now, || self.refresh(&server, true));
        }
    }

    /// Looks for changes; false once the server has stopped.
    fn look(&mut self) -> bool {
        let Some(server) = self.server.upgrade() else {
            return false;
        };
        let policy = Arc::clone(&server.gate.policy());
        if self.has_changed(&policy) {
            let read = auth_policy(&policy.settings, &policy.roles);
            apply(&server, &policy, read);
        }
        self.refresh(&server, false);
        true
    }

    /// Requests a key set at an address again, if it is due.
    fn refresh(&mut self, server: &Server, has_unknown_key: bool) {
        let policy = Arc::clone(&server.gate.policy());
        let now = server.clock.now();
        if let Some(read) = self.remote.refresh(&policy, has_unknown_key, now) {
            apply(server, &policy, read);
        }
    }

    /// True if a file has changed and is stable again.
    fn has_changed(&mut self, policy: &Policy) -> bool {
        let named = auth_files(&policy.settings);
        self.files.retain(|file, _| named.contains(file));
        let mut changed = false;
        for file in named {
            // A file that is new here may have changed since the policy was read, so that it is
            // read once more.
            let now = stamp(std::fs::metadata(&file));
            let (read, seen) = self.files.entry(file).or_insert((None, None));
            // The file may still be being written.
            if now.is_some() && now == *seen && now != *read {
                *read = now;
                changed = true;
            }
            *seen = now;
        }
        changed
    }
}

/// Puts a policy that was read in force, unless another one has replaced `before` meanwhile.
fn apply<E: std::fmt::Display>(server: &Server, before: &Arc<Policy>, read: Result<Policy, E>) {
    let outcome = match read {
        Ok(next) => {
            tracing::info!("keys of the authentication reloaded");
            if server.gate.replace_if(before, next) {
                review_all(server);
            }
            "applied"
        }
        Err(error) => {
            for problem in error.to_string().lines() {
                tracing::error!(problem, "keys rejected, keeping the previous ones");
            }
            "rejected"
        }
    };
    let counter = &server.metrics.auth_keys;
    counter.with_label_values(&[outcome]).inc();
}

fn review_all(server: &Server) {
    for shard in &server.shards {
        // A shard that has stopped has no connections.
        let _stopped = shard.send_blocking(Command::ReviewCredentials);
    }
}

/// Puts the policy of a reloaded config in force.
pub(super) async fn apply_reloaded(server: &Server, next: Policy) {
    let before = Arc::clone(&server.gate.policy());
    server.gate.replace(next.keeping_ring_of(&before));
    for shard in &server.shards {
        shard.send(Command::ReviewCredentials).await;
    }
}

/// Creates the gate of a server.
pub(super) fn gate(policy: Policy) -> (Arc<Gate>, Receiver<Job>) {
    Gate::new(policy)
}
