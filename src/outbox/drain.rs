//! Draining: moves queued entries into the frame buffer and accounts for them.

use std::time::Duration;

use super::queue::{Entry, EventEntry, GapEntry, ResumeEntry, SnapshotEntry};
use super::slot::Left;
use super::{Outbox, SlotId, State, View};
use crate::codec::{SnapshotHead, encode_event, write_snapshot};
use crate::log::{CatchUp, Event, SourceGap, snapshot_replaces_all};
use crate::protocol::{Control, Gap, GapCause, Lag, LagLevel, Mode, Seq};

/// Maximum length in bytes of a snapshot without its events.
const SNAPSHOT_HEAD_BYTES: usize = 512;

impl Outbox {
    /// Fills the frame buffer from the queues up to about one frame. Returns true if nothing is
    /// left.
    pub fn fill(&mut self, view: &mut View<'_>) -> bool {
        if self.waiting.are_unused() {
            return self.fill_is_over(view);
        }
        self.note_progress(view);
        let frame = view.limits.frame_bytes.min(self.frames.room());
        // Control messages first: a lag message precedes what it announces.
        while self.send_control(view) {
            if self.frames.len() >= 2 * frame || view.counts.has_worked_enough() {
                return !self.has_more() && self.fill_is_over(view);
            }
        }
        while self.frames.len() < frame
            && let Some(entry) = self.waiting.queue.pop()
        {
            self.send(entry, view);
            if view.counts.has_worked_enough() {
                break;
            }
        }
        // The newest have their own turn beside the queue, so that a long queue can't keep them
        // back.
        let room = self.frames.len().max(frame) + frame;
        while self.frames.len() < room
            && let Some((slot, _)) = self.waiting.pending.pop_front()
        {
            self.send_last_value(slot, view);
        }
        self.fill_is_over(view)
    }

    /// Fills the frame buffer up to a whole frame, as far as the client may be sent more now: what
    /// is not written before a change of subscriptions is not sent any more.
    pub fn fill_frame(&mut self, view: &mut View<'_>) {
        view.counts.begin_flush();
        loop {
            let before = self.frames.len();
            let is_over = self.frames.blocked || self.frames.is_held() || self.fill(view);
            if is_over
                || view.counts.has_worked_enough()
                || self.frames.len() >= view.limits.frame_bytes
                || self.frames.len() == before
            {
                return;
            }
        }
    }

    /// True if the queues are empty; a client that was behind has then caught up.
    fn fill_is_over(&mut self, view: &mut View<'_>) -> bool {
        let is_empty = !self.has_more();
        if is_empty && self.level != LagLevel::Ok {
            self.level = LagLevel::Ok;
            let lag = self.lag(view);
            self.put(&lag);
            view.counts.lag[LagLevel::Ok as usize] += 1;
        }
        is_empty
    }

    fn send(&mut self, entry: Entry, view: &mut View<'_>) {
        let (slot, is_asked) = (entry.slot(), entry.is_asked());
        let (mut is_whole, before) = (true, self.frames.position());
        match entry {
            Entry::Event(event) => self.send_event(&event, view),
            Entry::Gap(gap) => self.send_gap(&gap, view),
            Entry::Snapshot(snapshot) => self.send_snapshot(*snapshot, view),
            Entry::Resume(resume) => is_whole = self.send_missed(resume, view),
            Entry::Ledger(id) => self.send_ledger(*id, view),
        }
        if is_asked {
            self.note_asked_since(before);
        }
        if let Some(slot) = slot.filter(|_| is_whole) {
            self.entry_left(slot, view);
        }
    }

    /// Notes that the client asked for all that was written since this position.
    pub(super) fn note_asked_since(&mut self, position: u64) {
        self.frames.count_asked_since(position);
        self.waiting.asked_ends_at = Some(self.frames.taken() + self.frames.len() as u64);
    }

