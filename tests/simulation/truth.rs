//! Events that the bus has published, read from its log: what a client cannot know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tickcast::limits::HistoryLimits;
use tickcast::log::{Batch, Event, Log, LogItem, Replica, TopicId};
use tickcast::market::{Body, UnixNanos};
use tickcast::protocol::Epoch;

use crate::Violation;

/// Most memory of an event in a history.
const EVENT_BYTES_MAX: u64 = 500;

/// Published event.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) tx: u64,
    /// The event closes its bar.
    pub(crate) is_done: bool,
    /// Start of its bar.
    pub(crate) start: u64,
    /// Digest of its fields on the wire, once a client has received it.
    pub(crate) content: Option<u64>,
}

/// One epoch of a topic.
#[derive(Debug)]
struct Run {
    epoch: String,
    records: Vec<Record>,
    /// Gaps of the source: the last event before each, and the number of missing ones, if known.
    source_gaps: Vec<(u64, Option<u64>)>,
}

/// All that was published, over all runs of the server.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    topics: HashMap<String, Vec<Run>>,
    pub(crate) events: u64,
    /// Tightest limits of the server's history since it began; `None` if it may have lost parts of
    /// it in an overrun.
    history: Option<HistoryLimits>,
}

/// Reader of the log of one run of the server.
#[derive(Debug)]
pub(crate) struct TruthReader {
    replica: Replica,
    names: Vec<String>,
    newest_tx: u64,
}

impl TruthReader {
    pub(crate) fn new(epoch: Epoch) -> Self {
        let limits = HistoryLimits {
            events: 0,
            bytes: 1 << 20,
            age: Duration::from_secs(1),
        };
        Self {
            replica: Replica::new(epoch, limits),
            names: Vec::new(),
            newest_tx: 0,
        }
    }

    /// Reads what was published since the last call.
    pub(crate) fn read(&mut self, log: &Log, truth: &mut Truth) -> Result<(), Violation> {
        let batches = log.observe();
        batches.iter().try_for_each(|batch| self.take(batch, truth))
    }

    fn take(&mut self, batch: &Batch, truth: &mut Truth) -> Result<(), Violation> {
        for item in &batch.items {
            let catalog = Arc::clone(&batch.catalog);
            if !matches!(item, LogItem::Event(_)) {
                self.replica.apply(item, &catalog);
            }
            match item {
                LogItem::Event(event) => {
                    self.check_time(event)?;
                    let name = &self.names[event.topic.0 as usize];
                    truth.publish(name, event)?;
                }
                LogItem::Topics { new, .. } => {
                    for topic in new.clone().map(TopicId) {
                        let name = catalog.topic(topic).text.to_string();
                        let epoch = self.replica.epoch(topic).to_string();
                        truth.begin(&name, epoch, self.replica.head(topic).0)?;
                        self.names.push(name);
                    }
                }
                LogItem::Epoch { topic, epoch } => {
                    truth.begin(&self.names[topic.0 as usize], epoch.to_string(), 0)?;
                }
                LogItem::Instruments(_)
                | LogItem::Removed(_)
                | LogItem::Returned(_)
                | LogItem::Moved { .. }
                | LogItem::Source { .. }
                | LogItem::Input { .. } => {}
                LogItem::Missed { topic, missing } => {
                    truth.miss(&self.names[topic.0 as usize], *missing);
                }
            }
        }
        Ok(())
    }

    fn check_time(&mut self, event: &Event) -> Result<(), Violation> {
        let UnixNanos(tx) = event.tx;
        if tx < self.newest_tx {
            return Err(Violation::new(format!("tx {tx} after {}", self.newest_tx)));
        }
        self.newest_tx = tx;
        Ok(())
    }
}

impl Truth {
    /// Notes the beginning of a history.
    pub(crate) fn begin_history(&mut self, limits: HistoryLimits) {
        self.history = Some(limits);
    }

    /// Notes other limits of the history.
    pub(crate) fn limit_history(&mut self, limits: HistoryLimits) {
        if let Some(history) = &mut self.history {
            *history = HistoryLimits {
                events: history.events.min(limits.events),
                bytes: history.bytes.min(limits.bytes),
                age: history.age.min(limits.age),
            };
        }
    }

    /// Notes that a shard may have lost its history.
    pub(crate) fn lose_history(&mut self) {
        self.history = None;
    }

