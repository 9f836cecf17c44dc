//! Conversion between typed messages and bytes, in MessagePack and JSON: the only module that
//! encodes frames. Pure.
//!
//! | typed | to bytes | from bytes |
//! |---|---|---|
//! | [`Body`](crate::market::Body) of an event | [`encode_event`], once per encoding | [`decode_server_message`] |
//! | [`EventRef`], the head of an event | | [`visit_events`], without an allocation |
//! | [`Control`](crate::protocol::Control) | [`encode_control`], [`encode_parts`] | [`decode_server_message`] |
//! | snapshot | [`write_snapshot`], around events that are encoded | [`decode_server_message`] |
//! | [`Request`](crate::protocol::Request) | [`encode_request`] | [`decode_request`] |
//!
//! A data event is encoded once, by the log or the last-value cache, and shared by all its clients;
//! an outbox copies the bytes. Control messages remain typed until an outbox writes them to its
//! frame buffer.

mod decode;
mod decode_error;
mod event;
mod event_ref;
mod fields;
mod message;
mod read;
mod request_fault;
mod value;

pub use decode::{BadRequest, decode_request};
pub use decode_error::DecodeError;
pub use event::{EventHead, encode_event};
pub use event_ref::{EventRef, visit_events};
pub(crate) use message::is_event_array;
pub use message::{
    SnapshotHead, decode_server_message, encode_control, encode_parts, encode_request,
    write_snapshot,
};
