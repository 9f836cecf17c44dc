//! Life cycle of a subscription: start, changes, end, new epochs and overruns.

use std::time::Duration;

use super::queue::{Entry, GapEntry, ResumeEntry, SnapshotEntry};
use super::{Outbox, Slot, SlotId, State, View};
use crate::log::{CatchUp, Event, SourceGap, TopicId, snapshot_events, snapshot_replaces_all};
use crate::market::UnixNanos;
use crate::protocol::{Epoch, GapCause, Mode, Seq, Settings};
use crate::session::Join;

impl Outbox {
    /// Subscribes to a topic; returns the slot to be registered.
    pub fn subscribe(
        &mut self,
        topic: TopicId,
        settings: Settings,
        join: Join,
        view: &mut View<'_>,
    ) -> SlotId {
        self.merging += u32::from(settings.mode != Mode::Raw);
        self.begin_pings(view);
        let (head, epoch) = (view.replica.head(topic), view.replica.epoch(topic));
        let start = match join {
            Join::Snapshot(_) | Join::Offered(_) | Join::Anew(_) | Join::Live => head,
            Join::Resume(seq) | Join::Expired(seq, _) => seq,
        };
        let kind = view.replica.catalog().topic(topic).topic.channel.kind();
        let fresh = Slot::new(topic, kind, settings, epoch, start);
        let free = self.free.pop();
        debug_assert!(free.is_none_or(|slot| self.slots[slot].state() == State::Free));
        let slot = self.slots.add(free, fresh);
        match join {
            Join::Live => {}
            Join::Snapshot(events) | Join::Anew(events) => self.snapshot(slot, events, view),
            Join::Offered(events) => self.queue_snapshot(slot, events, true, view),
            Join::Resume(_) => self.resume(slot, view),
            Join::Expired(seq, events) => {
                self.queue_gap(slot, seq.next(), head, GapCause::Expired);
                self.snapshot(slot, events, view);
            }
        }
        slot
    }

    fn resume(&mut self, slot: SlotId, view: &mut View<'_>) {
        let state = self.slots.get(slot);
        let (topic, seq, merges) = (state.topic, state.head, state.merges(false));
        // A source gap directly behind the client's position may be known to it or not.
        let gap = view.replica.source_gap_behind(topic, seq..=seq);
        if merges {
            if let Some(gap) = gap {
                self.queue_source_gap(slot, gap);
            }
            if view.replica.head(topic) > seq {
                self.set_pending(slot, view.now, view.timers);
            }
            return;
        }
        if let Some(gap) = gap {
            let entry = GapEntry::of_source(slot, gap);
            self.waiting.queue.push(Entry::Gap(Box::new(entry)));
        }
        self.queue_resume(slot);
        if gap.is_some() {
            self.slots.get_mut(slot).enqueue(None);
        }
    }

    fn queue_resume(&mut self, slot: SlotId) {
        let place = self.waiting.queue.push(Entry::Resume(ResumeEntry {
            slot,
            to: ResumeEntry::OPEN,
        }));
        self.slots.get_mut(slot).begin_catch_up(place);
    }

    /// Queues a snapshot of at most `events` events at this position of the stream.
    pub fn snapshot(&mut self, slot: SlotId, events: usize, view: &mut View<'_>) {
        self.queue_snapshot(slot, events, false, view);
    }

    fn queue_snapshot(&mut self, slot: SlotId, events: usize, offered: bool, view: &mut View<'_>) {
        if snapshot_replaces_all(self.slots[slot].kind) {
            self.queue_pending_source_gap(slot, view);
        } else {
            // The snapshot must not swallow closed bars that wait.
            self.materialize(slot, view);
        }
        let mut state = self.slots.get_mut(slot);
        let seq = view.replica.head(state.topic);
        state.enqueue(Some(seq));
        let catch_up_place = state.read().catch_up_place();
        if let Some(place) = catch_up_place {
            // The entry before the snapshot reads up to it; another one behind it goes on.
            self.waiting.queue.end_resume(place, seq);
        }
        let entry = SnapshotEntry {
            slot,
            seq,
            last: view.replica.last(self.slots[slot].topic).cloned(),
            events,
            since: view.now,
            offered,
            epoch: None,
        };
        self.waiting.queue.push(Entry::Snapshot(Box::new(entry)));
        if catch_up_place.is_some() {
            self.queue_resume(slot);
        }
    }

