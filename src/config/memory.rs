//! Memory formula: an upper bound of what a server holds for clients, queues and histories.

use super::Config;

/// Publish requests that are decoded at once.
pub const PUBLISHES_AT_ONCE: usize = 4;
/// Memory of the errors that one report names, and of the report.
const PUBLISH_ERRORS_BYTES: usize = 2 << 20;
/// Sockets beyond the limit of connections that may be in a handshake or serve HTTP.
pub const SPARE_SOCKETS: usize = 1024;
/// Connections that the admin address may have at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// The longest head of a request, and so what a socket of HTTP may hold of what it has read.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bodies of publish requests, each of the longest, that may be held at once.
pub const PUBLISH_BODIES: usize = 8;
/// Memory of a socket in a handshake or serving HTTP: a head, and a piece that is about to be written.
const SOCKET_BYTES: usize = 2 * HEAD_BYTES_MAX;
/// Memory of an answer that is being given: at most 2,000 events of a snapshot.
const ANSWER_BYTES: usize = 1 << 20;
/// A published event takes so many times its bytes in the bus' queue, at most.
pub(super) const PUBLISH_SHARE: usize = 8;
/// A client's own memory beside its queues: session, subscriptions, socket.
const CLIENT_BYTES: usize = 4 << 10;
/// Memory of a topic that a client holds, with its share of an answer that waits.
const SUBSCRIPTION_BYTES: usize = 512;
/// Memory of one kept event.
const EVENT_BYTES: usize = size_of::<crate::log::Event>();

impl Config {
    /// The most memory that clients, queues and histories can take, in bytes, and the formula that says so.
    pub fn memory_formula(&self, topics: usize) -> (u64, String) {
        let subscriptions = self.limits.requests.topics as usize * SUBSCRIPTION_BYTES;
        let message = 2 * self.limits.requests.message_bytes as usize;
        let a_client = message
            + self.limits.outbox.outbox_bytes
            + self.limits.outbox.control_bytes
            + 3 * self.limits.outbox.frame_bytes
            + subscriptions
            + CLIENT_BYTES;
        let bars = topics * 5 / 9 * crate::log::CLOSED_BARS_KEPT * EVENT_BYTES;
        let copies = self.shards + 1;
        let state = self.limits.history.bytes * self.shards + bars * copies;
        let sockets = (self.connections_max + SPARE_SOCKETS) * SOCKET_BYTES;
        let answers = (self.http_requests + ADMIN_CONNECTIONS) * ANSWER_BYTES;
        // A body's buffer doubles as it grows.
        let bodies = PUBLISH_BODIES * 2 * self.publish_bytes_max;
        let publishing = PUBLISHES_AT_ONCE * self.publish_cost();
        let total = self.connections_max * a_client
            + self.queue_bytes
            + self.log_bytes
            + state
            + sockets
            + answers
            + bodies
            + publishing;
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        let text = format!(
            "{} connections x {} KiB (outbox + control + 3 frames + 2 messages + topics x 512 B + 4 KiB) + {} MiB queue + {} MiB log + {} shards x {} MiB history + {} x {} MiB bars + HTTP ({} MiB sockets + {} MiB answers + {} MiB publish bodies + {} x {} MiB publish requests) = {} MiB at most",
            self.connections_max,
            a_client >> 10,
            mib(self.queue_bytes),
            mib(self.log_bytes),
            self.shards,
            mib(self.limits.history.bytes),
            copies,
            mib(bars),
            mib(sockets),
            mib(answers),
            mib(bodies),
            PUBLISHES_AT_ONCE,
            mib(self.publish_cost()),
            mib(total),
        );
        (total as u64, text)
    }

    /// The most memory of one publish request beside its body: its events, and the errors told.
    const fn publish_cost(&self) -> usize {
        self.publish_events_max * crate::source::push::PushBatch::EVENT_BYTES + PUBLISH_ERRORS_BYTES
    }
}
