//! Control messages of the server: one map per message, distinguished by `op`.

mod connection;
mod delivery;
mod footprint;
mod market;
mod subscription;

pub use connection::{Authenticated, Bye, Limits, Pong, ProtocolError, Welcome};
pub use delivery::{Gap, GapCause, Heartbeat, Lag, LagLevel, LedgerAnswer, LedgerEntry, Snapshot};
pub use market::{InstrumentEntry, Instruments, SourceChange, SourceState};
pub use subscription::{Entry, Refusal, Subscribed, Subscriptions, TopicsChange, Unsubscribed};

use serde::{Deserialize, Serialize};

/// Control message (protocol, *Control messages*).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Control {
    /// First message of a connection.
    Welcome(Welcome),
    /// Response to `auth`.
    Authenticated(Authenticated),
    /// Response to `subscribe`, `modify` and `resync`.
    Subscribed(Subscribed),
    /// Response to `unsubscribe`.
    Unsubscribed(Unsubscribed),
    /// Response to `subscriptions`.
    Subscriptions(Subscriptions),
    /// Response to `instruments`.
    Instruments(Instruments),
    /// Response to `ping`.
    Pong(Pong),
    /// State of a topic at a sequence number.
    Snapshot(Snapshot),
    /// Events that will not be delivered.
    Gap(Gap),
    /// Lag level of the client.
    Lag(Lag),
    /// Periodic totals of the ledger.
    Heartbeat(Heartbeat),
    /// Response to `ledger`.
    Ledger(LedgerAnswer),
    /// Change of the topics that subscribed patterns match.
    Topics(TopicsChange),
    /// State change of a source of a subscribed topic.
    Source(SourceChange),
    /// Changed description of an instrument of a subscribed topic.
    Instrument(InstrumentEntry),
    /// Error response: a request failed as a whole.
    Error(ProtocolError),
    /// Last message before the server closes the connection.
    Bye(Bye),
    /// Message of a later protocol version; clients ignore it.
    #[serde(other)]
    Unknown,
}

/// True for a flag whose default value is omitted on the wire.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "signature required by serde"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}
