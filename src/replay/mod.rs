//! Replay of recorded files: merged by time into one stream, paced by the recorded time.
//!
//! Invariant: the same files give the same events. The source's time is the newest event time so
//! far; an event that is older than one before it comes at once, in the file's order. A row that
//! was read is an event, or is skipped for a reason that is counted and logged (`account`).

mod band;
mod checkpoint;
mod config;
mod error;
mod file_stream;
mod format;
mod inputs;
mod located;
mod merge;
mod metered;
mod names;
mod order;
mod pace;
mod probe;
#[cfg(feature = "internals")]
mod read_all;
mod reader;
mod record;
mod row;
mod times;
mod unsupported;

use std::sync::Arc;

pub use crate::source::account::{FileReport, Skip};
pub use config::{Begin, Columns, ReplayConfig, Speed, VenueRule};
pub use error::ReplayError;
#[cfg(feature = "internals")]
pub use read_all::{ReadRecording, Recorded};
pub use times::TimeRules;

use crate::bus::Emit;
use crate::files::decode_saved;
use crate::market::Instrument;
use crate::source::{Output, Source, SourceError, SourceFuture};
use checkpoint::{Checkpoint, Progress};
use file_stream::{FileStream, Strictness};
use merge::{Ended, check};
use names::Names;
use pace::MARK_EVERY;

/// Replay source.
#[derive(Debug)]
pub struct Replay {
    config: ReplayConfig,
    /// Checkpoint from which it continues, and its checkpoint after a stop.
    checkpoint: Option<Checkpoint>,
    /// True if it was given a checkpoint that it cannot read.
    starts_over: bool,
    strictness: Strictness,
}

impl Replay {
    /// Replay of recorded files, which continues from its checkpoint if it has one.
    pub fn new(config: ReplayConfig, place: Option<Vec<u8>>) -> Self {
        let checkpoint: Option<Checkpoint> =
            place.as_ref().and_then(|bytes| decode_saved(bytes).ok());
        Self {
            strictness: Strictness {
                max_bad: config.max_bad,
                bad: 0,
                logged: 0,
            },
            config,
            starts_over: place.is_some() && checkpoint.is_none(),
            checkpoint,
        }
    }

    async fn play(&mut self, out: &mut Output) -> Result<(), SourceError> {
        (self.strictness.bad, self.strictness.logged) = (0, 0);
        if std::mem::take(&mut self.starts_over) {
            out.emit(&mut vec![Emit::StartOver]).await?;
        }
        let mut kept = self.checkpoint.take();
        let mut round = kept.as_ref().map_or(0, |kept| kept.progress.round);
        let mut announced: Vec<Instrument> = Vec::new();
        loop {
            let mut streams = self.open(kept.as_ref(), out).await?;
            if let Some(changed) = streams.iter().find(|stream| stream.has_changed) {
                tracing::warn!(
                    source = &*out.name,
                    file = changed.account.name(),
                    "file changed since the stop; starting over in a new epoch"
                );
                out.emit(&mut vec![Emit::StartOver]).await?;
                (kept, round) = (None, 0);
                continue;
            }
            let named = kept.as_mut().map(|kept| std::mem::take(&mut kept.names));
            announced.extend(
                kept.as_mut()
                    .map(|kept| std::mem::take(&mut kept.announced))
                    .unwrap_or_default(),
            );
            let mut names = Names::of(&self.config, &streams, named.unwrap_or_default());
            names
                .announce(std::mem::take(&mut announced), &streams, out)
                .await?;
            let resumed = kept.take().map(|kept| kept.progress);
            if resumed.is_some() {
                // It continues in its previous epoch.
            } else if streams.iter().all(|stream| stream.rows.is_empty()) {
                // Nobody can subscribe to a source without rows: its end is due at once.
            } else if round == 0 {
                tokio::select! {
                    () = out.demand.wait() => {}
                    () = out.stopping() => return Err(SourceError::Stopped),
                }
            } else {
                out.emit(&mut vec![Emit::StartOver]).await?;
            }
            let progress = resumed.or_else(|| Self::begin(round, &streams, out));
            if let Some(progress) = progress {
                let ended = self
                    .play_once(&mut streams, &mut names, progress, out)
                    .await?;
                if ended == Ended::Stopped {
                    return Err(SourceError::Stopped);
                }
            }
            check(&streams, resumed.is_some() || round > 0)?;
            if !self.config.repeat || progress.is_none() {
                return Ok(());
            }
            announced = names.announced();
            round += 1;
        }
    }

