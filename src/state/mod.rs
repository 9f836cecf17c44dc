//! State saved by a stopping server for the next one: epochs, sequence numbers, last states, bars,
//! history and source checkpoints.
//!
//! The state is a single file with a checksum, replaced atomically. It is removed when it is
//! loaded, so a server that crashes leaves no state, and the next server begins a new epoch instead
//! of resuming an outdated one.
//!
//! Each run writes its own lease at startup, and its state refers to that lease. The state of any
//! run other than the last one, such as a restored backup, is rejected.

mod dir;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bus::derive::SavedInstrument;
use crate::bus::{SavedState, SavedTime};
use crate::clock::{BootTime, Moment};
use crate::files::decode_saved;
use crate::log::SavedTopic;
use crate::market::UnixNanos;
use crate::printable::{printable, shortened};
pub use dir::StateDir;

/// Header of the file; the digit is the format version.
const MAGIC: &[u8; 16] = b"tickcast state 2";
const SUM_BYTES: usize = 32;
/// Maximum number of characters of a decoder's error.
const ERROR_CHARS_MAX: usize = 200;
/// Maximum age of a state: catching up on more would take too long.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// Maximum time by which a state may be ahead of the clock: publication times wait for the clock in
/// the meantime.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// Minimum difference between wall clock and monotonic clock that counts as a step.
const STEP_MIN: Duration = Duration::from_secs(1);
/// State of a source at the time of the stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSource {
    /// Name of the source in the config.
    pub name: String,
    /// Digest of the source's config: with a different config the source starts over.
    pub config: Bytes,
    /// Current time of the source.
    pub time: SavedTime,
    /// Checkpoint to resume from; `None` if the source cannot resume.
    pub place: Option<Bytes>,
}

/// Saved state of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Time of the shutdown.
    pub stopped: UnixNanos,
    /// Latest publication time.
    pub tx: UnixNanos,
    /// Origin of the epochs.
    pub origin: u64,
    /// Saved state of each source.
    pub sources: Vec<SavedSource>,
    /// Derived state of each instrument.
    pub instruments: Vec<SavedInstrument>,
    /// All topics that have events.
    pub topics: Vec<SavedTopic>,
}

/// A source's name, the digest of its config, and its checkpoint.
pub type StoppedSource = (String, Bytes, Option<Bytes>);

impl State {
    /// Combines the states of the parts of a stopped server; `sources` contains name, config digest
    /// and checkpoint.
    pub fn new(
        stopped: UnixNanos,
        origin: u64,
        bus: SavedState,
        sources: Vec<StoppedSource>,
        topics: Vec<SavedTopic>,
    ) -> Self {
        let times = bus
            .times
            .into_iter()
            .chain(std::iter::repeat(SavedTime::default()));
        let sources = sources
            .into_iter()
            .zip(times)
            .map(|((name, config, place), time)| SavedSource {
                name,
                config,
                time,
                place,
            });
        let topics = topics.into_iter().chain(bus.carried_over).collect();
        Self {
            stopped,
            tx: bus.tx,
            origin,
            sources: sources.collect(),
            instruments: bus.instruments,
            topics,
        }
    }
}

/// Digest that identifies the config of a source.
pub fn config_sum(config: &impl std::fmt::Debug) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(format!("{config:?}")))
}

/// Reason for rejecting a saved state.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The last run did not save a state.
    #[error("the last run ended without saving its state, for example in a crash")]
    Missing,
    /// The file cannot be read.
    #[error("cannot read the state: {0}")]
    Unreadable(io::Error),
    /// The file is damaged or has an unsupported version.
    #[error("the state is damaged or has another version: {0}")]
    Damaged(String),
    /// The state was saved by a run other than the last one.
    #[error(
        "the state is not that of the last run; an older one was restored, or the lease file was removed"
    )]
    NotTheLast,
    /// The state is too old.
    #[error("the state is {} minutes old, expected at most {}", .0.as_secs() / 60, AGE_MAX.as_secs() / 60)]
    Old(Duration),
    /// The state was saved in the future.
    #[error(
        "the state was saved in the future, {0:?} ahead of the clock: the clock was ahead then, or has been set back"
    )]
    Ahead(Duration),
}

