//! State of every topic as a function of the log. Pure: the bus and each shard own one replica.
//!
//! Invariant: two replicas that have applied the same log give the same results, although the
//! lengths of their histories may differ by their limits.

use crate::limits::HistoryLimits;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::topic_state::{ENDED_EPOCHS_KEPT, TopicState};
use super::{Catalog, Event, LogItem, SourceCondition, SourceGap, TopicId};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, Seq};
use crate::topic::Channel;

/// Number of closed bars kept per topic.
pub const CLOSED_BARS_KEPT: usize = 500;
/// Generations between two origins: a server that has read events which the log has lost may know
/// more generations than the writer that begins the new origin.
const GENERATIONS_APART: u32 = 1 << 16;
/// Number of topics checked for releasable memory per event that is added above the bound.
const EVICTION_STEPS: usize = 64;
/// Number of topics checked together for expired events.
const AGED_AT_ONCE: usize = 64;
/// Interval between two checks for expired events.
const AGED_EVERY: Duration = Duration::from_millis(10);

/// Snapshot of a replica at one log position, reduced to the events that snapshots need; shared by
/// all overrun readers.
#[derive(Debug)]
pub struct Checkpoint {
    /// Number of the next batch of the log.
    pub next: u64,
    /// Latest publication time so far.
    pub tx: UnixNanos,
    pub(super) catalog: Arc<Catalog>,
    pub(super) topics: Vec<TopicState>,
    sources: Vec<Option<SourceCondition>>,
    origin: Epoch,
}

impl Checkpoint {
    /// Epoch in which new topics begin.
    pub const fn origin(&self) -> Epoch {
        self.origin
    }

    /// Instruments and topics.
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Condition of each source; `None` for sources that have not reported one.
    pub fn sources(&self) -> &[Option<SourceCondition>] {
        &self.sources
    }

    /// Number of topics.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Current epoch of a topic.
    pub fn epoch(&self, topic: TopicId) -> Epoch {
        self.topics[topic.index()].epoch
    }

    /// Last sequence number of an earlier epoch; `None` if more than [`ENDED_EPOCHS_KEPT`] epochs
    /// have ended since.
    pub fn ended_at(&self, topic: TopicId, epoch: Epoch) -> Option<Seq> {
        let mut ended = self.topics[topic.index()].ended.iter();
        ended
            .find(|(generation, _)| *generation == epoch.generation)
            .map(|(_, seq)| *seq)
    }
}

/// State of all topics.
#[derive(Debug)]
pub struct Replica {
    /// Epoch in which new topics begin.
    origin: Epoch,
    /// Earlier origins, newest last. The generations of an origin follow those of the one before.
    earlier_origins: VecDeque<Epoch>,
    limits: HistoryLimits,
    pub(super) catalog: Arc<Catalog>,
    pub(super) topics: Vec<TopicState>,
    sources: Vec<Option<SourceCondition>>,
    bytes: usize,
    /// Next topic to check for releasable memory.
    eviction_at: usize,
    /// Next topic to check for expired events.
    aging_at: usize,
    /// Publication time from which the next check for expired events is due.
    aging_due: UnixNanos,
}

impl Replica {
    /// Creates an empty replica; its topics begin in the epoch `origin`.
    pub fn new(origin: Epoch, limits: HistoryLimits) -> Self {
        Self {
            origin,
            earlier_origins: VecDeque::new(),
            limits,
            catalog: Arc::default(),
            topics: Vec::new(),
            sources: Vec::new(),
            bytes: 0,
            eviction_at: 0,
            aging_at: 0,
            aging_due: UnixNanos::default(),
        }
    }

    /// Changes the limits of the history.
    pub const fn limit(&mut self, limits: HistoryLimits) {
        self.limits = limits;
    }

