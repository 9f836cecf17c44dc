//! Response to `ledger`: all accounts at one instant.

use super::queue::{Entry, ResumeEntry};
use super::{Outbox, SlotId, View};
use crate::log::TopicId;
use crate::protocol::{Control, Id, LedgerAnswer, LedgerEntry, Seq};

/// Work per byte of a ledger, in bytes of other messages.
const LEDGER_WORK: usize = 2;

impl Outbox {
    pub(super) fn send_ledger(&mut self, id: Option<Id>, view: &mut View<'_>) {
        let queued = self.queued_of_epoch();
        let topics = self
            .subscribed_topics()
            .map(|(topic, slot)| self.ledger_entry(topic, slot, queued[slot.index()], view))
            .collect();
        let answer = Control::Ledger(LedgerAnswer {
            id,
            topics,
            more: false,
        });
        let bytes = self.put_parts(&answer, self.frames.message_max());
        view.counts.work(LEDGER_WORK * bytes);
    }

    /// `queued` is the newest queued event of the account's epoch.
    fn ledger_entry(
        &self,
        topic: TopicId,
        slot: SlotId,
        queued: Seq,
        view: &View<'_>,
    ) -> LedgerEntry {
        let state = self.slots.get(slot);
        let epoch = view.replica.epoch_of_generation(state.generation);
        let is_current = view.replica.epoch(topic) == epoch;
        let newest = if is_current {
            view.replica.head(topic)
        } else {
            queued
        };
        LedgerEntry {
            topic: view.replica.catalog().topic(topic).text.to_string(),
            epoch: epoch.to_string(),
            start: state.start,
            head: state.head,
            delivered: state.delivered(),
            merged: state.merged(),
            lost: state.lost(),
            pending: newest.since(state.head),
        }
    }

    /// By slot: newest event of its account's epoch in the queue or before it; the last event of an
    /// epoch that has ended.
    fn queued_of_epoch(&self) -> Vec<Seq> {
        let mut newest: Vec<Seq> = self.slots.iter().map(|slot| slot.head).collect();
        let mut is_over = vec![false; newest.len()];
        for entry in self.waiting.queue.entries() {
            let Some(id) = entry.slot().filter(|id| !is_over[id.index()]) else {
                continue;
            };
            is_over[id.index()] = entry.begins_epoch();
            let last = match entry {
                Entry::Event(event) => event.seq,
                Entry::Gap(gap) => gap.to,
                Entry::Snapshot(snapshot) if snapshot.epoch.is_none() => snapshot.seq,
                Entry::Resume(resume) if resume.to != ResumeEntry::OPEN => resume.to,
                _ => Seq::START,
            };
            let newest = &mut newest[id.index()];
            *newest = last.max(*newest);
        }
        newest
    }
}