    fn queue_gap(&mut self, slot: SlotId, from: Seq, to: Seq, cause: GapCause) {
        self.queue_gap_entry(GapEntry {
            slot,
            from,
            to,
            cause,
            missing: None,
        });
    }

    fn queue_source_gap(&mut self, slot: SlotId, gap: SourceGap) {
        self.queue_gap_entry(GapEntry::of_source(slot, gap));
    }

    fn queue_gap_entry(&mut self, gap: GapEntry) {
        self.slots.get_mut(gap.slot).enqueue(Some(gap.to));
        self.waiting.queue.push(Entry::Gap(Box::new(gap)));
    }

    /// Queues the source gap among pending events, which a snapshot is about to replace.
    fn queue_pending_source_gap(&mut self, slot: SlotId, view: &View<'_>) {
        let state = self.slots.get(slot);
        if state.state() == State::CatchingUp {
            // The entry that reads the history reports it.
            return;
        }
        let (topic, tail) = (state.topic, state.tail());
        let pending = tail.next()..=view.replica.head(topic);
        if let Some(gap) = view.replica.source_gap_behind(topic, pending) {
            self.queue_source_gap(slot, gap);
        }
    }

    /// Reports gaps of the source in their place in the stream; the replica has applied them
    /// already. Those behind pending events, or behind events that are yet to be read from the
    /// history, are reported with these events.
    pub fn on_source_gaps(&mut self, slot: SlotId, gaps: &[SourceGap]) {
        let state = self.slots.get(slot);
        let catches_up = state.state() == State::CatchingUp;
        let reached = if catches_up { state.head } else { state.tail() };
        let due = gaps.iter().copied().filter(|gap| gap.after <= reached);
        let Some(gap) = due.reduce(SourceGap::join) else {
            return;
        };
        // A gap of another cause may have passed the place.
        let gap = SourceGap {
            after: reached,
            ..gap
        };
        if catches_up {
            // All events before it are in the frame buffer, those after it are in the history.
            let entry = GapEntry::of_source(slot, gap);
            self.waiting.queue.push_front(Entry::Gap(Box::new(entry)));
            self.slots.get_mut(slot).enqueue(None);
        } else {
            self.queue_source_gap(slot, gap);
        }
    }

    /// Changes the settings of a subscription; queued entries keep the old ones.
    pub fn modify(&mut self, slot: SlotId, settings: Settings, view: &mut View<'_>) {
        let degraded = self.degraded();
        let mut state = self.slots.get_mut(slot);
        let merged_before = state.merges(degraded);
        self.merging -= u32::from(state.settings().mode != Mode::Raw);
        self.merging += u32::from(settings.mode != Mode::Raw);
        state.set_settings(settings);
        if let Mode::Interval(ms) = settings.mode {
            let soonest = view.now.plus(Duration::from_millis(ms.into()));
            if state.read().next_due() > soonest {
                state.set_next_due(soonest);
            }
        }
        if merged_before && !state.merges(degraded) {
            self.materialize(slot, view);
        } else if state.state() == State::Pending {
            self.waiting.pending.push_back((slot, view.now));
        }
    }

    /// Queues the pending conflated events, so that raw events or a new epoch can follow.
    fn materialize(&mut self, slot: SlotId, view: &mut View<'_>) {
        let mut state = self.slots.get_mut(slot);
        if !state.take_pending() {
            return;
        }
        let (from, replica) = (state.read().tail().next(), view.replica);
        let CatchUp { evicted, events } = replica.catch_up(state.topic, state.read().tail());
        if let Some(evicted) = evicted {
            self.warn(view);
            self.queue_gap(slot, from, evicted, GapCause::Slow);
        }
        let encoding = self.frames.encoding();
        let state = self.slots.get(slot);
        let (topic, mut reported) = (state.topic, state.tail());
        for event in events {
            let before = reported.next()..=event.seq.previous();
            if let Some(gap) = replica.source_gap_behind(topic, before) {
                self.queue_source_gap(slot, gap);
            }
            reported = event.seq.previous();
            self.waiting.queue.push_event(
                slot,
                event,
                event.tx.plus(view.counts.delay),
                view.last_values
                    .bytes(view.replica, event, encoding, view.counts),
            );
            self.slots.get_mut(slot).enqueue(Some(event.seq));
        }
        let last = reported.next()..=self.slots.get(slot).tail();
        if let Some(gap) = replica.source_gap_behind(topic, last) {
            self.queue_source_gap(slot, gap);
        }
    }

