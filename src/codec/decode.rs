//! Decoding of client messages into requests.

#![deny(clippy::arithmetic_side_effects)]

use compact_str::CompactString;

use super::fields::{Fields, INTEGER_MAX, RequestShape};
use super::request_fault::RequestFault;
use super::value::{Fault, Value, read};
use crate::protocol::{DeliveryWish, Encoding, INTERVALS_MS, MESSAGE_BYTES_LEAST, Mode, OnSlow};
use crate::protocol::{Id, Op, Request, ResumeFrom, SnapshotWish, Subscribe, TopicsAsked};

const ID_TEXT_MAX: usize = 36;

/// Reason for which a message is not a valid request; answered with `error` 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// Id of the request, if it could be decoded.
    pub id: Option<Id>,
    /// Description of the invalid field and the expected value.
    pub message: String,
}

/// Decodes one client message. Never panics, allocates at most a small multiple of the length of
/// `bytes`, and takes time proportional to that length.
pub fn decode_request(bytes: &[u8], encoding: Encoding) -> Result<Request, BadRequest> {
    let bad = |id, fault: RequestFault| BadRequest {
        id,
        message: fault.to_string(),
    };
    let fault = Fault::default();
    let fields = read(bytes, encoding, RequestShape(&fault)).map_err(|error| {
        let encoding = encoding.name();
        bad(None, RequestFault::Malformed { encoding, error })
    })?;
    let mut fields = fields.map_err(|kind| bad(None, RequestFault::NoMap(kind)))?;
    let id = fields.id().map_err(|fault| bad(None, fault))?;
    let op = match fault.into_inner() {
        Some(fault) => Err(fault),
        None => decode_op(&mut fields),
    };
    match op {
        Ok(op) => Ok(Request { id, op }),
        Err(fault) => Err(bad(id, fault)),
    }
}

/// Fault for a missing required key.
const fn missing(key: &'static str, expected: &'static str) -> RequestFault {
    RequestFault::Missing { key, expected }
}

fn decode_op(fields: &mut Fields<'_>) -> Result<Op, RequestFault> {
    let Some(op) = fields.text("op")? else {
        return Err(missing("op", "e.g. subscribe"));
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
                return Err(RequestFault::NothingToModify);
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
                .ok_or(missing("t", "an integer, which `pong` returns"))?;
            if t.abs() > INTEGER_MAX {
                return Err(RequestFault::Rule {
                    key: "t",
                    rule: "be an integer from -2^53 to 2^53",
                });
            }
            Ok(Op::Ping { t: t as i64 })
        }
        "auth" => Ok(Op::Auth {
            token: fields.text("token")?.ok_or(missing("token", "a string"))?,
        }),
        other => Err(unknown_value(
            "op",
            other,
            "subscribe, unsubscribe, modify, resync, subscriptions, instruments, ledger, ping or auth",
        )),
    }
}

impl Fields<'_> {
    fn text(&mut self, key: &'static str) -> Result<Option<String>, RequestFault> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.into_owned())),
            Some(other) => Err(kind(key, "a string", &other)),
        }
    }

    fn flag(&mut self, key: &'static str) -> Result<Option<bool>, RequestFault> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(kind(key, "true or false", &other)),
        }
    }

    fn integer(&mut self, key: &'static str) -> Result<Option<i128>, RequestFault> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Int(value)) => Ok(Some(value)),
            Some(other) => Err(kind(key, "an integer", &other)),
        }
    }

    fn id(&mut self) -> Result<Option<Id>, RequestFault> {
        match self.take("id") {
            None => Ok(None),
            Some(Value::Int(number)) if (0..INTEGER_MAX).contains(&number) => {
                Ok(Some(Id::Number(number as u64)))
            }
            Some(Value::Text(text)) if text.chars().count() <= ID_TEXT_MAX => {
                Ok(Some(Id::Text(text.into_owned())))
            }
            Some(_) => Err(RequestFault::Rule {
                key: "id",
                rule: "be an integer from 0 to 2^53 - 1, or a string of up to 36 characters",
            }),
        }
    }

    fn topics(&mut self) -> Result<Vec<CompactString>, RequestFault> {
        self.topics
            .take()
            .unwrap_or_else(|| Err(missing("topics", "a list of topics or patterns")))
    }

    /// Reads the delivery settings. With `whole`, absent settings have their defaults, so mode
    /// `interval` requires `interval_ms`.
    fn wish(&mut self, whole: bool) -> Result<DeliveryWish, RequestFault> {
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
                    .ok_or(RequestFault::Interval(ms))?,
            ),
        };
        if whole && matches!(mode, Some(Mode::Interval(_))) && interval_ms.is_none() {
            return Err(RequestFault::NoInterval);
        }
        Ok(DeliveryWish {
            mode,
            interval_ms,
            on_slow,
        })
    }

    fn max_message(&mut self) -> Result<Option<u64>, RequestFault> {
        let bytes = self.integer("max_message")?;
        if bytes.is_some_and(|bytes| !(MESSAGE_BYTES_LEAST as i128..INTEGER_MAX).contains(&bytes)) {
            return Err(RequestFault::MaxMessage);
        }
        Ok(bytes.map(|bytes| bytes as u64))
    }

    fn snapshot(&mut self) -> Result<Option<SnapshotWish>, RequestFault> {
        match self.take("snapshot") {
            None => Ok(None),
            Some(Value::Bool(true)) => Ok(Some(SnapshotWish::Yes)),
            Some(Value::Bool(false)) => Ok(Some(SnapshotWish::No)),
            Some(Value::Int(events)) if (1..INTEGER_MAX).contains(&events) => {
                Ok(Some(SnapshotWish::Events(events as u64)))
            }
            Some(_) => Err(RequestFault::Rule {
                key: "snapshot",
                rule: "be true, false, or the maximum number of events (1 or more)",
            }),
        }
    }

    fn from(&mut self) -> Result<Option<ResumeFrom>, RequestFault> {
        let Some(from) = self.from.take().transpose()? else {
            return Ok(None);
        };
        let epoch = match from.epoch {
            None | Some(Value::Null) => Err(missing("from.epoch", "the epoch of `welcome`")),
            Some(Value::Text(epoch)) => Ok(epoch.into_owned()),
            Some(other) => Err(kind("from.epoch", "a string", &other)),
        };
        Ok(Some(ResumeFrom {
            epoch: epoch?,
            seqs: from.seqs.transpose()?.unwrap_or_default(),
            epochs: from.epochs.transpose()?.unwrap_or_default(),
        }))
    }
}

