//! Shapes of the parts of a request, decoded directly from either encoding.
//!
//! Only data that a request needs is kept: lists and maps of unknown fields are skipped, and
//! strings are borrowed from the message. The decoding time is proportional to the size of the
//! message, however many keys it contains.

#![deny(clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::request_fault::{Malformed, RequestFault};
use crate::protocol::Encoding;

/// Maximum nesting depth of a MessagePack request; the protocol uses at most 3. JSON is skipped
/// without recursion.
const DEPTH_MAX: usize = 16;
/// Maximum number of keys of a map for which each is compared with all others.
const KEYS_COMPARED: usize = 16;

/// Number of names or keys from which on their average length is checked.
const NAMES_UNCHECKED: usize = 1024;
/// Minimum average length of many names or keys, in bytes; no topic is shorter. A name takes tens
/// of bytes in memory, so that shorter ones would multiply the memory of a message.
const NAME_BYTES_MIN: usize = 6;

/// Length of the names or keys of a message.
#[derive(Debug, Default)]
pub(super) struct NameLengths {
    names: usize,
    bytes: usize,
}

impl NameLengths {
    /// Adds a name; returns false if there are many that are too short.
    pub(super) const fn add(&mut self, name: &str) -> bool {
        self.names = self.names.saturating_add(1);
        self.bytes = self.bytes.saturating_add(name.len());
        self.names <= NAMES_UNCHECKED || self.bytes / NAME_BYTES_MIN >= self.names
    }
}

/// A single value; for a list or map only its kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'de> {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(Cow<'de, str>),
    Bytes,
    List,
    Map,
}

impl Value<'_> {
    /// Name of the kind for error messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "a string",
            Self::Bytes => "bytes",
            Self::List => "a list",
            Self::Map => "a map",
        }
    }
}

/// First fault of a message that does not prevent the rest from being decoded.
#[derive(Debug, Default)]
pub(super) struct Fault(RefCell<Option<RequestFault>>);

impl Fault {
    fn note(&self, fault: impl FnOnce() -> RequestFault) {
        self.0.borrow_mut().get_or_insert_with(fault);
    }

    pub(super) fn into_inner(self) -> Option<RequestFault> {
        self.0.into_inner()
    }
}

/// Target shape for decoding a value.
pub(super) trait Shape<'de>: Sized {
    type Out;

    /// Handles a scalar, or a list or map that this shape does not decode.
    fn plain(self, value: Value<'de>) -> Self::Out;

    fn list<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.plain(Value::List))
    }

    fn map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.plain(Value::Map))
    }
}

/// Decodes a value of any kind into a shape.
pub(super) struct Any<S>(pub(super) S);

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Any<S> {
    type Value = S::Out;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Any<S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, list, text, integer, boolean or null")
    }
    fn visit_unit<E>(self) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Null))
    }
    fn visit_none<E>(self) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Bool(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Int(value.into())))
    }
    fn visit_u64<E>(self, value: u64) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Int(value.into())))
    }
    fn visit_f64<E>(self, _: f64) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Float))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Text(Cow::Borrowed(value))))
    }
    fn visit_str<E>(self, value: &str) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Text(Cow::Owned(value.to_owned()))))
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<S::Out, E> {
        Ok(self.0.plain(Value::Bytes))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<S::Out, A::Error> {
        self.0.list(access)
    }
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<S::Out, A::Error> {
        self.0.map(access)
    }
}

/// Shape of a single value.
pub(super) struct Plain;

impl<'de> Shape<'de> for Plain {
    type Out = Value<'de>;
    fn plain(self, value: Value<'de>) -> Value<'de> {
        value
    }
}

/// Detects whether another value begins, without reading further.
struct Behind;

impl<'de> Shape<'de> for Behind {
    type Out = ();
    fn plain(self, _: Value<'de>) {}
    fn list<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Ok(())
    }
    fn map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Ok(())
    }
}

