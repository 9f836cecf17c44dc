//! The state that a stopping server saves for the next one: epochs, numbers, last states, bars, history, and source positions.
//!
//! One file, replaced whole and checked by its sum. It is taken away when it is taken up, so that a server that crashes leaves
//! none, and the next one begins a new epoch instead of pretending.
//!
//! Every run writes a lease of its own at its start, and its state names that lease. A state of any other run than the last
//! one, such as a backup that was put back, is refused.

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
use crate::log::SavedTopic;
use crate::market::UnixNanos;
pub use dir::StateDir;

/// Header of the file; the digit is the version of the format.
const MAGIC: &[u8; 16] = b"tickcast state 2";
const SUM_BYTES: usize = 32;
/// Catching up on more than this would take longer than it is worth.
const AGE_MAX: Duration = Duration::from_secs(3600);
/// A state this far ahead of the clock is still taken up: publishing times wait for the clock meanwhile.
const AHEAD_MAX: Duration = Duration::from_secs(1);
/// Difference of wall clock and monotonic clock that counts as a step.
const STEP_MIN: Duration = Duration::from_secs(1);
/// A source at the moment of the stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedSource {
    /// Its name in the config.
    pub name: String,
    /// Sum of its config: with another one it starts over.
    pub config: Bytes,
    /// Its own time.
    pub time: SavedTime,
    /// From where it goes on; `None`: it can't.
    pub place: Option<Bytes>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Time of the shutdown.
    pub stopped: UnixNanos,
    /// The newest publishing time.
    pub tx: UnixNanos,
    /// The origin of its epochs.
    pub origin: u64,
    /// All sources.
    pub sources: Vec<SavedSource>,
    /// Derived state of each instrument.
    pub instruments: Vec<SavedInstrument>,
    /// All topics that have an event.
    pub topics: Vec<SavedTopic>,
}

/// A source's name, the digest of its config, and its checkpoint.
pub type StoppedSource = (String, Bytes, Option<Bytes>);

impl State {
    /// Puts together what the parts of a stopped server left; `sources`: name, config's sum, place.
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

/// The sum by which a source's config is known again.
pub fn config_sum(config: &impl std::fmt::Debug) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(format!("{config:?}")))
}

/// Why a state is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The last run did not write one.
    #[error("the last run ended without saving its state, for example in a crash")]
    Missing,
    /// The file can't be read.
    #[error("cannot read the state: {0}")]
    Unreadable(io::Error),
    /// The file is not what was written.
    #[error("the state is damaged or has another version: {0}")]
    Damaged(String),
    /// It is of another run than the last one.
    #[error(
        "the state is not that of the last run; an older one was restored, or the lease file was removed"
    )]
    NotTheLast,
    /// It was saved too long ago.
    #[error("the state is {} minutes old, expected at most {}", .0.as_secs() / 60, AGE_MAX.as_secs() / 60)]
    Old(Duration),
    /// It was saved at a time that has not come yet.
    #[error(
        "the state was saved in the future, {0:?} ahead of the clock: the clock was ahead then, or has been set back"
    )]
    Ahead(Duration),
}

impl Refusal {
    /// The label value of this one.
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

/// A step of the wall clock between two runs on one boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockStep {
    /// The clock was set forward by this.
    Forward(Duration),
    /// The clock was set back by this.
    Back(Duration),
}

/// State found at start.
#[derive(Debug)]
pub enum Found {
    /// No server was here before.
    Nothing,
    /// The last one stopped in order.
    State(Box<State>),
    /// There was one, but it left nothing that could be used.
    Refused(Refusal),
}

/// The file's contents behind its sum.
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
    rmp_serde::from_slice(payload).map_err(|error| Refusal::Damaged(error.to_string()))
}

/// Compares the time of a state with the clock, both ways.
fn by_time(state: &State, now: UnixNanos) -> Option<Refusal> {
    let ahead = state.stopped.max(state.tx).since(now);
    if ahead > AHEAD_MAX {
        return Some(Refusal::Ahead(ahead));
    }
    let age = now.since(state.stopped);
    (age > AGE_MAX).then_some(Refusal::Old(age))
}

/// The monotonic clock of the machine tells how much time has really passed.
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
