//! Serialized forms of topics and sources, common to records and checkpoints.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::{Announcement, Catalog, InstrumentId, SourceCondition, SourceId, TopicId};
use crate::market::{Instrument, UnixNanos};
use crate::protocol::SourceState;
use crate::topic::{Channel, Topic};

/// Serializes a value whose fields are named. Only values without maps of unknown length and
/// without floats of foreign types are serialized, so this does not fail.
pub(super) fn value(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec_named(value).unwrap_or_default().into()
}

/// Description of an instrument.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) id: u32,
    pub(super) source: u16,
    pub(super) instrument: Instrument,
}

impl Described {
    pub(super) fn of(catalog: &Catalog, id: InstrumentId) -> Self {
        let info = catalog.instrument(id);
        Self {
            id: id.0,
            source: info.source.0,
            instrument: info.instrument.clone(),
        }
    }
}

/// Announced instruments and topics.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Topics {
    instruments: Vec<Described>,
    /// Instrument and channel of each new topic.
    topics: Vec<(u32, String)>,
}

impl Topics {
    pub(super) fn of(
        catalog: &Catalog,
        instruments: impl Iterator<Item = InstrumentId>,
        topics: Range<u32>,
    ) -> Self {
        let described = instruments.map(|id| Described::of(catalog, id));
        Self {
            instruments: described.collect(),
            topics: topics.map(|id| new_topic(catalog, TopicId(id))).collect(),
        }
    }

    /// Announcement for a catalog; `None` if a channel is unknown.
    pub(super) fn announcement(self) -> Option<Announcement> {
        let described = self.instruments.into_iter();
        let instruments =
            described.map(|one| (InstrumentId(one.id), SourceId(one.source), one.instrument));
        let topics = self.topics.into_iter();
        let topics = topics.map(|(id, channel)| Some((InstrumentId(id), parse_channel(&channel)?)));
        Some(Announcement {
            instruments: instruments.collect(),
            topics: topics.collect::<Option<_>>()?,
        })
    }
}

/// Instrument and channel of a topic.
fn new_topic(catalog: &Catalog, id: TopicId) -> (u32, String) {
    let Topic { channel, symbol } = &catalog.topic(id).topic;
    // A topic belongs to an instrument, which may have been removed since.
    let instrument = catalog.known(symbol).map_or(u32::MAX, |id| id.0);
    (instrument, channel.full_name().to_owned())
}

fn parse_channel(text: &str) -> Option<Channel> {
    Channel::ALL
        .into_iter()
        .find(|channel| channel.full_name() == text)
}

/// State of a source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SourceChange {
    source: u16,
    state: SourceState,
    since: u64,
    error: Option<String>,
}

impl SourceChange {
    pub(super) fn of(source: SourceId, condition: &SourceCondition) -> Self {
        Self {
            source: source.0,
            state: condition.state,
            since: condition.since.0,
            error: condition.error.as_deref().map(str::to_owned),
        }
    }

    pub(super) const fn source(&self) -> SourceId {
        SourceId(self.source)
    }

    pub(super) fn condition(self) -> SourceCondition {
        SourceCondition {
            state: self.state,
            since: UnixNanos(self.since),
            error: self.error.map(Into::into),
        }
    }
}
