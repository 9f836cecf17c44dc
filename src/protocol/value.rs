//! A request's bytes as a small tree, the same for both encodings, with bounded depth and no trust in announced lengths.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::io::Cursor;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Encoding;

/// How deep a request may be nested; the deepest that the protocol knows is 3.
const DEPTH_MAX: usize = 8;
/// The most items that are reserved on a length's word alone.
const RESERVE_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text(String),
    Bytes,
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// What was read, and what was wrong with it that doesn't keep it from being read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub value: Value,
    pub fault: Option<String>,
}

impl Value {
    pub(super) fn parse(bytes: &[u8], encoding: Encoding) -> Result<Parsed, String> {
        let fault = RefCell::new(None);
        let seed = Seed {
            depth: 0,
            fault: &fault,
        };
        let value = match encoding {
            Encoding::Json => {
                let mut de = serde_json::Deserializer::from_slice(bytes);
                let value = seed
                    .deserialize(&mut de)
                    .map_err(|error| error.to_string())?;
                de.end().map_err(|error| error.to_string())?;
                value
            }
            Encoding::Msgpack => {
                let mut de = rmp_serde::Deserializer::new(Cursor::new(bytes));
                de.set_max_depth(DEPTH_MAX * 2);
                let value = seed
                    .deserialize(&mut de)
                    .map_err(|error| error.to_string())?;
                if de.get_ref().position() < bytes.len() as u64 {
                    return Err("there are bytes after the map".into());
                }
                value
            }
        };
        Ok(Parsed {
            value,
            fault: fault.into_inner(),
        })
    }

    /// The word for an error message.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Text(_) => "a text",
            Self::Bytes => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    fault: &'a RefCell<Option<String>>,
}

impl Seed<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, list, text, integer, boolean or null")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Float)
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::with_capacity(access.size_hint().unwrap_or(0).min(RESERVE_MAX));
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key_seed(inner)? {
            let value = access.next_value_seed(inner)?;
            let Value::Text(key) = key else {
                self.fault
                    .borrow_mut()
                    .get_or_insert_with(|| format!("a key is {}, not a text", key.kind()));
                continue;
            };
            if !seen.insert(key.clone()) {
                let shown: String = key.chars().take(40).flat_map(char::escape_debug).collect();
                self.fault
                    .borrow_mut()
                    .get_or_insert_with(|| format!("the key \"{shown}\" stands twice"));
            }
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}
