//! Bodies of records: the items of a batch, in order, as pairs of a name and a MessagePack value.
//! Events are the bytes that clients get. A reader skips items with names that it does not know.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::forms::{Described, SourceChange, Topics, value};
use super::inputs::{InputFault, input_item, read_input};
use super::record::BODY_BYTES_MAX;
use crate::codec::decode_server_message;
use crate::files::decode_saved;
use crate::log::{Batch, Catalog, Event, ForeignFault, InstrumentId, LogItem, SourceId, TopicId};
use crate::protocol::{DataEvent, Encoding, Epoch, ServerMessage};

/// Size from which the items of a batch continue in a further record, in bytes. With one more item
/// a record stays below the message limit of NATS, 1 MiB.
const BODY_BYTES_TARGET: usize = 384 << 10;

/// Body of a record that starts a term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Origin of the epochs of all topics.
    pub origin: u64,
    /// Generation in which new topics begin. All topics begin new epochs behind a record with another
    /// origin than before: a checkpoint has their states.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
    /// Name of the leading node.
    pub node: String,
}

impl Lead {
    /// Epoch in which new topics begin.
    pub const fn epoch(&self) -> Epoch {
        Epoch {
            origin: self.origin,
            generation: self.generation,
        }
    }
}

/// True for the first origin of a log.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde requires"
)]
pub(super) const fn is_first(generation: &u32) -> bool {
    *generation == 0
}

#[derive(Debug, Serialize, Deserialize)]
struct Events {
    /// Topic number of each event.
    topics: Vec<u32>,
    /// Events in MessagePack, one after the other.
    events: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
struct Moved {
    instruments: Vec<u32>,
    source: u16,
}

#[derive(Debug, Serialize, Deserialize)]
struct NewEpoch {
    topic: u32,
    origin: u64,
    generation: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Missed {
    topic: u32,
    missing: Option<u64>,
}

/// Name and value of an item.
type Named = (String, Bytes);

/// Body of a record that starts a term.
pub fn lead_body(lead: &Lead) -> Bytes {
    value(lead)
}

/// Reads the body of a record that starts a term.
pub fn read_lead(body: &[u8]) -> Result<Lead, ItemFault> {
    decode_saved(body).map_err(|_malformed| ItemFault::Malformed("lead"))
}

/// Writer of bodies. It knows how many sources the log has announced.
#[derive(Debug)]
pub struct Packer {
    sources: usize,
}

impl Packer {
    /// Creates a writer for a log that has announced `sources` sources.
    pub const fn new(sources: usize) -> Self {
        Self { sources }
    }

    /// Bodies of the records of a batch.
    pub fn pack(&mut self, batch: &Batch) -> Vec<Bytes> {
        let (encoded, _) = batch.encode(Encoding::Msgpack);
        let mut bodies = Bodies::default();
        let catalog = &batch.catalog;
        let new = catalog.sources().get(self.sources..).unwrap_or_default();
        if !new.is_empty() {
            let names: Vec<&str> = new.iter().map(|name| &**name).collect();
            bodies.add("sources", value(&names));
            self.sources = catalog.sources().len();
        }
        for (at, item) in batch.items.iter().enumerate() {
            match item {
                LogItem::Event(event) => bodies.add_event(event.topic, encoded.item(at)),
                _ => bodies.add_change(item, catalog),
            }
        }
        bodies.finish()
    }
}

/// Bodies in progress.
#[derive(Debug, Default)]
struct Bodies {
    done: Vec<Bytes>,
    items: Vec<Named>,
    bytes: usize,
    topics: Vec<u32>,
    events: Vec<u8>,
}

impl Bodies {
    fn add_event(&mut self, topic: TopicId, encoded: &[u8]) {
        self.topics.push(topic.0);
        self.events.extend_from_slice(encoded);
        if self.bytes + self.events.len() >= BODY_BYTES_TARGET {
            self.cut();
        }
    }

    fn end_events(&mut self) {
        if self.topics.is_empty() {
            return;
        }
        let events = Events {
            topics: std::mem::take(&mut self.topics),
            events: std::mem::take(&mut self.events).into(),
        };
        let item = value(&events);
        self.bytes += item.len();
        self.items.push(("events".to_owned(), item));
    }

