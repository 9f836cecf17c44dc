//! Shared entry: checks credentials for all connections and HTTP requests.

use std::fmt;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::TOKEN_BYTES_MAX;
use super::failures::Failures;
use super::grant::Grant;
use super::keys::SlowCheck;
use super::policy::{Checked, Policy};
use super::refused::{Outcome, Refused};
use super::tickets::Tickets;
use crate::market::UnixNanos;

/// Checks that wait for the thread of the gate.
const JOBS_MAX: usize = 256;

/// Shared entry: checks credentials for all connections and HTTP requests. Quick checks are
/// executed by the caller; expensive ones wait in a bounded queue for one thread.
#[derive(Debug)]
pub struct Gate {
    policy: ArcSwap<Policy>,
    failures: Mutex<Failures>,
    tickets: Mutex<Tickets>,
    jobs: SyncSender<Job>,
}

/// Check that waits for the thread of the gate.
pub struct Job {
    work: Work,
    address: IpAddr,
    reply: Box<dyn FnOnce(Outcome) + Send>,
}

enum Work {
    Argon2(SlowCheck),
    /// Token with a key id that the present key set lacks.
    Refresh(String),
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// State of a check after [`Gate::present`].
#[derive(Debug)]
pub enum Presented {
    /// Decided.
    Decided(Outcome),
    /// The reply follows.
    Queued,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Creates a gate, and the queue of its thread.
    pub fn new(policy: Policy) -> (Arc<Self>, Receiver<Job>) {
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let gate = Self {
            policy: ArcSwap::from_pointee(policy),
            failures: Mutex::default(),
            tickets: Mutex::default(),
            jobs,
        };
        (Arc::new(gate), queue)
    }

    /// Policy in force.
    pub fn policy(&self) -> Guard<Arc<Policy>> {
        self.policy.load()
    }

    /// Replaces the policy.
    pub fn replace(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Replaces the policy unless it is no longer `before`; true if it was replaced.
    pub fn replace_if(&self, before: &Arc<Policy>, policy: Policy) -> bool {
        let was = self.policy.compare_and_swap(before, Arc::new(policy));
        Arc::ptr_eq(&was, before)
    }

    /// Checks a credential from an address; `reply` is called only if the check is queued.
    pub fn present(
        &self,
        token: &str,
        address: IpAddr,
        now: UnixNanos,
        reply: impl FnOnce(Outcome) + Send + 'static,
    ) -> Presented {
        if token.len() > TOKEN_BYTES_MAX {
            return Presented::Decided(Err(Refused::TooLarge));
        }
        let work = match self.policy().check(token, now) {
            Checked::Decided(Ok(grant)) => return Presented::Decided(Ok(grant)),
            Checked::Decided(Err(refused)) => {
                return Presented::Decided(Err(self.count_failure(refused, address, now)));
            }
            Checked::Slow(check) => Work::Argon2(check),
            Checked::Refresh => Work::Refresh(token.to_owned()),
        };
        if !locked(&self.failures).may_try(address, now) {
            return Presented::Decided(Err(Refused::Busy));
        }
        let job = Job {
            work,
            address,
            reply: Box::new(reply),
        };
        match self.jobs.try_send(job) {
            Ok(()) => Presented::Queued,
            Err(_full) => Presented::Decided(Err(Refused::Busy)),
        }
    }

    /// Counts a failure; from an address with too many, every failure is reported as such.
    fn count_failure(&self, refused: Refused, address: IpAddr, now: UnixNanos) -> Refused {
        let per_minute = self.policy().settings.failures_per_minute;
        let mut failures = locked(&self.failures);
        if !failures.may_try(address, now) {
            return Refused::Busy;
        }
        failures.count(address, per_minute, now);
        refused
    }

    /// Executes a queued check. `refresh` requests the key set again if it may.
    pub fn execute(&self, job: Job, now: UnixNanos, refresh: impl FnOnce()) {
        let outcome = match job.work {
            Work::Argon2(check) => self.policy().finish(check),
            Work::Refresh(token) => {
                refresh();
                match self.policy().check(&token, now) {
                    Checked::Decided(outcome) => outcome,
                    Checked::Slow(_) | Checked::Refresh => Err(Refused::UnknownKey),
                }
            }
        };
        let counted = |refused| self.count_failure(refused, job.address, now);
        (job.reply)(outcome.map_err(counted));
    }

    /// Issues a one-use ticket for an origin; returns its text and its end.
    pub fn issue_ticket(
        &self,
        grant: Grant,
        origin: Option<&str>,
        now: UnixNanos,
    ) -> Result<(String, UnixNanos), Refused> {
        let policy = self.policy();
        let (lifetime, max) = (policy.settings.ticket_lifetime, policy.settings.tickets_max);
        locked(&self.tickets).issue(grant, origin, lifetime, max, now)
    }

    /// Redeems a ticket.
    pub fn redeem_ticket(
        &self,
        text: &str,
        origin: Option<&str>,
        address: IpAddr,
        now: UnixNanos,
    ) -> Outcome {
        let redeemed = locked(&self.tickets).redeem(text, origin, now);
        let held = redeemed.map_err(|refused| self.count_failure(refused, address, now))?;
        // The key may have been removed meanwhile.
        self.policy().review(&held).ok_or(Refused::Revoked)
    }
}
