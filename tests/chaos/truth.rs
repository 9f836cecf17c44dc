//! Record of all events that any client has received, over all runs of the server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use tickcast::protocol::DataEvent;

/// Contents of events by topic, epoch and sequence number. A number that is used for two different
/// events is a failure, whichever clients received them and however often the server restarted in
/// between.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: HashMap<(String, String, u64), u64>,
    failures: Vec<String>,
}

impl Truth {
    /// Records an event as a client received it.
    pub(crate) fn record(&self, topic: &str, epoch: &str, event: &DataEvent) {
        let mut hasher = DefaultHasher::new();
        format!("{event:?}").hash(&mut hasher);
        let content = hasher.finish();
        let key = (topic.to_owned(), epoch.to_owned(), event.seq.0);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match state.events.entry(key) {
            Entry::Vacant(free) => *free.insert(content),
            Entry::Occupied(known) => *known.get(),
        };
        if known != content {
            state.failures.push(format!(
                "{topic} {epoch} {}: two different events",
                event.seq
            ));
        }
    }

    /// Reports a violation that a client noticed.
    pub(crate) fn fail(&self, failure: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures.push(failure);
    }

    /// Violations so far.
    pub(crate) fn failures(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures.clone()
    }

    /// Number of different events.
    pub(crate) fn events(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.events.len()
    }
}
