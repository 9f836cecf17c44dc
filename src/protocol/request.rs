use serde::{Deserialize, Serialize};

use super::value::Value;
use super::{DeliveryWish, Encoding, INTERVALS_MS, MESSAGE_BYTES_LEAST, Mode, OnSlow};

/// The largest integer that every client can hold exactly: 2^53.
const INTEGER_MAX: i128 = 1 << 53;
const ID_TEXT_MAX: usize = 36;
/// No topic or pattern is nearly as long.
const TOPIC_BYTES_MAX: usize = 128;

/// A client's own name for a request; the answer repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// 0 … 2^53 − 1.
    Number(u64),
    /// Up to 36 characters.
    Text(String),
}

/// One request of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `None` where it had none.
    pub id: Option<Id>,
    /// What it asks.
    pub op: Op,
}

/// What a client can ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Begin to receive topics, or set what is held anew.
    Subscribe(Subscribe),
    /// Stop receiving.
    Unsubscribe(TopicsAsked),
    /// Change the delivery of what is held.
    Modify {
        /// The subscriptions, in the words they were made with.
        topics: Vec<String>,
        /// What changes.
        wish: DeliveryWish,
    },
    /// A snapshot for each.
    Resync {
        /// What is held.
        topics: Vec<String>,
    },
    /// What is held, and how.
    Subscriptions,
    /// What there is.
    Instruments {
        /// A symbol, which may be `*` or end in `*`.
        pattern: String,
    },
    /// The accounts.
    Ledger,
    /// The server's time.
    Ping {
        /// Comes back as it is.
        t: i64,
    },
    /// Who the client is.
    Auth {
        /// Its proof.
        token: String,
    },
}

/// What `unsubscribe` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicsAsked {
    /// `all: true`.
    All,
    /// These subscriptions.
    These(Vec<String>),
}

/// A `subscribe`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subscribe {
    /// Topics and patterns, as texts.
    pub topics: Vec<String>,
    /// The delivery asked for.
    pub wish: DeliveryWish,
    /// The snapshot asked for; `None` where the request says nothing of it.
    pub snapshot: Option<SnapshotWish>,
    /// Where a broken connection had come to.
    pub from: Option<From>,
    /// All or nothing.
    pub atomic: bool,
    /// Bytes of the largest message that the client takes from here on.
    pub max_message: Option<u64>,
}

/// What a `subscribe` says of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWish {
    /// `true`.
    Yes,
    /// `false`.
    No,
    /// At most so many events, at least 1.
    Events(u64),
}

/// Where a broken connection had come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct From {
    /// The server's epoch.
    pub epoch: String,
    /// The last sequence number taken in, by topic.
    pub seqs: Vec<(String, u64)>,
    /// The epoch of topics that have another.
    pub epochs: Vec<(String, String)>,
}

/// Why a request isn't one; answered by `error` 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// The request's id, where it could be read.
    pub id: Option<Id>,
    /// Names the field, and says what would be right.
    pub message: String,
}

/// Reads one message of a client. Never panics, and allocates no more than a small multiple of `bytes`.
pub fn decode_request(bytes: &[u8], encoding: Encoding) -> Result<Request, BadRequest> {
    let no_id = |message| BadRequest { id: None, message };
    let parsed = Value::parse(bytes, encoding).map_err(|error| {
        no_id(format!(
            "the message is no {} map: {error}",
            encoding.name()
        ))
    })?;
    let Value::Map(entries) = parsed.value else {
        return Err(no_id(format!(
            "a request is a map with `op`, but this is {}",
            parsed.value.kind()
        )));
    };
    let mut fields = Fields(entries);
    let id = fields.id().map_err(no_id)?;
    let op = match parsed.fault {
        Some(fault) => Err(fault),
        None => decode_op(&mut fields),
    };
    match op {
        Ok(op) => Ok(Request { id, op }),
        Err(message) => Err(BadRequest { id, message }),
    }
}

