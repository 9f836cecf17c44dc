//! The wire contract, version 1, as types. Pure; `codec` makes and reads the bytes.
//!
//! What a client may ask stands in [`Request`], what the server says in [`Control`] and [`DataEvent`], what goes wrong in
//! [`Code`]. Both encodings, MessagePack and JSON, say the same. The public reference is `docs/protocol.md`.

mod code;
mod control;
mod data_event;
mod delivery;
mod encoding;
mod epoch;
mod request;
mod seq;
mod server_message;

pub use code::Code;
pub use control::{
    Authenticated, Bye, Control, Entry, Gap, GapCause, Heartbeat, InstrumentEntry, Instruments,
    Lag, LagLevel, LedgerAnswer, LedgerEntry, Limits, Pong, ProtocolError, Refusal, Snapshot,
    SourceChange, SourceCondition, SourceState, Subscribed, Subscriptions, TopicsChange,
    Unsubscribed, Welcome,
};
pub use data_event::DataEvent;
pub use delivery::{DeliveryWish, INTERVALS_MS, Mode, OnSlow, Settings};
pub use encoding::{Encoding, PerEncoding};
pub use epoch::Epoch;
pub use request::{BadRequest, Id, Op, Request, ResumeFrom, SnapshotWish, Subscribe, TopicsAsked};
pub use seq::Seq;
pub use server_message::ServerMessage;

/// The most bytes of a server message's payload, in every encoding.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// The smallest `max_message` that a client may ask for: every message that can't be cut is shorter.
pub const MESSAGE_BYTES_LEAST: usize = 4096;
