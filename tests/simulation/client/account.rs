//! Account of one subscription, counted from the wire alone, with every rule of the protocol's
//! sections *Order* and *Ledger*. Written from the protocol page; shares no code with
//! `tickcast::client`.

use std::collections::VecDeque;

use serde_json::Value;

use super::settings::{Kind, Position, Settings};
use crate::Violation;
use crate::truth::Truth;

/// A snapshot that an acknowledgement has announced.
#[derive(Debug, Clone)]
struct Announced {
    at: Position,
    events_max: u64,
}

/// Permissions of earlier settings, which hold for events up to `until`.
#[derive(Debug, Clone)]
struct Earlier {
    until: Position,
    merges: bool,
    degrades: bool,
}

/// First message that must follow the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// The announced snapshot, before any event.
    WithSnapshot,
    /// A gap over the missed events, then the announced snapshot.
    WithGap { to: u64 },
    /// It has begun.
    Already,
}

/// Lag level of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Lag {
    #[default]
    Ok,
    Warn,
    Degraded,
}

/// Conditions outside of the account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) truth: &'a Truth,
    pub(crate) lag: Lag,
}

#[derive(Debug, Clone)]
pub(crate) struct Account {
    topic: String,
    pub(crate) kind: Kind,
    pub(crate) epoch: String,
    pub(crate) start: u64,
    pub(crate) head: u64,
    pub(crate) delivered: u64,
    pub(crate) merged: u64,
    pub(crate) lost: u64,
    pub(crate) settings: Settings,
    earlier: Option<Earlier>,
    announced: VecDeque<Announced>,
    begins: Begins,
    /// A gap ends at `head`, and nothing has followed it.
    after_gap: bool,
    /// The event at `head` has not come, nor a snapshot in its place.
    pub(crate) is_stale: bool,
    /// Gaps of the source directly behind `head` need not be reported: a snapshot or a gap ends
    /// there, or they have been reported.
    knows_source: bool,
}

/// The way in which a subscription begins.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// With a snapshot of at most so many events.
    Snapshot(u64),
    /// With live events.
    Live,
    /// After the client's own position; the missed events follow.
    Recovered(u64),
    /// After the client's own position; the missed events are lost.
    Expired(u64, u64),
}

/// Gaps of a source that a server keeps for an epoch of a topic.
const SOURCE_GAPS_KEPT: usize = 32;

fn fail<T>(text: String) -> Result<T, Violation> {
    Err(Violation::new(text))
}

impl Account {
    pub(crate) fn new(topic: &str, at: Position, settings: Settings, start: &Start) -> Self {
        let Position { epoch, seq } = at.clone();
        let (first, begins, events_max) = match start {
            Start::Snapshot(events) => (seq, Begins::WithSnapshot, Some(*events)),
            Start::Live => (seq, Begins::Already, None),
            Start::Recovered(own) => (*own, Begins::Already, None),
            Start::Expired(own, events) => (*own, Begins::WithGap { to: seq }, Some(*events)),
        };
        let announced = events_max.map(|events_max| Announced { at, events_max });
        Self {
            topic: topic.to_owned(),
            kind: Kind::of(topic),
            epoch,
            start: first,
            head: first,
            delivered: 0,
            merged: 0,
            lost: 0,
            settings,
            earlier: None,
            announced: announced.into_iter().collect(),
            begins,
            after_gap: false,
            is_stale: false,
            knows_source: !matches!(start, Start::Recovered(_)),
        }
    }

    /// Takes an acknowledgement of the held topic: events up to `at` may come with the settings
    /// before.
    pub(crate) fn acknowledge(&mut self, at: Position, settings: Settings) {
        let before = self
            .earlier
            .take()
            .filter(|earlier| self.epoch != earlier.until.epoch || self.head < earlier.until.seq);
        self.earlier = Some(Earlier {
            until: at,
            merges: self.settings.merges() || before.as_ref().is_some_and(|one| one.merges),
            degrades: self.settings.degrades() || before.is_some_and(|one| one.degrades),
        });
        self.settings = settings;
    }

