//! Snapshots for HTTP, made in slices of some topics per turn, so that they do not delay clients of
//! the feed.

use tokio::sync::oneshot;

use super::Shard;
use super::command::SnapshotAnswer;
use crate::access::{Principal, Visible};
use crate::codec::{SnapshotHead, encode_event, write_snapshot};
use crate::log::{Replica, TopicId, snapshot_events};
use crate::protocol::{Code, Encoding, Refusal};
use crate::topic::{Channel, TopicName};

/// Events of one answer to `GET /v1/snapshot`.
const EVENTS_MAX: usize = 2000;
/// Maximum number of topics and patterns of a request.
pub const SNAPSHOT_NAMES_MAX: usize = 100;
/// Work of one turn, counted in events: about a third of a millisecond.
const STEPS_A_TURN: usize = 1024;
/// Work of a name, and of a snapshot without its events.
const STEPS_A_TOPIC: usize = 8;

/// Request for snapshots in progress.
#[derive(Debug)]
pub(super) struct Snapshots {
    names: std::vec::IntoIter<String>,
    /// The topics of the name before.
    topics: std::vec::IntoIter<TopicId>,
    /// Maximum number of events per topic, as requested.
    events: Option<usize>,
    principal: Principal,
    /// Number of events that still fit into the response.
    left: usize,
    answer: SnapshotAnswer,
    reply: oneshot::Sender<SnapshotAnswer>,
}

impl Snapshots {
    pub(super) fn begin(
        names: Vec<String>,
        events: Option<usize>,
        principal: Principal,
        reply: oneshot::Sender<SnapshotAnswer>,
    ) -> Self {
        let mut names = names;
        names.truncate(SNAPSHOT_NAMES_MAX);
        Self {
            names: names.into_iter(),
            topics: Vec::new().into_iter(),
            events,
            principal,
            left: EVENTS_MAX,
            answer: SnapshotAnswer {
                ok: Vec::new(),
                err: Vec::new(),
            },
            reply,
        }
    }

    /// Executes one slice. Returns the remaining work; `None` once it is answered or the caller has
    /// gone.
    fn step(mut self, replica: &Replica, events_max: usize) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        let mut steps = 0;
        while steps < STEPS_A_TURN {
            if let Some(topic) = self.topics.next() {
                let visible = Visible::new(replica.catalog(), &self.principal);
                let channel = visible.topic(topic).topic.channel;
                let most = self.most(channel, events_max);
                steps += STEPS_A_TOPIC + self.make(topic, most, replica);
            } else if let Some(name) = self.names.next() {
                steps += STEPS_A_TOPIC;
                match self.resolve(&name, replica, events_max) {
                    Ok(topics) => self.topics = topics.into_iter(),
                    Err(refusal) => self.answer.err.push(refusal),
                }
            } else {
                // A caller that has given up needs no answer.
                let _gone = self.reply.send(self.answer);
                return None;
            }
        }
        Some(self)
    }

    /// Maximum number of events in a snapshot of this channel.
    fn most(&self, channel: Channel, events_max: usize) -> usize {
        let role = self.principal.role();
        let own = role.and_then(|role| role.limits.snapshot_events);
        let events_max = own.map_or(events_max, |own| own as usize);
        snapshot_events(channel.kind(), self.events).min(events_max)
    }

    /// Topics of a name, if the response has room for their events.
    fn resolve(
        &mut self,
        name: &str,
        replica: &Replica,
        events_max: usize,
    ) -> Result<Vec<TopicId>, Refusal> {
        let visible = Visible::new(replica.catalog(), &self.principal);
        let parsed = TopicName::parse(name)
            .map_err(|error| Refusal::new(name, Code::UnknownTopic, error.to_string()))?;
        let resolved = visible
            .resolve(parsed)
            .map_err(|refused| refused.refusal(name))?;
        let topics = resolved.topics(visible);
        let most = self.most(resolved.channel(visible), events_max);
        let asked = topics.count().saturating_mul(most);
        let Some(left) = self.left.checked_sub(asked) else {
            let message = format!(
                "response limit of {EVENTS_MAX} events exceeded; request fewer topics or events"
            );
            return Err(Refusal::new(name, Code::TopicLimit, message));
        };
        self.left = left;
        Ok(topics.iter().collect())
    }

    /// Makes one snapshot; returns the number of its events.
    fn make(&mut self, topic: TopicId, events: usize, replica: &Replica) -> usize {
        let info = Visible::new(replica.catalog(), &self.principal).topic(topic);
        let seq = replica.head(topic);
        let found = replica.snapshot(topic, seq, events);
        let mut bytes = Vec::new();
        let ends: Vec<usize> = found
            .iter()
            .map(|event| {
                encode_event(
                    &mut bytes,
                    Encoding::Json,
                    &info.head,
                    event.seq,
                    event.tx,
                    &event.body,
                );
                bytes.len()
            })
            .collect();
        let head = SnapshotHead {
            topic: &info.text,
            epoch: &replica.epoch(topic).to_string(),
            seq,
        };
        let mut payload = Vec::with_capacity(bytes.len() + 128);
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let encoded = begins.zip(&ends).map(|(from, to)| &bytes[from..*to]);
        write_snapshot(&mut payload, Encoding::Json, &head, found.len(), encoded);
        self.answer.ok.push(payload);
        found.len()
    }
}

