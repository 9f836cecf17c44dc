//! Thinning of the queue once it is over its bounds: conflation, dropping of the oldest into gaps,
//! and skipping of epochs that ended before they began for the client.
//!
//! The reduced queue is bounded by the number of subscriptions, the requested data and
//! `fanout.outbox`.

use std::collections::HashSet;

use super::blocks::BlockDeque;
use super::queue::{Entry, GapEntry, ResumeEntry, Verdict};
use super::slot::{Left, SlotMut};
use super::{Outbox, Slot, SlotId, State, View};
use crate::protocol::{GapCause, Seq};

/// Decision on an entry of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Kept unless the queue is too long or the event too old.
    Open,
    /// Kept.
    Keep,
    /// Must be kept although a later entry replaces its state; dropped only if there are too many
    /// of them.
    MustKeep,
    /// Removed: a newer event replaces it, or its subscription has ended.
    Merge,
    /// Removed and reported in a gap.
    Lose,
}

/// Later entries of the same subscription.
#[derive(Debug, Clone, Copy, Default)]
struct Behind {
    /// A snapshot or a gap moves the head of the account.
    moves_head: bool,
    /// A new epoch begins.
    epoch: bool,
    /// The newest event or snapshot of the epoch follows.
    last_values: bool,
}

impl Behind {
    fn fate(&mut self, entry: &Entry, merges: bool) -> Fate {
        match entry {
            Entry::Event(event) if merges => {
                // Of an epoch that has ended the replica knows nothing any more: its last event
                // stays in the queue.
                let is_newest = !std::mem::replace(&mut self.last_values, true);
                if self.epoch && is_newest {
                    Fate::Keep
                } else if event.must_keep && self.moves_head {
                    Fate::MustKeep
                } else {
                    Fate::Merge
                }
            }
            Entry::Event(_) => Fate::Open,
            Entry::Snapshot(snapshot) => {
                self.moves_head = true;
                self.epoch |= snapshot.epoch.is_some();
                self.last_values = snapshot.epoch.is_none();
                Fate::Keep
            }
            Entry::Gap(_) => {
                self.moves_head = true;
                Fate::Keep
            }
            Entry::Resume(_) | Entry::Ledger(_) => Fate::Keep,
        }
    }
}

/// By slot: position in the new queue of its last gap, if no entry of the slot follows it.
struct Gaps(Vec<Option<usize>>);

impl Gaps {
    fn last<'k>(
        &self,
        slot: SlotId,
        kept: &'k mut BlockDeque<Entry>,
    ) -> Option<&'k mut Box<GapEntry>> {
        match kept.get_mut(self.0[slot.index()]?) {
            Some(Entry::Gap(gap)) => Some(gap),
            _ => None,
        }
    }

    /// Reports an event as lost. Returns the memory of a new gap in bytes.
    fn add(
        &mut self,
        id: SlotId,
        seq: Seq,
        kept: &mut BlockDeque<Entry>,
        slot: &mut SlotMut<'_>,
    ) -> usize {
        if let Some(gap) = self
            .last(id, kept)
            .filter(|gap| gap.cause == GapCause::Slow)
        {
            gap.to = seq;
            return 0;
        }
        self.0[id.index()] = Some(kept.len());
        slot.enqueue(None);
        let gap = Entry::Gap(Box::new(GapEntry {
            slot: id,
            from: seq,
            to: seq,
            cause: GapCause::Slow,
            missing: None,
        }));
        let cost = gap.cost();
        kept.push_back(gap);
        cost
    }

    /// Joins a gap with the previous one if they are adjacent and have the same cause; under memory
    /// pressure, gaps of other causes are joined with cause `slow`.
    fn join(&self, gap: &GapEntry, kept: &mut BlockDeque<Entry>, under_pressure: bool) -> bool {
        let Some(last) = self.last(gap.slot, kept) else {
            return false;
        };
        if let (Some(before), Some(source)) = (last.source_gap(), gap.source_gap()) {
            // No event is queued between the two.
            **last = GapEntry::of_source(gap.slot, before.join(source));
            return true;
        }
        let is_asked = [last.cause, gap.cause].contains(&GapCause::Expired);
        let has_one_cause = last.cause == gap.cause;
        if last.to.next() != gap.from || is_asked || !(has_one_cause || under_pressure) {
            return false;
        }
        last.to = gap.to;
        if !has_one_cause {
            (last.cause, last.missing) = (GapCause::Slow, None);
        }
        true
    }
}

