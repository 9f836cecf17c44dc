//! Message payloads: control maps, snapshots, responses in parts, and their decoding by the client.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::decode_error::{DecodeError, MessageFault};
use super::event::Flat;
use super::read;
use crate::printable::{printable, shortened};
use crate::protocol::{
    Control, DataEvent, DeliveryWish, Encoding, Entry, Mode, Op, Request, Seq, ServerMessage,
    Snapshot, SnapshotWish, TopicsAsked,
};

/// Maximum number of characters of an error in decoding a control message.
const ERROR_CHARS_MAX: usize = 200;

/// Encodes a control message as one payload.
pub fn encode_control(control: &Control, encoding: Encoding) -> Vec<u8> {
    serialize(control, encoding)
}

fn serialize<T: Serialize>(value: &T, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Msgpack => rmp_serde::to_vec_named(value)
            .expect("control messages hold nothing that MessagePack lacks"),
        Encoding::Json => {
            serde_json::to_vec(value).expect("control messages hold nothing that JSON lacks")
        }
    }
}

/// Appends a `snapshot` map around encoded events.
pub fn write_snapshot<'a>(
    out: &mut Vec<u8>,
    encoding: Encoding,
    head: &SnapshotHead<'_>,
    count: usize,
    events: impl Iterator<Item = &'a [u8]>,
) {
    match encoding {
        Encoding::Msgpack => {
            // The map has one entry more than the head: patch the map marker and append `events`.
            let at = out.len();
            out.extend_from_slice(&serialize(head, encoding));
            out[at] += 1;
            out.extend_from_slice(b"\xa6events");
            rmp::encode::write_array_len(out, count as u32).expect("a Vec takes all");
            for event in events {
                out.extend_from_slice(event);
            }
        }
        Encoding::Json => {
            out.extend_from_slice(&serialize(head, encoding));
            out.pop();
            out.extend_from_slice(b",\"events\":[");
            for (at, event) in events.enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(event);
            }
            out.extend_from_slice(b"]}");
        }
    }
}

/// Head of a `snapshot`: all fields except its events.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename = "snapshot")]
pub struct SnapshotHead<'a> {
    /// Name of the topic.
    pub topic: &'a str,
    /// Epoch of the topic.
    pub epoch: &'a str,
    /// Sequence number of the newest event included.
    pub seq: Seq,
}

/// Encodes a control message as one payload, or as several if it would exceed `bytes_max`; all
/// parts but the last contain `more`.
pub fn encode_parts(control: &Control, encoding: Encoding, bytes_max: usize) -> Vec<Vec<u8>> {
    let whole = encode_control(control, encoding);
    if whole.len() <= bytes_max {
        return vec![whole];
    }
    let [first, second] = halves(control);
    let mut parts = encode_parts(&first, encoding, bytes_max);
    parts.extend(encode_parts(&second, encoding, bytes_max));
    parts
}

fn halves(control: &Control) -> [Control; 2] {
    let (mut first, mut second) = (control.clone(), control.clone());
    match (&mut first, &mut second) {
        (Control::Subscribed(a), Control::Subscribed(b)) => {
            a.more = true;
            split_pair([(&mut a.ok, &mut b.ok)]);
            split_list(&mut a.err, &mut b.err);
        }
        (Control::Unsubscribed(a), Control::Unsubscribed(b)) => {
            a.more = true;
            split_list(&mut a.topics, &mut b.topics);
            split_pair([(&mut a.ok, &mut b.ok)]);
            split_list(&mut a.err, &mut b.err);
        }
        (Control::Subscriptions(a), Control::Subscriptions(b)) => {
            a.more = true;
            split_pair([(&mut a.ok, &mut b.ok)]);
        }
        (Control::Instruments(a), Control::Instruments(b)) => {
            a.more = true;
            split_list(&mut a.instruments, &mut b.instruments);
        }
        (Control::Ledger(a), Control::Ledger(b)) => {
            a.more = true;
            split_list(&mut a.topics, &mut b.topics);
        }
        (Control::Topics(a), Control::Topics(b)) => {
            a.more = true;
            split_pair([(&mut a.added, &mut b.added)]);
            split_list(&mut a.removed, &mut b.removed);
            split_list(&mut a.err, &mut b.err);
        }
        _ => unreachable!("only answers with lists grow beyond a message"),
    }
    [first, second]
}

fn split_list<T>(first: &mut Vec<T>, second: &mut Vec<T>) {
    let middle = first.len().div_ceil(2);
    first.truncate(middle);
    second.drain(..middle);
}

/// Splits the entries in half; a single pattern is split into two entries of the same pattern.
fn split_pair(lists: [(&mut Vec<Entry>, &mut Vec<Entry>); 1]) {
    let [(first, second)] = lists;
    if let (
        [
            Entry {
                matched: Some(a), ..
            },
        ],
        [
            Entry {
                matched: Some(b), ..
            },
        ],
    ) = (&mut first[..], &mut second[..])
    {
        split_list(a, b);
        return;
    }
    split_list(first, second);
}