impl Shard {
    /// Executes one slice of each HTTP snapshot request. Returns true if there are more.
    pub(super) fn make_snapshots(&mut self) -> bool {
        if let Some(snapshots) = self.snapshots.pop_front() {
            let events_max = self.feed.config.limits.requests.snapshot_events as usize;
            self.snapshots
                .extend(snapshots.step(&self.feed.replica, events_max));
        }
        !self.snapshots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::limits::HistoryLimits;
    use crate::log::{Catalog, LogItem, SourceId};
    use crate::market::{Instrument, SourceKind, Symbol};
    use crate::protocol::Epoch;

    fn replica(instruments: usize) -> Replica {
        let instrument = |n: usize| {
            Instrument::new(
                Symbol::new(&format!("S{n:05}")).expect("letters and digits"),
                SourceKind::Sim,
            )
        };
        let history = HistoryLimits {
            events: 10,
            bytes: usize::MAX,
            age: Duration::MAX,
        };
        let mut catalog = Catalog::new(vec!["sim".into()]);
        catalog.add(SourceId(0), (0..instruments).map(instrument).collect());
        let mut replica = Replica::new(
            Epoch {
                origin: 7,
                generation: 0,
            },
            history,
        );
        let new = 0..catalog.len() as u32;
        let (instruments, restored) = (Vec::new(), Vec::new());
        replica.apply(
            &LogItem::Topics {
                instruments,
                new,
                restored,
            },
            &Arc::new(catalog),
        );
        replica
    }

    #[test]
    fn a_turn_makes_a_bounded_number_of_snapshots() {
        let replica = replica(20_000);
        for (names, topics, refused) in [
            (vec!["quote:S00*", "quote:S01*"], 2_000, 0),
            (vec!["quote:*"; 100], 0, 100),
            (
                vec!["trade:S0000*", "trade:S001*", "x", "quote:S00001"],
                11,
                2,
            ),
        ] {
            let (reply, mut answer) = oneshot::channel();
            let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
            let mut work = Some(Snapshots::begin(names, None, Principal::Everyone, reply));
            let (mut turns, mut made) = (0, 0);
            while let Some(before) = work.take() {
                work = before.step(&replica, 1_000);
                let now = work.as_ref().map_or(made, |left| left.answer.ok.len());
                assert!(now - made <= STEPS_A_TURN / STEPS_A_TOPIC);
                (turns, made) = (turns + 1, now);
            }
            let answer = answer.try_recv().expect("the answer");
            assert_eq!((answer.ok.len(), answer.err.len()), (topics, refused));
            assert!(turns >= topics * STEPS_A_TOPIC / STEPS_A_TURN);
        }
    }

    #[test]
    fn a_request_is_abandoned_once_its_caller_has_gone() {
        let replica = replica(100);
        let (reply, answer) = oneshot::channel();
        let work = Snapshots::begin(vec!["quote:*".to_owned()], None, Principal::Everyone, reply);
        drop(answer);
        assert!(work.step(&replica, 1_000).is_none());
    }
}
