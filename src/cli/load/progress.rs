//! Progress of a load test: one line on standard error, with a bar and the time left.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::load::{Plan, Span, Update};

/// Characters of the bar.
const BAR_WIDTH: usize = 20;

/// Line on standard error, redrawn once per second.
pub(super) struct Progress {
    shows: bool,
    stage: &'static str,
    /// Length of the current stage in seconds; 0 if unknown.
    length_s: u64,
    /// Elapsed seconds of the stage.
    passed_s: u64,
    warmup: Duration,
    duration: Duration,
}

impl Progress {
    /// Creates the progress of a test; nothing is shown unless standard error is a terminal.
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            shows: std::io::stderr().is_terminal(),
            stage: "",
            length_s: 0,
            passed_s: 0,
            warmup: plan.warmup,
            duration: plan.duration,
        }
    }

    /// Shows the beginning of a stage, or the figures of the last second.
    pub(super) fn show(&mut self, update: &Update<'_>) {
        match update {
            Update::Opening => self.begin("connecting", Duration::ZERO),
            Update::WarmingUp => self.begin("warming up", self.warmup),
            Update::Measuring => self.begin("measuring", self.duration),
            Update::Closing => self.begin("checking ledgers", Duration::ZERO),
            Update::Second(span) => {
                self.passed_s += 1;
                self.draw(Some(span));
                return;
            }
        }
        self.draw(None);
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        if self.shows {
            let _unseen = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }

    fn begin(&mut self, stage: &'static str, length: Duration) {
        (self.stage, self.length_s, self.passed_s) = (stage, length.as_secs(), 0);
    }

    fn draw(&self, span: Option<&Span>) {
        if !self.shows {
            return;
        }
        let width = terminal_size::terminal_size_of(std::io::stderr())
            .map_or(80, |(width, _)| usize::from(width.0));
        let line: String = self.line(span).chars().take(width - 1).collect();
        // The test continues without visible progress.
        let _unseen = std::io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }

    fn line(&self, span: Option<&Span>) -> String {
        let stage = match self.length_s {
            0 => format!("{} {} s", self.stage, self.passed_s),
            length => {
                let left = length.saturating_sub(self.passed_s);
                let done = (self.passed_s.min(length) as usize * BAR_WIDTH) / length as usize;
                let bar = "#".repeat(done) + &"-".repeat(BAR_WIDTH - done);
                format!("{} [{bar}] {left} s left", self.stage)
            }
        };
        let Some(span) = span else { return stage };
        let counts = format!(
            "{} connections  {} deliveries/s  lost {}",
            span.open, span.tally.delivered, span.tally.lost
        );
        let latency = span.latency.end_to_end();
        if latency.is_empty() {
            return format!("{stage}  {counts}");
        }
        let at = |percentile| Duration::from_nanos(latency.value_at_percentile(percentile));
        let (p50, p99) = (at(50.0), at(99.0));
        format!("{stage}  {counts}  p50 {p50:.1?}  p99 {p99:.1?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_of_known_length_shows_a_bar_and_the_time_left() {
        let mut progress = Progress {
            shows: false,
            stage: "",
            length_s: 0,
            passed_s: 0,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(10),
        };
        progress.show(&Update::Measuring);
        for _ in 0..5 {
            progress.show(&Update::Second(&Span::default()));
        }
        let line = progress.line(None);
        assert_eq!(line, "measuring [##########----------] 5 s left");
        progress.show(&Update::Closing);
        assert_eq!(progress.line(None), "checking ledgers 0 s");
    }
}