    /// True if the history has all events after `from`, up to `to`, until `now` or longer.
    pub(crate) fn must_have_kept(
        &self,
        topic: &str,
        epoch: &str,
        (from, to): (u64, u64),
        now: u64,
    ) -> bool {
        let (Some(history), Some(oldest)) = (self.history, self.record(topic, epoch, from + 1))
        else {
            return false;
        };
        let kept_until = UnixNanos(oldest.tx).plus(history.age);
        to - from <= history.events as u64
            && kept_until > UnixNanos(now)
            && self.events * EVENT_BYTES_MAX < history.bytes as u64
    }

    /// Begins an epoch, or continues the newest one at `head`.
    fn begin(&mut self, topic: &str, epoch: String, head: u64) -> Result<(), Violation> {
        let runs = self.topics.entry(topic.to_owned()).or_default();
        match runs.iter().rposition(|run| run.epoch == epoch) {
            Some(at) if at + 1 == runs.len() && runs[at].records.len() as u64 == head => Ok(()),
            None if head == 0 => {
                runs.push(Run {
                    epoch,
                    records: Vec::new(),
                    source_gaps: Vec::new(),
                });
                Ok(())
            }
            _ => Err(Violation::new(format!(
                "{topic}: epoch {epoch} begins again at {head}"
            ))),
        }
    }

    fn publish(&mut self, topic: &str, event: &Event) -> Result<(), Violation> {
        let run = self.topics.get_mut(topic).and_then(|runs| runs.last_mut());
        let run = run.ok_or_else(|| Violation::new(format!("{topic} has no epoch")))?;
        if event.seq.0 != run.records.len() as u64 + 1 {
            return Err(Violation::new(format!(
                "{topic}: published seq {} after {}",
                event.seq,
                run.records.len()
            )));
        }
        let (is_done, start) = match &event.body {
            Body::Bar(bar) => (bar.done, bar.start.0),
            _ => (false, 0),
        };
        run.records.push(Record {
            tx: event.tx.0,
            is_done,
            start,
            content: None,
        });
        self.events += 1;
        Ok(())
    }

    fn miss(&mut self, topic: &str, missing: Option<u64>) {
        let run = self.topics.get_mut(topic).and_then(|runs| runs.last_mut());
        if let Some(run) = run {
            run.source_gaps.push((run.records.len() as u64, missing));
        }
    }

    /// Gaps of the source in an epoch.
    pub(crate) fn source_gaps(&self, topic: &str, epoch: &str) -> &[(u64, Option<u64>)] {
        self.run(topic, epoch)
            .map_or(&[], |run| run.source_gaps.as_slice())
    }

    fn run(&self, topic: &str, epoch: &str) -> Option<&Run> {
        let runs = self.topics.get(topic)?;
        runs.iter().rev().find(|run| run.epoch == epoch)
    }

    /// Position of an epoch among those of its topic.
    pub(crate) fn order(&self, topic: &str, epoch: &str) -> Option<usize> {
        let runs = self.topics.get(topic)?;
        runs.iter().rposition(|run| run.epoch == epoch)
    }

    /// The current epoch of a topic and its newest event.
    pub(crate) fn current(&self, topic: &str) -> Option<(&str, u64)> {
        let run = self.topics.get(topic)?.last()?;
        Some((&run.epoch, run.records.len() as u64))
    }

    /// The newest event of an epoch; 0 if there is none.
    pub(crate) fn end(&self, topic: &str, epoch: &str) -> u64 {
        self.run(topic, epoch)
            .map_or(0, |run| run.records.len() as u64)
    }

    pub(crate) fn record(&self, topic: &str, epoch: &str, seq: u64) -> Option<&Record> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.run(topic, epoch)?.records.get(at)
    }

    pub(crate) fn record_mut(&mut self, topic: &str, epoch: &str, seq: u64) -> Option<&mut Record> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        let runs = self.topics.get_mut(topic)?;
        let run = runs.iter_mut().rev().find(|run| run.epoch == epoch)?;
        run.records.get_mut(at)
    }

    /// An event after `from`, up to `to`, that closes a bar.
    pub(crate) fn closed_bar(&self, topic: &str, epoch: &str, from: u64, to: u64) -> Option<u64> {
        if to <= from {
            return None;
        }
        let run = self.run(topic, epoch)?;
        (from + 1..=to).find(|seq| {
            run.records
                .get(*seq as usize - 1)
                .is_some_and(|record| record.is_done)
        })
    }
}