    /// Ends the subscription to a topic; its queued entries are dropped.
    pub fn unsubscribe(&mut self, topic: TopicId) -> Option<SlotId> {
        let slot = self.slots.slot_of(topic)?;
        let state = &self.slots[slot];
        // The account ends here; its sums stay in the totals, which are compared with them.
        self.ended += state.accounted();
        self.merging -= u32::from(state.settings().mode != Mode::Raw);
        if self.slots.release(slot) {
            self.free.push(slot);
        }
        Some(slot)
    }

    /// Prepares for a checkpoint in which the topic has a new epoch: events of the old epoch that
    /// the shard has missed, up to `ended_at` if known, are reported as lost. Called before the
    /// replica is restored.
    pub fn before_overrun_epoch(
        &mut self,
        slot: SlotId,
        ended_at: Option<Seq>,
        view: &mut View<'_>,
    ) {
        let degraded = self.degraded();
        let state = self.slots.get_mut(slot);
        let reads_history = state
            .read()
            .catch_up_place()
            .filter(|_| !state.merges(degraded));
        self.before_epoch(slot, view);
        let mut state = self.slots.get_mut(slot);
        let missed = ended_at.filter(|ended_at| *ended_at > state.read().tail());
        if reads_history.is_some() {
            state.set_overran(true);
        }
        match (missed, reads_history) {
            (Some(ended_at), Some(place)) => {
                // The entry finds nothing of it in the history any more, and names it as lost by
                // the bus.
                state.set_tail(ended_at);
                self.waiting.queue.end_resume(place, ended_at);
            }
            (Some(ended_at), None) => {
                let from = state.read().tail().next();
                self.queue_gap(slot, from, ended_at, GapCause::Bus);
            }
            (None, _) => {}
        }
    }

    /// Prepares for a new epoch: pending events and the history being read still belong to the old
    /// one. Called before the replica applies the new epoch.
    pub fn before_epoch(&mut self, slot: SlotId, view: &mut View<'_>) {
        let degraded = self.degraded();
        let mut state = self.slots.get_mut(slot);
        if let Some(place) = state.read().catch_up_place() {
            let merges = state.merges(degraded);
            let head = view.replica.head(state.topic);
            // A raw catch-up reads the epoch to its end. A conflated one reads nothing: the rest is
            // pending, and queued below.
            let to = if merges {
                state.read().tail().max(state.head)
            } else {
                head
            };
            state.interrupt_catch_up(to);
            if head > to {
                state.mark_pending();
            }
            self.waiting.queue.end_resume(place, to);
        }
        self.materialize(slot, view);
    }

    /// Begins a new epoch: its snapshot precedes its first event.
    pub fn begin_epoch(
        &mut self,
        slot: SlotId,
        epoch: Epoch,
        seq: Seq,
        last: Option<Event>,
        now: UnixNanos,
    ) {
        let mut state = self.slots.get_mut(slot);
        state.enqueue_epoch(epoch, seq);
        let events = snapshot_events(state.kind, None);
        let entry = SnapshotEntry {
            slot,
            seq,
            last,
            events,
            since: now,
            offered: false,
            epoch: Some(epoch),
        };
        self.waiting.queue.push(Entry::Snapshot(Box::new(entry)));
    }

    /// Continues after an overrun: missed events are counted as merged or reported in a gap.
    pub fn on_overrun(&mut self, slot: SlotId, view: &mut View<'_>) {
        let degraded = self.degraded();
        let topic = self.slots[slot].topic;
        let (head, epoch) = (view.replica.head(topic), view.replica.epoch(topic));
        if self.slots.get(slot).queued_generation() != epoch.generation {
            self.begin_epoch(
                slot,
                epoch,
                head,
                view.replica.last(topic).cloned(),
                view.now,
            );
            return;
        }
        let mut state = self.slots.get_mut(slot);
        if state.state() == State::CatchingUp {
            state.set_overran(true);
            return;
        }
        // Not the account's head: events up to the tail are queued, and will be delivered.
        let newest = state.read().tail();
        if head == newest {
            return;
        }
        if state.merges(degraded) {
            self.set_pending(slot, view.now, view.timers);
        } else {
            self.queue_gap(slot, newest.next(), head, GapCause::Bus);
        }
    }
}