/// Keys of a map; each key must be a string and unique.
pub(super) struct Keys<'a, 'de> {
    seen: Vec<Cow<'de, str>>,
    lengths: NameLengths,
    fault: &'a Fault,
}

impl<'a, 'de> Keys<'a, 'de> {
    pub(super) const fn new(fault: &'a Fault) -> Self {
        Self {
            seen: Vec::new(),
            lengths: NameLengths { names: 0, bytes: 0 },
            fault,
        }
    }

    /// Next key; the value of a key that is not a string is skipped.
    pub(super) fn next<A: MapAccess<'de>>(
        &mut self,
        access: &mut A,
    ) -> Result<Option<&Cow<'de, str>>, A::Error> {
        while let Some(key) = access.next_key_seed(Any(Plain))? {
            if let Value::Text(key) = key {
                if !self.lengths.add(&key) {
                    self.fault.note(|| RequestFault::ShortNames("keys"));
                    access.next_value::<IgnoredAny>()?;
                    while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(None);
                }
                self.seen.push(key);
                return Ok(self.seen.last());
            }
            let kind = key.kind();
            self.fault.note(|| RequestFault::KeyKind(kind));
            access.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    /// Ends the map and records the first duplicate key.
    pub(super) fn end(self) {
        if let Some(key) = repeated(&self.seen) {
            self.fault.note(|| RequestFault::KeyTwice(key.to_owned()));
        }
    }
}

/// Returns a key equal to an earlier one, in O(n log n) time for n keys.
fn repeated<'a>(keys: &'a [Cow<'_, str>]) -> Option<&'a str> {
    if keys.len() <= KEYS_COMPARED {
        let at = (1..keys.len()).find(|at| keys[..*at].contains(&keys[*at]))?;
        return Some(&keys[at]);
    }
    // A secret hash key, so that clients cannot construct colliding keys.
    let state = RandomState::new();
    // 8 bytes for each key, because a request has many.
    let mut hashes: Vec<(u32, u32)> = (0..)
        .zip(keys)
        .map(|(at, key)| (state.hash_one(&**key) as u32, at))
        .collect();
    let key = |at: u32| &*keys[at as usize];
    hashes.sort_unstable_by(|one, other| {
        let hashes = one.0.cmp(&other.0);
        hashes.then_with(|| (key(one.1), one.1).cmp(&(key(other.1), other.1)))
    });
    let later = hashes.windows(2).filter(|two| two[0].0 == two[1].0);
    let later = later
        .filter(|two| key(two[0].1) == key(two[1].1))
        .map(|two| two[1].1);
    later.min().map(key)
}

/// Decodes a whole message into a shape; trailing bytes are an error.
pub(super) fn read<'de, S: Shape<'de>>(
    bytes: &'de [u8],
    encoding: Encoding,
    shape: S,
) -> Result<S::Out, Malformed> {
    match encoding {
        Encoding::Json => {
            let mut de = serde_json::Deserializer::from_slice(bytes);
            let out = Any(shape).deserialize(&mut de)?;
            de.end()?;
            Ok(out)
        }
        Encoding::Msgpack => {
            let mut de = rmp_serde::Deserializer::from_read_ref(bytes);
            de.set_max_depth(DEPTH_MAX);
            let out = Any(shape).deserialize(&mut de)?;
            match Any(Behind).deserialize(&mut de) {
                Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(out),
                _ => Err(Malformed::BytesAfter),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_detected_in_small_and_large_maps() {
        for count in [2usize, KEYS_COMPARED, KEYS_COMPARED + 1, 5_000] {
            let mut keys: Vec<Cow<'_, str>> =
                (0..count).map(|n| Cow::Owned(n.to_string())).collect();
            assert_eq!(repeated(&keys), None, "{count} keys");
            keys.push(Cow::Borrowed("1"));
            assert_eq!(repeated(&keys), Some("1"), "{count} keys and one of them");
        }
    }
}
