//! Wire protocol, version 1, as types. Pure; the crate's codec encodes and decodes them.
//!
//! A client sends a [`Request`]; the server sends arrays of [`DataEvent`]s and [`Control`]
//! messages. [`Code`] lists the errors. Both encodings, MessagePack and JSON, have the same
//! content. The reference is `docs/protocol.md`.
//!
//! # Requests
//!
//! ```
//! use tickcast::client::encode_request;
//! use tickcast::protocol::{
//!     DeliveryWish, Encoding, Id, Mode, OnSlow, Op, Request, ResumeFrom, Seq, SnapshotWish,
//!     Subscribe, TopicsAsked,
//! };
//!
//! let subscribe = Subscribe {
//!     topics: vec!["quote:BTC-*".into(), "trade:BTC-USD".into()],
//!     wish: DeliveryWish { on_slow: Some(OnSlow::Gap), ..DeliveryWish::default() },
//!     snapshot: Some(SnapshotWish::Events(10)),
//!     from: Some(ResumeFrom {
//!         epoch: "5d2f".to_owned(),
//!         seqs: vec![("trade:BTC-USD".into(), Seq(7))],
//!         epochs: Vec::new(),
//!     }),
//!     ..Subscribe::default()
//! };
//! let request = Request { id: Some(Id::Number(1)), op: Op::Subscribe(subscribe) };
//! let bytes = encode_request(&request, Encoding::Json);
//! assert!(bytes.starts_with(br#"{"op":"subscribe","#));
//!
//! let conflate = DeliveryWish { mode: Some(Mode::Conflate), ..DeliveryWish::default() };
//! let modify = Op::Modify { topics: vec!["quote:BTC-*".into()], wish: conflate };
//! let unsubscribe = Op::Unsubscribe(TopicsAsked::All);
//! # let _ = (modify, unsubscribe);
//! ```
//!
//! # Messages of the server
//!
//! [`decode_server_message`](crate::client::decode_server_message) reads one message. The match
//! below shows all control messages:
//!
//! ```
//! use tickcast::client::{DecodeError, decode_server_message};
//! use tickcast::protocol::{
//!     Authenticated, Bye, Code, Control, DataEvent, Encoding, Gap, GapCause, Heartbeat,
//!     InstrumentEntry, Instruments, Lag, LagLevel, LedgerAnswer, LedgerEntry, Limits, Pong,
//!     ProtocolError, Refusal, Seq, ServerMessage, Snapshot, SourceChange, SourceState, Subscribed,
//!     Subscriptions, TopicsChange, Unsubscribed, Welcome,
//! };
//!
//! fn line(control: &Control) -> String {
//!     match control {
//!         Control::Welcome(Welcome { limits: Limits { topics, .. }, .. }) => {
//!             format!("up to {topics} topics")
//!         }
//!         Control::Authenticated(Authenticated { expires, .. }) => format!("until {expires:?}"),
//!         Control::Subscribed(Subscribed { ok, err, .. }) => {
//!             let refused: Vec<&Refusal> = err.iter().collect();
//!             format!("{} subscribed, refused {refused:?}", ok.len())
//!         }
//!         Control::Unsubscribed(Unsubscribed { count, .. })
//!         | Control::Subscriptions(Subscriptions { count, .. }) => format!("{count} topics"),
//!         Control::Instruments(Instruments { instruments, .. }) => {
//!             format!("{} instruments", instruments.len())
//!         }
//!         Control::Pong(Pong { t, .. }) => format!("pong {t}"),
//!         Control::Snapshot(Snapshot { topic, seq, .. }) => format!("{topic} at {seq}"),
//!         Control::Gap(Gap { topic, n, cause: GapCause::Slow, .. }) => {
//!             format!("too slow for {n} of {topic}")
//!         }
//!         Control::Gap(Gap { topic, n, .. }) => format!("{n} events of {topic} are missing"),
//!         Control::Lag(Lag { level: LagLevel::Ok, .. }) => "caught up".into(),
//!         Control::Lag(lag) => format!("{} ms behind", lag.behind_ms),
//!         Control::Heartbeat(Heartbeat { delivered, .. }) => format!("{delivered} delivered"),
//!         Control::Ledger(LedgerAnswer { topics, .. }) => {
//!             let lost: u64 = topics.iter().map(|entry: &LedgerEntry| entry.lost).sum();
//!             format!("{lost} lost")
//!         }
//!         Control::Topics(TopicsChange { added, removed, .. }) => {
//!             format!("+{} -{}", added.len(), removed.len())
//!         }
//!         Control::Source(SourceChange { name, state: SourceState::Ended, .. }) => {
//!             format!("{name} ended")
//!         }
//!         Control::Source(change) => format!("{} is {}", change.name, change.state.name()),
//!         Control::Instrument(InstrumentEntry { symbol, price_scale, .. }) => {
//!             format!("{symbol}: {price_scale} decimals")
//!         }
//!         Control::Error(ProtocolError { code, message, .. })
//!             if *code == Code::RateLimit.number() =>
//!         {
//!             message.clone()
//!         }
//!         Control::Error(error) => error.message.clone(),
//!         Control::Bye(Bye { reconnect, after_ms, .. }) => {
//!             format!("reconnect: {reconnect}, in {after_ms} ms")
//!         }
//!         Control::Unknown => "of a later version".into(),
//!     }
//! }
//!
//! # fn main() -> Result<(), DecodeError> {
//! let message = br#"{"op":"gap","topic":"trade:A",
//!     "epoch":"5d2f","from":8,"to":9,"n":2,"cause":"slow"}"#;
//! if let ServerMessage::Control(control) = decode_server_message(message, Encoding::Json)? {
//!     assert_eq!(line(&control), "too slow for 2 of trade:A");
//! }
//! let event = br#"[{"ch":"trade","sym":"A","seq":8,"ts":1,"tx":2,
//!     "px":"1","qty":"1","side":"none"}]"#;
//! if let ServerMessage::Events(events) = decode_server_message(event, Encoding::Json)? {
//!     let numbers: Vec<Seq> = events.iter().map(|event: &DataEvent| event.seq).collect();
//!     assert_eq!(numbers, [Seq(8)]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Vocabulary of servers
//!
//! ```
//! use tickcast::protocol::{Entry, Epoch, Mode, OnSlow, PerEncoding, Settings};
//! use tickcast::topic::Channel;
//!
//! // Default delivery settings of a channel, as a client sees them in an `Entry`.
//! let settings = Settings::default_of(Channel::Quote);
//! assert_eq!(settings, Settings { mode: Mode::Raw, on_slow: OnSlow::Conflate });
//! let is_default = |entry: &Entry| entry.mode == settings.mode.name();
//! # let _ = is_default;
//!
//! // An epoch ends when the source of a topic starts over.
//! let epoch = Epoch { origin: 0x5d2f, generation: 0 };
//! assert_eq!(Epoch::parse(&epoch.next().to_string()), Some(epoch.next()));
//!
//! // One value per encoding.
//! let names = PerEncoding::from_fn(|encoding| encoding.name());
//! assert_eq!(names.iter().count(), 2);
//! ```

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
    SourceChange, SourceState, Subscribed, Subscriptions, TopicsChange, Unsubscribed, Welcome,
};
pub use data_event::DataEvent;
pub(crate) use delivery::PackedSettings;
pub use delivery::{DeliveryWish, INTERVALS_MS, Mode, OnSlow, Settings};
pub use encoding::{Encoding, PerEncoding};
pub use epoch::Epoch;
pub use request::{Id, Op, Request, ResumeFrom, SnapshotWish, Subscribe, TopicsAsked};
pub use seq::Seq;
pub use server_message::ServerMessage;

/// Maximum payload size of a server message, in bytes, in every encoding.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;
/// Smallest `max_message` that a client may request, in bytes: all messages that cannot be split
/// are shorter.
pub const MESSAGE_BYTES_LEAST: usize = 4096;
