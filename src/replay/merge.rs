//! Merge of the rows of all files by time, and the result of a round.

use std::collections::BinaryHeap;

use super::Replay;
use super::checkpoint::Progress;
use super::file_stream::FileStream;
use super::located::LocatedRow;
use super::names::{Names, NoInstrument};
use super::pace::{Pace, Waited};
use super::row::RowBody;
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
        streams: &mut [FileStream],
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
        let limit = |stream: &FileStream| stream.limit.clone().filter(|_| stream.rows.is_empty());
        if let Some(limit) = streams.iter().find_map(limit) {
            return Err(SourceError::Final(limit));
        }
        let next = streams.iter().enumerate();
        let mut heap: BinaryHeap<_> = next.filter_map(|(at, stream)| stream.next(at)).collect();
        while let Some(std::cmp::Reverse((due, at))) = heap.pop() {
            if out.is_stopping() {
                return Ok(Ended::Stopped);
            }
            if out.position_is_due() {
                emitted.extend(Self::position(streams, names, *progress));
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
            let stream = &mut streams[at];
            let Some(located) = stream.take(due) else {
                continue;
            };
            progress.last = progress.last.max(due);
            self.emit(stream, names, located, emitted, out).await?;
            if stream.rows.is_empty() {
                stream.refill(&mut self.strictness, out).await;
                if let Some(limit) = limit(stream) {
                    return Err(SourceError::Final(limit));
                }
            }
            heap.extend(streams[at].next(at));
        }
        Ok(Ended::Over)
    }

    async fn emit(
        &mut self,
        stream: &mut FileStream,
        names: &mut Names,
        located: LocatedRow,
        emitted: &mut Vec<Emit>,
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let LocatedRow { line, row, .. } = located;
        let number = match names.known(&row) {
            Some(number) => number,
            None => {
                // Earlier events are emitted before the instrument is announced.
                out.emit(emitted).await?;
                match names.number(&row, out).await {
                    Ok(number) => number,
                    Err(NoInstrument::Skipped(fault)) => {
                        stream.skip(line, &fault, &mut self.strictness, out);
                        return Ok(());
                    }
                    Err(NoInstrument::Source(error)) => return Err(error),
                }
            }
        };
        emitted.push(match row.body {
            RowBody::Trade(trade) => {
                stream.count_trade();
                Emit::Trade(number, trade)
            }
            RowBody::Quote(quote) => {
                if quote.is_crossed() {
                    out.metrics
                        .rejected_input
                        .with_label_values(&["crossed"])
                        .inc();
                }
                stream.count_quote();
                Emit::Quote(number, quote)
            }
        });
        Ok(())
    }
}

/// Result of a round: an error if a file was damaged, or if none of its rows could be played.
pub(super) fn check(streams: &[FileStream], has_played: bool) -> Result<(), SourceError> {
    let faults: Vec<String> = streams
        .iter()
        .filter_map(|stream| {
            let fault = stream.account.fault()?;
            Some(format!("{}: {fault}", stream.account.name()))
        })
        .collect();
    if !faults.is_empty() {
        return Err(SourceError::Final(faults.join("; ")));
    }
    if let Some(limit) = streams.iter().find_map(|stream| stream.limit.clone()) {
        return Err(SourceError::Final(limit));
    }
    let (mut rows, mut events, mut reasons) = (0, 0, Vec::new());
    for stream in streams {
        let report = stream.account.report();
        rows += report.rows;
        events += report.trades + report.quotes;
        let first = stream.first_fault.iter();
        let first = first.map(|fault| format!(" (first: {fault})"));
        reasons.push(report.skipped_text() + &first.collect::<String>());
    }
    if has_played || events > 0 {
        return Ok(());
    }
    Err(SourceError::Final(if rows == 0 {
        "the files contain no rows".to_owned()
    } else {
        format!(
            "none of the {rows} rows can be replayed: {}",
            reasons.join("; ")
        )
    }))
}
