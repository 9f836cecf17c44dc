//! Parts of responses that several requests share.

use std::collections::VecDeque;

use super::Action;
use super::slice::SLICE;
use crate::log::snapshot_events;
use crate::protocol::{Control, Entry, Id, Refusal, Subscribed};
use crate::topic::Channel;

/// The message about a topic whose instrument was removed.
pub(super) const TOPIC_ENDED: &str = "the source no longer lists this instrument";

/// Refused names that are not yet in a part of the response.
#[derive(Debug, Default)]
pub(super) struct Refused(VecDeque<Refusal>);

impl Refused {
    pub(super) fn push(&mut self, refusal: Refusal) {
        self.0.push_back(refusal);
    }

    pub(super) fn extend(&mut self, refusals: impl IntoIterator<Item = Refusal>) {
        self.0.extend(refusals);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes as many as one part of a response lists.
    pub(super) fn part(&mut self) -> Vec<Refusal> {
        self.0.drain(..self.0.len().min(SLICE)).collect()
    }
}

/// Default number of events in a snapshot of a channel.
pub(super) const fn events_by_default(channel: Channel) -> usize {
    snapshot_events(channel.kind(), None)
}

/// Part of a `subscribed` message; none if it is empty and another part follows.
pub(super) fn subscribed(
    id: Option<&Id>,
    ok: Vec<Entry>,
    err: Vec<Refusal>,
    count: usize,
    is_last: bool,
) -> Option<Action> {
    let says_something = is_last || !(ok.is_empty() && err.is_empty());
    says_something.then(|| {
        Action::Respond(Control::Subscribed(Subscribed {
            id: id.cloned(),
            ok,
            err,
            count: count as u64,
            max_message: None,
            more: !is_last,
        }))
    })
}
