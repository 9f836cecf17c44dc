//! Checkpoints of the shared log: the state of all topics behind one record. A server that reads
//! one goes on with the next record, without those before it.
//!
//! Form: `TCC1`, reserved (u32), checksum (u64, little-endian; the first eight bytes of the
//! SHA-256 of what follows), body. The body is MessagePack with named fields, compressed with
//! zstd. A reader ignores fields that it does not know.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::forms::{SourceChange, Topics, value};
use super::items::is_first;
use super::record::{Author, Position, short_sum};
use crate::bus::{ForeignState, SavedOutput};
use crate::files::decode_saved;
use crate::log::{
    Catalog, Checkpoint, ForeignFault, InstrumentId, LogItem, RestoredTopic, SavedTopic,
    SourceCondition, SourceId, TopicId,
};
use crate::market::UnixNanos;
use crate::protocol::Epoch;

/// Marker and version of the form.
const MAGIC: &[u8; 4] = b"TCC1";
/// Position of the checksum.
const SUM_AT: usize = 8;
/// Size of marker and checksum, in bytes.
const HEAD_BYTES: usize = 16;
/// Level of the compression (zstd).
const COMPRESSION_LEVEL: i32 = 3;

/// Place of a checkpoint in the shared log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Origin of the epochs of all topics.
    pub origin: u64,
    /// Position behind the last record that the checkpoint contains.
    pub position: Position,
    /// Author of that record.
    pub author: Author,
}

#[derive(Debug, Serialize, Deserialize)]
struct Body {
    origin: u64,
    /// Generation in which new topics begin.
    #[serde(default, skip_serializing_if = "is_first")]
    generation: u32,
    number: u64,
    sum: u64,
    term: u64,
    node: u64,
    /// Latest publication time so far.
    tx: u64,
    /// Names of all sources.
    sources: Vec<String>,
    /// States of the sources that have reported one.
    states: Vec<SourceChange>,
    /// All instruments and topics, removed ones included.
    catalog: Topics,
    /// Numbers of the removed instruments.
    removed: Vec<u32>,
    /// States of all topics, in the order of their numbers.
    topics: Vec<SavedTopic>,
    /// State with which another publisher goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<SavedOutput>,
}

/// Checkpoint that was read.
#[derive(Debug)]
pub struct LogCheckpoint {
    /// Place in the shared log.
    pub place: Place,
    /// Generation in which new topics begin.
    generation: u32,
    /// Latest publication time so far.
    pub tx: UnixNanos,
    /// Instruments and topics.
    pub catalog: Arc<Catalog>,
    topics: Vec<(TopicId, Arc<RestoredTopic>)>,
    /// By source: its condition, if it has reported one.
    pub conditions: Vec<Option<SourceCondition>>,
    /// State with which another publisher goes on.
    pub output: Option<SavedOutput>,
}

/// Reason for which bytes are not a checkpoint, or none that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// Another form or version, or fewer bytes than the head.
    #[error("not a checkpoint of form TCC1")]
    Magic,
    /// Damaged bytes.
    #[error("damaged: the checksum does not match the bytes")]
    Sum,
    /// More bytes than `cluster.checkpoints.bytes`.
    #[error("larger than {0} bytes (cluster.checkpoints.bytes)")]
    Size(usize),
    /// A body that cannot be decoded.
    #[error("malformed body")]
    Body,
    /// Instruments or topics that contradict each other.
    #[error("contradictory catalog: {0}")]
    Catalog(#[from] ForeignFault),
    /// State of a topic that contradicts itself or the catalog.
    #[error("contradictory state of topic {0}")]
    Topic(u32),
    /// Another place than the name of the checkpoint says.
    #[error("the checkpoint of another record")]
    Place,
}

fn removed_of(catalog: &Catalog) -> impl Iterator<Item = InstrumentId> {
    let all = (0..catalog.instruments_len() as u32).map(InstrumentId);
    all.filter(|id| !catalog.is_there(*id))
}

/// Bytes of a checkpoint whose body has at most `bytes_max`.
pub fn encode_checkpoint(
    checkpoint: &Checkpoint,
    output: Option<&SavedOutput>,
    place: Place,
    bytes_max: usize,
) -> Result<Bytes, CheckpointFault> {
    let body = body_of(checkpoint, output, place);
    if body.len() > bytes_max {
        return Err(CheckpointFault::Size(bytes_max));
    }
    seal(&body)
}

/// Compresses a body and adds the head.
pub fn seal(body: &[u8]) -> Result<Bytes, CheckpointFault> {
    let compressed = zstd::bulk::compress(body, COMPRESSION_LEVEL);
    let compressed = compressed.map_err(|_impossible| CheckpointFault::Body)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + compressed.len());
    bytes.extend_from_slice(MAGIC);
    bytes.resize(SUM_AT, 0);
    bytes.extend_from_slice(&short_sum(&[&compressed]).to_le_bytes());
    bytes.extend_from_slice(&compressed);
    Ok(bytes.into())
}

