//! Merge of the rows of all files by time, and the result of a round.

use std::collections::BinaryHeap;

use super::Replay;
use super::checkpoint::Progress;
use super::lane::Lane;
use super::names::{Names, NoNumber};
use super::pace::{Pace, Waited};
use super::placed::Placed;
use super::row::What;
use crate::bus::Emit;
use crate::source::{Output, SourceError};

/// End of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All files were replayed.
    Over,
    /// The source was told to stop.
    Stopped,
}

impl Replay {
    /// Replays the rows of all files in the order of their times, each when due, until the end or a
    /// stop.
    pub(super) async fn merge(
        &mut self,
        lanes: &mut [Lane],
        names: &mut Names,
        progress: &mut Progress,
        emitted: &mut Vec<Emit>,
        out: &mut Output,
    ) -> Result<Ended, SourceError> {
        let pace = Pace {
            speed: self.config.speed,
            begun: progress.begun,
            first: progress.first,
        };
        let limit = |lane: &Lane| lane.limit.clone().filter(|_| lane.rows.is_empty());
        if let Some(limit) = lanes.iter().find_map(limit) {
            return Err(SourceError::Final(limit));
        }
        let next = lanes.iter().enumerate();
        let mut heap: BinaryHeap<_> = next.filter_map(|(at, lane)| lane.next(at)).collect();
        while let Some(std::cmp::Reverse((due, at))) = heap.pop() {
            if out.is_stopping() {
                return Ok(Ended::Stopped);
            }
            while progress.next_mark <= due {
                if pace.wait(progress.next_mark, emitted, out).await? == Waited::Stopped {
                    return Ok(Ended::Stopped);
                }
                emitted.push(Emit::Watermark(progress.next_mark));
                progress.next_mark = pace.next_mark(progress.next_mark, due);
            }
            if pace.wait(due, emitted, out).await? == Waited::Stopped {
                return Ok(Ended::Stopped);
            }
            let lane = &mut lanes[at];
            let Some(placed) = lane.take(due) else {
                continue;
            };
            progress.last = progress.last.max(due);
            self.emit(lane, names, placed, emitted, out).await?;
            if lane.rows.is_empty() {
                lane.refill(&mut self.strictness, out).await;
                if let Some(limit) = limit(lane) {
                    return Err(SourceError::Final(limit));
                }
            }
            heap.extend(lanes[at].next(at));
        }
        Ok(Ended::Over)
    }

    async fn emit(
        &mut self,
        lane: &mut Lane,
        names: &mut Names,
        placed: Placed,
        emitted: &mut Vec<Emit>,
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let Placed { line, row, .. } = placed;
        let number = match names.known(&row) {
            Some(number) => number,
            None => {
                // Earlier events are emitted before the instrument is announced.
                out.emit(emitted).await?;
                match names.number(&row, out).await {
                    Ok(number) => number,
                    Err(NoNumber::Skipped(fault)) => {
                        lane.skip(line, &fault, &mut self.strictness, out);
                        return Ok(());
                    }
                    Err(NoNumber::Source(error)) => return Err(error),
                }
            }
        };
        emitted.push(match row.what {
            What::Trade(trade) => {
                lane.count_trade();
                Emit::Trade(number, trade)
            }
            What::Quote(quote) => {
                if quote.is_crossed() {
                    out.metrics
                        .rejected_input
                        .with_label_values(&["crossed"])
                        .inc();
                }
                lane.count_quote();
                Emit::Quote(number, quote)
            }
        });
        Ok(())
    }
}

/// Result of a round: an error if a file was damaged, or if none of its rows could be played.
pub(super) fn check(lanes: &[Lane], has_played: bool) -> Result<(), SourceError> {
    let faults: Vec<String> = lanes
        .iter()
        .filter_map(|lane| {
            let fault = lane.account.fault()?;
            Some(format!("{}: {fault}", lane.account.name()))
        })
        .collect();
    if !faults.is_empty() {
        return Err(SourceError::Final(faults.join("; ")));
    }
    if let Some(limit) = lanes.iter().find_map(|lane| lane.limit.clone()) {
        return Err(SourceError::Final(limit));
    }
    let (mut rows, mut events, mut reasons) = (0, 0, Vec::new());
    for lane in lanes {
        let report = lane.account.report();
        rows += report.rows;
        events += report.trades + report.quotes;
        let first = lane.first_fault.iter();
        let first = first.map(|fault| format!(" (the first: {fault})"));
        reasons.push(report.skipped_text() + &first.collect::<String>());
    }
    if has_played || events > 0 {
        return Ok(());
    }
    Err(SourceError::Final(if rows == 0 {
        "the files hold no rows".to_owned()
    } else {
        format!(
            "none of {rows} rows could be played: {}",
            reasons.join("; ")
        )
    }))
}
