//! Everything that the simulated log has ever committed, and the promises that are checked
//! against it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use tickcast::cluster::{Kind, Record, Unpacker};
use tickcast::log::{Catalog, LogItem, TopicId};
use tickcast::market::{Body, TradeId};
use tickcast::protocol::Epoch;

use super::sources::PUSHED;
use crate::Violation;

/// A record that was committed, whether the log still contains it or not.
#[derive(Debug)]
struct Committed {
    /// Checksum of what a reader publishes; `None` if that is nothing.
    items: Option<u64>,
    /// Catalog behind the record.
    catalog: Arc<Catalog>,
    is_forgotten: bool,
}

/// All records that were ever committed, by their checksums.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    committed: HashMap<u64, Committed>,
    /// By checksum of a record: those that were committed behind it.
    behind: HashMap<u64, Vec<u64>>,
    /// By number: checksum of the record that was committed last.
    numbers: BTreeMap<u64, u64>,
    /// True once a number has had two records: an acknowledged one was forgotten for good.
    pub(crate) is_forked: bool,
    /// Pushed trades that were ever committed.
    pushed: HashSet<u64>,
    /// Pushed trades of which their client knows that they are.
    told: HashSet<u64>,
    pub(crate) records: u64,
}

/// Text that is only hashed.
struct Hashed(DefaultHasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

fn violation<T>(text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::new(text))
}

/// Checksum of what a reader publishes.
pub(crate) fn digest_of<'i>(items: impl Iterator<Item = &'i LogItem>) -> Option<u64> {
    let mut hashed = Hashed(DefaultHasher::new());
    let mut is_empty = true;
    for item in items.filter(|item| !matches!(item, LogItem::Input { .. })) {
        is_empty = false;
        // Writing to a hash cannot fail.
        let _written = write!(hashed, "{item:?}");
    }
    (!is_empty).then(|| hashed.0.finish())
}

fn read(bytes: &Bytes) -> Result<Record, Violation> {
    Record::read(bytes).map_err(|fault| Violation::new(format!("the log has no record: {fault}")))
}

impl Truth {
    /// Checks a record that the log commits as number `number` behind another one.
    pub(crate) fn commit(
        &mut self,
        number: u64,
        bytes: &Bytes,
        before: Option<&Bytes>,
    ) -> Result<(), Violation> {
        self.records += 1;
        let record = read(bytes)?;
        if record.number != number {
            return violation(format!("record {} has place {number}", record.number));
        }
        let before = before.map(read).transpose()?;
        let previous = match &before {
            Some(before) => before.sum,
            None => number
                .checked_sub(1)
                .and_then(|at| self.numbers.get(&at).copied())
                .unwrap_or_default(),
        };
        if record.previous != previous {
            return violation(format!(
                "record {number} of term {} breaks the chain: it follows another record than {}",
                record.term,
                number - 1
            ));
        }
        if let Some(before) = before {
            check_author(&before, &record)?;
        }
        let other = self.numbers.insert(number, record.sum);
        if other.is_some_and(|other| other != record.sum) {
            self.is_forked = true;
        }
        if let Some(known) = self.committed.get_mut(&record.sum) {
            if !std::mem::take(&mut known.is_forgotten) {
                return violation(format!("record {number} is in the log twice"));
            }
            return Ok(());
        }
        self.learn(&record)
    }

    /// Notes a record that is committed for the first time.
    fn learn(&mut self, record: &Record) -> Result<(), Violation> {
        let catalog = self.committed.get(&record.previous);
        let catalog = catalog
            .map(|known| Arc::clone(&known.catalog))
            .unwrap_or_default();
        let mut unpacker = Unpacker::behind(catalog);
        let items = match record.kind {
            Kind::Items => unpacker.unpack(&record.body),
            Kind::Lead | Kind::Tick | Kind::Handover => Ok(Vec::new()),
        };
        let items =
            items.map_err(|fault| Violation::new(format!("record {}: {fault}", record.number)))?;
        let catalog = Arc::clone(unpacker.catalog());
        for item in &items {
            if let LogItem::Event(event) = item
                && let Body::Trade(trade) = &event.body
                && let TradeId::Number(id) = trade.id
                && catalog.topic(event.topic).topic.symbol.as_str() == PUSHED
            {
                self.pushed.insert(id);
            }
        }
        let known = Committed {
            items: digest_of(items.iter()),
            catalog,
            is_forgotten: false,
        };
        self.committed.insert(record.sum, known);
        self.behind
            .entry(record.previous)
            .or_default()
            .push(record.sum);
        Ok(())
    }

