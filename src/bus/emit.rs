use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::derive::SessionSoFar;
use super::{SavedOutput, SourceSpec, SourceTail};
use crate::clock::Clock;
use crate::log::{Catalog, Checkpoint, LogItem, Pace, SourceId};
use crate::market::{Bar, Instrument, Interval, Quote, Symbol, Trade, TradingState, UnixNanos};
use crate::protocol::Epoch;
use crate::protocol::SourceState;
use crate::topic::Channel;

/// Output of a source. Instruments are identified by the source's local numbers, in order of
/// announcement.
#[derive(Debug, Clone, PartialEq)]
pub enum Emit {
    /// A print.
    Trade(u32, Trade),
    /// The best bid and offer.
    Quote(u32, Quote),
    /// Data that the source missed, before its next event: a hole in the numbering of its own
    /// input.
    Missed(u32, MissedData),
    /// Watermark: the current time of the source; emitted at least every 100 ms of that time.
    Watermark(UnixNanos),
    /// Additional instruments, numbered consecutively after the previous ones.
    Instruments(Vec<Instrument>),
    /// The venue opened, halted or closed an instrument.
    Trading(u32, TradingState, UnixNanos),
    /// Bars from before the source started, oldest first; a bar that is not done continues.
    History(u32, Interval, Vec<Bar>),
    /// Session as of the start of the source.
    Session(u32, SessionSoFar),
    /// Restart of the source: each of its topics begins a new epoch.
    StartOver,
    /// Symbols listed in the new config. They are not removed when one source drops them, because
    /// another source announces them.
    Expect(Arc<HashSet<Symbol>>),
    /// New source, or the same source with a new config: it renumbers its instruments and starts
    /// over. Previous instruments that it does not announce first are closed and removed.
    Begin(SourceSpec),
    /// Like [`Emit::Begin`], but the source goes on from its last position in the log: its topics
    /// keep their epochs, and what the log contains already is not published again.
    GoOn(SourceSpec),
    /// Position from which the source can go on, before its next event.
    Position(Bytes),
    /// Removal of the source: its instruments are closed and removed.
    Retire,
    /// State change of the source: live, silent, restarting or ended.
    State(SourceState),
    /// Failure that ended the source, with the reason.
    Failed(Arc<str>),
}

/// Data of one instrument that a source missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissedData {
    /// Kind of the missed data.
    pub kind: MissedKind,
    /// Number of missed events, if known.
    pub count: Option<u64>,
}

/// Kind of data that a source missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissedKind {
    /// Trades, from which tickers and bars are derived.
    Trades,
    /// Quotes.
    Quotes,
}

impl MissedKind {
    /// True if events of the channel are missing or computed from incomplete data.
    pub const fn concerns(self, channel: Channel) -> bool {
        match channel {
            Channel::Trade | Channel::Ticker | Channel::Bar(_) => matches!(self, Self::Trades),
            Channel::Quote => matches!(self, Self::Quotes),
            Channel::Status => false,
        }
    }
}

#[derive(Debug)]
pub(super) enum Input {
    /// Emitted values, with their source and receive time.
    Emitted(SourceId, Vec<Emit>, UnixNanos),
    /// Items that another server has numbered.
    Followed(Followed),
    /// State of a log, in place of what was followed before; answered like [`Followed`].
    Restored(Box<ForeignState>, oneshot::Sender<bool>),
    /// Start of new epochs of all topics, with this origin.
    Origin(u64, oneshot::Sender<WriterState>),
    /// Start of leading, within the bound.
    Lead(Arc<Pace>, oneshot::Sender<Leading>),
    /// State for a reader whose next batch has this number and is not there.
    Checkpoint(u64, oneshot::Sender<Arc<Checkpoint>>),
    /// State for another server that goes on as the writer.
    WriterState(oneshot::Sender<WriterState>),
    /// Publication of everything before; the answer is the number of the batch behind it.
    Position(oneshot::Sender<u64>),
    Stop,
}

/// Start of the output of a server that leads a cluster.
#[derive(Debug)]
pub struct Leading {
    /// Number of its first batch in the log of this server.
    pub first: u64,
    /// By source: end of its output so far. Empty if this server has not derived the log from its
    /// start, so that all sources begin anew.
    pub tails: Vec<SourceTail>,
}

