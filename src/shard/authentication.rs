//! Checks of tokens, and their consequences for connections.

use tokio::sync::mpsc;

use super::Shard;
use super::connection::{ConnectionKey, Generation};
use crate::auth::{Grant, Outcome, Presented, Refused, event_of};
use crate::metrics::AuthEvent;
use crate::session::{Action, AuthState, Session};

/// Checks of a shard that may be outstanding; further ones are refused for now.
const CHECKS_MAX: usize = 512;

/// Outcome of a check that was made elsewhere.
#[derive(Debug)]
pub(super) struct CheckedToken {
    key: ConnectionKey,
    generation: Generation,
    outcome: Outcome,
}

/// Checks that are made elsewhere, and the queue of their outcomes. The queue has a place for each
/// outstanding check, so that a shard that is busy never holds up the thread of all checks.
#[derive(Debug)]
pub(super) struct Checks {
    outstanding: usize,
    sender: mpsc::Sender<CheckedToken>,
    outcomes: mpsc::Receiver<CheckedToken>,
}

impl Default for Checks {
    fn default() -> Self {
        let (sender, outcomes) = mpsc::channel(CHECKS_MAX);
        Self {
            outstanding: 0,
            sender,
            outcomes,
        }
    }
}

impl Checks {
    /// Waits for the next outcome.
    pub(super) async fn next(&mut self) -> CheckedToken {
        let next = self.outcomes.recv().await;
        next.expect("the shard itself holds a sender")
    }

    /// The next outcome that is there.
    pub(super) fn take(&mut self) -> Option<CheckedToken> {
        self.outcomes.try_recv().ok()
    }
}

impl Shard {
    /// Checks the token of an `auth` request.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, token: &str) {
        let gate = &self.feed.config.gate;
        if gate.policy().is_open() {
            let actions = self.connections[key].peer.session.on_authenticated(None);
            return self.act(key, actions);
        }
        if self.checks.outstanding >= CHECKS_MAX {
            return self.take_outcome(key, Err(Refused::Busy));
        }
        let peer = &self.connections[key].peer;
        let (sender, generation) = (self.checks.sender.clone(), peer.generation);
        let reply = move |outcome| {
            // There is a place in the queue; a shard that has stopped needs no outcome.
            let _stopped = sender.try_send(CheckedToken {
                key,
                generation,
                outcome,
            });
        };
        match gate.present(token, peer.ip, self.feed.now, reply) {
            Presented::Decided(outcome) => self.take_outcome(key, outcome),
            Presented::Queued => self.checks.outstanding += 1,
        }
    }

    /// Takes the outcomes that are there.
    pub(super) fn take_checked(&mut self) {
        while let Some(checked) = self.checks.take() {
            self.on_checked(checked);
        }
    }

    /// Continues a connection whose token has been checked.
    pub(super) fn on_checked(&mut self, checked: CheckedToken) {
        self.checks.outstanding -= 1;
        let CheckedToken {
            key,
            generation,
            outcome,
        } = checked;
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let is_same = connection.peer.generation == generation;
        if !is_same || connection.closing.is_some() {
            return;
        }
        self.take_outcome(key, outcome);
        // Requests that were received meanwhile.
        self.sockets.serve_next(key);
    }

    pub(super) fn take_outcome(&mut self, key: ConnectionKey, outcome: Outcome) {
        let session = &self.connections[key].peer.session;
        let outcome = outcome.and_then(|grant| session.accepts(&grant).map(|()| grant));
        let outcome = outcome.and_then(|grant| self.enter(key, &grant));
        let event = event_of(&outcome);
        self.feed.metrics.count_auth(event);
        let session = &mut self.connections[key].peer.session;
        let actions = match outcome {
            Ok(grant) => session.on_authenticated(Some(grant)),
            Err(refused) => session.on_refused(refused),
        };
        self.act(key, actions);
        self.arm_checkup(key);
    }

    /// Gives a connection the identity of a grant, as of the present policy, which may be another
    /// one than that of its check.
    fn enter(&mut self, key: ConnectionKey, grant: &Grant) -> Result<Grant, Refused> {
        let policy = std::sync::Arc::clone(&self.feed.config.gate.policy());
        let grant = policy.review(grant).ok_or(Refused::Revoked)?;
        let principal = policy.principal(&grant);
        self.become_principal(key, principal.ok_or(Refused::NoRole)?);
        Ok(grant)
    }

    /// Closes a connection whose time to authenticate, or whose token, has ended. True if it stays
    /// open.
    pub(super) fn authentication_holds(&mut self, key: ConnectionKey) -> bool {
        let now = self.feed.now;
        let session = &mut self.connections[key].peer.session;
        let was = session.auth_state();
        let actions = session.on_auth_deadline(now);
        let ends = actions
            .iter()
            .any(|action| matches!(action, Action::Close(..)));
        if ends {
            let event = match was {
                AuthState::Required => AuthEvent::Timeout,
                _ => AuthEvent::Expired,
            };
            self.feed.metrics.count_auth(event);
        }
        if !actions.is_empty() {
            self.act(key, actions);
        }
        !ends
    }

    /// Compares the identity of a connection with the present policy: it is closed if its key is
    /// gone, or if clients without credentials are no longer admitted.
    pub(super) fn review_credential(&mut self, key: ConnectionKey) {
        let policy = std::sync::Arc::clone(&self.feed.config.gate.policy());
        let session = &mut self.connections[key].peer.session;
        let Some(held) = session.grant() else {
            if policy.requires_credentials() && session.auth_state() == AuthState::Open {
                let actions = Session::on_closed_to_anonymous();
                self.act(key, actions);
            }
            return;
        };
        if policy.review(held).as_ref() == Some(held) {
            return;
        }
        let held = held.clone();
        let entered = self.enter(key, &held).ok();
        if entered.is_none() {
            self.feed.metrics.count_auth(AuthEvent::Revoked);
        }
        let actions = self.connections[key].peer.session.on_review(entered);
        self.act(key, actions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outstanding_check_has_a_place_in_the_queue_of_a_busy_shard() {
        let mut checks = Checks::default();
        let checked = || CheckedToken {
            key: ConnectionKey(0),
            generation: Generation(0),
            outcome: Err(Refused::WrongKey),
        };
        for _ in 0..CHECKS_MAX {
            assert!(checks.sender.try_send(checked()).is_ok(), "it never waits");
        }
        assert!(checks.sender.try_send(checked()).is_err(), "it is bounded");
        assert_eq!(std::iter::from_fn(|| checks.take()).count(), CHECKS_MAX);
    }
}
