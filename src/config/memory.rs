//! Memory formula: an upper bound of the memory for clients, queues and histories.

use super::Config;
use crate::auth::{ARGON2_BYTES_MAX, SchemeSettings};
use crate::limits::TLS_UNSENT_BYTES_MAX;

/// Maximum number of publish requests decoded concurrently.
pub const PUBLISHES_AT_ONCE: usize = 4;
/// Memory of an error report, in bytes.
const PUBLISH_ERRORS_BYTES: usize = 2 << 20;
/// Number of sockets beyond the connection limit that may be in a handshake or serve HTTP.
pub const SPARE_SOCKETS: usize = 1024;
/// Maximum number of concurrent connections to the admin address.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Maximum size of a request head on the admin address, in bytes.
pub const ADMIN_HEAD_BYTES_MAX: usize = 16 << 10;
/// Number of maximum-size publish bodies that may be in memory at once.
pub const PUBLISH_BODIES: usize = 8;
/// Maximum number of publish requests that wait for the shared log of a cluster, or for its leader.
pub const PUBLISH_WAITS: usize = 256;
/// Maximum size of the report of such a request, in bytes.
pub const PUBLISH_REPORT_BYTES: usize = 256 << 10;
/// Memory of the rates of clients without a connection, by address and by name, in bytes.
const ADDRESSES_BYTES: usize = crate::admission::IDLE_MAX * (128 + 32);
/// Memory of a connection's TLS in bytes: ciphertext to be sent, a record before and after its
/// decryption, and the session.
const TLS_BYTES: usize = TLS_UNSENT_BYTES_MAX + (40 << 10);
/// Memory of a response in progress, in bytes: at most 2,000 events of a snapshot.
pub const RESPONSE_BYTES: usize = 1 << 20;
/// Maximum ratio of a published event's size in the queue of the bus to its size in the request.
pub(super) const PUBLISH_SHARE: usize = 8;
/// Memory of a client in addition to its queues, in bytes: session, subscriptions, socket.
pub const CLIENT_BYTES: usize = 4 << 10;
/// Memory of a subscribed topic, in bytes, including its share of a pending response.
const SUBSCRIPTION_BYTES: usize = 512;
/// Memory of one event in a history, in bytes.
const EVENT_BYTES: usize = size_of::<crate::log::Event>();

/// Mebibytes, rounded up.
const fn mib(bytes: usize) -> usize {
    bytes.div_ceil(1 << 20)
}

/// Further summand of the formula as text, if it is not zero.
fn summand(bytes: usize, name: &str) -> String {
    match mib(bytes) {
        0 => String::new(),
        mib => format!(" + {mib} MiB {name}"),
    }
}

impl Config {
    /// Maximum memory of clients, queues and histories, in bytes, and the formula as text.
    pub fn memory_formula(&self, topics: usize) -> (u64, String) {
        let roles = self.roles.iter().filter_map(|role| role.limits.topics);
        let topics_max = roles.fold(self.limits.requests.topics, u64::max);
        let subscriptions = topics_max as usize * SUBSCRIPTION_BYTES;
        let message = 2 * self.limits.requests.message_bytes as usize;
        let a_client = message
            + self.limits.outbox.outbox_bytes
            + self.limits.outbox.control_bytes
            + 3 * self.limits.outbox.frame_bytes
            + subscriptions
            + CLIENT_BYTES;
        let bars = topics * 5 / 9 * crate::log::CLOSED_BARS_KEPT * EVENT_BYTES;
        let delays = self.roles.delays().len();
        let shards = self.shards + delays;
        let copies = shards + 1;
        let state = self.limits.history.bytes * shards + bars * copies;
        let delayed = delays * self.delay_line_bytes;
        let sockets =
            (self.connections_max + SPARE_SOCKETS) * self.socket_bytes() + ADDRESSES_BYTES;
        let tls = if self.tls.is_some() {
            (self.connections_max + SPARE_SOCKETS) * TLS_BYTES
        } else {
            0
        };
        let responses = (self.http_requests + ADMIN_CONNECTIONS) * RESPONSE_BYTES;
        let (bodies, waiting) = self.publish_bytes();
        let publishing = PUBLISHES_AT_ONCE * self.publish_cost();
        // One Argon2 hash at a time.
        let hashing = match self.auth.scheme {
            SchemeSettings::Keys { .. } => ARGON2_BYTES_MAX,
            SchemeSettings::None | SchemeSettings::Jwt(_) => 0,
        };
        let total = self.connections_max * a_client
            + self.queue_bytes
            + self.log_bytes
            + delayed
            + state
            + sockets
            + tls
            + responses
            + bodies
            + publishing
            + waiting
            + hashing;
        let encrypted = summand(tls, "TLS");
        let waiting = summand(waiting, "waiting publish requests");
        let text = format!(
            "{} connections x {} KiB (outbox + control + 3 frames + 2 messages + topics x 512 B + 4 KiB) + {} MiB queue + {} MiB log + {} MiB delay lines + {} shards x {} MiB history + {} x {} MiB bars{encrypted} + HTTP ({} MiB sockets + {} MiB responses + {} MiB publish bodies + {} x {} MiB publish requests{waiting}) + {} MiB hashing of keys = {} MiB at most",
            self.connections_max,
            a_client >> 10,
            mib(self.queue_bytes),
            mib(self.log_bytes),
            mib(delayed),
            shards,
            mib(self.limits.history.bytes),
            copies,
            mib(bars),
            mib(sockets),
            mib(responses),
            mib(bodies),
            PUBLISHES_AT_ONCE,
            mib(self.publish_cost()),
            mib(hashing),
            mib(total),
        );
        (total as u64, text)
    }

    /// Maximum memory of publish bodies, and of publish requests that wait for a cluster, in bytes.
    const fn publish_bytes(&self) -> (usize, usize) {
        // The buffer of a body doubles as it grows.
        let bodies = PUBLISH_BODIES * 2 * self.publish_bytes_max;
        if self.cluster.is_none() {
            return (bodies, 0);
        }
        // A message between servers contains a copy.
        let messages = PUBLISH_BODIES * self.publish_bytes_max;
        (bodies, messages + PUBLISH_WAITS * PUBLISH_REPORT_BYTES)
    }

    /// Maximum memory of a socket in a handshake or serving HTTP, in bytes: a request head and a
    /// chunk to be written.
    const fn socket_bytes(&self) -> usize {
        2 * self.head_bytes_max
    }

    /// Maximum memory of one publish request, in bytes, in addition to its body: its events and the
    /// reported errors.
    const fn publish_cost(&self) -> usize {
        self.publish_events_max * crate::source::push::PushBatch::EVENT_BYTES + PUBLISH_ERRORS_BYTES
    }
}