    /// Pace of a round that begins now; `None` if there are no rows.
    fn begin(round: u32, streams: &[FileStream], out: &Output) -> Option<Progress> {
        let firsts = streams.iter().filter_map(|stream| stream.rows.front());
        let first = firsts.map(|located| located.row.ts()).min()?;
        Some(Progress {
            round,
            begun: out.clock.now(),
            first,
            last: first,
            next_mark: first.floor(MARK_EVERY),
        })
    }

    async fn open(
        &mut self,
        kept: Option<&Checkpoint>,
        out: &Output,
    ) -> Result<Vec<FileStream>, SourceError> {
        let positions = kept.map_or_else(Vec::new, |kept| kept.files.clone());
        let resumed_at = kept.map(|kept| kept.progress.last);
        let (config, of_reader) = (self.config.clone(), positions.clone());
        // A hanging disk must not block other tasks.
        let (sender, opening) = tokio::sync::oneshot::channel();
        let now = out.clock.now();
        let open = move || {
            let opened = inputs::list(&config.files).and_then(|listing| {
                reader::open_all(&config, now, listing, &of_reader, resumed_at)
            });
            // The source may have been stopped in the meantime.
            let _stopped = sender.send(opened);
        };
        let thread = std::thread::Builder::new().name("replay".to_owned());
        let failed = |error: std::io::Error| {
            SourceError::Failed(format!("cannot start the replay thread: {error}"))
        };
        thread.spawn(open).map_err(failed)?;
        let opened = tokio::select! {
            opened = opening => opened,
            () = out.stopping() => return Err(SourceError::Stopped),
        };
        let ended = "the thread that opens files ended unexpectedly";
        let opened = opened.map_err(|_ended| SourceError::Failed(ended.to_owned()))?;
        let (recordings, skipped) = opened?;
        for (file, reason) in skipped {
            tracing::warn!(source = &*out.name, file, reason, "file skipped");
        }
        let mut streams: Vec<FileStream> = recordings
            .into_iter()
            .map(|recording| FileStream::new(recording, &positions, out))
            .collect();
        for missing in &positions {
            if !streams
                .iter()
                .any(|stream| *stream.account.name() == *missing.file)
            {
                tracing::warn!(
                    source = &*out.name,
                    file = missing.file,
                    "file missing since the stop"
                );
            }
        }
        out.status.set_files(
            streams
                .iter()
                .map(|stream| Arc::clone(&stream.account))
                .collect(),
        );
        for stream in &mut streams {
            stream.refill(&mut self.strictness, out).await;
        }
        Ok(streams)
    }

    async fn play_once(
        &mut self,
        streams: &mut [FileStream],
        names: &mut Names,
        mut progress: Progress,
        out: &mut Output,
    ) -> Result<Ended, SourceError> {
        let mut emitted = Vec::new();
        let ended = self
            .merge(streams, names, &mut progress, &mut emitted, out)
            .await;
        if matches!(ended, Ok(Ended::Over)) {
            emitted.push(Emit::Watermark(progress.last));
        }
        // Also before an error: rows read before it are replayed.
        out.emit(&mut emitted).await?;
        let ended = ended?;
        // At the end, a server that continues from here has nothing to replay.
        self.checkpoint = Some(Self::checkpoint(streams, names, progress));
        Ok(ended)
    }

    fn checkpoint(streams: &[FileStream], names: &Names, progress: Progress) -> Checkpoint {
        Checkpoint {
            progress,
            files: streams.iter().map(FileStream::position).collect(),
            names: names.named(),
            announced: names.announced(),
        }
    }

    /// Position from which another server can go on.
    fn position(streams: &[FileStream], names: &Names, progress: Progress) -> Option<Emit> {
        let checkpoint = Self::checkpoint(streams, names, progress);
        let position = rmp_serde::to_vec(&checkpoint).ok()?;
        Some(Emit::Position(position.into()))
    }
}

impl Source for Replay {
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a> {
        Box::pin(self.play(out))
    }

    fn place(&mut self) -> Option<Vec<u8>> {
        self.checkpoint
            .take()
            .and_then(|checkpoint| rmp_serde::to_vec(&checkpoint).ok())
    }
}
