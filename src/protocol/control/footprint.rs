//! Memory footprint of control messages, which bounds their queues.

use super::{
    Control, Entry, Gap, InstrumentEntry, Instruments, LedgerAnswer, LedgerEntry, Refusal,
    TopicsChange,
};
use crate::protocol::Id;

impl Control {
    /// Memory footprint in bytes, including strings and lists.
    pub(crate) fn footprint(&self) -> usize {
        let heap = match self {
            Self::Welcome(welcome) => {
                let texts = [
                    &welcome.server,
                    &welcome.session,
                    &welcome.epoch,
                    &welcome.auth,
                ];
                texts.map(String::capacity).iter().sum()
            }
            Self::Authenticated(answer) => id(answer.id.as_ref()),
            Self::Subscribed(answer) => {
                id(answer.id.as_ref()) + list(&answer.ok, entry) + list(&answer.err, refusal)
            }
            Self::Unsubscribed(answer) => {
                let topics = list(&answer.topics, String::capacity);
                let rest = list(&answer.ok, entry) + list(&answer.err, refusal);
                id(answer.id.as_ref()) + topics + rest
            }
            Self::Subscriptions(answer) => id(answer.id.as_ref()) + list(&answer.ok, entry),
            Self::Instruments(Instruments {
                id: of,
                instruments,
                ..
            }) => id(of.as_ref()) + list(instruments, instrument),
            Self::Pong(pong) => id(pong.id.as_ref()),
            Self::Snapshot(snapshot) => {
                let texts = snapshot.topic.capacity() + snapshot.epoch.capacity();
                texts + list(&snapshot.events, |_| 0)
            }
            Self::Gap(Gap { topic, epoch, .. }) => topic.capacity() + epoch.capacity(),
            Self::Lag(_) | Self::Heartbeat(_) | Self::Unknown => 0,
            Self::Ledger(LedgerAnswer { id: of, topics, .. }) => {
                let account = |entry: &LedgerEntry| entry.topic.capacity() + entry.epoch.capacity();
                id(of.as_ref()) + list(topics, account)
            }
            Self::Topics(TopicsChange {
                added,
                removed,
                err,
                ..
            }) => list(added, entry) + list(removed, refusal) + list(err, refusal),
            Self::Source(change) => {
                change.name.capacity() + change.error.as_ref().map_or(0, String::capacity)
            }
            Self::Instrument(described) => instrument(described),
            Self::Error(error) => {
                id(error.id.as_ref()) + error.name.capacity() + error.message.capacity()
            }
            Self::Bye(bye) => bye.message.capacity(),
        };
        size_of::<Self>() + heap
    }
}

fn list<T>(elements: &Vec<T>, heap: impl Fn(&T) -> usize) -> usize {
    elements.capacity() * size_of::<T>() + elements.iter().map(heap).sum::<usize>()
}

fn id(id: Option<&Id>) -> usize {
    match id {
        Some(Id::Text(text)) => text.capacity(),
        Some(Id::Number(_)) | None => 0,
    }
}

fn entry(entry: &Entry) -> usize {
    let epoch = entry.epoch.as_ref().map_or(0, String::capacity);
    let matched = entry.matched.as_ref();
    let matched = matched.map_or(0, |matched| list(matched, self::entry));
    entry.topic.capacity() + epoch + entry.mode.capacity() + matched
}

fn refusal(refusal: &Refusal) -> usize {
    refusal.topic.capacity() + refusal.message.capacity()
}

fn instrument(instrument: &InstrumentEntry) -> usize {
    let venue = instrument.venue_symbol.as_ref();
    instrument.symbol.capacity()
        + list(&instrument.channels, |_| 0)
        + instrument.description.capacity()
        + venue.map_or(0, String::capacity)
}
