//! Repair of a log that has forgotten records: a publisher keeps the newest ones as they were
//! appended, and appends the same bytes again at the same numbers. Servers that have read them skip
//! them, because number and checksum are the same.

use std::collections::VecDeque;

use bytes::Bytes;

use super::append_fault::AppendFault;
use super::log_store::LogStore;
use super::record::{Position, Record};
use super::store::{Last, StoreError};

/// Newest records of the log, as they were appended, with which a log that has forgotten them is
/// repaired.
#[derive(Debug)]
pub struct KeptRecords {
    records: VecDeque<(Position, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl KeptRecords {
    /// Keeps records of at most `bytes_max`, and the newest one in any case; none if it is 0.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds the record that follows the last one.
    pub(super) fn push(&mut self, position: Position, record: Bytes) {
        if self.bytes_max == 0 {
            return;
        }
        self.bytes += record.len();
        self.records.push_back((position, record));
        while self.bytes > self.bytes_max && self.records.len() > 1 {
            if let Some((_, oldest)) = self.records.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    /// Number of the oldest record.
    fn first(&self) -> Option<u64> {
        Some(self.records.front()?.0.number)
    }

    /// Records behind record `last`, and the checksum of that record; `None` if not all of them
    /// are kept.
    pub(super) fn behind(&self, last: u64) -> Option<(u64, Vec<(Position, Bytes)>)> {
        let (first, record) = self.records.front()?;
        let skipped = usize::try_from((last + 1).checked_sub(first.number)?).ok()?;
        let before = match skipped.checked_sub(1) {
            Some(at) => self.records.get(at)?.0.sum,
            None => Record::read(record).ok()?.previous,
        };
        let lost = self.records.iter().skip(skipped).cloned().collect();
        Some((before, lost))
    }
}

/// Outcome of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repaired {
    /// This number of records was appended again.
    Records(usize),
    /// NATS has not answered, or another publisher has appended a record: the log must be read
    /// again.
    Unknown,
    /// This record is lost: it is not kept any more.
    Lost(u64),
    /// The log contains another record with this number.
    Other(u64),
}

/// Appends the records behind `last` again; without `last`, into a new stream, because the stream
/// is lost.
pub(super) async fn repair(
    store: &dyn LogStore,
    kept: &KeptRecords,
    last: Option<u64>,
) -> Repaired {
    let Some(first) = kept.first() else {
        return Repaired::Lost(last.map_or(1, |last| last + 1));
    };
    let is_lost = last.is_none();
    let last = match last {
        Some(last) => last,
        None => {
            if store.create_again(first).await.is_err() {
                return Repaired::Unknown;
            }
            first - 1
        }
    };
    let Some((sum, lost)) = kept.behind(last) else {
        return Repaired::Lost(last + 1);
    };
    // The record behind which the first kept one follows is compared as well.
    if !is_lost && last > 0 {
        match store.get(last).await {
            Ok(record) if record.sum == sum => {}
            // Nobody can compare it.
            Err(StoreError::Gone(_)) => {}
            Ok(_) => return Repaired::Other(last),
            Err(StoreError::Record(_)) => return Repaired::Lost(last),
            Err(_) => return Repaired::Unknown,
        }
    }
    let count = lost.len();
    for (position, record) in lost {
        let appended = match store
            .append(record, position.sum, Last::verified(position.number - 1))
            .await
        {
            Ok(acknowledgement) => acknowledgement.await,
            Err(fault) => Err(fault),
        };
        match appended {
            Ok(()) => {}
            Err(AppendFault::Refused | AppendFault::Unknown) => return Repaired::Unknown,
        }
    }
    tracing::warn!(
        behind = last,
        count,
        "the shared log had forgotten records; they were appended again"
    );
    Repaired::Records(count)
}

/// End of a log that has forgotten records up to `known` for good: the position behind record
/// `last`. A stream that is lost is created again, and goes on behind the records that were known.
/// `None` if NATS does not answer.
pub(super) async fn end_of(
    store: &dyn LogStore,
    last: Option<u64>,
    known: Position,
) -> Option<Position> {
    let Some(number) = last else {
        let created = store.create_again(known.number + 1).await;
        return created.is_ok().then_some(known);
    };
    if number == 0 {
        return Some(Position::default());
    }
    let sum = match store.get(number).await {
        Ok(record) => record.sum,
        // Nobody can compare it.
        Err(StoreError::Gone(_) | StoreError::Record(_)) => 0,
        Err(_) => return None,
    };
    Some(Position { number, sum })
}

#[cfg(test)]
mod tests {
    use super::super::record::{Author, Kind};
    use super::*;

    #[test]
    fn records_are_kept_up_to_a_number_of_bytes() {
        let author = Author { term: 1, node: 2 };
        let mut kept = KeptRecords::new(200);
        let mut position = Position::default();
        let mut sums = vec![0];
        for _ in 0..10 {
            let (record, behind) = author.write(Kind::Tick, position, b"12");
            assert_eq!(record.len(), 50);
            kept.push(behind, record);
            sums.push(behind.sum);
            position = behind;
        }
        assert!(kept.behind(5).is_none(), "record 6 is not kept any more");
        for last in 6..=10 {
            let (sum, lost) = kept.behind(last).expect("kept records");
            assert_eq!(sum, sums[last as usize]);
            let numbers: Vec<u64> = lost.iter().map(|(position, _)| position.number).collect();
            assert_eq!(numbers, (last + 1..=10).collect::<Vec<_>>());
        }
    }
}
