//! Time band of a replay. A row outside the absolute band is rejected; a row far ahead of earlier
//! rows is held until later rows show whether it follows a gap of the recording or is an outlier.

use std::collections::VecDeque;
use std::time::Duration;

use super::located::{Item, LocatedRow};
use super::times::TimeRules;
use crate::market::UnixNanos;
use crate::source::account::{RowFault, Skip};

/// Number of later rows that decide about an outlier.
const JUDGED_BY: usize = 32;
/// Maximum number of held rows and rejected lines.
const HELD_MAX: usize = 16 * JUDGED_BY;
/// Multiple of the largest earlier gap from which an unconfirmed last row is rejected.
const LAST_GAPS: u32 = 8;

/// Range of plausible times of a recording.
#[derive(Debug)]
pub(super) struct Band {
    earliest: UnixNanos,
    latest: UnixNanos,
    max_step: Duration,
    newest: Option<UnixNanos>,
    /// Largest step ahead so far.
    largest: Duration,
    /// Number of rows passed so far.
    rows: usize,
    held: VecDeque<Item>,
}

impl Band {
    /// The band at a time of the server's clock.
    pub(super) fn new(rules: &TimeRules, now: UnixNanos) -> Self {
        Self {
            earliest: rules.earliest,
            // A clock before that time was not set yet and is no bound.
            latest: if now < rules.earliest {
                UnixNanos::END
            } else {
                now.plus(rules.ahead)
            },
            max_step: rules.max_step,
            newest: None,
            largest: Duration::ZERO,
            rows: 0,
            held: VecDeque::new(),
        }
    }

    /// Adds a row or a rejected line; appends everything that it decides, in the order of the file.
    pub(super) fn push(&mut self, item: Item, out: &mut Vec<Item>) {
        let item = item.and_then(|located| self.check(located));
        if self.held.is_empty() && !self.is_far(&item) {
            self.pass(item, out);
            return;
        }
        self.held.push_back(item);
        self.decide(false, out);
    }

    /// Decides about all held rows at the end of the file.
    pub(super) fn finish(&mut self, out: &mut Vec<Item>) {
        self.decide(true, out);
    }

    fn check(&self, located: LocatedRow) -> Item {
        let ts = located.row.ts();
        let fault = if ts < self.earliest {
            let bound = shown(self.earliest);
            format!(
                "the time {} is earlier than {bound} (`earliest_time`)",
                shown(ts)
            )
        } else if ts > self.latest {
            let bound = shown(self.latest);
            format!(
                "the time {} is later than {bound} (clock plus `ahead`)",
                shown(ts)
            )
        } else {
            return Ok(located);
        };
        Err((located.line, RowFault::new(Skip::TimeBand, fault)))
    }

    fn is_far(&self, item: &Item) -> bool {
        let Ok(located) = item else { return false };
        self.newest
            .is_none_or(|newest| located.row.ts() > newest.plus(self.max_step))
    }

    fn pass(&mut self, item: Item, out: &mut Vec<Item>) {
        if let Ok(located) = &item {
            let ts = located.row.ts();
            let step = self
                .newest
                .map_or(Duration::ZERO, |newest| ts.since(newest));
            self.largest = self.largest.max(step);
            self.newest = self.newest.max(Some(ts));
            self.rows += 1;
        }
        out.push(item);
    }

    fn decide(&mut self, is_end: bool, out: &mut Vec<Item>) {
        while let Some(item) = self.held.front() {
            let ts = match item {
                Ok(located) if self.is_far(item) => Some(located.row.ts()),
                Ok(_) | Err(_) => None,
            };
            let mut fault = None;
            if let Some(ts) = ts {
                let behind = self.held.iter().skip(1).flatten();
                let times: Vec<UnixNanos> = behind
                    .take(JUDGED_BY)
                    .map(|located| located.row.ts())
                    .collect();
                let is_enough = times.len() >= JUDGED_BY || self.held.len() >= HELD_MAX;
                if !is_enough && !is_end {
                    return;
                }
                fault = self.outlier(ts, &times);
            }
            match (self.held.pop_front(), fault) {
                (Some(Ok(located)), Some(fault)) => out.push(Err((located.line, fault))),
                (Some(item), _) => self.pass(item, out),
                (None, _) => return,
            }
        }
    }