    /// True if the item continues this state: an event has the next sequence number of its topic,
    /// and the item refers only to known topics. For items of another server.
    pub fn continues(&self, item: &LogItem, catalog: &Catalog) -> bool {
        let is_known = |topic: &TopicId| topic.index() < self.topics.len();
        match item {
            LogItem::Event(event) => {
                is_known(&event.topic)
                    && event.seq == self.head(event.topic).next()
                    && event.body.fits(catalog.topic(event.topic).topic.channel)
            }
            LogItem::Topics { new, .. } => {
                new.start as usize == self.topics.len() && new.end as usize <= catalog.len()
            }
            LogItem::Epoch { topic, .. } | LogItem::Missed { topic, .. } => is_known(topic),
            LogItem::Instruments(_)
            | LogItem::Removed(_)
            | LogItem::Returned(_)
            | LogItem::Moved { .. }
            | LogItem::Source { .. }
            | LogItem::Input { .. } => true,
        }
    }

    /// Applies one item of the log; `catalog` is that of its batch.
    pub fn apply(&mut self, item: &LogItem, catalog: &Arc<Catalog>) {
        match item {
            LogItem::Event(event) => self.take(event),
            LogItem::Topics { new, restored, .. } => {
                self.catalog = Arc::clone(catalog);
                let fresh = new.clone().map(|id| {
                    TopicState::new(self.origin, catalog.topic(TopicId(id)).topic.channel)
                });
                self.topics.extend(fresh);
                for (topic, state) in restored {
                    // Without a history, only the events that snapshots need are kept.
                    let state = if self.limits.events == 0 {
                        state.0.trimmed()
                    } else {
                        state.0.clone()
                    };
                    self.bytes += state.recent.iter().map(Event::footprint).sum::<usize>();
                    self.topics[topic.index()] = state;
                }
                self.sources.resize(catalog.sources().len(), None);
            }
            LogItem::Instruments(_)
            | LogItem::Removed(_)
            | LogItem::Returned(_)
            | LogItem::Moved { .. } => {
                self.catalog = Arc::clone(catalog);
            }
            LogItem::Epoch { topic, epoch } => {
                let state = &mut self.topics[topic.index()];
                self.bytes -= state.recent.iter().map(Event::footprint).sum::<usize>();
                state.end_epoch();
                *state = TopicState {
                    ended: std::mem::take(&mut state.ended),
                    kind: state.kind,
                    ..TopicState::new(*epoch, Channel::Trade)
                };
            }
            LogItem::Missed { topic, missing } => {
                let state = &mut self.topics[topic.index()];
                let (after, missing) = (state.head, *missing);
                state.source_gaps.add(SourceGap { after, missing });
            }
            LogItem::Source { source, condition } => {
                self.sources
                    .resize(self.sources.len().max(source.0 as usize + 1), None);
                self.sources[source.0 as usize] = Some(condition.clone());
            }
            LogItem::Input { .. } => {}
        }
    }

    fn take(&mut self, event: &Event) {
        let state = &mut self.topics[event.topic.index()];
        debug_assert_eq!(
            event.seq,
            state.head.next(),
            "one writer numbers a topic without a hole"
        );
        state.head = event.seq;
        if event.must_keep() {
            state.closed.push_back(event.clone());
            if state.closed.len() > CLOSED_BARS_KEPT {
                state.closed_evicted = state.closed.pop_front().map_or(Seq::START, |old| old.seq);
            }
        }
        self.bytes += event.footprint();
        state.recent.push_back(event.clone());
        let oldest = event.tx.minus(self.limits.age);
        self.bytes -= state.trim(self.limits.events, oldest);
        if event.tx >= self.aging_due {
            self.aging_due = event.tx.plus(AGED_EVERY);
            self.age_some(oldest);
        }
        for _ in 0..EVICTION_STEPS {
            if self.bytes <= self.limits.bytes {
                break;
            }
            self.evict_some();
        }
    }

    /// Trims some topics, which may no longer publish events themselves.
    fn age_some(&mut self, oldest: UnixNanos) {
        for _ in 0..AGED_AT_ONCE.min(self.topics.len()) {
            self.aging_at = (self.aging_at + 1) % self.topics.len();
            self.bytes -= self.topics[self.aging_at].trim(self.limits.events, oldest);
        }
    }

