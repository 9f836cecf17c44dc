//! Published and announced events, which a client cannot know; received messages are compared with
//! them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use crate::client::Accounts;
use crate::protocol::{Control, DataEvent, Gap, GapCause, Seq, ServerMessage, Snapshot};

/// A topic, an epoch, a number.
type Place = (String, String, Seq);

/// Events that the model published.
#[derive(Default)]
pub(super) struct Truth {
    /// By topic and epoch: the last number.
    ends: HashMap<(String, String), Seq>,
    /// The last events of closed bars.
    closes: BTreeSet<Place>,
    /// Source gaps, each behind an event.
    pub(super) source_gaps: BTreeSet<Place>,
    /// Those that were not reported to the client.
    pub(super) missed: Vec<Place>,
    /// Positions of a resume, behind which a source gap may be reported again.
    pub(super) repeatable: Vec<(String, Seq)>,
    /// Snapshots that were acknowledged and have not come.
    pub(super) snapshots: Vec<Place>,
}

impl Truth {
    pub(super) fn published(&mut self, topic: String, epoch: String, seq: Seq, closes_bar: bool) {
        if closes_bar {
            self.closes.insert((topic.clone(), epoch.clone(), seq));
        }
        self.ends.insert((topic, epoch), seq);
    }

    /// Compares a message with what was published; `accounts` have not taken it in yet.
    pub(super) fn check(
        &mut self,
        message: &ServerMessage,
        accounts: &Accounts,
    ) -> Result<(), String> {
        match message {
            ServerMessage::Events(events) => self.check_events(events, accounts),
            ServerMessage::Control(Control::Gap(gap)) => self.check_gap(gap, accounts),
            ServerMessage::Control(Control::Snapshot(snapshot)) => {
                self.check_snapshot(snapshot, accounts)
            }
            ServerMessage::Control(_) => Ok(()),
        }
    }

    /// Source gaps of the accounts' own epochs that were never reported.
    pub(super) fn unreported<'t>(&'t self, accounts: &Accounts) -> Vec<&'t Place> {
        let is_due = |(topic, epoch, seq): &&Place| {
            let own = accounts.get(topic);
            own.is_some_and(|own| own.epoch == *epoch && own.start < *seq)
        };
        self.missed.iter().filter(is_due).collect()
    }

    fn end(&self, topic: &str, epoch: &str) -> Seq {
        let key = (topic.to_owned(), epoch.to_owned());
        self.ends.get(&key).copied().unwrap_or_default()
    }

    fn check_events(&self, events: &[DataEvent], accounts: &Accounts) -> Result<(), String> {
        let mut heads = HashMap::new();
        for event in events {
            let topic = event.topic.to_string();
            let Some(own) = accounts.get(&topic) else {
                continue;
            };
            let head = heads.insert(topic.clone(), event.seq).unwrap_or(own.head);
            self.check_merged(&topic, &own.epoch, head.next()..event.seq)?;
        }
        Ok(())
    }

    fn check_gap(&mut self, gap: &Gap, accounts: &Accounts) -> Result<(), String> {
        let is_of = |(topic, epoch, _): &Place| (topic, epoch) == (&gap.topic, &gap.epoch);
        if gap.cause == GapCause::Source {
            let is_known = self
                .source_gaps
                .iter()
                .any(|place| is_of(place) && place.2 == gap.to);
            if !is_known && !self.repeatable.contains(&(gap.topic.clone(), gap.to)) {
                return Err(format!("{gap:?} reports what the source did not miss"));
            }
        } else {
            // A gap with another cause stands for those inside it; one at its end may follow.
            self.repeatable.push((gap.topic.clone(), gap.to));
        }
        self.missed
            .retain(|place| !is_of(place) || place.2 > gap.to);
        if gap.to > self.end(&gap.topic, &gap.epoch) {
            return Err(format!("{gap:?} names events that were never published"));
        }
        let head = accounts.get(&gap.topic).map_or(Seq::START, |own| own.head);
        self.check_merged(&gap.topic, &gap.epoch, head.next()..gap.from)
    }

    fn check_snapshot(&mut self, snapshot: &Snapshot, accounts: &Accounts) -> Result<(), String> {
        let Snapshot {
            topic, epoch, seq, ..
        } = snapshot;
        let announced = |(t, e, s): &Place| (t, e, s) == (topic, epoch, seq);
        if let Some(at) = self.snapshots.iter().position(announced) {
            self.snapshots.remove(at);
        }
        let Some(own) = accounts.get(topic) else {
            return Ok(());
        };
        if own.epoch == *epoch {
            return self.check_merged(topic, epoch, own.head.next()..seq.next());
        }
        let end = self.end(topic, &own.epoch);
        if own.head == end {
            return Ok(());
        }
        Err(format!(
            "{topic}: epoch {} was left at {}, it ended at {end}",
            own.epoch, own.head
        ))
    }

    /// Merged events may be any but those that close a bar.
    fn check_merged(&self, topic: &str, epoch: &str, merged: Range<Seq>) -> Result<(), String> {
        if merged.is_empty() {
            return Ok(());
        }
        let place = |seq| (topic.to_owned(), epoch.to_owned(), seq);
        let mut closed = self.closes.range(place(merged.start)..place(merged.end));
        match closed.next() {
            None => Ok(()),
            Some(closed) => Err(format!("{closed:?} closed a bar and was merged")),
        }
    }
}
