//! Standby: derives from the followed log the same events as its writer, compares them, and can
//! therefore go on as the writer at any item.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use prometheus::IntCounter;

use super::derive::{Derive, Publish, SessionSoFar};
use super::saved::SavedOutput;
use super::source_tail::SourceTail;
use crate::log::{Catalog, InstrumentId, LogItem, SourceId, SourceInput, TopicId};
use crate::market::Body;
use crate::protocol::SourceState;

/// Maximum number of events that are compared later. More mean that the log and the derivation
/// have nothing to do with each other.
const PENDING_MAX: usize = 1 << 16;

/// State of a server that follows a log and may become its writer.
#[derive(Debug)]
pub(super) struct Standby {
    pub(super) derive: Derive,
    /// By source: end of its output.
    pub(super) tails: Vec<SourceTail>,
    pub(super) compared: Compared,
}

/// Derived events and those of the log, each until the other has arrived.
#[derive(Debug)]
pub(super) struct Compared {
    /// Derived, not in the log yet; `None` for any event of the topic.
    derived: VecDeque<(TopicId, Option<Body>)>,
    /// In the log, not derived yet: an event precedes the trade that causes it.
    logged: VecDeque<(TopicId, Body)>,
    mismatches: IntCounter,
}

impl Compared {
    /// Takes an event of the log.
    fn take(&mut self, topic: TopicId, body: &Body) {
        let known = self.derived.iter().position(|(other, _)| *other == topic);
        match known.and_then(|at| self.derived.remove(at)) {
            Some((_, derived)) => self.compare(topic, derived.as_ref().unwrap_or(body), body),
            None => self.logged.push_back((topic, body.clone())),
        }
        self.bound();
    }

    /// Expects events of a topic whose content is not derived.
    fn expect(&mut self, topic: TopicId, count: u32) {
        let count = (count as usize).min(PENDING_MAX + 1);
        self.derived
            .extend(std::iter::repeat_n((topic, None), count));
        self.bound();
    }

    fn compare(&self, topic: TopicId, derived: &Body, logged: &Body) {
        if derived != logged {
            self.mismatches.inc();
            tracing::error!(
                topic = topic.0,
                ?derived,
                ?logged,
                "derived another event than the leader"
            );
        }
    }

    fn bound(&mut self) {
        if self.derived.len().max(self.logged.len()) > PENDING_MAX {
            self.mismatches.inc();
            tracing::error!("derived events do not match those of the leader");
            self.derived.clear();
            self.logged.clear();
        }
    }

    /// Derived events that the log does not contain, in order.
    pub(super) fn take_missing(&mut self) -> Vec<(TopicId, Body)> {
        let missing = self.derived.drain(..);
        missing
            .filter_map(|(topic, body)| Some((topic, body?)))
            .collect()
    }

    /// Forgets events of topics whose source starts over: they are not derived any more.
    pub(super) fn forget(&mut self, topics: &[TopicId]) {
        self.logged.retain(|(topic, _)| !topics.contains(topic));
    }

    /// True if the log contains this derived event already.
    pub(super) fn is_logged(&mut self, topic: TopicId, body: &Body) -> bool {
        let known = self.logged.iter().position(|(other, _)| *other == topic);
        match known.and_then(|at| self.logged.remove(at)) {
            Some((_, logged)) => {
                self.compare(topic, body, &logged);
                true
            }
            None => false,
        }
    }
}

impl Publish for Compared {
    fn publish(&mut self, topic: TopicId, body: Body) {
        if !self.is_logged(topic, &body) {
            self.derived.push_back((topic, Some(body)));
        }
        self.bound();
    }
}

impl Standby {
    /// State at the start of a log; differences from the leader are counted.
    pub(super) fn new(mismatches: IntCounter) -> Self {
        Self {
            derive: Derive::new(0),
            tails: Vec::new(),
            compared: Compared {
                derived: VecDeque::new(),
                logged: VecDeque::new(),
                mismatches,
            },
        }
    }