fn decode_op(fields: &mut Fields) -> Result<Op, String> {
    let Some(op) = fields.text("op")? else {
        return Err("`op` is missing".into());
    };
    match op.as_str() {
        "subscribe" => Ok(Op::Subscribe(Subscribe {
            topics: fields.topics()?,
            wish: fields.wish(true)?,
            snapshot: fields.snapshot()?,
            from: fields.from()?,
            atomic: fields.flag("atomic")?.unwrap_or(false),
            max_message: fields.max_message()?,
        })),
        "unsubscribe" => match fields.flag("all")? {
            Some(true) => Ok(Op::Unsubscribe(TopicsAsked::All)),
            _ => Ok(Op::Unsubscribe(TopicsAsked::These(fields.topics()?))),
        },
        "modify" => {
            let (topics, wish) = (fields.topics()?, fields.wish(false)?);
            if wish == DeliveryWish::default() {
                return Err("`modify` needs one of `mode`, `interval_ms`, `on_slow`".into());
            }
            Ok(Op::Modify { topics, wish })
        }
        "resync" => Ok(Op::Resync {
            topics: fields.topics()?,
        }),
        "subscriptions" => Ok(Op::Subscriptions),
        "instruments" => Ok(Op::Instruments {
            pattern: fields.text("pattern")?.unwrap_or_else(|| "*".into()),
        }),
        "ledger" => Ok(Op::Ledger),
        "ping" => {
            let t = fields
                .integer("t")?
                .ok_or("`t` is missing; it is an integer that comes back in `pong`")?;
            if t.abs() > INTEGER_MAX {
                return Err("`t` must be an integer from -2^53 to 2^53".into());
            }
            Ok(Op::Ping { t: t as i64 })
        }
        "auth" => Ok(Op::Auth {
            token: fields.text("token")?.ok_or("`token` is missing")?,
        }),
        other => Err(format!(
            "`op` \"{}\" is unknown; there are subscribe, unsubscribe, modify, resync, subscriptions, instruments, ledger, ping, auth",
            other
                .chars()
                .take(40)
                .flat_map(char::escape_debug)
                .collect::<String>()
        )),
    }
}