    /// Notes that the log has forgotten a record.
    pub(crate) fn forget(&mut self, sum: u64) {
        if let Some(known) = self.committed.get_mut(&sum) {
            known.is_forgotten = true;
        }
    }

    /// Notes that the client of a pushed trade was told that the log contains it.
    pub(crate) fn tell(&mut self, id: u64) -> Result<(), Violation> {
        self.told.insert(id);
        if self.pushed.contains(&id) {
            return Ok(());
        }
        violation(format!("push {id} was confirmed, but never committed"))
    }

    /// Number of confirmed pushes.
    pub(crate) fn told(&self) -> usize {
        self.told.len()
    }

    /// The record behind that with checksum `from` whose items a reader has published.
    pub(crate) fn follow(&self, from: u64, items: u64) -> Option<u64> {
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for sum in self.behind.get(&at).into_iter().flatten() {
                match self.committed.get(sum).and_then(|known| known.items) {
                    Some(other) if other == items => return Some(*sum),
                    Some(_) => {}
                    None => open.push(*sum),
                }
            }
        }
        None
    }

    /// Checks all records of the log, and returns the last one with items.
    pub(crate) fn check_all<'r>(
        &self,
        records: impl Iterator<Item = &'r Bytes>,
    ) -> Result<Option<u64>, Violation> {
        let mut walk = Walk::default();
        let mut last = None;
        for bytes in records {
            let record = read(bytes)?;
            walk.take(&record)?;
            if self
                .committed
                .get(&record.sum)
                .is_some_and(|known| known.items.is_some())
            {
                last = Some(record.sum);
            }
        }
        let lost = self.told.iter().find(|id| !walk.pushed.contains(id));
        match lost {
            Some(id) if !self.is_forked => {
                violation(format!("push {id} was confirmed, but is not in the log"))
            }
            _ => Ok(last),
        }
    }
}

/// Two publishers never both go on: a node appends from the record that starts its term up to that
/// of the next term.
fn check_author(before: &Record, record: &Record) -> Result<(), Violation> {
    let is_right = if record.kind == Kind::Lead {
        // A publisher that takes over may know of a term that the log has forgotten.
        record.term > before.term
    } else {
        (record.term, record.node) == (before.term, before.node) && before.kind != Kind::Handover
    };
    if is_right {
        return Ok(());
    }
    violation(format!(
        "record {} of term {} follows one of term {}",
        record.number, record.term, before.term
    ))
}

/// Walk through a log from its first record.
#[derive(Debug, Default)]
struct Walk {
    unpacker: Unpacker,
    /// By topic: epoch, and last sequence number.
    topics: HashMap<TopicId, (Option<Epoch>, u64)>,
    /// By topic: number of the last trade of a source that numbers them.
    trades: HashMap<TopicId, u64>,
    pushed: HashSet<u64>,
}

impl Walk {
    fn take(&mut self, record: &Record) -> Result<(), Violation> {
        if record.kind != Kind::Items {
            return Ok(());
        }
        let items = self.unpacker.unpack(&record.body);
        let items =
            items.map_err(|fault| Violation::new(format!("record {}: {fault}", record.number)))?;
        for item in &items {
            match item {
                LogItem::Epoch { topic, epoch } => {
                    self.topics.insert(*topic, (Some(*epoch), 0));
                    if self.trades.remove(topic).is_some() {
                        return violation("a source that can go on has begun a new epoch");
                    }
                }
                LogItem::Event(event) => {
                    let state = self.topics.entry(event.topic).or_default();
                    state.1 += 1;
                    if event.seq.0 != state.1 {
                        return violation(format!("{event:?} is not number {}", state.1));
                    }
                    if let Body::Trade(trade) = &event.body {
                        self.take_trade(event.topic, &trade.id)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_trade(&mut self, topic: TopicId, id: &TradeId) -> Result<(), Violation> {
        let TradeId::Number(id) = *id else {
            return Ok(());
        };
        let symbol = &self.unpacker.catalog().topic(topic).topic.symbol;
        if symbol.as_str() == PUSHED {
            if !self.pushed.insert(id) {
                return violation(format!("push {id} is in the log twice"));
            }
            return Ok(());
        }
        let last = self.trades.entry(topic).or_default();
        *last += 1;
        if *last != id {
            return violation(format!(
                "trade {id} of {symbol} follows trade {}",
                *last - 1
            ));
        }
        Ok(())
    }
}
