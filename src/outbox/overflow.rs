//! Slow-consumer handling: notification first, then each subscription's `on_slow`.

use super::queue::Entry;
use super::{Outbox, Slot, SlotId, View};
use crate::protocol::{LagLevel, Mode, OnSlow};

/// Divisor of a limit at which the client is warned.
const WARN_SHARE: usize = 4;

/// Action for a client that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverflowAction {
    /// None.
    Done,
    /// Disconnect the client: `on_slow: disconnect`.
    Disconnect,
}

impl Outbox {
    /// Checks the queue against its limits: warns the client, and drops or conflates events where
    /// necessary. Cheap while within the limits.
    pub fn enforce_limits(&mut self, view: &mut View<'_>) -> OverflowAction {
        if !self.waiting.are_unused() {
            self.note_progress(view);
        }
        let cost = self.waiting.queue.cost();
        // Early enough that a client can act on it: unsubscribe, or ask for conflation.
        let warn = view.limits.outbox_bytes / WARN_SHARE;
        let behind = self.behind(view.now, view.limits.behind_max);
        view.counts.waits(behind);
        if cost < warn && behind * WARN_SHARE as u32 <= view.limits.behind_max {
            return OverflowAction::Done;
        }
        self.warn(view);
        let is_late = behind > view.limits.behind_max
            && view.now.since(self.waiting.reduced_at) >= view.limits.behind_max / 8;
        // What can't be taken out would else be walked over again with every event.
        let left = self.waiting.left_after_reduction.min(cost);
        self.waiting.left_after_reduction = left;
        if cost
            <= view
                .limits
                .outbox_bytes
                .max(left + view.limits.outbox_bytes / 4)
            && !is_late
        {
            return OverflowAction::Done;
        }
        self.waiting.reduced_at = view.now;
        let relief = self.reduce(view);
        self.waiting.left_after_reduction = self.waiting.queue.cost();
        relief
    }

    /// Notifies the client once that it is behind.
    pub fn warn(&mut self, view: &mut View<'_>) {
        if self.level == LagLevel::Ok {
            self.notify_lag(LagLevel::Warn, view);
        }
    }

    fn notify_lag(&mut self, level: LagLevel, view: &mut View<'_>) {
        self.level = level;
        let lag = self.lag(view);
        view.counts.lag[level as usize] += 1;
        self.queue_lag(lag);
    }

    fn reduce(&mut self, view: &mut View<'_>) -> OverflowAction {
        let waiting = |slot: SlotId| &self.slots[slot];
        let raw = self
            .waiting
            .queue
            .entries()
            .filter_map(|entry| match entry {
                Entry::Event(event) => Some(waiting(event.slot)).filter(|slot| !slot.is_released()),
                _ => None,
            });
        let is_pending = self
            .waiting
            .pending
            .iter()
            .map(|(slot, _)| waiting(*slot))
            .filter(|slot| slot.is_pending());
        let (mut disconnects, mut degrades) = (false, self.degraded());
        for settings in raw.chain(is_pending).map(Slot::settings) {
            disconnects |= settings.on_slow == OnSlow::Disconnect;
            degrades |= settings.on_slow == OnSlow::Conflate && settings.mode == Mode::Raw;
        }
        if disconnects {
            return OverflowAction::Disconnect;
        }
        if degrades && !self.degraded() {
            self.notify_lag(LagLevel::Degraded, view);
        }
        self.merge_and_drop(view);
        OverflowAction::Done
    }
}