    /// Fault of a row that later rows do not confirm.
    fn outlier(&self, ts: UnixNanos, after: &[UnixNanos]) -> Option<RowFault> {
        let most = |is: &dyn Fn(UnixNanos) -> bool| {
            2 * after.iter().filter(|time| is(**time)).count() > after.len()
        };
        let Some(newest) = self.newest else {
            // A first row is far ahead where the rows after it ascend; in a newest-first file they
            // descend.
            let steps =
                |is: fn(&[UnixNanos]) -> bool| after.windows(2).filter(|two| is(two)).count();
            let ascend = steps(|two| two[1] > two[0]) > 9 * steps(|two| two[1] < two[0]);
            let is_ahead = ascend && most(&|time| time.plus(self.max_step) < ts);
            return is_ahead.then(|| {
                let bound = shown(after[0]);
                let why = format!(
                    "the time {} of the first row is more than {:?} (`max_time_step`) ahead of the following rows, \
                     which begin at {bound}",
                    shown(ts),
                    self.max_step
                );
                RowFault::new(Skip::TimeBand, why)
            });
        };
        let step = ts.since(newest);
        let is_outlier = if after.is_empty() {
            let usual = self.largest.max(self.max_step).saturating_mul(LAST_GAPS);
            self.rows >= JUDGED_BY && step > usual
        } else {
            // Nearer to the time before the step than to the one behind it.
            most(&|time| time < newest.plus(step / 2))
        };
        is_outlier.then(|| {
            let why = format!(
                "the time {} is more than {:?} (`max_time_step`) ahead of the newest earlier time, {}, and the \
                 following rows do not confirm it",
                shown(ts),
                self.max_step,
                shown(newest)
            );
            RowFault::new(Skip::TimeBand, why)
        })
    }
}