/// By slot: positions of the entries to skip if another epoch begins.
#[derive(Default)]
struct Skippable(Option<Vec<usize>>);

impl Outbox {
    /// Reduces the queue to half of its byte and age limits: removes conflated events, then the
    /// oldest droppable events, then epochs without remaining events.
    pub(super) fn merge_and_drop(&mut self, view: &View<'_>) {
        let degraded = self.degraded();
        // Before thinning, so that no event of a skipped epoch becomes a gap; after it, because an
        // epoch of a raw subscription may have nothing left but gaps only then.
        self.skip_epochs(|slot| slot.merges(degraded));
        let thinned = self.thin(view);
        self.skip_epochs(|_| false);
        // Rebuilding counts places from zero again.
        for (place, entry) in self.waiting.queue.entries().enumerate() {
            if let Entry::Resume(ResumeEntry { slot, to }) = entry
                && *to == ResumeEntry::OPEN
            {
                let mut slot = self.slots.get_mut(*slot);
                if slot.state() == State::CatchingUp {
                    slot.move_catch_up(place as u32);
                }
            }
        }
        self.settle_after_reduction(thinned, view);
    }

    /// Removes entries of ended subscriptions, conflated events and the oldest droppable events.
    /// Returns the subscriptions of removed entries.
    fn thin(&mut self, view: &View<'_>) -> Vec<SlotId> {
        let target = view.limits.outbox_bytes / 2;
        let mut fates = self.fates(target).into_iter();
        let reads = view.now <= self.waiting.reads_until;
        let asked_until = self.waiting.asked_until;
        // Events behind requested data do not age yet.
        let mut is_excused = reads && self.waiting.asked_ends_at.is_some();
        let oldest = view.now.minus(view.limits.behind_max / 2);
        let Self {
            waiting,
            slots,
            free,
            ..
        } = self;
        let mut cost = waiting.queue.cost();
        let mut gaps = Gaps(vec![None; slots.len()]);
        let mut thinned = Vec::new();
        waiting.queue.rebuild(|entry, kept| {
            let fate = fates.next().unwrap_or(Fate::Keep);
            is_excused |= reads && entry.is_asked();
            let Some(id) = entry.slot() else {
                kept.push_back(entry);
                return Verdict::Kept;
            };
            let mut slot = slots.get_mut(id);
            let stays = match (&entry, fate) {
                (_, Fate::Merge) => false,
                (Entry::Event(event), Fate::Open | Fate::Lose) => {
                    // The gap goes to the place of the event, so that the account passes its
                    // numbers in order.
                    let is_old = event.released.max(asked_until) < oldest && !is_excused;
                    let stays = fate == Fate::Open && cost <= target && !is_old;
                    if !stays {
                        cost += gaps.add(id, event.seq, kept, &mut slot);
                    }
                    stays
                }
                // A client that is overrun again and again has one gap for each: they may not grow
                // beyond the bound either.
                (Entry::Gap(gap), _) => !gaps.join(gap, kept, cost > target),
                _ => true,
            };
            if stays {
                // An entry behind the gap ends it: events after it need a gap of their own.
                gaps.0[id.index()] = matches!(entry, Entry::Gap(_)).then_some(kept.len());
                kept.push_back(entry);
                return Verdict::Kept;
            }
            cost = cost.saturating_sub(entry.cost());
            if slot.dequeue() == Left::Freed {
                free.push(id);
            } else if !slot.is_released() && thinned.last() != Some(&id) {
                thinned.push(id);
            }
            Verdict::Dropped
        });
        thinned.sort_unstable();
        thinned.dedup();
        thinned
    }

