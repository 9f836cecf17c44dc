//! Fields of a request, as they appear in the message.

#![deny(clippy::arithmetic_side_effects)]

use compact_str::CompactString;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::request_fault::RequestFault;
use super::value::{Any, Fault, Keys, NameLengths, Plain, Shape, Value};
use crate::protocol::Seq;

/// Largest integer that every client can represent exactly: 2^53.
pub(super) const INTEGER_MAX: i128 = 1 << 53;
/// Maximum length of a topic or pattern, in bytes; valid ones are much shorter.
const TOPIC_BYTES_MAX: usize = 128;

/// Fields with a single value; the other known fields are `topics` and `from`.
const PLAIN_KEYS: [&str; 12] = [
    "id",
    "op",
    "mode",
    "interval_ms",
    "on_slow",
    "snapshot",
    "atomic",
    "max_message",
    "all",
    "pattern",
    "t",
    "token",
];

/// Decoded field: `None` if it is null or missing, an error if it is invalid.
pub(super) type Field<T> = Option<Result<T, RequestFault>>;
/// Map keyed by topic.
pub(super) type ByTopic<T> = Vec<(CompactString, T)>;

/// Fields of a request; each is taken when it is decoded. `null` means absent.
#[derive(Default)]
pub(super) struct Fields<'de> {
    pub(super) plain: [Option<Value<'de>>; PLAIN_KEYS.len()],
    pub(super) topics: Field<Vec<CompactString>>,
    pub(super) from: Field<RawFrom<'de>>,
}

/// Fields of `from`.
#[derive(Default)]
pub(super) struct RawFrom<'de> {
    pub(super) epoch: Option<Value<'de>>,
    pub(super) seqs: Field<ByTopic<Seq>>,
    pub(super) epochs: Field<ByTopic<CompactString>>,
}

impl<'de> Fields<'de> {
    pub(super) fn take(&mut self, key: &str) -> Option<Value<'de>> {
        let at = PLAIN_KEYS.iter().position(|known| *known == key)?;
        self.plain[at].take().filter(|value| *value != Value::Null)
    }
}

/// Shape of the map of a request.
pub(super) struct RequestShape<'a>(pub(super) &'a Fault);

impl<'de> Shape<'de> for RequestShape<'_> {
    /// The fields, or the kind of a value that is not a map.
    type Out = Result<Fields<'de>, &'static str>;

    fn plain(self, value: Value<'de>) -> Self::Out {
        Err(value.kind())
    }

    fn map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        let mut fields = Fields::default();
        let mut keys = Keys::new(self.0);
        while let Some(key) = keys.next(&mut access)? {
            if let Some(at) = PLAIN_KEYS.iter().position(|known| *known == &**key) {
                let value = access.next_value_seed(Any(Plain))?;
                fields.plain[at].get_or_insert(value);
            } else if *key == "topics" {
                fields.topics = access.next_value_seed(Any(TopicsShape))?;
            } else if *key == "from" {
                fields.from = access.next_value_seed(Any(FromShape(self.0)))?;
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        keys.end();
        Ok(Ok(fields))
    }
}

/// Absent if the value is null; otherwise an error because of its type.
fn kind_unless_null<T>(key: &'static str, wanted: &'static str, value: &Value<'_>) -> Field<T> {
    let kind = value.kind();
    (*value != Value::Null).then_some(Err(RequestFault::Kind { key, wanted, kind }))
}

const fn too_long(key: &'static str, what: &'static str) -> RequestFault {
    RequestFault::TooLong {
        key,
        what,
        most: TOPIC_BYTES_MAX,
    }
}

struct TopicsShape;

impl<'de> Shape<'de> for TopicsShape {
    type Out = Field<Vec<CompactString>>;

    fn plain(self, value: Value<'de>) -> Self::Out {
        kind_unless_null("topics", "a list of strings", &value)
    }