/// State of a bus that writes the log of a cluster.
#[derive(Debug, Clone)]
pub struct WriterState {
    /// Topics and sources.
    pub checkpoint: Arc<Checkpoint>,
    /// Derived state, and the ends of the outputs of the sources.
    pub output: SavedOutput,
}

/// State of a log that another server has written, behind one of its records.
#[derive(Debug)]
pub struct ForeignState {
    /// Epoch in which new topics begin.
    pub origin: Epoch,
    /// Items that bring an empty replica to this state.
    pub items: Vec<LogItem>,
    /// Instruments and topics.
    pub catalog: Arc<Catalog>,
    /// Latest publication time so far.
    pub tx: UnixNanos,
    /// State of the writer. Without it, all sources begin anew once this server leads, unless the
    /// state is that before the first record.
    pub output: Option<SavedOutput>,
}

/// Items of a shared log that another server wrote.
#[derive(Debug)]
pub(super) struct Followed {
    /// Items, in order.
    pub items: Vec<LogItem>,
    /// Catalog behind the items.
    pub catalog: Arc<Catalog>,
    /// Answer: true if the items were published, false if they contradict the state of a topic.
    pub done: oneshot::Sender<bool>,
}

/// Maximum number of items per input, which, together with the number of queue entries, bounds the
/// memory of the queue.
pub const EMITTED_MAX: usize = 512;

/// Receiving end of the queue shared by all sources.
#[derive(Debug)]
pub struct InputQueue(mpsc::Receiver<Input>);

impl InputQueue {
    pub(super) fn wait(&mut self) -> Option<Input> {
        self.0.blocking_recv()
    }

    pub(super) fn poll(&mut self) -> Option<Input> {
        self.0.try_recv().ok()
    }

    /// Fill level, 0 to 1.
    pub(super) fn fill(&self) -> f64 {
        self.0.len() as f64 / self.0.max_capacity() as f64
    }
}

/// The queue is full; the source waits, rejects or drops, depending on its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bus queue full (bus.queue)")]
pub struct QueueFull;

/// Sending end of the queue, for a source or for a shard that needs a checkpoint.
#[derive(Debug, Clone)]
pub struct Emitter {
    source: SourceId,
    clock: Clock,
    queue: mpsc::Sender<Input>,
}

/// Splits emitted values into parts that each fit into one queue entry, in order.
fn parts(emitted: Vec<Emit>) -> impl Iterator<Item = Vec<Emit>> {
    // Most inputs are small enough and are forwarded without a copy.
    let (whole, larger) = if emitted.len() <= EMITTED_MAX {
        (emitted, Vec::new())
    } else {
        (Vec::new(), emitted)
    };
    let mut larger = larger.into_iter();
    let cut =
        std::iter::from_fn(move || Some(larger.by_ref().take(EMITTED_MAX).collect::<Vec<_>>()));
    Some(whole)
        .filter(|whole| !whole.is_empty())
        .into_iter()
        .chain(cut.take_while(|part| !part.is_empty()))
}

/// Creates a queue of at most `bytes_max`, and the emitter from which the emitters of all sources
/// are derived.
pub fn input_queue(bytes_max: usize, clock: Clock) -> (Emitter, InputQueue) {
    let places = (bytes_max / (EMITTED_MAX * size_of::<Emit>())).max(2);
    let (sender, receiver) = mpsc::channel(places);
    (
        Emitter {
            source: SourceId(0),
            clock,
            queue: sender,
        },
        InputQueue(receiver),
    )
}

impl Emitter {
    /// Emitter of another source to the same queue.
    pub fn of(&self, source: SourceId) -> Self {
        Self {
            source,
            clock: self.clock,
            queue: self.queue.clone(),
        }
    }

    /// Emits values in order; waits while the queue is full. Returns false once the bus has
    /// stopped.
    pub async fn emit(&self, emitted: &mut Vec<Emit>) -> bool {
        let now = self.clock.now();
        for part in parts(std::mem::take(emitted)) {
            if self
                .queue
                .send(Input::Emitted(self.source, part, now))
                .await
                .is_err()
            {
                return false;
            }
        }
        true
    }

    /// Emits pieces of at most [`EMITTED_MAX`], all or nothing, without waiting.
    pub fn try_emit_pieces(&self, pieces: Vec<Vec<Emit>>) -> Result<(), QueueFull> {
        let permits = self
            .queue
            .try_reserve_many(pieces.len())
            .map_err(|_full_or_stopped| QueueFull)?;
        let now = self.clock.now();
        for (permit, piece) in permits.zip(pieces) {
            permit.send(Input::Emitted(self.source, piece, now));
        }
        Ok(())
    }