    fn add(&mut self, name: &str, item: Bytes) {
        self.end_events();
        self.bytes += item.len();
        self.items.push((name.to_owned(), item));
        if self.bytes >= BODY_BYTES_TARGET {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.end_events();
        if !self.items.is_empty() {
            self.done.push(value(&std::mem::take(&mut self.items)));
            self.bytes = 0;
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.cut();
        self.done
    }

    fn add_change(&mut self, item: &LogItem, catalog: &Catalog) {
        let numbers = |ids: &[InstrumentId]| ids.iter().map(|id| id.0).collect::<Vec<u32>>();
        match item {
            LogItem::Event(_) => {}
            LogItem::Topics {
                instruments, new, ..
            } => {
                let item = Topics::of(catalog, instruments.iter().copied(), new.clone());
                self.add("topics", value(&item));
            }
            LogItem::Instruments(ids) => {
                let all = ids.iter().map(|id| Described::of(catalog, *id));
                self.add("instruments", value(&all.collect::<Vec<Described>>()));
            }
            LogItem::Removed(ids) => self.add("removed", value(&numbers(ids))),
            LogItem::Returned(ids) => self.add("returned", value(&numbers(ids))),
            LogItem::Moved {
                instruments,
                source,
            } => {
                let instruments = numbers(instruments);
                let source = source.0;
                self.add(
                    "moved",
                    value(&Moved {
                        instruments,
                        source,
                    }),
                );
            }
            LogItem::Epoch { topic, epoch } => {
                let item = NewEpoch {
                    topic: topic.0,
                    origin: epoch.origin,
                    generation: epoch.generation,
                };
                self.add("epoch", value(&item));
            }
            LogItem::Missed { topic, missing } => {
                let (topic, missing) = (topic.0, *missing);
                self.add("missed", value(&Missed { topic, missing }));
            }
            LogItem::Source { source, condition } => {
                let item = SourceChange::of(*source, condition);
                self.add("source", value(&item));
            }
            LogItem::Input { source, input } => {
                let (name, value) = input_item(*source, input);
                self.add(name, value);
            }
        }
    }
}

/// Reason for which the body of a record cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemFault {
    /// Bytes that are not what the name of the item says.
    #[error("malformed item \"{0}\"")]
    Malformed(&'static str),
    /// A change that does not apply to the catalog.
    #[error("item \"{0}\": {1}")]
    Catalog(&'static str, ForeignFault),
    /// A topic number that is not announced.
    #[error("item \"{0}\": unexpected topic number {1}")]
    Topic(&'static str, u32),
}

/// Reader of bodies. It keeps the catalog as of the last body.
#[derive(Debug, Default)]
pub struct Unpacker {
    catalog: Arc<Catalog>,
    /// Number of items with unknown names.
    pub skipped: u64,
}

impl Unpacker {
    /// Creates a reader that goes on from a catalog.
    pub const fn behind(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            skipped: 0,
        }
    }

    /// Catalog as of the last body.
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Items of a body.
    pub fn unpack(&mut self, body: &[u8]) -> Result<Vec<LogItem>, ItemFault> {
        debug_assert!(body.len() <= BODY_BYTES_MAX, "records bound their bodies");
        let named: Vec<Named> = read("items", body)?;
        let mut items = Vec::new();
        for (name, value) in named {
            self.take(&name, &value, &mut items)?;
        }
        Ok(items)
    }

    fn take(
        &mut self,
        name: &str,
        value: &Bytes,
        items: &mut Vec<LogItem>,
    ) -> Result<(), ItemFault> {
        match name {
            "events" => self.events(read("events", value)?, items)?,
            "sources" => {
                for name in read::<Vec<String>>("sources", value)? {
                    Arc::make_mut(&mut self.catalog).add_source(name.into());
                }
            }
            "topics" => items.push(self.topics(read("topics", value)?)?),
            "instruments" => items.push(self.described(read("instruments", value)?)?),
            "removed" => {
                let ids = self.instruments("removed", read("removed", value)?)?;
                Arc::make_mut(&mut self.catalog).remove(&ids);
                items.push(LogItem::Removed(ids));
            }
            "returned" => {
                let ids = self.instruments("returned", read("returned", value)?)?;
                let listed = Arc::make_mut(&mut self.catalog).list_again(&ids);
                listed.map_err(|fault| ItemFault::Catalog("returned", fault))?;
                items.push(LogItem::Returned(ids));
            }
            "moved" => items.push(self.moved(read("moved", value)?)?),
            "epoch" => {
                let item: NewEpoch = read("epoch", value)?;
                let topic = self.topic("epoch", item.topic)?;
                let epoch = Epoch {
                    origin: item.origin,
                    generation: item.generation,
                };
                items.push(LogItem::Epoch { topic, epoch });
            }
            "missed" => {
                let item: Missed = read("missed", value)?;
                let topic = self.topic("missed", item.topic)?;
                let missing = item.missing;
                items.push(LogItem::Missed { topic, missing });
            }
            "source" => items.push(self.source_change(read("source", value)?)?),
            other => match read_input(other, value, &self.catalog) {
                Ok((source, input)) => items.push(LogItem::Input { source, input }),
                Err(InputFault::Other) => self.skipped += 1,
                Err(InputFault::Malformed(name)) => return Err(ItemFault::Malformed(name)),
                Err(InputFault::Unknown(name, fault)) => {
                    return Err(ItemFault::Catalog(name, fault));
                }
            },
        }
        Ok(())
    }

    fn events(&self, item: Events, items: &mut Vec<LogItem>) -> Result<(), ItemFault> {
        let malformed = ItemFault::Malformed("events");
        let count = u32::try_from(item.topics.len()).map_err(|_many| malformed.clone())?;
        let mut array = Vec::with_capacity(item.events.len() + 5);
        array.push(0xdd);
        array.extend_from_slice(&count.to_be_bytes());
        array.extend_from_slice(&item.events);
        let Ok(ServerMessage::Events(events)) = decode_server_message(&array, Encoding::Msgpack)
        else {
            return Err(malformed);
        };
        if events.len() != item.topics.len() {
            return Err(malformed);
        }
        for (topic, DataEvent { seq, tx, body, .. }) in item.topics.into_iter().zip(events) {
            let topic = self.topic("events", topic)?;
            items.push(LogItem::Event(Event {
                topic,
                seq,
                tx,
                body,
            }));
        }
        Ok(())
    }

    fn topics(&mut self, item: Topics) -> Result<LogItem, ItemFault> {
        let malformed = ItemFault::Malformed("topics");
        let announcement = item.announcement().ok_or(malformed)?;
        let announced = announcement.instruments.iter().map(|(id, ..)| *id);
        let announced = announced.collect();
        let new = Arc::make_mut(&mut self.catalog).announce(announcement);
        Ok(LogItem::Topics {
            instruments: announced,
            new: new.map_err(|fault| ItemFault::Catalog("topics", fault))?,
            restored: Vec::new(),
        })
    }

    fn described(&mut self, all: Vec<Described>) -> Result<LogItem, ItemFault> {
        let ids = all.iter().map(|one| InstrumentId(one.id)).collect();
        let catalog = Arc::make_mut(&mut self.catalog);
        for one in all {
            let described = catalog.describe_foreign(InstrumentId(one.id), None, one.instrument);
            described.map_err(|fault| ItemFault::Catalog("instruments", fault))?;
        }
        Ok(LogItem::Instruments(ids))
    }

    fn moved(&mut self, item: Moved) -> Result<LogItem, ItemFault> {
        let instruments = self.instruments("moved", item.instruments)?;
        let source = SourceId(item.source);
        let known = self.catalog.check_source(source);
        known.map_err(|fault| ItemFault::Catalog("moved", fault))?;
        let catalog = Arc::make_mut(&mut self.catalog);
        for id in &instruments {
            catalog.move_to(*id, source);
        }
        Ok(LogItem::Moved {
            instruments,
            source,
        })
    }

    fn source_change(&self, item: SourceChange) -> Result<LogItem, ItemFault> {
        let source = item.source();
        let known = self.catalog.check_source(source);
        known.map_err(|fault| ItemFault::Catalog("source", fault))?;
        let condition = item.condition();
        Ok(LogItem::Source { source, condition })
    }

    fn instruments(
        &self,
        item: &'static str,
        numbers: Vec<u32>,
    ) -> Result<Vec<InstrumentId>, ItemFault> {
        let known = |number| {
            let id = InstrumentId(number);
            let known = self.catalog.check_instrument(id).map(|()| id);
            known.map_err(|fault| ItemFault::Catalog(item, fault))
        };
        numbers.into_iter().map(known).collect()
    }

    fn topic(&self, item: &'static str, number: u32) -> Result<TopicId, ItemFault> {
        let is_known = (number as usize) < self.catalog.len();
        let topic = is_known.then_some(TopicId(number));
        topic.ok_or(ItemFault::Topic(item, number))
    }
}

fn read<T: for<'de> Deserialize<'de>>(name: &'static str, bytes: &[u8]) -> Result<T, ItemFault> {
    decode_saved(bytes).map_err(|_malformed| ItemFault::Malformed(name))
}