    /// Notes that a snapshot will follow.
    pub(crate) fn announce(&mut self, at: Position, events_max: u64) {
        self.announced.push_back(Announced { at, events_max });
    }

    /// Snapshots that have been announced and have not come, other than of ended epochs.
    pub(crate) fn missing_snapshot(&self) -> Option<&Position> {
        let of_this = |one: &&Announced| one.at.epoch == self.epoch;
        self.announced.iter().find(of_this).map(|one| &one.at)
    }

    /// The newest number that the server has named in this epoch.
    fn newest_named(&self) -> u64 {
        let named = self.announced.iter().map(|one| &one.at);
        let named = named.chain(self.earlier.iter().map(|one| &one.until));
        let named = named.filter(|at| at.epoch == self.epoch).map(|at| at.seq);
        named.max().unwrap_or(0).max(self.head)
    }

    /// Checks that the events after the head, up to `to`, may be merged.
    fn check_merged(&self, to: u64, around: Around<'_>) -> Result<u64, Violation> {
        let topic = &self.topic;
        if to <= self.head {
            return Ok(0);
        }
        let earlier = self.earlier.as_ref();
        let by_earlier = earlier.filter(|one| one.until.epoch != self.epoch || to <= one.until.seq);
        let by_mode = self.settings.merges() || by_earlier.is_some_and(|one| one.merges);
        let by_degrade = around.lag == Lag::Degraded
            && (self.settings.degrades() || by_earlier.is_some_and(|one| one.degrades));
        if self.kind == Kind::Event || !(by_mode || by_degrade) {
            return fail(format!(
                "{topic}: events {}..={to} are missing without a gap; lag {:?}, {:?}, {earlier:?}",
                self.head + 1,
                around.lag,
                self.settings
            ));
        }
        if self.kind == Kind::Bar
            && let Some(seq) = around.truth.closed_bar(topic, &self.epoch, self.head, to)
        {
            return fail(format!("{topic}: event {seq} closed a bar and was merged"));
        }
        Ok(to - self.head)
    }

    /// Takes an event in. Returns the number of events that it replaced.
    pub(crate) fn event(&mut self, seq: u64, around: Around<'_>) -> Result<u64, Violation> {
        let topic = &self.topic;
        if self.begins != Begins::Already {
            return fail(format!(
                "{topic}: event {seq} before the beginning: {:?}",
                self.begins
            ));
        }
        if seq <= self.head {
            return fail(format!("{topic}: event {seq} after {}", self.head));
        }
        if let Some(next) = self.announced.front()
            && next.at.epoch == self.epoch
            && seq > next.at.seq
        {
            return fail(format!(
                "{topic}: event {seq} before the snapshot at {}",
                next.at.seq
            ));
        }
        self.check_source_gaps(seq, around.truth)?;
        let merged = self.check_merged(seq - 1, around)?;
        self.merged += merged;
        self.delivered += 1;
        (self.head, self.after_gap, self.knows_source) = (seq, false, false);
        self.is_stale = false;
        Ok(merged)
    }

    /// Takes a gap in. Returns the number of events merged before it.
    pub(crate) fn gap(&mut self, gap: &Value, around: Around<'_>) -> Result<u64, Violation> {
        let topic = self.topic.clone();
        let number = |field: &str| gap[field].as_u64().unwrap_or_default();
        let (from, to, count) = (number("from"), number("to"), number("n"));
        let cause = gap["cause"].as_str().unwrap_or_default();
        if gap["epoch"].as_str() != Some(&self.epoch) {
            return fail(format!("{gap} in epoch {}", self.epoch));
        }
        if cause == "source" {
            return self.source_gap(gap, around);
        }
        match (self.begins, cause) {
            (Begins::WithGap { to: expected }, "expired")
                if (from, to) == (self.head + 1, expected) =>
            {
                self.begins = Begins::WithSnapshot;
            }
            (Begins::Already, "slow" | "bus") => {}
            _ => return fail(format!("{gap}: not expected, {:?}", self.begins)),
        }
        if cause == "slow" && around.lag == Lag::Ok {
            return fail(format!("{gap} without a `lag` before it"));
        }
        if from <= self.head || to < from || count != to - from + 1 {
            return fail(format!("{gap}: the head is {}", self.head));
        }
        if to > around.truth.end(&topic, &self.epoch) {
            return fail(format!("{gap} names events that were never published"));
        }
        let merged = self.check_merged(from - 1, around)?;
        self.merged += merged;
        self.lost += count;
        (self.head, self.after_gap, self.knows_source) = (to, true, true);
        self.is_stale = true;
        Ok(merged)
    }

