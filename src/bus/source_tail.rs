//! Position of each source in the log, and the events since, which a source that goes on from
//! there emits again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::{InstrumentId, SourceInput};

/// End of the output of a source, according to the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTail {
    /// Checksum of the config with which it began.
    pub config: Bytes,
    /// Silence after which an instrument without its own setting is stale.
    pub(super) stale_after: Duration,
    /// Newest position from which it can go on, if any.
    pub position: Option<Bytes>,
    /// Number of its trades and quotes behind the position.
    events: u64,
    /// Digest of these events.
    digest: u64,
}

impl SourceTail {
    /// Takes an input that the log contains.
    pub(super) fn note(&mut self, input: &SourceInput) {
        match input {
            SourceInput::Begin {
                config,
                stale_after,
            } => (self.config, self.stale_after) = (config.clone(), *stale_after),
            SourceInput::StartOver => self.move_to(None),
            SourceInput::Position(position) => self.move_to(Some(position.clone())),
            SourceInput::Mark(_)
            | SourceInput::Trading(..)
            | SourceInput::History(..)
            | SourceInput::Session(..) => {}
        }
    }

    fn move_to(&mut self, position: Option<Bytes>) {
        (self.position, self.events, self.digest) = (position, 0, 0);
    }

    /// Adds a trade or quote that the log contains.
    pub(super) fn add(&mut self, id: InstrumentId, event: &impl Hash) {
        self.events += 1;
        self.digest = digest_of(self.digest, id, event);
    }

    /// Events that a source emits again from the position. One without a position, such as a push
    /// source, goes on with others.
    pub(super) fn repeated(&self) -> Option<Repeated> {
        let emits_again = self.position.is_some() && self.events > 0;
        emits_again.then_some(Repeated {
            left: self.events,
            digest: 0,
            expected: self.digest,
        })
    }
}

/// Digest of events up to a trade or quote.
fn digest_of(before: u64, id: InstrumentId, event: &impl Hash) -> u64 {
    let mut digest = DefaultHasher::new();
    (before, id, event).hash(&mut digest);
    digest.finish()
}

/// Events of the log that a source emits again.
#[derive(Debug)]
pub(super) struct Repeated {
    left: u64,
    digest: u64,
    expected: u64,
}

/// State of a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repetition {
    /// More events of the log follow.
    GoesOn,
    /// The source has emitted the events of the log.
    Over,
    /// The source has emitted other events.
    Differs,
}

impl Repeated {
    /// Takes an event that the source has emitted.
    pub(super) fn take(&mut self, id: InstrumentId, event: &impl Hash) -> Repetition {
        self.left -= 1;
        self.digest = digest_of(self.digest, id, event);
        match (self.left, self.digest == self.expected) {
            (0, true) => Repetition::Over,
            (0, false) => Repetition::Differs,
            _ => Repetition::GoesOn,
        }
    }
}
