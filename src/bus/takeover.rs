//! Takeover: a server that has followed the log of a cluster becomes its writer. Topics keep their
//! epochs, and sources go on where the log ends.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::derive::Publish;
use super::emit::{Leading, WriterState};
use super::source_tail::Repetition;
use super::standby::Standby;
use super::{Bus, Emit, SavedOutput, SourceSpec, SourceTail};
use crate::log::{InstrumentId, LogItem, Pace, SourceId, SourceInput};
use crate::topic::Channel;

/// Silence after which an instrument is stale until its source states its own value.
const STALE_AFTER: Duration = Duration::from_secs(60);

impl Bus {
    /// Makes this bus ready to take over: it derives what it follows. Differences from the leader
    /// are counted.
    #[must_use]
    pub fn stand_by(mut self, mismatches: prometheus::IntCounter) -> Self {
        self.standby = Some(Box::new(Standby::new(mismatches)));
        self
    }

    /// Becomes the writer of all topics: from here on sources emit into this bus. Sources of the
    /// log have no instruments until they begin or go on.
    pub(super) fn lead(&mut self, pace: Arc<Pace>) -> Leading {
        self.publish();
        let first = self.log.head();
        // Not earlier than the newest followed event.
        self.out.tx = self.now();
        self.pace = Some(pace);
        if let Some(max) = self.instruments_max {
            self.out.catalog().limit(max);
        }
        let catalog = Arc::clone(&self.out.catalog);
        for (at, name) in catalog.sources().iter().enumerate() {
            let spec = SourceSpec {
                name: Arc::clone(name),
                stale_after: STALE_AFTER,
                is_present: false,
                config: bytes::Bytes::new(),
            };
            self.meters.begin(&self.metrics, at, &spec);
            self.instruments.push(Vec::new());
            self.sources.push(spec);
        }
        let tails = match self.standby.take() {
            Some(standby) => self.go_on_from(*standby),
            None => {
                self.derive_anew();
                Vec::new()
            }
        };
        self.tails
            .resize(catalog.sources().len(), SourceTail::default());
        Leading { first, tails }
    }

    /// Goes on with the derived state of a standby.
    fn go_on_from(&mut self, standby: Standby) -> Vec<SourceTail> {
        let Standby {
            derive,
            tails,
            mut compared,
            ..
        } = standby;
        self.derive = derive;
        self.tails.clone_from(&tails);
        // The last records of a batch may be missing.
        for (topic, body) in compared.take_missing() {
            self.out.publish(topic, body);
        }
        self.out.logged = Some(Box::new(compared));
        self.publish();
        tails
    }

    /// Begins to derive without the state of the log, whose sources begin anew.
    fn derive_anew(&mut self) {
        let catalog = Arc::clone(&self.out.catalog);
        for _ in catalog.sources() {
            self.derive.add_source();
        }
        let all = (0..catalog.instruments_len() as u32).map(InstrumentId);
        let removed: Vec<InstrumentId> = all.clone().filter(|id| !catalog.is_there(*id)).collect();
        for id in all {
            self.derive.add(id, catalog.instrument(id), STALE_AFTER);
        }
        self.derive.remove(&removed);
    }

    /// State with which another server goes on as the writer.
    pub(super) fn writer_state(&mut self) -> WriterState {
        self.publish();
        let (times, instruments) = self.derive.save(&self.out.catalog);
        let mut tails = self.tails.clone();
        tails.resize(times.len(), SourceTail::default());
        WriterState {
            checkpoint: Arc::new(self.checkpoint()),
            output: SavedOutput {
                times,
                tails,
                instruments,
            },
        }
    }

    /// Begins new epochs of all topics, because the log of the cluster begins anew behind everything
    /// that was published so far.
    pub(super) fn begin_origin(&mut self, origin: u64) -> WriterState {
        self.publish();
        self.out.replica.begin_origin(origin);
        self.interrupt();
        self.writer_state()
    }

    /// Lets a source of the log go on from its last position.
    pub(super) fn go_on(&mut self, at: usize, spec: SourceSpec) {
        self.meters.begin(&self.metrics, at, &spec);
        self.sources[at] = spec;
        self.note_begin(at);
        self.instruments[at].clear();
        let had = self.out.catalog.of_source(SourceId(at as u16));
        self.carried_over.insert(at, had);
        if let Some(repeated) = self.tails[at].repeated() {
            self.repeated.insert(at, repeated);
        }
    }

    /// Adds an input to the log of a cluster.
    pub(super) fn note(&mut self, source: usize, input: impl FnOnce() -> SourceInput) {
        if self.pace.is_none() {
            return;
        }
        let input = input();
        if self.tails.len() <= source {
            self.tails.resize(source + 1, SourceTail::default());
        }
        self.tails[source].note(&input);
        // An announcement behind it stays behind it.
        self.out.topics_at = None;
        let source = SourceId(source as u16);
        self.out.push(LogItem::Input { source, input });
    }

    pub(super) fn note_begin(&mut self, source: usize) {
        let SourceSpec {
            config,
            stale_after,
            ..
        } = &self.sources[source];
        let (config, stale_after) = (config.clone(), *stale_after);
        self.note(source, || SourceInput::Begin {
            config,
            stale_after,
        });
    }

    /// Notes an event of a source, for the server that goes on after this one.
    pub(super) fn note_event(&mut self, source: usize, id: InstrumentId, event: &impl Hash) {
        if self.pace.is_some() {
            self.tails[source].add(id, event);
        }
    }

    /// True if the log contains the emitted value already. A source that emits other events than
    /// those of the log begins new epochs.
    pub(super) fn is_repeated(&mut self, source: usize, emit: &Emit) -> bool {
        let Some(repeated) = self.repeated.get_mut(&source) else {
            return false;
        };
        let own = |local: u32, channel: Channel| {
            let id = self.instruments[source].get(local as usize)?.ok()?;
            let topics = self.out.catalog.instrument(id).topics;
            topics[channel.index()].map(|_| id)
        };
        let repetition = match emit {
            Emit::Trade(local, trade) => {
                own(*local, Channel::Trade).map(|id| repeated.take(id, trade))
            }
            Emit::Quote(local, quote) => {
                own(*local, Channel::Quote).map(|id| repeated.take(id, quote))
            }
            Emit::Watermark(_) | Emit::Trading(..) | Emit::Missed(..) | Emit::Position(_) => None,
            Emit::StartOver | Emit::Begin(_) | Emit::GoOn(_) | Emit::Retire => {
                self.repeated.remove(&source);
                return false;
            }
            Emit::Instruments(_)
            | Emit::History(..)
            | Emit::Session(..)
            | Emit::Expect(_)
            | Emit::State(_)
            | Emit::Failed(_) => return false,
        };
        match repetition {
            None | Some(Repetition::GoesOn) => {}
            Some(Repetition::Over) => _ = self.repeated.remove(&source),
            Some(Repetition::Differs) => {
                tracing::error!(
                    source = &*self.sources[source].name,
                    "the source emits other events than those of the log; starting over in a new epoch"
                );
                self.repeated.remove(&source);
                self.start_over(source);
            }
        }
        true
    }
}
