//! Changes of the rights of connected clients.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::connection::{Connection, ConnectionKey, Generation};
use super::{SERVING_MAX, Shard};
use crate::access::{Entitlements, NoSeat, Principal};
use crate::protocol::{Bye, Code};
use crate::session::{Review, View};

/// Time after which a client above the connection limit of its role may try again.
const RECONNECT_MS: u64 = 5000;

/// Maximum number of reviews in a turn: each can close a connection, and its last bytes are written
/// in the same turn.
const REVIEWS_A_TURN: usize = 64;

/// Connections whose credentials or rights have changed and whose subscriptions are not yet reviewed.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    /// Keys of connections whose credentials are to be compared with the present policy. A connection
    /// that has come since was compared when it came.
    credentials: Range<u32>,
    /// Keys of connections to be compared with the present roles.
    unchecked: Range<u32>,
    /// Reviews in progress.
    begun: VecDeque<(ConnectionKey, Generation, Review)>,
    /// Clients before and after the change, by the address of the shared value before, so that they
    /// are shared after it, too.
    renewed: HashMap<usize, (Principal, Principal)>,
}

impl Reviews {
    fn is_empty(&self) -> bool {
        self.credentials.is_empty() && self.unchecked.is_empty() && self.begun.is_empty()
    }
}

impl Shard {
    /// Applies other roles: to new connections immediately, to the existing ones in the next turns.
    pub(super) fn entitle(&mut self, entitlements: Arc<Entitlements>) {
        self.feed.config.entitlements = entitlements;
        self.reviews.renewed.clear();
        self.reviews.unchecked = self.connections.all_keys();
    }

    /// Compares the credentials of all connections with the present policy, in the next turns.
    pub(super) fn review_credentials(&mut self) {
        self.reviews.credentials = self.connections.all_keys();
    }

    /// Reviews connections for a part of a turn. Returns true if there are more.
    pub(super) fn review_some(&mut self) -> bool {
        for _ in 0..REVIEWS_A_TURN {
            if self.reviews.is_empty() {
                break;
            }
            self.review_one();
            if self.feed.config.clock.now().since(self.feed.now) >= SERVING_MAX {
                break;
            }
        }
        if self.reviews.unchecked.is_empty() {
            self.reviews.renewed = HashMap::new();
        }
        !self.reviews.is_empty()
    }

    /// Executes a slice of the oldest review, or compares one connection with the present policy or
    /// roles.
    fn review_one(&mut self) {
        if let Some((key, generation, mut review)) = self.reviews.begun.pop_front() {
            let is_same = |connection: &Connection| connection.peer.generation == generation;
            if !self.is_open(key) || !is_same(&self.connections[key]) {
                return;
            }
            let connection = &mut self.connections[key];
            let view = View {
                replica: &self.feed.replica,
                principal: &connection.peer.principal,
                held: &connection.outbox,
                now: self.feed.now,
            };
            let (actions, is_last) = connection.peer.session.review(&mut review, view);
            if !is_last {
                self.reviews.begun.push_front((key, generation, review));
            }
            return self.act(key, actions);
        }
        if let Some(key) = self.reviews.credentials.next().map(ConnectionKey) {
            if self.is_open(key) {
                self.review_credential(key);
            }
            return;
        }
        if let Some(key) = self.reviews.unchecked.next().map(ConnectionKey)
            && self.is_open(key)
        {
            let renewed = self.renewed(key);
            self.become_principal(key, renewed);
        }
    }

    fn is_open(&self, key: ConnectionKey) -> bool {
        let connection = self.connections.get(key);
        connection.is_some_and(|connection| connection.closing.is_none())
    }

    /// Identity of a connection under the present roles.
    fn renewed(&mut self, key: ConnectionKey) -> Principal {
        let principal = &self.connections[key].peer.principal;
        let entitlements = &self.feed.config.entitlements;
        let Principal::Client(client) = principal else {
            return entitlements.renew(principal);
        };
        let renew = || (principal.clone(), entitlements.renew(principal));
        let renewed = &mut self.reviews.renewed;
        let known = renewed
            .entry(Arc::as_ptr(client).addr())
            .or_insert_with(renew);
        known.1.clone()
    }

    /// Replaces the identity of a connection, with its limits, and reviews its subscriptions.
    pub(super) fn become_principal(&mut self, key: ConnectionKey, principal: Principal) {
        if self.connections[key].peer.principal == principal || !self.serves(key, &principal) {
            return;
        }
        let connection = &mut self.connections[key];
        let peer = &mut connection.peer;
        let limits = principal.limits(&self.limits);
        peer.session.set_limits(limits, self.feed.now);
        let is_same_client = peer.principal.is_same_client(&principal);
        let before = std::mem::replace(&mut peer.principal, principal);
        let view = View {
            replica: &self.feed.replica,
            principal: &peer.principal,
            held: &connection.outbox,
            now: self.feed.now,
        };
        let review = peer.session.begin_review(before, view);
        let generation = peer.generation;
        let begun = review.map(|review| (key, generation, review));
        self.reviews.begun.extend(begun);
        // A client that stays the same keeps its connections, even above a new limit.
        if !is_same_client && let Err(refused) = self.seat(key) {
            self.refuse_seat(key, &refused);
        }
    }

    /// Counts a connection against the limit of its client.
    pub(super) fn seat(&mut self, key: ConnectionKey) -> Result<(), NoSeat> {
        let peer = &mut self.connections[key].peer;
        peer.seat = None;
        let seat = self.feed.config.seats.take(&peer.principal)?;
        peer.seat = seat.map(Box::new);
        Ok(())
    }

    /// Closes a connection above the limit of its client.
    pub(super) fn refuse_seat(&mut self, key: ConnectionKey, refused: &NoSeat) {
        let bye = Bye {
            code: Code::ConnectionLimit.number(),
            message: refused.to_string(),
            reconnect: true,
            after_ms: RECONNECT_MS,
        };
        self.close(key, &bye, Code::ConnectionLimit);
    }
}

#[cfg(test)]
mod tests;
