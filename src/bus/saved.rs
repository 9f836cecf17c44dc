//! Saved state of the bus, from which its topics resume.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SourceTail;
use super::derive::{SavedInstrument, SavedTime};
use crate::log::{Catalog, InstrumentId, NotAdded, RestoredTopic, SavedTopic, TopicId};
use crate::market::UnixNanos;

/// State saved by a stopped bus.
#[derive(Debug, Default)]
pub struct SavedState {
    /// Source times, by source number.
    pub times: Vec<SavedTime>,
    /// Instrument states, one per symbol.
    pub instruments: Vec<SavedInstrument>,
    /// Latest publication time.
    pub tx: UnixNanos,
    /// Topics of earlier runs that no source announced in this run. They are kept so that their
    /// sequence numbers are never reused.
    pub carried_over: Vec<SavedTopic>,
}

/// State of the bus that writes the log of a cluster, besides that of its topics: another server
/// derives further events from it, and goes on with the sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedOutput {
    /// Source times, by source number.
    pub(super) times: Vec<SavedTime>,
    /// Ends of the outputs, by source number.
    pub(super) tails: Vec<SourceTail>,
    /// Instrument states, by instrument number.
    pub(super) instruments: Vec<SavedInstrument>,
}

/// State restored at startup, applied to each symbol when its source announces it.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// Origin of the epochs.
    pub origin: u64,
    /// Earliest publication time.
    pub tx: UnixNanos,
    /// Time of each source, by source number: set if the source resumes from its checkpoint, `None`
    /// if it starts over.
    pub sources: Vec<Option<SavedTime>>,
    /// Instrument states, by symbol.
    pub instruments: HashMap<String, SavedInstrument>,
    /// Topic states, by topic name.
    pub topics: HashMap<String, SavedTopic>,
}

impl RestoredState {
    /// Takes the saved state of new topics.
    pub(super) fn take(
        &mut self,
        catalog: &Catalog,
        added: &[Result<InstrumentId, NotAdded>],
    ) -> Vec<(TopicId, Arc<RestoredTopic>)> {
        let mut restored = Vec::new();
        for id in added.iter().flatten() {
            let info = catalog.instrument(*id);
            for topic in info.topics.into_iter().flatten() {
                let info = catalog.topic(topic);
                let Some(saved) = self.topics.remove(&*info.text) else {
                    continue;
                };
                let goes_on = self
                    .sources
                    .get(info.source.0 as usize)
                    .is_some_and(Option::is_some);
                let state = goes_on
                    .then(|| RestoredTopic::goes_on(&saved, info, self.origin))
                    .flatten();
                let state =
                    state.unwrap_or_else(|| RestoredTopic::starts_over(&saved, info, self.origin));
                restored.push((topic, Arc::new(state)));
            }
        }
        restored
    }
}
