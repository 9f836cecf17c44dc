//! The wire contract, version 1, as types and bytes. Pure.
//!
//! What a client may ask stands in [`Request`], what the server says in [`Control`] and [`DataEvent`], what goes wrong in
//! [`Code`]. Both encodings, MessagePack and JSON, say the same. The public reference is `docs/protocol.md`.

mod code;
mod control;
mod decode;
mod delivery;
mod epoch;
mod event;
mod fields;
mod message;
mod read;
mod request;
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
pub use epoch::Epoch;
pub use event::{DataEvent, EventHead, encode_event};
pub use message::{
    DecodeError, ServerMessage, SnapshotHead, decode_server_message, encode_control, encode_parts,
    encode_request, write_snapshot,
};
pub use request::{BadRequest, From, Id, Op, Request, SnapshotWish, Subscribe, TopicsAsked};

/// The most bytes of a server message's payload, in every encoding.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// The smallest `max_message` that a client may ask for: every message that can't be cut is shorter.
pub const MESSAGE_BYTES_LEAST: usize = 4096;

/// Wire encoding of a connection's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// MessagePack in binary frames.
    Msgpack,
    /// JSON in text frames.
    Json,
}

impl Encoding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Msgpack, Self::Json];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Msgpack => "msgpack",
            Self::Json => "json",
        }
    }

    /// The WebSocket subprotocol that asks for it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Msgpack => "tickcast.v1.msgpack",
            Self::Json => "tickcast.v1.json",
        }
    }

    /// Reads the word on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.name() == text)
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Msgpack => 0,
            Self::Json => 1,
        }
    }
}