    /// Halves the history of one topic, but keeps the events that snapshots need.
    fn evict_some(&mut self) {
        self.eviction_at = (self.eviction_at + 1) % self.topics.len();
        let state = &mut self.topics[self.eviction_at];
        let keep = (state.recent.len() / 2)
            .max(state.floor())
            .min(state.recent.len());
        let gone: usize = state
            .recent
            .drain(..state.recent.len() - keep)
            .map(|event| event.footprint())
            .sum();
        self.bytes -= gone;
    }

    /// Releases the replica's reference to the catalog until the next topics are announced.
    pub(crate) fn release_catalog(&mut self) {
        self.catalog = Arc::default();
    }

    /// Current catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Memory of the histories, in bytes.
    #[cfg(feature = "internals")]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// True if there are no topics.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Newest sequence number of a topic; 0 if it has no events.
    pub fn head(&self, topic: TopicId) -> Seq {
        self.topics[topic.index()].head
    }

    /// Current epoch of a topic.
    pub fn epoch(&self, topic: TopicId) -> Epoch {
        self.topics[topic.index()].epoch
    }

    /// Epoch of this generation, for any topic.
    pub fn epoch_of_generation(&self, generation: u32) -> Epoch {
        let mut origins = std::iter::once(&self.origin).chain(self.earlier_origins.iter().rev());
        let of = origins.find(|origin| origin.generation <= generation);
        Epoch {
            origin: of.unwrap_or(&self.origin).origin,
            generation,
        }
    }

    /// Epoch in which new topics begin.
    pub const fn origin(&self) -> Epoch {
        self.origin
    }

    /// Begins new epochs for all topics, which keep their states and numbers. Returns the epoch.
    pub fn begin_origin(&mut self, origin: u64) -> Epoch {
        let generation = self.newest_generation().saturating_add(1);
        let epoch = Epoch {
            origin,
            generation: generation.next_multiple_of(GENERATIONS_APART),
        };
        self.set_origin(epoch);
        for state in &mut self.topics {
            state.end_epoch();
            state.epoch = epoch;
        }
        epoch
    }

    /// Newest generation of any topic, or that of the origin.
    pub fn newest_generation(&self) -> u32 {
        let generations = self.topics.iter().map(|state| state.epoch.generation);
        generations.fold(self.origin.generation, u32::max)
    }

    fn set_origin(&mut self, origin: Epoch) {
        if origin == self.origin {
            return;
        }
        self.earlier_origins.push_back(self.origin);
        if self.earlier_origins.len() > ENDED_EPOCHS_KEPT {
            self.earlier_origins.pop_front();
        }
        self.origin = origin;
    }

    /// Gaps of the topic's source that directly follow one of these events, as one.
    pub fn source_gap_behind(
        &self,
        topic: TopicId,
        events: RangeInclusive<Seq>,
    ) -> Option<SourceGap> {
        self.topics[topic.index()].source_gaps.behind(events)
    }

    /// Number of source gaps in the current epoch of a topic.
    pub fn source_gaps(&self, topic: TopicId) -> u64 {
        self.topics[topic.index()].source_gaps.count()
    }

    /// Source gaps of a topic after the first `known` ones, oldest first, as far as they are kept.
    pub fn source_gaps_since(&self, topic: TopicId, known: u64) -> &[SourceGap] {
        let gaps = &self.topics[topic.index()].source_gaps;
        let new = gaps.count().saturating_sub(known);
        let recent = gaps.recent();
        &recent[recent.len().saturating_sub(new as usize)..]
    }

    /// Condition of each source; `None` for sources that have not reported one.
    pub fn sources(&self) -> &[Option<SourceCondition>] {
        &self.sources
    }

    /// Newest event of a topic.
    pub fn last(&self, topic: TopicId) -> Option<&Event> {
        self.topics[topic.index()].recent.back()
    }