    /// Requests the checkpoint from which an overrun reader resumes; `None` once the bus has
    /// stopped.
    pub async fn checkpoint(&self) -> Option<Arc<Checkpoint>> {
        self.checkpoint_instead_of(u64::MAX).await
    }

    /// Like [`Emitter::checkpoint`], for a reader whose next batch has this number. At an
    /// interruption of the log it is the state there, so that the reader misses no batch behind it.
    pub async fn checkpoint_instead_of(&self, next: u64) -> Option<Arc<Checkpoint>> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Input::Checkpoint(next, reply)).await.ok()?;
        answer.await.ok()
    }

    /// Requests the state with which another server goes on as the writer; `None` once the bus has
    /// stopped.
    pub async fn writer_state(&self) -> Option<WriterState> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Input::WriterState(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Number of the batch behind everything that was emitted before, once it is published; `None`
    /// once the bus has stopped.
    pub async fn position(&self) -> Option<u64> {
        let (reply, behind) = oneshot::channel();
        self.queue.send(Input::Position(reply)).await.ok()?;
        behind.await.ok()
    }

    /// Publishes items that another server has numbered; returns false if they contradict the
    /// state of a topic, and `None` once the bus has stopped.
    pub async fn follow(&self, items: Vec<LogItem>, catalog: Arc<Catalog>) -> Option<bool> {
        let (done, published) = oneshot::channel();
        let followed = Followed {
            items,
            catalog,
            done,
        };
        self.queue.send(Input::Followed(followed)).await.ok()?;
        published.await.ok()
    }

    /// Replaces what was followed so far by the state of a log, from which readers go on like after
    /// an overrun; returns false if the state contradicts itself or could be taken for an earlier
    /// one, and `None` once the bus has stopped.
    pub async fn restore(&self, state: ForeignState) -> Option<bool> {
        let (done, published) = oneshot::channel();
        let restored = Input::Restored(Box::new(state), done);
        self.queue.send(restored).await.ok()?;
        published.await.ok()
    }

    /// Begins new epochs of all topics, with this origin, and interrupts the log of this server there;
    /// returns the state, whose topics are in the new epochs, and `None` once the bus has stopped.
    pub async fn begin_origin(&self, origin: u64) -> Option<WriterState> {
        let (reply, begun) = oneshot::channel();
        self.queue.send(Input::Origin(origin, reply)).await.ok()?;
        begun.await.ok()
    }

    /// Makes the bus the writer of all topics that it has followed; it waits while `pace` has no
    /// room. Returns `None` once the bus has stopped.
    pub async fn lead(&self, pace: Arc<Pace>) -> Option<Leading> {
        let (reply, leading) = oneshot::channel();
        self.queue.send(Input::Lead(pace, reply)).await.ok()?;
        leading.await.ok()
    }

    /// Stops the bus once it has published what is queued.
    pub async fn stop(&self) {
        // A send error means that the bus has already stopped.
        let _gone = self.queue.send(Input::Stop).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::UnixNanos;

    fn watermarks(count: usize) -> Vec<Emit> {
        (0..count)
            .map(|at| Emit::Watermark(UnixNanos(at as u64)))
            .collect()
    }

    #[tokio::test]
    async fn a_full_queue_rejects_pushes_entirely_and_blocks_other_sources() {
        let (emitter, mut queue) = input_queue(0, Clock::start());
        let pieces = |count: usize| (0..count).map(|_| watermarks(1)).collect::<Vec<_>>();
        assert_eq!(emitter.try_emit_pieces(pieces(3)), Err(QueueFull));
        assert!(queue.fill() < 0.1, "the push was queued in part");
        assert_eq!(emitter.try_emit_pieces(pieces(2)), Ok(()));
        assert_eq!(emitter.try_emit_pieces(pieces(1)), Err(QueueFull));
        let waiting = emitter.clone();
        let emits = tokio::spawn(async move { waiting.emit(&mut watermarks(1)).await });
        tokio::task::yield_now().await;
        assert!(!emits.is_finished(), "the other source did not wait");
        assert!(queue.poll().is_some());
        assert!(emits.await.is_ok_and(|is_emitted| is_emitted));
    }
}