    /// Takes in a gap of the source, which names no events of the server.
    fn source_gap(&mut self, gap: &Value, around: Around<'_>) -> Result<u64, Violation> {
        let topic = self.topic.clone();
        let number = |field: &str| gap[field].as_u64();
        let (Some(from), Some(to), Some(0)) = (number("from"), number("to"), number("n")) else {
            return fail(format!("{gap}: not the gap of a source"));
        };
        if self.begins != Begins::Already || from != to + 1 || to < self.head {
            return fail(format!(
                "{gap}: the head is {}, {:?}",
                self.head, self.begins
            ));
        }
        let known = around.truth.source_gaps(&topic, &self.epoch);
        let mut between = known.iter().filter(|(at, _)| (self.head..=to).contains(at));
        let is_right = match (between.next(), between.next()) {
            // A gap of another cause may have passed its place.
            (None, _) => known.iter().any(|(at, _)| *at <= to) && self.lost > 0,
            (Some((at, missing)), None) if *at == to && self.lost == 0 => {
                number("missing") == *missing
            }
            (Some(_), _) => true,
        };
        if !is_right {
            return fail(format!("{gap}: the source has missed {known:?}"));
        }
        let merged = self.check_merged(to, around)?;
        self.merged += merged;
        (self.head, self.after_gap, self.knows_source) = (to, true, true);
        self.is_stale |= merged > 0;
        Ok(merged)
    }

    /// Gaps of the source before an event are reported in their place.
    fn check_source_gaps(&self, seq: u64, truth: &Truth) -> Result<(), Violation> {
        let from = if self.knows_source {
            self.head + 1
        } else {
            self.head
        };
        let known = truth.source_gaps(&self.topic, &self.epoch);
        let missing = known.iter().find(|(at, _)| (from..seq).contains(at));
        match missing {
            // The server joins the oldest of very many.
            Some((at, _)) if known.len() <= SOURCE_GAPS_KEPT => fail(format!(
                "{}: event {seq} without the gap of the source after {at}",
                self.topic
            )),
            _ => Ok(()),
        }
    }

    /// Takes a snapshot in. Returns the number of events that it replaced.
    pub(crate) fn snapshot(
        &mut self,
        epoch: &str,
        seq: u64,
        events: &[Value],
        around: Around<'_>,
    ) -> Result<u64, Violation> {
        let topic = self.topic.clone();
        self.check_contents(epoch, seq, events, around.truth)?;
        if epoch != self.epoch {
            self.begin_epoch(epoch, seq, around.truth)?;
            return Ok(0);
        }
        if seq < self.head {
            return fail(format!("{topic}: snapshot at {seq} after {}", self.head));
        }
        let order = |epoch: &str| around.truth.order(&topic, epoch);
        self.announced
            .retain(|one| order(&one.at.epoch) >= order(epoch));
        let is_next = self
            .announced
            .front()
            .is_some_and(|one| one.at.epoch == epoch && one.at.seq == seq);
        if is_next {
            let announced = self.announced.pop_front();
            let events_max = announced.map_or(0, |one| one.events_max);
            if events.len() as u64 > events_max {
                return fail(format!("{topic}: snapshot of {} events", events.len()));
            }
        } else if !(self.after_gap && seq == self.head && self.kind != Kind::Event) {
            return fail(format!(
                "{topic}: unexpected snapshot at {seq}, head {}, announced {:?}",
                self.head, self.announced
            ));
        }
        if let Begins::WithGap { .. } = self.begins {
            return fail(format!("{topic}: snapshot at {seq} before the gap"));
        }
        self.begins = Begins::Already;
        let merged = self.check_merged(seq, around)?;
        self.merged += merged;
        (self.head, self.after_gap, self.knows_source) = (seq, false, true);
        self.is_stale = false;
        Ok(merged)
    }

