//! The wire contract, version 1, as types and bytes. Pure.
//!
//! What a client may ask stands in [`Request`], what the server says in [`Control`] and [`DataEvent`], what goes wrong in
//! [`Code`]. Both encodings, MessagePack and JSON, say the same. The public reference is `docs/protocol.md`.

mod code;
mod control;
mod decode;
mod delivery;
mod encoding;
mod epoch;
mod event;
mod fields;
mod message;
mod read;
mod request;
mod seq;
mod value;

pub use code::Code;
pub use control::{
    Authenticated, Bye, Control, Entry, Gap, GapCause, Heartbeat, InstrumentEntry, Instruments,
    Lag, LagLevel, LedgerAnswer, LedgerEntry, Limits, Pong, ProtocolError, Refusal, Snapshot,
    SourceChange, SourceCondition, SourceState, Subscribed, Subscriptions, TopicsChange,
    Unsubscribed, Welcome,
};
pub use decode::decode_request;
pub use delivery::{DeliveryWish, INTERVALS_MS, Mode, OnSlow, Settings};
pub use encoding::{Encoding, PerEncoding};
pub use epoch::Epoch;
pub use event::{DataEvent, EventHead, encode_event};
pub use message::{
    DecodeError, ServerMessage, SnapshotHead, decode_server_message, encode_control, encode_parts,
    encode_request, write_snapshot,
};
pub use request::{BadRequest, Id, Op, Request, ResumeFrom, SnapshotWish, Subscribe, TopicsAsked};
pub use seq::Seq;

/// The most bytes of a server message's payload, in every encoding.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// The smallest `max_message` that a client may ask for: every message that can't be cut is shorter.
pub const MESSAGE_BYTES_LEAST: usize = 4096;
