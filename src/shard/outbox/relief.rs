//! What happens when a client can't keep up: told first, then by each subscription's `on_slow`.

use std::collections::VecDeque;

use super::lane::{Entry, EventEntry, GapEntry, Verdict};
use super::{Outbox, Slot, SlotId, View};
use crate::protocol::{GapCause, LagLevel, Mode, OnSlow, encode_control};

/// The lane at which a client is warned, as a share of its bound.
const WARN_SHARE: usize = 4;

/// What became of a client that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relief {
    /// It goes on.
    Done,
    /// It is to be sent away: `on_slow: disconnect`.
    Disconnect,
}

impl Outbox {
    /// Looks at what waits, warns, and drops or merges where it has to. Cheap while nothing is wrong.
    pub fn relieve(&mut self, view: &mut View<'_>) -> Relief {
        let cost = self.waiting.lane.cost();
        let warn = view.limits.outbox / WARN_SHARE;
        let behind = self.behind(view.now);
        view.counts.waits(behind);
        if cost < warn && behind * WARN_SHARE as u32 <= view.limits.behind_max {
            return Relief::Done;
        }
        self.warn(view);
        let is_late = behind > view.limits.behind_max
            && view.now.since(self.waiting.shed_at) >= view.limits.behind_max / 8;
        if cost <= view.limits.outbox && !is_late {
            return Relief::Done;
        }
        self.waiting.shed_at = view.now;
        self.shed(view)
    }

    /// Tells the client that it is behind, unless it knows.
    pub fn warn(&mut self, view: &View<'_>) {
        if self.level == LagLevel::Ok {
            self.tell(LagLevel::Warn, view);
        }
    }

    fn tell(&mut self, level: LagLevel, view: &View<'_>) {
        self.level = level;
        let lag = encode_control(&self.lag(view), self.wire.encoding());
        view.metrics.lag_of(level).inc();
        // Changes of level are few, and each is needed before what it announces.
        self.waiting.answer_bytes += lag.len();
        self.waiting.control.push_back(super::Control::Answer(lag));
    }

    fn shed(&mut self, view: &View<'_>) -> Relief {
        let waiting = |slot: SlotId| &self.slots[slot.index()];
        let raw = self.waiting.lane.entries().filter_map(|entry| match entry {
            Entry::Event(event) => Some(waiting(event.slot)).filter(|slot| !slot.dead),
            _ => None,
        });
        let marked = self
            .waiting
            .marks
            .iter()
            .map(|(slot, _)| waiting(*slot))
            .filter(|slot| slot.marked && !slot.dead);
        let (mut disconnects, mut degrades) = (false, self.degraded());
        for settings in raw.chain(marked).map(|slot| slot.settings) {
            disconnects |= settings.on_slow == OnSlow::Disconnect;
            degrades |= settings.on_slow == OnSlow::Conflate && settings.mode == Mode::Raw;
        }
        if disconnects {
            return Relief::Disconnect;
        }
        if degrades && !self.degraded() {
            self.tell(LagLevel::Degraded, view);
        }
        self.merge_and_drop(view);
        Relief::Done
    }

    /// Takes out of the lane what merges, and the oldest of what drops, until it is half empty and half as old.
    fn merge_and_drop(&mut self, view: &View<'_>) {
        let degraded = self.degraded();
        let keep_whole = self.last_of_an_epoch(degraded);
        let Self { waiting, slots, .. } = self;
        let lane = &mut waiting.lane;
        let mut cost = lane.cost();
        let target = view.limits.outbox / 2;
        let oldest = view.now.minus(view.limits.behind_max / 2);
        let mut at = 0;
        let mut thinned = Vec::new();
        // By slot: where in the new lane its open gap stands.
        let mut gaps: Vec<Option<usize>> = vec![None; slots.len()];
        lane.rebuild(|entry, kept| {
            at += 1;
            let event = match entry {
                Entry::Event(event) => event,
                other => {
                    if let Some(slot) = other.slot() {
                        gaps[slot.index()] = match &other {
                            Entry::Gap(gap) if gap.cause == GapCause::Slow => Some(kept.len()),
                            _ => None,
                        };
                    }
                    kept.push_back(other);
                    return Verdict::Kept;
                }
            };
            let slot = &mut slots[event.slot.index()];
            let merges = slot.merges(degraded);
            let drops = !merges && (cost > target || event.tx < oldest);
            let stays =
                (merges && keep_whole.contains(&(at - 1))) || !(merges || drops || slot.dead);
            if stays {
                gaps[event.slot.index()] = None;
                kept.push_back(Entry::Event(event));
                return Verdict::Kept;
            }
            cost = cost.saturating_sub(event.len as usize + size_of::<Entry>());
            slot.dequeue();
            if drops && !slot.dead {
                add_to_gap(&event, &mut gaps, kept, slot);
            }
            if thinned.last() != Some(&event.slot) {
                thinned.push(event.slot);
            }
            Verdict::Dropped
        });
        thinned.sort_unstable();
        thinned.dedup();
        self.settle_after_shed(thinned, view);
    }