/// A request's fields, each taken out as it is read; `null` means absent.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(at).1).filter(|value| *value != Value::Null)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(format!("`{key}` must be a text, but is {}", other.kind())),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(format!(
                "`{key}` must be true or false, but is {}",
                other.kind()
            )),
        }
    }

    fn integer(&mut self, key: &str) -> Result<Option<i128>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Int(value)) => Ok(Some(value)),
            Some(other) => Err(format!(
                "`{key}` must be an integer, but is {}",
                other.kind()
            )),
        }
    }

    fn id(&mut self) -> Result<Option<Id>, String> {
        match self.take("id") {
            None => Ok(None),
            Some(Value::Int(number)) if (0..INTEGER_MAX).contains(&number) => {
                Ok(Some(Id::Number(number as u64)))
            }
            Some(Value::Text(text)) if text.chars().count() <= ID_TEXT_MAX => {
                Ok(Some(Id::Text(text)))
            }
            Some(_) => Err(
                "`id` must be an integer from 0 to 2^53 - 1, or a text of up to 36 characters"
                    .into(),
            ),
        }
    }

    fn topics(&mut self) -> Result<Vec<String>, String> {
        match self.take("topics") {
            None => Err("`topics` is missing; it is a list of topics or patterns".into()),
            Some(Value::List(items)) => items.into_iter().map(topic_text).collect(),
            Some(other) => Err(format!(
                "`topics` must be a list of texts, but is {}",
                other.kind()
            )),
        }
    }

    /// `whole`: what isn't given has its default, so `interval` needs its `interval_ms` here.
    fn wish(&mut self, whole: bool) -> Result<DeliveryWish, String> {
        let interval_ms = self.integer("interval_ms")?;
        let mode = match self.text("mode")?.as_deref() {
            None => None,
            Some("raw") => Some(Mode::Raw),
            Some("conflate") => Some(Mode::Conflate),
            Some("interval") => Some(Mode::Interval(0)),
            Some(other) => return Err(unknown_value("mode", other, "raw, conflate, interval")),
        };
        let on_slow = match self.text("on_slow")?.as_deref() {
            None => None,
            Some("conflate") => Some(OnSlow::Conflate),
            Some("gap") => Some(OnSlow::Gap),
            Some("disconnect") => Some(OnSlow::Disconnect),
            Some(other) => {
                return Err(unknown_value("on_slow", other, "conflate, gap, disconnect"));
            }
        };
        let counts = matches!(mode, Some(Mode::Interval(_))) || (mode.is_none() && !whole);
        let interval_ms = match interval_ms.filter(|_| counts) {
            None => None,
            Some(ms) => Some(
                INTERVALS_MS
                    .into_iter()
                    .find(|known| i128::from(*known) == ms)
                    .ok_or_else(|| format!("`interval_ms` {ms} is not on the list: 10, 25, 50, 100, 250, 500, 1000, 5000"))?,
            ),
        };
        if whole && matches!(mode, Some(Mode::Interval(_))) && interval_ms.is_none() {
            return Err(
                "mode `interval` needs `interval_ms`: 10, 25, 50, 100, 250, 500, 1000 or 5000"
                    .into(),
            );
        }
        Ok(DeliveryWish {
            mode,
            interval_ms,
            on_slow,
        })
    }

    fn max_message(&mut self) -> Result<Option<u64>, String> {
        let bytes = self.integer("max_message")?;
        if bytes.is_some_and(|bytes| !(MESSAGE_BYTES_LEAST as i128..INTEGER_MAX).contains(&bytes)) {
            return Err(format!(
                "`max_message` must be a number of bytes, at least {MESSAGE_BYTES_LEAST}"
            ));
        }
        Ok(bytes.map(|bytes| bytes as u64))
    }

    fn snapshot(&mut self) -> Result<Option<SnapshotWish>, String> {
        match self.take("snapshot") {
            None => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(SnapshotWish::Yes)),
            Some(Value::Bool(false)) => Ok(Some(SnapshotWish::No)),
            Some(Value::Int(events)) if (1..INTEGER_MAX).contains(&events) => {
                Ok(Some(SnapshotWish::Events(events as u64)))
            }
            Some(_) => {
                Err("`snapshot` must be true, false, or how many events at most (from 1)".into())
            }
        }
    }

    fn from(&mut self) -> Result<Option<From>, String> {
        let mut fields = match self.take("from") {
            None => return Ok(None),
            Some(Value::Map(entries)) => Self(entries),
            Some(other) => return Err(format!("`from` must be a map, but is {}", other.kind())),
        };
        let epoch = fields
            .text("epoch")
            .map_err(in_from)?
            .ok_or("`from.epoch` is missing")?;
        let seqs = fields
            .entries("seqs")?
            .into_iter()
            .map(|(topic, value)| match value {
                Value::Int(seq) if (0..INTEGER_MAX).contains(&seq) => Ok((topic, seq as u64)),
                _ => Err(
                    "`from.seqs` must hold an integer from 0 to 2^53 - 1 for each topic".to_owned(),
                ),
            });
        let seqs = seqs.collect::<Result<Vec<_>, _>>()?;
        if seqs
            .iter()
            .any(|(topic, _): &(String, u64)| topic.len() > TOPIC_BYTES_MAX)
        {
            return Err(format!(
                "`from.seqs` must name topics of up to {TOPIC_BYTES_MAX} bytes"
            ));
        }
        let epochs = fields
            .entries("epochs")?
            .into_iter()
            .map(|(topic, value)| match value {
                Value::Text(epoch) => Ok((topic, epoch)),
                _ => Err("`from.epochs` must hold a text for each topic".to_owned()),
            });
        let epochs = epochs.collect::<Result<Vec<_>, _>>()?;
        Ok(Some(From {
            epoch,
            seqs,
            epochs,
        }))
    }

    fn entries(&mut self, key: &str) -> Result<Vec<(String, Value)>, String> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Map(entries)) => Ok(entries
                .into_iter()
                .filter(|(_, value)| *value != Value::Null)
                .collect()),
            Some(other) => Err(format!(
                "`from.{key}` must be a map by topic, but is {}",
                other.kind()
            )),
        }
    }
}

fn topic_text(item: Value) -> Result<String, String> {
    match item {
        Value::Text(text) if text.len() <= TOPIC_BYTES_MAX => Ok(text),
        Value::Text(_) => Err(format!(
            "`topics` must hold texts of up to {TOPIC_BYTES_MAX} bytes"
        )),
        other => Err(format!(
            "`topics` must hold texts, but holds {}",
            other.kind()
        )),
    }
}

fn in_from(message: String) -> String {
    message.replacen('`', "`from.", 1)
}