    /// Removes one queued entry of a slot. Conflated events may follow once there are none.
    fn entry_left(&mut self, slot: SlotId, view: &mut View<'_>) {
        let degraded = self.degraded();
        let mut state = self.slots.get_mut(slot);
        match state.dequeue() {
            Left::Entries => return,
            Left::Freed => return self.free.push(slot),
            Left::Nothing => state.shrink(),
        }
        // The account says what is pending, not a mark: the last entry may have been the newest
        // event.
        if state.merges(degraded) && view.replica.head(state.topic) > state.head {
            self.set_pending(slot, view.now, view.timers);
        }
    }

    fn send_event(&mut self, event: &EventEntry, view: &mut View<'_>) {
        let bytes = self.waiting.queue.take_bytes(event.len);
        let mut state = self.slots.get_mut(event.slot);
        if state.is_released() {
            return;
        }
        self.frames.events(bytes, 1);
        let merged = state.deliver(event.seq);
        self.totals.merged += merged;
        self.totals.delivered += 1;
        view.counts.merged += merged;
        view.counts
            .deliver(1, event.released, state.settings().mode);
    }

    fn send_gap(&mut self, gap: &GapEntry, view: &mut View<'_>) {
        let state = self.slots.get(gap.slot);
        if state.is_released() {
            return;
        }
        self.put_gap(gap, view);
        let state = self.slots.get(gap.slot);
        let is_last =
            state.queued() == 1 && !state.is_pending() && view.replica.head(state.topic) == gap.to;
        // A state after a gap is unknown until its next event, which may be hours away.
        if is_last && state.kind.conflates() {
            self.put_snapshot(gap.slot, gap.to, 1, None, view);
        }
    }

    /// Reports the source gap among the events after the account's head up to `to`.
    fn put_source_gap(&mut self, slot: SlotId, gap: SourceGap, view: &mut View<'_>) {
        self.put_gap(&GapEntry::of_source(slot, gap), view);
    }

    fn put_gap(&mut self, gap: &GapEntry, view: &mut View<'_>) {
        let GapEntry {
            slot,
            from,
            to,
            cause,
            missing,
        } = *gap;
        let mut state = self.slots.get_mut(slot);
        let merged = state.merge_to(from.previous());
        let lost = to.next().since(from);
        state.lose_to(to);
        let gap = Gap {
            topic: view.replica.catalog().topic(state.topic).text.to_string(),
            epoch: view
                .replica
                .epoch_of_generation(state.generation)
                .to_string(),
            from,
            to,
            n: lost,
            cause,
            missing,
        };
        self.totals.merged += merged;
        view.counts.merged += merged;
        self.totals.lost += lost;
        view.counts.lost[cause as usize] += lost;
        self.put(&Control::Gap(gap));
    }

    fn send_snapshot(&mut self, entry: SnapshotEntry, view: &mut View<'_>) {
        let mut state = self.slots.get_mut(entry.slot);
        if state.is_released() {
            return;
        }
        let seq = entry.seq;
        match entry.epoch {
            Some(epoch) => {
                self.ended += state.accounted();
                state.begin_epoch(epoch, seq);
            }
            None => {
                let merged = state.merge_to(seq);
                self.totals.merged += merged;
                view.counts.merged += merged;
            }
        }
        view.counts.snapshot_sent(entry.since, view.now);
        self.put_snapshot(entry.slot, seq, entry.events, entry.last, view);
    }