/// Formats a time for a message.
fn shown(time: UnixNanos) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.0))
        .map_or_else(|_far| time.0.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::located::Mark;
    use super::super::row::{Row, RowBody};
    use super::*;
    use crate::market::{Quote, Symbol};
    use proptest::prelude::*;

    const DAY: u64 = 86_400;
    /// Noon of a Monday.
    const START: u64 = 1_700_481_600;

    fn located(line: usize, seconds: u64) -> LocatedRow {
        LocatedRow {
            line: line as u64,
            mark: Mark::default(),
            row: Row {
                venue: None,
                symbol: Symbol::new("A").expect("valid symbol"),
                body: RowBody::Quote(Quote {
                    ts: UnixNanos(seconds * 1_000_000_000),
                    bid: None,
                    ask: None,
                }),
            },
        }
    }

    /// Indices of the rejected rows among rows with these times; asserts that the order is kept.
    fn refused(seconds: &[u64]) -> Vec<usize> {
        let mut band = Band::new(&TimeRules::DEFAULT, UnixNanos(4_000_000_000_000_000_000));
        let mut out = Vec::new();
        for (at, seconds) in seconds.iter().enumerate() {
            band.push(Ok(located(at, *seconds)), &mut out);
            assert!(band.held.len() <= HELD_MAX);
        }
        band.finish(&mut out);
        let line = |item: &Item| match item {
            Ok(located) => located.line as usize,
            Err((line, _)) => *line as usize,
        };
        assert!(out.iter().map(line).eq(0..seconds.len()));
        out.iter().filter(|item| item.is_err()).map(line).collect()
    }

    fn ticks(from: u64, count: u64) -> impl Iterator<Item = u64> + Clone {
        (0..count).map(move |n| START + from + n)
    }

    #[test]
    fn gaps_in_valid_data_are_replayed() {
        let daily = |days: &[u64]| days.iter().map(|day| START + day * DAY).collect::<Vec<_>>();
        let trading_days: Vec<u64> = (0..90).filter(|day| day % 7 < 5).collect();
        let monthly: Vec<u64> = (0..24).map(|month| month * 30).collect();
        let weekend = ticks(4 * DAY, 50).chain(ticks(7 * DAY, 50));
        let holidays = ticks(0, 50).chain(ticks(30 * DAY, 3));
        let last_tick_after_a_weekend = ticks(4 * DAY, 50).chain(ticks(7 * DAY, 1));
        let newest_first = |mut days: Vec<u64>| {
            days.reverse();
            days
        };
        let parts_in_wrong_order = ticks(9 * DAY, 50).chain(ticks(0, 50)).collect::<Vec<_>>();
        let few_and_late_rows = ticks(9 * DAY, 40)
            .chain([START])
            .chain(ticks(9 * DAY + 40, 40));
        // A venue's snapshot of instruments that traded last at any time.
        let snapshot = |n: u64| START + 9 * DAY - n * 17 % 40 * DAY / 10;
        let old_states_behind_a_new_one = std::iter::once(START + 9 * DAY)
            .chain((1..40).map(snapshot))
            .chain(ticks(9 * DAY, 40));
        for rows in [
            old_states_behind_a_new_one.collect(),
            daily(&trading_days),
            daily(&monthly),
            newest_first(daily(&trading_days)),
            newest_first(daily(&monthly)),
            weekend.clone().collect(),
            newest_first(weekend.collect()),
            holidays.collect(),
            last_tick_after_a_weekend.collect(),
            parts_in_wrong_order,
            few_and_late_rows.collect(),
            daily(&[0, 365]),
            vec![START],
            Vec::new(),
        ] {
            assert_eq!(refused(&rows), Vec::<usize>::new(), "{rows:?}");
        }
    }

    #[test]
    fn outliers_are_rejected_at_every_position() {
        let late = 3 * 365 * DAY;
        let rows = |before: u64, outliers: u64, after: u64| {
            let outliers = ticks(late, outliers);
            let rows = ticks(0, before).chain(outliers);
            rows.chain(ticks(before, after)).collect::<Vec<_>>()
        };
        for (before, outliers, after) in [
            (0, 1, 60),
            (1, 1, 60),
            (50, 1, 50),
            (50, 5, 50),
            (50, 1, 3),
            (50, 1, 0),
        ] {
            let expected: Vec<u64> = (before..before + outliers).collect();
            let found: Vec<u64> = refused(&rows(before, outliers, after))
                .into_iter()
                .map(|at| at as u64)
                .collect();
            assert_eq!(found, expected, "{before} {outliers} {after}");
        }
    }

    #[test]
    fn times_outside_the_absolute_band_are_rejected_with_the_bound() {
        let now = UnixNanos(START * 1_000_000_000);
        let mut band = Band::new(&TimeRules::DEFAULT, now);
        let mut out = Vec::new();
        for (line, seconds) in [(1, START), (2, 1), (3, START + 2 * DAY), (4, START + 1)] {
            band.push(Ok(located(line, seconds)), &mut out);
        }
        band.finish(&mut out);
        let texts: Vec<String> = out
            .into_iter()
            .map(|item| {
                item.map_or_else(|(_, fault)| fault.text, |located| located.line.to_string())
            })
            .collect();
        assert_eq!(
            texts,
            [
                "1",
                "the time 1970-01-01T00:00:01Z is earlier than 1990-01-01T00:00:00Z (`earliest_time`)",
                "the time 2023-11-22T12:00:00Z is later than 2023-11-21T12:00:00Z (clock plus `ahead`)",
                "4"
            ]
        );
    }

    proptest! {
        #[test]
        fn rows_in_order_are_never_rejected(steps in proptest::collection::vec(0..40 * DAY, 0..200), is_newest_first: bool) {
            let mut at = START;
            let mut rows: Vec<u64> = steps.iter().map(|step| { at += step; at }).collect();
            if is_newest_first {
                rows.reverse();
            }
            let last = rows.len().saturating_sub(1);
            prop_assert!(refused(&rows).iter().all(|row| *row == last));
        }
    }
}
