//! Bodies of `POST /v1/publish` as a stream of records; no record is kept after it is read.

#![deny(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::source::push::{Field, PublishedEvent, PushFault};

/// Encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// One JSON object per line.
    Ndjson,
    /// An array of maps.
    Msgpack,
}

/// Reason why a body is rejected as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body has more records than one request may have.
    #[error("too many records: expected at most {0} per request (limits.publish_events)")]
    TooMany(usize),
    /// The body is not a single MessagePack array.
    #[error("invalid MessagePack body: {0}; expected exactly one array of maps")]
    NotAnArray(&'static str),
}

/// Record number (from 1) and its content.
pub(super) type Record<'a> = (u32, Result<PublishedEvent<'a>, BadRecord<'a>>);

/// Invalid record. Its message is built only if it is reported.
#[derive(Debug)]
pub(super) enum BadRecord<'a> {
    NotUtf8(&'a [u8]),
    Json(&'a [u8], serde_json::Error),
    NotAMap,
    Msgpack(rmp_serde::decode::Error),
}

/// Max nesting of a published event's fields; known fields are not nested.
const DEPTH_MAX: usize = 16;
/// A valid event, for messages.
const EXAMPLE: &str = r#"{"ch":"trade","sym":"BTC-USD","px":"10.50","qty":"2"}"#;
/// Max characters of a bad record that its error quotes.
const QUOTED_CHARS_MAX: usize = 100;

/// Reads the records of a body one by one; a bad record does not affect the others.
pub(super) fn records(
    body: &[u8],
    format: BodyFormat,
    records_max: usize,
) -> Result<Box<dyn Iterator<Item = Record<'_>> + '_>, BodyError> {
    match format {
        BodyFormat::Ndjson => {
            let lines = || {
                (1..)
                    .zip(body.split(|byte| *byte == b'\n'))
                    .filter(|(_, line)| !line.trim_ascii().is_empty())
            };
            if lines().take(records_max.saturating_add(1)).count() > records_max {
                return Err(BodyError::TooMany(records_max));
            }
            Ok(Box::new(lines().map(|(at, line)| (at, json_event(line)))))
        }
        BodyFormat::Msgpack => {
            let (count, elements) = array(body)?;
            if count > records_max as u64 {
                return Err(BodyError::TooMany(records_max));
            }
            Ok(Box::new(
                (1..)
                    .zip(elements)
                    .map(|(at, one)| (at, msgpack_event(one))),
            ))
        }
    }
}

impl BadRecord<'_> {
    /// The fault with its message.
    pub(super) fn fault(self) -> PushFault {
        let (what, record) = match self {
            Self::NotUtf8(line) => ("not UTF-8".to_owned(), line),
            Self::Json(line, error) if error.is_data() => (field_twice(&error.to_string()), line),
            Self::Json(line, error) => (format!("invalid JSON at column {}", error.column()), line),
            Self::NotAMap => ("not a map".to_owned(), &[][..]),
            Self::Msgpack(error) => (field_twice(&error.to_string()), &[][..]),
        };
        let text = String::from_utf8_lossy(&record[..record.len().min(4 * QUOTED_CHARS_MAX)]);
        let quoted: String = text
            .chars()
            .take(QUOTED_CHARS_MAX)
            .flat_map(char::escape_debug)
            .collect();
        let got = if quoted.is_empty() {
            String::new()
        } else {
            format!(", but got {quoted}")
        };
        PushFault::Malformed(format!("{what}; expected an event, e.g. {EXAMPLE}{got}"))
    }
}

fn json_event(line: &[u8]) -> Result<PublishedEvent<'_>, BadRecord<'_>> {
    let text = std::str::from_utf8(line).map_err(|_invalid| BadRecord::NotUtf8(line))?;
    serde_json::from_str::<Fields<JsonField<'_>>>(text)
        .map(|fields| fields.event(|field| field.0))
        .map_err(|error| BadRecord::Json(line, error))
}

fn msgpack_event(element: &[u8]) -> Result<PublishedEvent<'_>, BadRecord<'_>> {
    // An array could also be read as an event, by field order, which is never intended.
    if !matches!(element.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
        return Err(BadRecord::NotAMap);
    }
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(element);
    deserializer.set_max_depth(DEPTH_MAX);
    Fields::<MsgpackField<'_>>::deserialize(&mut deserializer)
        .map(|fields| fields.event(|field| field.0))
        .map_err(BadRecord::Msgpack)
}