impl Refusal {
    /// Metric label of the reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unreadable(_) => "unreadable",
            Self::Damaged(_) => "damaged",
            Self::NotTheLast => "not_the_last",
            Self::Old(_) => "old",
            Self::Ahead(_) => "ahead",
        }
    }
}

/// Step of the wall clock between two runs on the same boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// The clock was set forward by this duration.
    Forward(Duration),
    /// The clock was set back by this duration.
    Back(Duration),
}

/// State found at startup.
#[derive(Debug)]
pub enum Found {
    /// No server has run in this directory before.
    Nothing,
    /// The last run stopped in an orderly way.
    State(Box<State>),
    /// The last run left no usable state.
    Refused(Refusal),
}

/// Contents of the file, after the checksum.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<S> {
    lease: String,
    boot: Option<BootTime>,
    state: S,
}

fn parse(bytes: &[u8]) -> Result<Saved<State>, Refusal> {
    let damaged = |why: &str| Refusal::Damaged(why.to_owned());
    let head = MAGIC.len() + SUM_BYTES;
    if bytes.len() < head || &bytes[..MAGIC.len()] != MAGIC {
        return Err(damaged("no state header"));
    }
    let payload = &bytes[head..];
    if Sha256::digest(payload)[..] != bytes[MAGIC.len()..head] {
        return Err(damaged("checksum mismatch"));
    }
    decode_saved(payload).map_err(|error| Refusal::Damaged(quoted(&error)))
}

/// Error of the decoder, which may quote the file.
fn quoted(error: &impl std::fmt::Display) -> String {
    printable(&shortened(&error.to_string(), ERROR_CHARS_MAX)).into_owned()
}

/// Header and payload of a state file.
fn sealed_bytes(payload: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &Sha256::digest(payload), payload].concat()
}

/// Reads the bytes of a state file, for the fuzz targets.
#[cfg(feature = "internals")]
pub fn read_state(bytes: &[u8]) -> Result<State, Refusal> {
    parse(bytes).map(|saved| saved.state)
}

/// State file with this payload and the right checksum, for the fuzz targets.
#[cfg(feature = "internals")]
pub fn sealed(payload: &[u8]) -> Vec<u8> {
    sealed_bytes(payload)
}

/// State file of a state, for the fuzz targets.
#[cfg(feature = "internals")]
pub fn written(state: &State) -> Vec<u8> {
    let saved = Saved {
        lease: String::new(),
        boot: None,
        state,
    };
    sealed_bytes(&rmp_serde::to_vec_named(&saved).expect("a state is plain values"))
}

/// Checks the age of a state against the clock, in both directions.
fn by_time(state: &State, now: UnixNanos) -> Option<Refusal> {
    let ahead = state.stopped.max(state.tx).since(now);
    if ahead > AHEAD_MAX {
        return Some(Refusal::Ahead(ahead));
    }
    let age = now.since(state.stopped);
    (age > AGE_MAX).then_some(Refusal::Old(age))
}

/// Step of the wall clock, measured against the monotonic clock of the machine.
fn clock_step<S: std::borrow::Borrow<State>>(saved: &Saved<S>, now: &Moment) -> Option<ClockStep> {
    let passed = now.boot.as_ref()?.since(saved.boot.as_ref()?)?;
    let expected = saved.state.borrow().stopped.plus(passed);
    let (forward, back) = (now.wall.since(expected), expected.since(now.wall));
    if forward >= STEP_MIN {
        Some(ClockStep::Forward(forward))
    } else if back >= STEP_MIN {
        Some(ClockStep::Back(back))
    } else {
        None
    }
}