    /// State behind a checkpoint; `None` if it contradicts the catalog.
    pub(super) fn restored(
        saved: SavedOutput,
        catalog: &Catalog,
        mismatches: IntCounter,
    ) -> Option<Self> {
        let SavedOutput {
            times,
            tails,
            instruments,
        } = saved;
        let count = catalog.sources().len();
        if (times.len(), tails.len()) != (count, count)
            || instruments.len() != catalog.instruments_len()
        {
            return None;
        }
        let mut standby = Self::new(mismatches);
        standby.add_sources(count);
        standby.tails = tails;
        for (source, time) in times.into_iter().enumerate() {
            standby.derive.restore_time(source, time);
        }
        let mut removed = Vec::new();
        for (at, saved) in instruments.into_iter().enumerate() {
            let id = InstrumentId(at as u32);
            let info = catalog.instrument(id);
            let source = usize::from(info.source.0);
            let stale_after = standby.tails[source].stale_after;
            standby.derive.add(id, info, stale_after);
            if catalog.is_there(id) {
                standby.derive.restore(id, source, saved);
            } else {
                removed.push(id);
            }
        }
        standby.derive.remove(&removed);
        Some(standby)
    }

    /// Counter of the differences from the leader.
    pub(super) fn mismatches(&self) -> IntCounter {
        self.compared.mismatches.clone()
    }

    /// Takes the next item of the log; `catalog` is that of its batch.
    pub(super) fn follow(&mut self, item: &LogItem, catalog: &Arc<Catalog>) {
        self.add_sources(catalog.sources().len());
        match item {
            LogItem::Event(event) => self.take_event(event.topic, &event.body, catalog),
            LogItem::Topics { instruments, .. } => {
                for id in instruments {
                    let info = catalog.instrument(*id);
                    let stale_after = self.tails[usize::from(info.source.0)].stale_after;
                    self.derive.add(*id, info, stale_after);
                }
            }
            LogItem::Removed(ids) => self.derive.remove(ids),
            LogItem::Moved {
                instruments,
                source,
            } => {
                let moved: HashSet<InstrumentId> = instruments.iter().copied().collect();
                self.derive.move_to(&moved, source.0.into());
            }
            LogItem::Source { source, condition } => {
                if is_lost(condition.state) {
                    self.derive
                        .on_source_lost(source.0.into(), &mut self.compared);
                }
            }
            LogItem::Input { source, input } => self.take_input(*source, input, catalog),
            LogItem::Instruments(_)
            | LogItem::Returned(_)
            | LogItem::Epoch { .. }
            | LogItem::Missed { .. } => {}
        }
    }

    fn add_sources(&mut self, count: usize) {
        while self.tails.len() < count {
            self.derive.add_source();
            self.tails.push(SourceTail::default());
        }
    }

    fn take_event(&mut self, topic: TopicId, body: &Body, catalog: &Catalog) {
        if !matches!(body, Body::Trade(_) | Body::Quote(_)) {
            return self.compared.take(topic, body);
        }
        // An instrument whose events the log contains may have been removed since.
        let Some(id) = catalog.known(&catalog.topic(topic).topic.symbol) else {
            return;
        };
        let source = self.derive.source_of(id);
        let (tail, out) = (&mut self.tails[source], &mut self.compared);
        match body {
            Body::Trade(trade) => {
                // The leader has dropped a trade that would overflow a sum.
                let _overflow = self.derive.on_trade(source, id, trade, out);
                tail.add(id, trade);
            }
            Body::Quote(quote) => {
                self.derive.on_quote(id, quote.ts, out);
                tail.add(id, quote);
            }
            Body::Ticker(_) | Body::Bar(_) | Body::Status(_) => {}
        }
    }

    fn take_input(&mut self, source: SourceId, input: &SourceInput, catalog: &Catalog) {
        let at = usize::from(source.0);
        self.tails[at].note(input);
        let (derive, out) = (&mut self.derive, &mut self.compared);
        match input {
            SourceInput::StartOver => _ = derive.on_start_over(at),
            SourceInput::Mark(now) => _ = derive.on_mark(at, *now, out),
            SourceInput::Trading(id, state, ts) => derive.on_trading(*id, *state, *ts, out),
            SourceInput::History(id, interval, closed, open) => {
                let channel = crate::topic::Channel::Bar(*interval).index();
                if let Some(topic) = catalog.instrument(*id).topics[channel] {
                    out.expect(topic, *closed);
                }
                let open = open.iter().cloned().collect();
                derive.on_history(at, *id, *interval, open, out);
            }
            SourceInput::Session(id, bar, notional) => {
                let so_far = SessionSoFar {
                    bar: bar.clone(),
                    notional: *notional,
                };
                derive.on_session(*id, so_far, out);
            }
            SourceInput::Begin { .. } | SourceInput::Position(_) => {}
        }
    }
}

/// True if the instruments of a source in this state are stale.
pub(super) const fn is_lost(state: SourceState) -> bool {
    matches!(
        state,
        SourceState::Stale | SourceState::Reconnecting | SourceState::Ended
    )
}