/// Serialized state.
pub(super) fn body_of(
    checkpoint: &Checkpoint,
    output: Option<&SavedOutput>,
    place: Place,
) -> Bytes {
    let catalog = checkpoint.catalog();
    let instruments = (0..catalog.instruments_len() as u32).map(InstrumentId);
    let states = checkpoint.sources().iter().enumerate();
    let states = states.filter_map(|(at, condition)| {
        let condition = condition.as_ref()?;
        Some(SourceChange::of(SourceId(at as u16), condition))
    });
    let names = catalog.sources().iter();
    value(&Body {
        origin: place.origin,
        generation: checkpoint.origin().generation,
        number: place.position.number,
        sum: place.position.sum,
        term: place.author.term,
        node: place.author.node,
        tx: checkpoint.tx.0,
        sources: names.map(ToString::to_string).collect(),
        states: states.collect(),
        catalog: Topics::of(catalog, instruments, 0..catalog.len() as u32),
        removed: removed_of(catalog).map(|id| id.0).collect(),
        topics: checkpoint.save(),
        output: output.cloned(),
    })
}

/// Decompressed body of at most `bytes_max`.
pub(super) fn open(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CheckpointFault> {
    let is_form = bytes.len() >= HEAD_BYTES && bytes.starts_with(MAGIC);
    if !is_form {
        return Err(CheckpointFault::Magic);
    }
    let (head, compressed) = bytes.split_at(HEAD_BYTES);
    if head[SUM_AT..] != short_sum(&[compressed]).to_le_bytes() {
        return Err(CheckpointFault::Sum);
    }
    let mut body = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed);
    let mut decoder = decoder.map_err(|_no_memory| CheckpointFault::Body)?;
    let read = decoder
        .by_ref()
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut body);
    read.map_err(|_malformed| CheckpointFault::Body)?;
    if body.len() > bytes_max {
        return Err(CheckpointFault::Size(bytes_max));
    }
    Ok(body)
}

/// Reads a checkpoint whose body has at most `bytes_max`. One that contradicts itself is refused
/// as a whole.
pub fn decode_checkpoint(bytes: &[u8], bytes_max: usize) -> Result<LogCheckpoint, CheckpointFault> {
    let body = open(bytes, bytes_max)?;
    let body: Body = decode_saved(&body).map_err(|_malformed| CheckpointFault::Body)?;
    if body.sources.len() > usize::from(u16::MAX) {
        return Err(CheckpointFault::Body);
    }
    let names = body.sources.into_iter().map(Into::into);
    let mut catalog = Catalog::new(names.collect());
    let announcement = body.catalog.announcement().ok_or(CheckpointFault::Body)?;
    catalog.announce(announcement)?;
    let removed: Vec<InstrumentId> = body.removed.into_iter().map(InstrumentId).collect();
    for id in &removed {
        catalog.check_instrument(*id)?;
    }
    catalog.remove(&removed);
    let mut conditions = vec![None; catalog.sources().len()];
    for state in body.states {
        let source = state.source();
        catalog.check_source(source)?;
        conditions[source.0 as usize] = Some(state.condition());
    }
    Ok(LogCheckpoint {
        place: Place {
            origin: body.origin,
            position: Position {
                number: body.number,
                sum: body.sum,
            },
            author: Author {
                term: body.term,
                node: body.node,
            },
        },
        generation: body.generation,
        tx: UnixNanos(body.tx),
        topics: restored(&body.topics, &catalog, body.origin)?,
        catalog: Arc::new(catalog),
        conditions,
        output: body.output,
    })
}

/// States of all topics of the catalog.
fn restored(
    saved: &[SavedTopic],
    catalog: &Catalog,
    origin: u64,
) -> Result<Vec<(TopicId, Arc<RestoredTopic>)>, CheckpointFault> {
    if saved.len() != catalog.len() {
        return Err(CheckpointFault::Topic(saved.len() as u32));
    }
    let restore = |(at, saved): (u32, &SavedTopic)| {
        let info = catalog.topic(TopicId(at));
        let is_same = *saved.topic == *info.text;
        let state = is_same.then(|| RestoredTopic::goes_on(saved, info, origin));
        let state = state.flatten().ok_or(CheckpointFault::Topic(at))?;
        Ok((info.id, Arc::new(state)))
    };
    (0..).zip(saved).map(restore).collect()
}

impl LogCheckpoint {
    /// Epoch in which new topics begin.
    pub const fn origin(&self) -> Epoch {
        Epoch {
            origin: self.place.origin,
            generation: self.generation,
        }
    }

    /// State for the bus.
    pub fn state(&self) -> ForeignState {
        ForeignState {
            origin: self.origin(),
            items: self.items(),
            catalog: Arc::clone(&self.catalog),
            tx: self.tx,
            output: self.output.clone(),
        }
    }

    /// Items that bring an empty replica to the state of the checkpoint.
    pub fn items(&self) -> Vec<LogItem> {
        let listed = |id: &InstrumentId| self.catalog.is_there(*id);
        let instruments = (0..self.catalog.instruments_len() as u32).map(InstrumentId);
        let topics = LogItem::Topics {
            instruments: instruments.filter(listed).collect(),
            new: 0..self.catalog.len() as u32,
            restored: self.topics.clone(),
        };
        let states = self.conditions.iter().enumerate();
        let states = states.filter_map(|(at, condition)| {
            let (source, condition) = (SourceId(at as u16), condition.clone()?);
            Some(LogItem::Source { source, condition })
        });
        std::iter::once(topics).chain(states).collect()
    }
}
