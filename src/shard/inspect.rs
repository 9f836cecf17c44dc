//! Inspection of a shard's connections for operators.

use std::net::SocketAddr;

use super::Shard;
use super::command::{ConnectionInfo, Rank, WaitsFor};
use super::connection::{Connection, ConnectionKey};

impl Shard {
    /// Connections of the highest rank. Details are gathered for these alone, so that thousands of
    /// others cost little.
    pub(super) fn connections(&self, by: Rank, top: usize) -> Vec<ConnectionInfo> {
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let rank = |connection: &Connection| {
            let (outbox, totals) = (&connection.outbox, connection.outbox.totals());
            let first = by.of(
                outbox.behind(self.feed.now, behind_max).as_millis() as u64,
                outbox.queued_bytes(),
                totals,
            );
            (first, totals.lost + totals.merged)
        };
        let mut ranked: Vec<_> = self
            .connections
            .iter()
            .map(|(key, connection)| (rank(connection), key))
            .collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        ranked.truncate(top);
        ranked.into_iter().map(|(_, key)| self.info(key)).collect()
    }

    fn info(&self, key: ConnectionKey) -> ConnectionInfo {
        let connection = &self.connections[key];
        let (outbox, peer) = (&connection.outbox, &connection.peer);
        let totals = outbox.totals();
        let behind_max = self.feed.config.limits.outbox.behind_max;
        let mut modes = [0; 3];
        for (_, slot) in outbox.subscribed_topics() {
            modes[outbox.slot(slot).settings().mode.index()] += 1;
        }
        let waits_for = if connection.closing.is_some() {
            Some(WaitsFor::Close)
        } else if outbox.frames.blocked {
            Some(WaitsFor::Socket)
        } else if outbox.frames.is_held() {
            Some(WaitsFor::ReadWindow)
        } else if !peer.inbox.is_empty() {
            Some(WaitsFor::RequestQuota)
        } else {
            None
        };
        ConnectionInfo {
            session: self.session_of(key, peer.generation.0),
            address: SocketAddr::new(peer.ip, peer.port),
            agent: peer.agent.text().to_owned(),
            encoding: outbox.frames.encoding(),
            since: peer.connected.0,
            topics: outbox.subscribed_topics().len(),
            modes,
            level: outbox.level(),
            late_since: peer.backpressure().late_since.map(|since| since.0),
            waits_for,
            behind_ms: outbox.behind(self.feed.now, behind_max).as_millis() as u64,
            queued_bytes: outbox.queued_bytes(),
            delivered: totals.delivered,
            merged: totals.merged,
            lost: totals.lost,
        }
    }

    /// Session name in `welcome`, in lists for operators and in logs.
    pub(super) fn session_of(&self, key: ConnectionKey, generation: u32) -> String {
        format!("{}-{}-{generation}", self.number, key.0)
    }
}