    fn put_snapshot(
        &mut self,
        slot: SlotId,
        seq: Seq,
        events: usize,
        last: Option<Event>,
        view: &mut View<'_>,
    ) {
        let state = self.slots.get(slot);
        let (topic, encoding) = (state.topic, self.frames.encoding());
        let epoch = view.replica.epoch_of_generation(state.generation);
        let is_current = view.replica.epoch(topic) == epoch;
        let mut found = if is_current {
            view.replica.snapshot(topic, seq, events)
        } else {
            Vec::new()
        };
        if found.is_empty() {
            found.extend(last.as_ref().filter(|event| event.seq == seq));
        }
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        let info = view.replica.catalog().topic(topic);
        for event in &found {
            if is_current {
                bytes.extend_from_slice(view.last_values.bytes(
                    view.replica,
                    event,
                    encoding,
                    view.counts,
                ));
            } else {
                // The kept bytes are of the epoch now.
                encode_event(
                    &mut bytes,
                    encoding,
                    &info.head,
                    event.seq,
                    event.tx,
                    &event.body,
                );
            }
            ends.push(bytes.len());
        }
        let head = SnapshotHead {
            topic: &info.text,
            epoch: &epoch.to_string(),
            seq,
        };
        let mut payload = Vec::with_capacity(bytes.len() + 128);
        // Where the client takes no longer message, it has the newest that fit.
        let room = self
            .frames
            .message_max()
            .saturating_sub(SNAPSHOT_HEAD_BYTES);
        let size_from = |at: usize| bytes.len() - ends[at] + found.len() - at;
        let skipped = (0..found.len())
            .take_while(|at| size_from(*at) > room)
            .count();
        let (found, ends) = (&found[skipped..], &ends[skipped..]);
        let events = ends.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
        write_snapshot(&mut payload, encoding, &head, found.len(), events);
        view.counts.work(payload.len());
        self.frames.control(&payload);
    }

    /// Sends the events of the history after the account's head, up to the last event of the entry.
    /// Returns false if the rest must continue from the front of the queue.
    fn send_missed(&mut self, resume: ResumeEntry, view: &mut View<'_>) -> bool {
        let degraded = self.degraded();
        let ResumeEntry { slot, to } = resume;
        let is_open = to == ResumeEntry::OPEN;
        let mut state = self.slots.get_mut(slot);
        if state.is_released() || state.head >= to {
            return true;
        }
        let is_current = view.replica.epoch(state.topic).generation == state.generation;
        if is_current && state.merges(degraded) {
            // The newest event follows on its own or in a snapshot.
            if is_open {
                state.caught_up();
                return true;
            }
            if !snapshot_replaces_all(state.kind) {
                self.send_merged(slot, to, view);
            }
            // The snapshot replaces the events that are left, but not the source gaps among them.
            let state = &self.slots[slot];
            let merged = state.head.next()..=to;
            if let Some(gap) = view.replica.source_gap_behind(state.topic, merged) {
                self.put_source_gap(slot, gap, view);
            }
            return true;
        }
        // The replica has the history of the current epoch only: the rest of an ended one is lost.
        if !is_current {
            let (from, overran) = (state.head.next(), state.read().overran());
            self.put_hole(slot, from, to, overran, view);
            return true;
        }
        self.send_history(slot, to, view)
    }

    /// Sends events of the current epoch from the history, and a gap for those that the history has
    /// dropped.
    fn send_history(&mut self, slot: SlotId, to: Seq, view: &mut View<'_>) -> bool {
        let mut state = self.slots.get_mut(slot);
        let topic = state.topic;
        let first_kept = view.replica.first_kept(topic);
        // Events were published, and dropped from the history, faster than the socket took them.
        if state.head.next() < first_kept {
            let (from, overran) = (state.head.next(), state.read().overran());
            state.set_overran(overran && to < first_kept.previous());
            self.put_hole(slot, from, to.min(first_kept.previous()), overran, view);
        }
        let Self {
            slots,
            frames,
            totals,
            waiting,
            ..
        } = self;
        let mut state = slots.get_mut(slot);
        let replica = view.replica;
        let missed = replica.after(topic, state.head).into_iter().flatten();
        let mut source_gap = None;
        for event in missed.take_while(|event| event.seq <= to) {
            if frames.len() >= view.limits.frame_bytes || view.counts.has_worked_enough() {
                let rest = ResumeEntry { slot, to };
                let place = waiting.queue.push_front(Entry::Resume(rest));
                if to == ResumeEntry::OPEN {
                    state.move_catch_up(place);
                }
                return false;
            }
            let bytes = view
                .last_values
                .bytes(view.replica, event, frames.encoding(), view.counts);
            view.counts.work(bytes.len());
            frames.events(bytes, 1);
            let merged = state.deliver(event.seq);
            totals.merged += merged;
            totals.delivered += 1;
            view.counts.merged += merged;
            view.counts.delivered += 1;
            source_gap = replica.source_gap_behind(topic, event.seq..=event.seq);
            if source_gap.is_some() {
                break;
            }
        }
        if let Some(gap) = source_gap {
            self.put_source_gap(slot, gap, view);
            return self.send_history(slot, to, view);
        }
        let mut state = self.slots.get_mut(slot);
        if to == ResumeEntry::OPEN {
            state.caught_up();
        }
        true
    }