    fn list<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        let (mut texts, mut lengths) = (Ok(Vec::new()), NameLengths::default());
        while let Some(item) = access.next_element_seed(Any(Plain))? {
            let Ok(list) = &mut texts else {
                continue;
            };
            match item {
                Value::Text(text) if !lengths.add(&text) => {
                    texts = Err(RequestFault::ShortNames("topics"));
                }
                Value::Text(text) if text.len() <= TOPIC_BYTES_MAX => list.push(text.into()),
                Value::Text(_) => {
                    texts = Err(too_long("topics", "contain strings"));
                }
                other => {
                    texts = Err(RequestFault::TopicKind(other.kind()));
                }
            }
        }
        Ok(Some(texts))
    }
}

struct FromShape<'a>(&'a Fault);

impl<'de> Shape<'de> for FromShape<'_> {
    type Out = Field<RawFrom<'de>>;

    fn plain(self, value: Value<'de>) -> Self::Out {
        kind_unless_null("from", "a map", &value)
    }

    fn map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        let mut from = RawFrom::default();
        let mut keys = Keys::new(self.0);
        while let Some(key) = keys.next(&mut access)? {
            match &**key {
                "epoch" => from.epoch = Some(access.next_value_seed(Any(Plain))?),
                "seqs" => {
                    from.seqs = access.next_value_seed(Any(self.by_topic("from.seqs", seq)))?;
                }
                "epochs" => {
                    from.epochs =
                        access.next_value_seed(Any(self.by_topic("from.epochs", epoch)))?;
                }
                _ => _ = access.next_value::<IgnoredAny>()?,
            }
        }
        keys.end();
        Ok(Some(Ok(from)))
    }
}

impl<'a> FromShape<'a> {
    const fn by_topic<T>(
        &self,
        name: &'static str,
        convert: fn(&str, Value<'_>) -> Result<T, RequestFault>,
    ) -> ByTopicShape<'a, T> {
        ByTopicShape {
            name,
            convert,
            fault: self.0,
        }
    }
}

/// Parses an entry of `from.seqs`.
fn seq(topic: &str, value: Value<'_>) -> Result<Seq, RequestFault> {
    match value {
        Value::Int(seq) if (0..INTEGER_MAX).contains(&seq) => {
            if topic.len() <= TOPIC_BYTES_MAX {
                return Ok(Seq(seq as u64));
            }
            Err(too_long("from.seqs", "name topics"))
        }
        _ => Err(RequestFault::Rule {
            key: "from.seqs",
            rule: "contain an integer from 0 to 2^53 - 1 for each topic",
        }),
    }
}

/// Parses an entry of `from.epochs`.
fn epoch(_: &str, value: Value<'_>) -> Result<CompactString, RequestFault> {
    match value {
        Value::Text(epoch) => Ok(epoch.into()),
        _ => Err(RequestFault::Rule {
            key: "from.epochs",
            rule: "contain a string for each topic",
        }),
    }
}

struct ByTopicShape<'a, T> {
    name: &'static str,
    convert: fn(&str, Value<'_>) -> Result<T, RequestFault>,
    fault: &'a Fault,
}

impl<'de, T> Shape<'de> for ByTopicShape<'_, T> {
    type Out = Field<ByTopic<T>>;

    fn plain(self, value: Value<'de>) -> Self::Out {
        kind_unless_null(self.name, "a map by topic", &value)
    }

    fn map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Out, A::Error> {
        let mut entries = Ok(Vec::new());
        let mut keys = Keys::new(self.fault);
        while let Some(key) = keys.next(&mut access)? {
            let value = access.next_value_seed(Any(Plain))?;
            let Ok(list) = &mut entries else {
                continue;
            };
            if value == Value::Null {
                continue;
            }
            match (self.convert)(key, value) {
                Ok(value) => list.push((key.as_ref().into(), value)),
                Err(fault) => entries = Err(fault),
            }
        }
        keys.end();
        Ok(Some(entries))
    }
}
