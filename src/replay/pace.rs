//! Pacing: mapping of recorded times to due times.

use std::time::Duration;

use super::Speed;
use crate::bus::Emit;
use crate::market::UnixNanos;
use crate::source::{Output, SourceError};

/// Interval of the watermarks of the source, in its own time.
pub(super) const MARK_EVERY: Duration = Duration::from_millis(100);
/// At full speed a long pause of the recording is passed in steps of this, or in
/// [`PAUSE_MARKS_MAX`] steps.
const PAUSE_MARK_EVERY: Duration = Duration::from_secs(60);
const PAUSE_MARKS_MAX: u32 = 1000;
/// Number of events emitted at once.
const EMIT_AT: usize = 1024;

/// Reason for the end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Due,
    /// The source was told to stop; nothing is left to be emitted.
    Stopped,
}

/// Mapping of recorded times to due times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub speed: Speed,
    /// Due time of the first row.
    pub begun: UnixNanos,
    /// Time of the first row.
    pub first: UnixNanos,
}

impl Pace {
    /// Emits earlier events and waits until `time` is due.
    pub(super) async fn wait(
        &self,
        time: UnixNanos,
        emitted: &mut Vec<Emit>,
        out: &mut Output,
    ) -> Result<Waited, SourceError> {
        let due = match self.speed {
            Speed::Times(times) => self.begun.plus(time.since(self.first).div_f64(times)),
            Speed::Max => UnixNanos::default(),
        };
        if due > out.clock.now() {
            out.emit(emitted).await?;
            tokio::select! {
                () = out.clock.sleep_until(due) => {}
                () = out.stopping() => return Ok(Waited::Stopped),
            }
        } else if emitted.len() >= EMIT_AT {
            out.emit(emitted).await?;
        }
        Ok(Waited::Due)
    }

    /// Next watermark after `mark` if the next row is due at `due`.
    pub(super) fn next_mark(&self, mark: UnixNanos, due: UnixNanos) -> UnixNanos {
        let pause = due.since(mark);
        let step = if self.speed == Speed::Max && pause > PAUSE_MARK_EVERY {
            PAUSE_MARK_EVERY.max(pause / PAUSE_MARKS_MAX)
        } else {
            MARK_EVERY
        };
        mark.plus(step)
    }
}