    /// Sends a gap for missed events that are no longer available; with cause `bus` if the shard
    /// was overrun in the meantime.
    fn put_hole(&mut self, slot: SlotId, from: Seq, to: Seq, overran: bool, view: &mut View<'_>) {
        let cause = if overran {
            GapCause::Bus
        } else {
            self.put_warning(view);
            GapCause::Slow
        };
        let gap = GapEntry {
            slot,
            from,
            to,
            cause,
            missing: None,
        };
        self.put_gap(&gap, view);
    }

    fn send_last_value(&mut self, slot: SlotId, view: &mut View<'_>) {
        let mut state = self.slots.get_mut(slot);
        if state.state() != State::Pending {
            // It was queued, sent or released since it was put on the list.
            return;
        }
        if let Mode::Interval(ms) = state.settings().mode {
            if view.now < state.read().next_due() {
                view.timers.push((state.read().next_due(), slot));
                return;
            }
            state.set_next_due(view.now.plus(Duration::from_millis(ms.into())));
        }
        state.take_pending();
        self.send_merged(slot, Seq::MAX, view);
    }

    /// Sends the conflated events after the account's head, up to `to`.
    fn send_merged(&mut self, slot: SlotId, to: Seq, view: &mut View<'_>) {
        let state = self.slots.get(slot);
        let (from, replica) = (state.head.next(), view.replica);
        let CatchUp { evicted, events } = replica.catch_up(state.topic, state.head);
        if let Some(evicted) = evicted {
            self.put_hole(slot, from, evicted.min(to), false, view);
        }
        let state = self.slots.get(slot);
        let (topic, mut reported) = (state.topic, state.head);
        for event in events.take_while(|event| event.seq <= to) {
            let before = reported.next()..=event.seq.previous();
            if let Some(gap) = replica.source_gap_behind(topic, before) {
                self.put_source_gap(slot, gap, view);
            }
            reported = event.seq.previous();
            let bytes = view
                .last_values
                .bytes(replica, event, self.frames.encoding(), view.counts);
            self.frames.events(bytes, 1);
            let mut state = self.slots.get_mut(slot);
            let merged = state.deliver(event.seq);
            self.totals.merged += merged;
            self.totals.delivered += 1;
            view.counts.merged += merged;
            let released = event.tx.plus(view.counts.delay);
            view.counts.deliver(1, released, state.settings().mode);
        }
        let last = reported.next()..=self.slots[slot].head;
        if let Some(gap) = replica.source_gap_behind(topic, last) {
            self.send_gap(&GapEntry::of_source(slot, gap), view);
        }
    }

    pub(super) fn lag(&self, view: &View<'_>) -> Control {
        Control::Lag(Lag {
            level: self.level,
            queued_bytes: self.queued_bytes() as u64,
            behind_ms: self.behind(view.now, view.limits.behind_max).as_millis() as u64,
        })
    }

    /// Writes `lag` with level `warn` directly into the frame buffer, because a gap follows there.
    fn put_warning(&mut self, view: &mut View<'_>) {
        if self.level == LagLevel::Ok {
            self.level = LagLevel::Warn;
            let lag = self.lag(view);
            self.put(&lag);
            view.counts.lag[LagLevel::Warn as usize] += 1;
        }
    }
}