    /// Decision for each entry of the queue. Events that must be kept take at most `kept_max`
    /// bytes.
    fn fates(&self, kept_max: usize) -> Vec<Fate> {
        let degraded = self.degraded();
        let mut behind = vec![Behind::default(); self.slots.len()];
        let mut kept = 0;
        let queue = &self.waiting.queue;
        // From the back, because what follows an entry decides whether it is replaced.
        let mut fates: Vec<Fate> = queue
            .entries()
            .rev()
            .map(|entry| {
                let Some(id) = entry.slot() else {
                    return Fate::Keep;
                };
                let slot = self.slots.get(id);
                if slot.is_released() {
                    return Fate::Merge;
                }
                let fate = behind[id.index()].fate(entry, slot.merges(degraded));
                if fate == Fate::MustKeep {
                    kept += entry.cost();
                }
                fate
            })
            .collect();
        fates.reverse();
        // Too many of them are lost by a gap, the oldest first: closed bars may not break the
        // bound.
        for (fate, entry) in fates.iter_mut().zip(queue.entries()) {
            if kept <= kept_max {
                break;
            }
            if *fate == Fate::MustKeep {
                *fate = Fate::Lose;
                kept -= entry.cost();
            }
        }
        fates
    }

    /// Removes epochs that ended before the client was notified of their beginning: those with only
    /// gaps queued and, for subscriptions selected by `merges`, also those with events. Requested
    /// entries are kept.
    fn skip_epochs(&mut self, merges: impl Fn(&Slot) -> bool) {
        if self.waiting.queue.epochs() < 2 {
            return;
        }
        let mut open: Vec<Skippable> = Vec::new();
        open.resize_with(self.slots.len(), Skippable::default);
        let mut skipped = HashSet::new();
        for (place, entry) in self.waiting.queue.entries().enumerate() {
            let Some(id) = entry.slot().filter(|id| !self.slots[*id].is_released()) else {
                continue;
            };
            let Skippable(since) = &mut open[id.index()];
            if entry.begins_epoch() {
                skipped.extend(since.replace(vec![place]).into_iter().flatten());
                continue;
            }
            let is_event = matches!(entry, Entry::Event(_));
            if entry.is_asked() || (is_event && !merges(&self.slots[id])) {
                *since = None;
            } else if let Some(since) = since {
                since.push(place);
            }
        }
        if skipped.is_empty() {
            return;
        }
        let Self { waiting, slots, .. } = self;
        let mut places = 0..;
        waiting.queue.rebuild(|entry, kept| {
            let place = places.next().unwrap_or(usize::MAX);
            match entry.slot().filter(|_| skipped.contains(&place)) {
                Some(id) => {
                    let left = slots.get_mut(id).dequeue();
                    debug_assert_eq!(left, Left::Entries, "the epoch after it is queued");
                    Verdict::Dropped
                }
                None => {
                    kept.push_back(entry);
                    Verdict::Kept
                }
            }
        });
    }

    /// Marks conflated subscriptions of removed entries as pending.
    fn settle_after_reduction(&mut self, thinned: Vec<SlotId>, view: &View<'_>) {
        let degraded = self.degraded();
        let tails = self.queued_tails();
        for slot in thinned {
            let mut state = self.slots.get_mut(slot);
            if state.merges(degraded) {
                // The events that were taken out are behind the tail again, from where the last
                // value accounts for them.
                let tail = tails[slot.index()];
                state.set_tail(tail);
                // Of those before a queued gap nothing is left to send: the gap counts them as
                // merged, and the state that follows it is sent only if nothing is pending.
                let has_newer = view.replica.head(state.topic) > tail;
                if has_newer && state.mark_pending() {
                    self.waiting.pending.push_back((slot, view.now));
                }
            }
        }
    }

    /// By slot: newest event in the queue or before it.
    fn queued_tails(&self) -> Vec<Seq> {
        let mut tails: Vec<Seq> = self.slots.iter().map(|slot| slot.head).collect();
        for entry in self.waiting.queue.entries() {
            match entry {
                Entry::Event(event) => tails[event.slot.index()] = event.seq,
                Entry::Gap(gap) => tails[gap.slot.index()] = gap.to,
                Entry::Snapshot(snapshot) => tails[snapshot.slot.index()] = snapshot.seq,
                Entry::Resume(resume) if resume.to != ResumeEntry::OPEN => {
                    let tail = &mut tails[resume.slot.index()];
                    *tail = resume.to.max(*tail);
                }
                Entry::Resume(_) | Entry::Ledger(_) => {}
            }
        }
        tails
    }
}
