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

/// A control message (protocol, *Control messages*).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Control {
    /// The first message.
    Welcome(Welcome),
    /// Answers `auth`.
    Authenticated(Authenticated),
    /// Answers `subscribe`, `modify` and `resync`.
    Subscribed(Subscribed),
    /// Answers `unsubscribe`.
    Unsubscribed(Unsubscribed),
    /// Answers `subscriptions`.
    Subscriptions(Subscriptions),
    /// Answers `instruments`.
    Instruments(Instruments),
    /// Answers `ping`.
    Pong(Pong),
    /// A topic's state at a sequence number.
    Snapshot(Snapshot),
    /// Events that won't come.
    Gap(Gap),
    /// Lag level of the client.
    Lag(Lag),
    /// The accounts' sums.
    Heartbeat(Heartbeat),
    /// Answers `ledger`.
    Ledger(LedgerAnswer),
    /// Change of the topics that subscribed patterns match.
    Topics(TopicsChange),
    /// A source of a held topic changed.
    Source(SourceChange),
    /// An instrument of a held topic is described otherwise now.
    Instrument(InstrumentEntry),
    /// A request failed as a whole.
    Error(ProtocolError),
    /// The server closes.
    Bye(Bye),
    /// A message of a later version; a client ignores it.
    #[serde(other)]
    Unknown,
}

/// True for a flag that stands for itself by its absence.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