fn kind(key: &'static str, wanted: &'static str, value: &Value<'_>) -> RequestFault {
    let kind = value.kind();
    RequestFault::Kind { key, wanted, kind }
}

fn unknown_value(key: &'static str, given: &str, known: &'static str) -> RequestFault {
    RequestFault::Unknown {
        key,
        given: given.to_owned(),
        known,
    }
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
    fn errors_name_the_invalid_field() {
        assert!(error("[]").contains("a list"));
        assert!(error("{}").contains("`op` is missing"));
        assert!(error(r#"{"op":"jump"}"#).contains("unknown `op` \"jump\""));
        assert!(error(r#"{"op":"subscribe"}"#).contains("`topics` is missing"));
        assert!(
            error(r#"{"op":"subscribe","topics":[1]}"#)
                .contains("must contain strings, not an integer")
        );
        assert!(
            error(r#"{"op":"subscribe","topics":[],"mode":"interval"}"#)
                .contains("requires `interval_ms`")
        );
        assert!(
            error(r#"{"op":"subscribe","topics":[],"mode":"interval","interval_ms":11}"#)
                .contains("unsupported `interval_ms`")
        );
        assert!(error(r#"{"op":"ping","t":1.0}"#).contains("a float"));
        assert!(error(r#"{"op":"ping","t":1,"t":2}"#).contains("duplicate key"));
        assert!(error(r#"{"op":"modify","topics":[]}"#).contains("requires at least one of"));
        assert!(
            error(r#"{"op":"subscribe","topics":[],"from":{"seqs":{}}}"#)
                .contains("`from.epoch` is missing")
        );
    }

    #[test]
    fn the_id_of_an_invalid_request_is_read() {
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
    fn duplicate_keys_are_rejected_at_every_level() {
        for text in [
            r#"{"op":"ping","t":1,"later":2,"later":3}"#,
            r#"{"op":"subscribe","topics":[],"from":{"epoch":"0","epoch":"1"}}"#,
            r#"{"op":"subscribe","topics":[],"from":{"epoch":"0","seqs":{"a":1,"a":null}}}"#,
            r#"{"op":"subscribe","topics":[],"from":{"epoch":"0","epochs":{"a":"1","\u0061":"1"}}}"#,
        ] {
            assert!(error(text).contains("duplicate key"), "{text}");
        }
        let twice = [0x82, 1, 1, 0xa2, b'o', b'p', 0xa1, b'x'];
        let error = decode_request(&twice, Encoding::Msgpack).map_err(|bad| bad.message);
        assert_eq!(
            error,
            Err("a key must be a string, not an integer".to_owned())
        );
    }

    #[test]
    fn unknown_fields_are_not_stored() {
        let others: Vec<_> = (0..7_000)
            .map(|n| format!("\"{n}\":[[1,2],{{}}]"))
            .collect();
        let text = format!("{{\"op\":\"ping\",\"t\":1,{}}}", others.join(","));
        let fault = Fault::default();
        let fields = read(text.as_bytes(), Encoding::Json, RequestShape(&fault));
        let fields = fields.expect("JSON").expect("a map");
        let kept = fields.plain.iter().flatten().collect::<Vec<_>>();
        assert_eq!(
            kept,
            [&Value::Text("ping".into()), &Value::Int(1)],
            "nothing of 7,000 lists"
        );
    }

    #[test]
    fn ordinary_topics_are_not_allocated_individually() {
        let Ok(Request {
            op: Op::Subscribe(subscribe),
            ..
        }) = json(
            r#"{"op":"subscribe","topics":["bar:BTC-USD-250101:1m"],"from":{"epoch":"1","seqs":{"trade:A":1}}}"#,
        )
        else {
            unreachable!("it is a request")
        };
        let resumed = subscribe.from.unwrap_or_default().seqs;
        assert!(!subscribe.topics[0].is_heap_allocated() && !resumed[0].0.is_heap_allocated());
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
    fn an_interval_with_another_mode_is_ignored() {
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
        for behind in [&[0xc0][..], &[0x91], &[0xd9], &[0x80]] {
            let pong = [
                &[0x82, 0xa2, b'o', b'p', 0xa4][..],
                b"ping",
                &[0xa1, b't', 1],
            ]
            .concat();
            assert!(decode_request(&pong, Encoding::Msgpack).is_ok());
            let longer = [&pong[..], behind].concat();
            let error = decode_request(&longer, Encoding::Msgpack).map_err(|bad| bad.message);
            assert!(
                error.is_err_and(|message| message.contains("bytes after")),
                "{behind:?}"
            );
        }
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
