//! Checks of tokens, and their consequences for connections.

use super::Shard;
use super::command::Command;
use super::connection::{ConnectionKey, Generation};
use crate::auth::{Grant, Outcome, Presented, Refused, event_of};
use crate::metrics::AuthEvent;
use crate::session::{Action, AuthState};

impl Shard {
    /// Checks the token of an `auth` request.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, token: &str) {
        let gate = &self.feed.config.gate;
        if gate.policy().is_open() {
            let actions = self.connections[key].peer.session.on_authenticated(None);
            return self.act(key, actions);
        }
        let peer = &self.connections[key].peer;
        let (outcomes, generation) = (self.outcomes.clone(), peer.generation.0);
        let reply = move |outcome| {
            // A shard that has stopped needs no outcome.
            if let Some(commands) = outcomes.upgrade() {
                let _stopped = commands.blocking_send(Command::Authenticated {
                    key,
                    generation,
                    outcome,
                });
            }
        };
        match gate.present(token, peer.ip, self.feed.now, reply) {
            Presented::Decided(outcome) => self.take_outcome(key, outcome),
            Presented::Queued => {}
        }
    }

    /// Continues a connection whose token has been checked.
    pub(super) fn on_checked(&mut self, key: ConnectionKey, generation: u32, outcome: Outcome) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let is_same = connection.peer.generation == Generation(generation);
        if !is_same || connection.closing.is_some() {
            return;
        }
        self.take_outcome(key, outcome);
        // Requests that were received meanwhile.
        self.sockets.serve_next(key);
    }

    fn take_outcome(&mut self, key: ConnectionKey, outcome: Outcome) {
        let session = &self.connections[key].peer.session;
        let outcome = outcome.and_then(|grant| session.accepts(&grant).map(|()| grant));
        let outcome = outcome.and_then(|grant| self.enter(key, grant));
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

    /// Gives a connection the identity of a grant.
    fn enter(&mut self, key: ConnectionKey, grant: Grant) -> Result<Grant, Refused> {
        let principal = self.feed.config.gate.policy().principal(&grant);
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

    /// Compares the identities of all connections with the present policy: those whose key is gone
    /// are closed.
    pub(super) fn review_credentials(&mut self) {
        let policy = std::sync::Arc::clone(&self.feed.config.gate.policy());
        for key in self.connections.keys() {
            let connection = &mut self.connections[key];
            if connection.closing.is_some() {
                continue;
            }
            let Some(held) = connection.peer.session.grant() else {
                continue;
            };
            let reviewed = policy.review(held);
            if reviewed.as_ref() == Some(held) {
                continue;
            }
            let entered = reviewed.and_then(|grant| self.enter(key, grant).ok());
            if entered.is_none() {
                self.feed.metrics.count_auth(AuthEvent::Revoked);
            }
            let actions = self.connections[key].peer.session.on_review(entered);
            self.act(key, actions);
        }
    }
}