/// Decodes a server message.
pub fn decode_server_message(
    bytes: &[u8],
    encoding: Encoding,
) -> Result<ServerMessage, DecodeError> {
    if is_event_array(bytes, encoding) {
        let events = match encoding {
            Encoding::Msgpack => read::events(bytes)?,
            Encoding::Json => deserialize::<Events>(bytes, encoding)?.0,
        };
        return Ok(ServerMessage::Events(events));
    }
    if encoding == Encoding::Msgpack {
        // serde reserves memory by announced lengths, once per level.
        read::check_complete(bytes)?;
    }
    Ok(ServerMessage::Control(deserialize(bytes, encoding)?))
}

/// True if a server message is an array of events, not a control message.
pub(crate) fn is_event_array(bytes: &[u8], encoding: Encoding) -> bool {
    match (encoding, bytes.first()) {
        (Encoding::Msgpack, Some(marker)) => matches!(marker, 0x90..=0x9f | 0xdc | 0xdd),
        (Encoding::Json, Some(first)) => *first == b'[',
        (_, None) => false,
    }
}

/// Error of a parser, which may quote the message.
fn malformed(error: &impl fmt::Display) -> DecodeError {
    let text = shortened(&error.to_string(), ERROR_CHARS_MAX);
    MessageFault::Malformed(printable(&text).into_owned()).into()
}

fn deserialize<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    encoding: Encoding,
) -> Result<T, DecodeError> {
    match encoding {
        Encoding::Msgpack => rmp_serde::from_slice(bytes).map_err(|error| malformed(&error)),
        Encoding::Json => serde_json::from_slice(bytes).map_err(|error| malformed(&error)),
    }
}

struct Events(Vec<DataEvent>);

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Events;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of events")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Events, A::Error> {
                let mut events = Vec::new();
                while let Some(flat) = access.next_element::<Flat<'_>>()? {
                    events.extend(flat.into_event().map_err(serde::de::Error::custom)?);
                }
                Ok(Events(events))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

#[derive(Deserialize)]
struct SnapshotFields {
    topic: String,
    epoch: String,
    seq: Seq,
    events: Events,
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = SnapshotFields::deserialize(deserializer)?;
        Ok(Self {
            topic: fields.topic,
            epoch: fields.epoch,
            seq: fields.seq,
            events: fields.events.0,
        })
    }
}

impl Serialize for Snapshot {
    /// Never called by the server, which writes snapshots around encoded events (`write_snapshot`).
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(
            "a snapshot is written by write_snapshot",
        ))
    }
}

/// Encodes a request as a client sends it.
pub fn encode_request(request: &Request, encoding: Encoding) -> Vec<u8> {
    serialize(request, encoding)
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Fields { map: Vec::new() };
        map.put("op", self.op.name());
        if let Some(id) = &self.id {
            map.put("id", id);
        }
        self.op.write(&mut map);
        let mut out = serializer.serialize_map(Some(map.map.len()))?;
        for (key, value) in map.map {
            out.serialize_entry(key, &value)?;
        }
        out.end()
    }
}

struct Fields {
    map: Vec<(&'static str, serde_json::Value)>,
}

impl Fields {
    fn put(&mut self, key: &'static str, value: impl Serialize) {
        self.map.push((
            key,
            serde_json::to_value(value).expect("a request's fields are plain values"),
        ));
    }

    fn put_wish(&mut self, wish: DeliveryWish) {
        if let Some(mode) = wish.mode {
            self.put("mode", mode.name());
        }
        let interval_ms = wish
            .interval_ms
            .or(wish.mode.and_then(Mode::interval_ms))
            .filter(|ms| *ms > 0);
        if let Some(ms) = interval_ms {
            self.put("interval_ms", ms);
        }
        if let Some(on_slow) = wish.on_slow {
            self.put("on_slow", on_slow);
        }
    }
}

impl Op {
    fn write(&self, map: &mut Fields) {
        match self {
            Self::Subscribe(subscribe) => {
                map.put("topics", &subscribe.topics);
                map.put_wish(subscribe.wish);
                match subscribe.snapshot {
                    None => {}
                    Some(SnapshotWish::Yes) => map.put("snapshot", true),
                    Some(SnapshotWish::No) => map.put("snapshot", false),
                    Some(SnapshotWish::Events(n)) => map.put("snapshot", n),
                }
                if let Some(from) = &subscribe.from {
                    let seqs: serde_json::Map<_, _> = from
                        .seqs
                        .iter()
                        .map(|(t, seq)| (t.to_string(), seq.0.into()))
                        .collect();
                    let epochs: serde_json::Map<_, _> = from
                        .epochs
                        .iter()
                        .map(|(t, epoch)| (t.to_string(), epoch.as_str().into()))
                        .collect();
                    map.put(
                        "from",
                        serde_json::json!({"epoch": from.epoch, "seqs": seqs, "epochs": epochs}),
                    );
                }
                if subscribe.atomic {
                    map.put("atomic", true);
                }
                if let Some(bytes) = subscribe.max_message {
                    map.put("max_message", bytes);
                }
            }
            Self::Unsubscribe(TopicsAsked::All) => map.put("all", true),
            Self::Unsubscribe(TopicsAsked::These(topics)) | Self::Resync { topics } => {
                map.put("topics", topics);
            }
            Self::Modify { topics, wish } => {
                map.put("topics", topics);
                map.put_wish(*wish);
            }
            Self::Instruments { pattern } => map.put("pattern", pattern),
            Self::Ping { t } => map.put("t", t),
            Self::Auth { token } => map.put("token", token),
            Self::Subscriptions | Self::Ledger => {}
        }
    }
}