/// Names a duplicate field; any other error of serde concerns the form of the record as a whole.
fn field_twice(error: &str) -> String {
    let name = error
        .split_once("duplicate field `")
        .and_then(|(_, rest)| rest.split_once('`'));
    name.map_or("not an object".to_owned(), |(name, _)| {
        format!("duplicate field `{name}`")
    })
}

/// Fields of an event in the representation of their encoding.
#[derive(Deserialize)]
#[serde(expecting = "an event")]
struct Fields<F> {
    ch: Option<F>,
    sym: Option<F>,
    ts: Option<F>,
    px: Option<F>,
    qty: Option<F>,
    side: Option<F>,
    id: Option<F>,
    bid: Option<F>,
    bidq: Option<F>,
    ask: Option<F>,
    askq: Option<F>,
}

impl<F> Fields<F> {
    fn event<'a>(self, field: impl Fn(F) -> Field<'a>) -> PublishedEvent<'a> {
        let field = |value: Option<F>| value.map(&field);
        PublishedEvent {
            ch: field(self.ch),
            sym: field(self.sym),
            ts: field(self.ts),
            px: field(self.px),
            qty: field(self.qty),
            side: field(self.side),
            id: field(self.id),
            bid: field(self.bid),
            bidq: field(self.bidq),
            ask: field(self.ask),
            askq: field(self.askq),
        }
    }
}

struct JsonField<'a>(Field<'a>);

impl<'de> Deserialize<'de> for JsonField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        Ok(Self(match raw.as_bytes().first() {
            Some(b'"') if raw.contains('\\') => Field::Text(
                serde_json::from_str::<String>(raw)
                    .map_err(serde::de::Error::custom)?
                    .into(),
            ),
            Some(b'"') => Field::Text(Cow::Borrowed(raw.trim_matches('"'))),
            Some(b'-' | b'0'..=b'9') => Field::Number(Cow::Borrowed(raw)),
            _ => Field::Other,
        }))
    }
}

struct MsgpackField<'a>(Field<'a>);

impl<'de> Deserialize<'de> for MsgpackField<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MsgpackReader)
    }
}

struct MsgpackReader;

impl<'de> Visitor<'de> for MsgpackReader {
    type Value = MsgpackField<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field of an event")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Text(Cow::Borrowed(text))))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Text(Cow::Owned(text.to_owned()))))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Number(Cow::Owned(number.to_string()))))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Number(Cow::Owned(number.to_string()))))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Float))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Other))
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self::Value, E> {
        Ok(MsgpackField(Field::Other))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(MsgpackField(Field::Other))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(MsgpackField(Field::Other))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, ext: D) -> Result<Self::Value, D::Error> {
        IgnoredAny::deserialize(ext)?;
        Ok(MsgpackField(Field::Other))
    }
}

/// Number of elements of a body, and the bytes of each.
fn array(body: &[u8]) -> Result<(u64, impl Iterator<Item = &[u8]>), BodyError> {
    let mut rest = body;
    let count = rmp::decode::read_array_len(&mut rest)
        .map_err(|_error| BodyError::NotAnArray("not an array"))?;
    let elements = rest;
    for _ in 0..count {
        let len = value_len(rest).ok_or(BodyError::NotAnArray("truncated"))?;
        rest = &rest[len..];
    }
    if !rest.is_empty() {
        return Err(BodyError::NotAnArray("trailing data after the array"));
    }
    let mut rest = elements;
    let each = std::iter::from_fn(move || {
        let (one, after) = rest.split_at(value_len(rest)?);
        rest = after;
        Some(one)
    });
    Ok((u64::from(count), each))
}