    /// Entries that a merge must not swallow: closed bars, and the newest of an epoch, where another one follows in the
    /// lane. Places in the lane, in order.
    fn last_of_an_epoch(&self, degraded: bool) -> std::collections::HashSet<usize> {
        let mut places = std::collections::HashSet::new();
        // By slot: whether a new epoch follows, and whether its newest event was found.
        let mut follows = vec![(false, false); self.slots.len()];
        let entries: Vec<&Entry> = self.waiting.lane.entries().collect();
        for (at, entry) in entries.iter().enumerate().rev() {
            match entry {
                Entry::Snapshot(snapshot) if snapshot.epoch.is_some() => {
                    follows[snapshot.slot.index()] = (true, false);
                }
                Entry::Event(event) if self.slots[event.slot.index()].merges(degraded) => {
                    let (epoch_follows, newest_found) = &mut follows[event.slot.index()];
                    if *epoch_follows && (event.done || !*newest_found) {
                        *newest_found = true;
                        places.insert(at);
                    }
                }
                _ => {}
            }
        }
        places
    }

    /// Slots of which events were taken out: those of which nothing waits are freed, those that merge are marked.
    fn settle_after_shed(&mut self, thinned: Vec<SlotId>, view: &View<'_>) {
        let degraded = self.degraded();
        let tails = self.queued_tails();
        for slot in thinned {
            let state = &mut self.slots[slot.index()];
            if state.dead {
                if state.queued() == 0 {
                    self.free.push(slot);
                }
            } else if state.merges(degraded) {
                state.set_tail(tails[slot.index()]);
                state.marked = true;
                if state.queued() == 0 {
                    self.waiting.marks.push_back((slot, view.now));
                }
            }
        }
    }

    /// By slot: the newest event that is in the lane, or before it.
    fn queued_tails(&self) -> Vec<u64> {
        let mut tails: Vec<u64> = self.slots.iter().map(|slot| slot.head).collect();
        for entry in self.waiting.lane.entries() {
            match entry {
                Entry::Event(event) => tails[event.slot.index()] = event.seq,
                Entry::Gap(gap) => tails[gap.slot.index()] = gap.to,
                Entry::Snapshot(snapshot) => {
                    let tail = &mut tails[snapshot.slot.index()];
                    *tail = snapshot.seq.unwrap_or(*tail);
                }
                Entry::Resume(_) | Entry::Ledger(_) => {}
            }
        }
        tails
    }
}

fn add_to_gap(
    event: &EventEntry,
    gaps: &mut [Option<usize>],
    kept: &mut VecDeque<Entry>,
    slot: &mut Slot,
) {
    let open = gaps[event.slot.index()].and_then(|place| kept.get_mut(place));
    if let Some(Entry::Gap(gap)) = open {
        gap.to = event.seq;
        return;
    }
    gaps[event.slot.index()] = Some(kept.len());
    slot.enqueue(None);
    let gap = GapEntry {
        slot: event.slot,
        from: event.seq,
        to: event.seq,
        cause: GapCause::Slow,
    };
    kept.push_back(Entry::Gap(Box::new(gap)));
}
