//! What happens when a client can't keep up: told first, then by each subscription's `on_slow`.

use super::lane::Entry;
use super::{Outbox, SlotId, View};
use crate::protocol::{LagLevel, Mode, OnSlow, encode_control};

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
        if !self.waiting.are_unused() {
            self.note_progress(view);
        }
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
        // What can't be taken out would else be walked over again with every event.
        let left = self.waiting.shed_left.min(cost);
        self.waiting.shed_left = left;
        if cost <= view.limits.outbox.max(left + view.limits.outbox / 4) && !is_late {
            return Relief::Done;
        }
        self.waiting.shed_at = view.now;
        let relief = self.shed(view);
        self.waiting.shed_left = self.waiting.lane.cost();
        relief
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
        // Not asked for, so it keeps no request waiting; changes of level are few, so it needs no bound of its own.
        self.waiting.notice_bytes += lag.len();
        self.waiting.control.push_back(super::Control::Notice(lag));
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
}