    /// Events after `seq`, if all of them are still kept.
    pub fn after(&self, topic: TopicId, seq: Seq) -> Option<impl ExactSizeIterator<Item = &Event>> {
        let state = &self.topics[topic.index()];
        let first = state.first_kept();
        (first..=state.head.next())
            .contains(&seq.next())
            .then(|| state.recent.range(seq.next().since(first) as usize..))
    }

    /// Oldest sequence number still kept; head + 1 if there is none.
    pub fn first_kept(&self, topic: TopicId) -> Seq {
        self.topics[topic.index()].first_kept()
    }

    /// State as of `seq` in at most `events` events, newest last; empty if the history has moved
    /// past `seq`.
    pub fn snapshot(&self, topic: TopicId, seq: Seq, events: usize) -> Vec<&Event> {
        self.topics[topic.index()].snapshot(seq, events)
    }

    /// State from which an overrun reader resumes; `next` is the number of the batch that follows,
    /// `tx` the latest publication time so far, and `catalog` that of the last batch.
    pub fn checkpoint(&self, next: u64, tx: UnixNanos, catalog: Arc<Catalog>) -> Checkpoint {
        Checkpoint {
            next,
            tx,
            catalog,
            topics: self.topics.iter().map(TopicState::trimmed).collect(),
            sources: self.sources.clone(),
            origin: self.origin,
        }
    }

    /// Resumes from a checkpoint and discards the current state.
    pub fn restore(&mut self, checkpoint: &Checkpoint) {
        self.set_origin(checkpoint.origin);
        self.catalog = Arc::clone(&checkpoint.catalog);
        self.topics.clone_from(&checkpoint.topics);
        self.sources.clone_from(&checkpoint.sources);
        self.bytes = self
            .topics
            .iter()
            .flat_map(|state| &state.recent)
            .map(Event::footprint)
            .sum();
        self.eviction_at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SourceId;
    use crate::market::{Body, Instrument, Quote, SourceKind, Symbol};

    #[test]
    fn expired_history_is_evicted_even_if_its_topic_is_silent() {
        let instrument = |symbol: &str| Instrument {
            symbol: Symbol::new(symbol).expect("valid symbol"),
            venue_symbol: None,
            description: String::new(),
            price_scale: 2,
            qty_scale: 0,
            src: SourceKind::Sim,
            has_trades: false,
            has_quotes: true,
            stale_after: None,
            session_start: Duration::ZERO,
        };
        let mut catalog = Catalog::new(vec!["sim".into()]);
        catalog.add(SourceId(0), vec![instrument("A"), instrument("B")]);
        let limits = HistoryLimits {
            events: 1_000,
            bytes: usize::MAX,
            age: Duration::from_secs(60),
        };
        let mut replica = Replica::new(
            Epoch {
                origin: 7,
                generation: 0,
            },
            limits,
        );
        let quote = |symbol: &str| {
            let topic = crate::topic::Topic {
                channel: Channel::Quote,
                symbol: Symbol::new(symbol).expect("valid symbol"),
            };
            catalog.find(&topic).expect("topic is in the catalog")
        };
        let (a, b) = (quote("A"), quote("B"));
        let new = 0..catalog.len() as u32;
        let catalog = Arc::new(catalog);
        let (instruments, restored) = (Vec::new(), Vec::new());
        replica.apply(
            &LogItem::Topics {
                instruments,
                new,
                restored,
            },
            &catalog,
        );
        let mut publish = |topic, seq, second: u64| {
            let tx = UnixNanos(second * 1_000_000_000);
            let (bid, ask) = (None, None);
            let body = Body::Quote(Quote { ts: tx, bid, ask });
            let event = Event {
                topic,
                seq: Seq(seq),
                tx,
                body,
            };
            replica.apply(&LogItem::Event(event), &catalog);
            replica.first_kept(a).0
        };
        for seq in 1..=100 {
            assert_eq!(publish(a, seq, 1_000), 1, "all are kept");
        }
        assert_eq!(publish(b, 1, 1_059), 1, "none is too old yet");
        assert_eq!(publish(b, 2, 1_061), 100, "the newest stays for snapshots");
    }
}