fn unknown_value(field: &str, given: &str, known: &str) -> String {
    let given: String = given
        .chars()
        .take(40)
        .flat_map(char::escape_debug)
        .collect();
    format!("`{field}` \"{given}\" is unknown; there are {known}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Result<Request, BadRequest> {
        decode_request(text.as_bytes(), Encoding::Json)
    }

    fn error(text: &str) -> String {
        json(text).map_or_else(|bad| bad.message, |_| String::new())
    }

    #[test]
    fn what_is_wrong_names_the_field() {
        assert!(error("[]").contains("a list"));
        assert!(error("{}").contains("`op` is missing"));
        assert!(error(r#"{"op":"jump"}"#).contains("\"jump\" is unknown"));
        assert!(error(r#"{"op":"subscribe"}"#).contains("`topics` is missing"));
        assert!(error(r#"{"op":"subscribe","topics":[1]}"#).contains("holds an integer"));
        assert!(
            error(r#"{"op":"subscribe","topics":[],"mode":"interval"}"#)
                .contains("needs `interval_ms`")
        );
        assert!(
            error(r#"{"op":"subscribe","topics":[],"mode":"interval","interval_ms":11}"#)
                .contains("not on the list")
        );
        assert!(error(r#"{"op":"ping","t":1.0}"#).contains("a float"));
        assert!(error(r#"{"op":"ping","t":1,"t":2}"#).contains("stands twice"));
        assert!(error(r#"{"op":"modify","topics":[]}"#).contains("needs one of"));
        assert!(
            error(r#"{"op":"subscribe","topics":[],"from":{"seqs":{}}}"#)
                .contains("`from.epoch` is missing")
        );
    }

    #[test]
    fn an_id_is_read_though_the_rest_is_wrong() {
        assert_eq!(
            json(r#"{"id":7,"op":1}"#).map_err(|bad| bad.id),
            Err(Some(Id::Number(7)))
        );
        assert_eq!(
            json(r#"{"id":"a","op":"x","op":"y"}"#).map_err(|bad| bad.id),
            Err(Some(Id::Text("a".into())))
        );
        assert_eq!(
            json(r#"{"id":-1,"op":"ledger"}"#).map_err(|bad| bad.id),
            Err(None)
        );
        assert_eq!(
            json(r#"{"id":9007199254740992,"op":"ledger"}"#).map_err(|bad| bad.id),
            Err(None)
        );
    }

    #[test]
    fn null_means_absent_and_unknown_keys_are_ignored() {
        let request = json(
            r#"{"id":null,"op":"subscribe","topics":["trade:A"],"mode":null,"colour":[1.5,{}]}"#,
        );
        let Ok(Request {
            id: None,
            op: Op::Subscribe(subscribe),
        }) = request
        else {
            panic_free(&request)
        };
        assert_eq!(subscribe.wish, DeliveryWish::default());
    }

    #[expect(clippy::panic, reason = "a test says what it saw")]
    fn panic_free(request: &Result<Request, BadRequest>) -> ! {
        panic!("{request:?}")
    }

    #[test]
    fn an_interval_beside_another_mode_is_ignored() {
        let request = json(r#"{"op":"subscribe","topics":[],"mode":"raw","interval_ms":11}"#);
        assert!(
            matches!(request, Ok(Request { op: Op::Subscribe(s), .. }) if s.wish.mode == Some(Mode::Raw))
        );
    }

    #[test]
    fn bombs_are_refused() {
        let deep = "[".repeat(60_000);
        assert!(json(&deep).is_err());
        let deep = vec![0x91u8; 60_000];
        assert!(decode_request(&deep, Encoding::Msgpack).is_err());
        assert!(decode_request(&[0xdd, 0xff, 0xff, 0xff, 0xff], Encoding::Msgpack).is_err());
        assert!(decode_request(&[0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1], Encoding::Msgpack).is_err());
        assert!(decode_request(&[0x81, 0x01, 0x02], Encoding::Msgpack).is_err());
        assert!(decode_request(&[0x81, 0xa2, b'o', b'p', 0xd4, 1, 2], Encoding::Msgpack).is_err());
        let wide = format!(
            "{{{}}}",
            (0..9_000)
                .map(|n| format!("\"{n}\":0"))
                .collect::<Vec<_>>()
                .join(",")
        );
        assert!(json(&wide).is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _json = decode_request(&bytes, Encoding::Json);
            let _msgpack = decode_request(&bytes, Encoding::Msgpack);
        }

        #[test]
        fn decoding_text_like_requests_never_panics(text in r#"[\{\}\[\]":,a-z0-9.\-\\ ]{0,200}"#) {
            let _json = decode_request(text.as_bytes(), Encoding::Json);
        }
    }
}