    fn begin_epoch(&mut self, epoch: &str, seq: u64, truth: &Truth) -> Result<(), Violation> {
        let topic = &self.topic;
        let (Some(old), Some(new)) = (truth.order(topic, &self.epoch), truth.order(topic, epoch))
        else {
            return fail(format!("{topic}: epoch {epoch} was never begun"));
        };
        if new <= old {
            return fail(format!("{topic}: epoch {epoch} after {}", self.epoch));
        }
        let end = truth.end(topic, &self.epoch);
        // The server remembers the ends of 16 epochs; one that has not begun for the client may be
        // skipped.
        let is_known = new - old <= 16 && self.begins == Begins::Already;
        if is_known && self.head != end {
            return fail(format!(
                "{topic}: epoch {} was left at {}, it ended at {end}",
                self.epoch, self.head
            ));
        }
        epoch.clone_into(&mut self.epoch);
        (self.start, self.head) = (seq, seq);
        (self.delivered, self.merged, self.lost) = (0, 0, 0);
        self.begins = Begins::Already;
        (self.after_gap, self.is_stale, self.knows_source) = (false, false, true);
        self.announced.retain(|one| {
            truth
                .order(topic, &one.at.epoch)
                .is_some_and(|at| at >= new)
        });
        self.earlier.take_if(|one| {
            truth
                .order(topic, &one.until.epoch)
                .is_none_or(|at| at < new)
        });
        Ok(())
    }

    /// A snapshot shows the state at its number.
    fn check_contents(
        &self,
        epoch: &str,
        seq: u64,
        events: &[Value],
        truth: &Truth,
    ) -> Result<(), Violation> {
        let topic = &self.topic;
        if seq > truth.end(topic, epoch) {
            return fail(format!(
                "{topic}: snapshot at {seq} of {epoch}, never published"
            ));
        }
        let numbers: Vec<u64> = events
            .iter()
            .filter_map(|one| one["seq"].as_u64())
            .collect();
        let ends_there = numbers.last().copied().unwrap_or_default() == seq;
        let is_right = ends_there
            && match self.kind {
                Kind::Event => numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                Kind::State => numbers.len() <= 1,
                Kind::Bar => {
                    let record = |seq: u64| truth.record(topic, epoch, seq);
                    numbers.windows(2).all(|pair| {
                        record(pair[0]).is_some_and(|one| one.is_done)
                            && record(pair[0]).map(|one| one.start)
                                < record(pair[1]).map(|one| one.start)
                    })
                }
            };
        if is_right {
            Ok(())
        } else {
            fail(format!("{topic}: snapshot at {seq} has events {numbers:?}"))
        }
    }

    /// Compares with the server's account.
    pub(crate) fn compare(&self, entry: &Value, truth: &Truth) -> Result<(), Violation> {
        let number = |field: &str| entry[field].as_u64().unwrap_or(u64::MAX);
        let own = (
            self.start,
            self.head,
            self.delivered,
            self.merged,
            self.lost,
        );
        let theirs = (
            number("start"),
            number("head"),
            number("delivered"),
            number("merged"),
            number("lost"),
        );
        let newest = self.head.saturating_add(number("pending"));
        let agrees = entry["epoch"].as_str() == Some(&self.epoch)
            && own == theirs
            && self.head - self.start == self.delivered + self.merged + self.lost
            && newest <= truth.end(&self.topic, &self.epoch)
            && newest >= self.newest_named();
        if agrees {
            return Ok(());
        }
        fail(format!(
            "{}: ledger {entry}; own epoch {}, {own:?}, named {}, published {}",
            self.topic,
            self.epoch,
            self.newest_named(),
            truth.end(&self.topic, &self.epoch)
        ))
    }
}
