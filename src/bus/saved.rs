//! Saved state of the bus, and how its topics resume from it.

use std::collections::HashMap;
use std::sync::Arc;

use super::derive::{SavedInstrument, SavedTime};
use crate::log::{Catalog, InstrumentId, NotAdded, RestoredTopic, SavedTopic, TopicId};
use crate::market::UnixNanos;

/// State saved by a stopped bus.
#[derive(Debug, Default)]
pub struct SavedState {
    /// By the source's number.
    pub times: Vec<SavedTime>,
    /// By symbol.
    pub instruments: Vec<SavedInstrument>,
    /// The newest publishing time.
    pub tx: UnixNanos,
    /// Topics of before that no source told of in this run: should one tell of them later, their numbers must not come again.
    pub carried_over: Vec<SavedTopic>,
}

/// State restored at start, symbol by symbol as the sources announce them.
#[derive(Debug, Default)]
pub struct RestoredState {
    /// The origin of its epochs.
    pub origin: u64,
    /// Publishing times don't begin before.
    pub tx: UnixNanos,
    /// By the source's number: its time, where it goes on from its place; else it starts over.
    pub sources: Vec<Option<SavedTime>>,
    /// By symbol.
    pub instruments: HashMap<String, SavedInstrument>,
    /// By the topic's text.
    pub topics: HashMap<String, SavedTopic>,
}

impl RestoredState {
    /// Takes what is there of new topics.
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