/// Length of the first value, of any type; `None` if it is truncated. Uses neither recursion nor
/// allocation.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a length has up to 4 bytes, and at least one value is open in the loop"
)]
fn value_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    let mut open = 1_u64;
    while open > 0 {
        let rest = bytes.get(at..)?;
        let number = |len: usize| {
            let digits = rest.get(1..=len)?;
            Some(
                digits
                    .iter()
                    .fold(0_u64, |all, byte| all << 8 | u64::from(*byte)),
            )
        };
        // Bytes of the header and its data, and the number of nested values.
        let (len, inside) = match *rest.first()? {
            0x00..=0x7f | 0xc0..=0xc3 | 0xe0..=0xff => (1, 0),
            marker @ 0x80..=0x8f => (1, 2 * u64::from(marker & 0x0f)),
            marker @ 0x90..=0x9f => (1, u64::from(marker & 0x0f)),
            marker @ 0xa0..=0xbf => (1 + u64::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (2 + number(1)?, 0),
            0xc5 | 0xda => (3 + number(2)?, 0),
            0xc6 | 0xdb => (5 + number(4)?, 0),
            0xc7 => (3 + number(1)?, 0),
            0xc8 => (4 + number(2)?, 0),
            0xc9 => (6 + number(4)?, 0),
            0xcc | 0xd0 => (2, 0),
            0xcd | 0xd1 => (3, 0),
            0xca | 0xce | 0xd2 => (5, 0),
            0xcb | 0xcf | 0xd3 => (9, 0),
            marker @ 0xd4..=0xd8 => (2 + (1 << (marker - 0xd4)), 0),
            0xdc => (3, number(2)?),
            0xdd => (5, number(4)?),
            0xde => (3, 2 * number(2)?),
            0xdf => (5, 2 * number(4)?),
        };
        at = at.checked_add(usize::try_from(len).ok()?)?;
        if at > bytes.len() {
            return None;
        }
        open = open.checked_add(inside)? - 1;
    }
    Some(at)
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &[u8], format: BodyFormat) -> Vec<(u32, bool)> {
        records(body, format, 100)
            .map(|records| {
                records
                    .map(|(at, event)| (at, event.map_err(BadRecord::fault).is_ok()))
                    .collect()
            })
            .unwrap_or_default()
    }

    #[test]
    fn a_bad_record_is_reported_by_line_with_a_bounded_excerpt() {
        let long = format!("\u{7}{}", "é".repeat(5000));
        let body =
            format!("{{\"ch\":\"trade\"}}\n\n  \n{long}\n1\n[]\n{{\"px\":\"1\",\"px\":\"2\"}}");
        let found: Vec<_> = records(body.as_bytes(), BodyFormat::Ndjson, 5)
            .expect("five records")
            .collect();
        assert_eq!(
            found.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [1, 4, 5, 6, 7]
        );
        let messages: Vec<String> = found
            .into_iter()
            .filter_map(|(_, event)| event.err().map(|bad| bad.fault().to_string()))
            .collect();
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert!(
            messages.iter().all(|text| text.chars().count() < 300),
            "{messages:?}"
        );
        assert!(
            messages[0].starts_with("invalid JSON at column 1") && messages[0].contains("\\u{7}é")
        );
        assert!(messages[3].starts_with("duplicate field `px`"));
        assert_eq!(
            records(body.as_bytes(), BodyFormat::Ndjson, 4).err(),
            Some(BodyError::TooMany(4))
        );
    }

    #[test]
    fn a_messagepack_body_is_exactly_one_array() {
        assert_eq!(
            read(b"\x93\xc0\x80\x81\xa2ch\x01", BodyFormat::Msgpack),
            [(1, false), (2, true), (3, true)]
        );
        for bad in [
            &b""[..],
            b"\xc0",
            b"\x92\xc0",
            b"\x91\xc0\xc0",
            b"\xdd\xff\xff\xff\xff",
            b"\x91\xc1\xdf\xff\xff\xff\xff",
        ] {
            assert!(records(bad, BodyFormat::Msgpack, 100).is_err(), "{bad:?}");
        }
        let nils = [&b"\xdd\x00\x00\x00\x65"[..], &[0xc0; 101]].concat();
        assert_eq!(
            records(&nils, BodyFormat::Msgpack, 100).err(),
            Some(BodyError::TooMany(100))
        );
    }

    proptest! {
        #[test]
        fn bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _records = read(&body, BodyFormat::Ndjson);
            let _records = read(&[b"\x92", &body[..]].concat(), BodyFormat::Msgpack);
        }

        #[test]
        fn the_length_of_a_value_is_its_encoded_length(text in ".{0,80}", numbers in prop::collection::vec(any::<i64>(), 0..40)) {
            let bytes = rmp_serde::to_vec_named(&serde_json::json!({"a": text, "b": numbers, "c": [null, true, 1.5]})).expect("plain values");
            prop_assert_eq!(value_len(&bytes), Some(bytes.len()));
            prop_assert_eq!(value_len(&bytes[..bytes.len() - 1]), None);
        }
    }
}
