//! Rebuild of a server that the log does not continue: it loads a checkpoint and goes on from
//! there, and its clients stay connected. Behind a record that is gone they are told what they
//! have missed, as after an overrun. Behind a new origin, every topic has a new epoch.

use std::collections::VecDeque;
use std::time::Duration;

use super::{FollowError, Follower};
use crate::bus::ForeignState;
use crate::cluster::items::Unpacker;
use crate::cluster::record::{Author, ChainFault, Position, Record};
use crate::cluster::settings::Role;
use crate::cluster::start::{NoStart, Start, find_other_origin, find_start};
use crate::cluster::store::StoreError;
use crate::market::UnixNanos;

/// Number of checksums that are kept.
const SUMS_KEPT: usize = 4096;
/// Pause before another look for a checkpoint.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// Time after which a server that finds no checkpoint ends, so that its clients go elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Checksums of the newest records, up to the present position.
#[derive(Debug, Default)]
pub(super) struct RecentSums(VecDeque<u64>);

impl RecentSums {
    pub(super) fn push(&mut self, sum: u64) {
        if self.0.len() == SUMS_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sum);
    }

    /// Checksum of a record at or before `position`, if it is kept.
    fn of(&self, number: u64, position: Position) -> Option<u64> {
        let back = position.number.checked_sub(number)?;
        let at = self.0.len().checked_sub(1 + usize::try_from(back).ok()?)?;
        self.0.get(at).copied()
    }
}

/// Reason for which the log does not continue the state of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The log no longer contains the next record.
    Gone,
    /// The next record begins another origin.
    Origin,
    /// The log contains other records than those that were read.
    Diverged,
}

impl Cause {
    /// `None` for an error that another state does not repair.
    const fn of(error: &FollowError) -> Option<Self> {
        match error {
            FollowError::Store(StoreError::Gone(_)) => Some(Self::Gone),
            FollowError::Origin(_) => Some(Self::Origin),
            FollowError::Diverged(_) | FollowError::Chain(ChainFault::Other(_)) => {
                Some(Self::Diverged)
            }
            _ => None,
        }
    }
}

impl Follower {
    /// True if the log contains another record than the one that was read with this number. A term
    /// never begins before a record that was read.
    pub(super) fn is_other(&self, record: &Record) -> bool {
        let known = self.sums.of(record.number, self.position);
        record.term > self.author.term || known.is_some_and(|sum| sum != record.sum)
    }

    /// Compares the last record of a log that ends before what was read.
    pub(super) async fn compare(&self, last: u64) -> Result<(), FollowError> {
        if last == 0 || last >= self.position.number {
            return Ok(());
        }
        match self.store.get(last).await {
            Ok(record) if self.is_other(&record) => Err(FollowError::Diverged(last)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// True if the log contains a record that was received as new and contradicts what was read
    /// before. Otherwise it did not come from the log, or the next one shows the same.
    pub(super) async fn is_in_log(&self, record: &Record) -> bool {
        match self.store.get(record.number).await {
            Ok(logged) => logged.sum == record.sum,
            Err(_) => false,
        }
    }

    /// Rebuilds the state of this server if the log does not continue it. Returns other errors.
    pub(super) async fn recover(
        &mut self,
        taken: Result<(), FollowError>,
    ) -> Result<(), FollowError> {
        let Err(error) = taken else {
            return Ok(());
        };
        let Some(cause) = Cause::of(&error) else {
            return Err(error);
        };
        tracing::warn!(%error, "the shared log does not go on; loading a checkpoint");
        if cause == Cause::Diverged {
            self.status.count_diverged();
        }
        let Some(start) = self.other_start(cause).await? else {
            return Err(error);
        };
        self.go_on_from(start).await?;
        self.status.count_rebuild();
        let record = self.position.number;
        tracing::warn!(record, "rebuilt; clients were told what they have missed");
        Ok(())
    }

    /// Waits for a start from which this server can go on; `None` if there is none in time.
    async fn other_start(&mut self, cause: Cause) -> Result<Option<Start>, FollowError> {
        let until = self.clock.now().plus(WAIT_MAX);
        let mut is_first_look = true;
        loop {
            match self.look_for_start(cause).await {
                Ok(Some(start)) if self.can_use(&start, cause) => {
                    self.status.note_checkpoint_lack(false);
                    return Ok(Some(start));
                }
                Ok(_)
                | Err(
                    FollowError::Start(NoStart::Cut(_) | NoStart::Store(_)) | FollowError::Store(_),
                ) => {}
                Err(error) => return Err(error),
            }
            if std::mem::take(&mut is_first_look) {
                tracing::warn!("no checkpoint to go on from; waiting for the next one");
                self.status.note_checkpoint_lack(true);
                if self.has_clients() {
                    self.report_silence().await?;
                }
            }
            if cause == Cause::Diverged && self.has_clients() {
                let (name, origin) = (&self.settings.name, self.origin.origin);
                self.store.report_divergence(name, origin).await;
            }
            let now = self.clock.now();
            if now >= until {
                return Ok(None);
            }
            self.clock.sleep_until(now.plus(LOOK_AFTER)).await;
        }
    }

    async fn look_for_start(&self, cause: Cause) -> Result<Option<Start>, FollowError> {
        let (store, settings) = (&*self.store, &self.settings);
        if cause != Cause::Gone {
            let other = find_other_origin(store, settings, self.origin).await?;
            if other.is_some() {
                return Ok(other);
            }
        }
        let start = find_start(store, settings, self.clock.now(), Duration::ZERO).await?;
        let is_other = |start: &Start| {
            start.origin.origin != self.origin.origin
                && start.origin.generation <= self.origin.generation
        };
        if self.has_clients() && start.as_ref().is_some_and(is_other) {
            return Err(FollowError::OtherLog);
        }
        Ok(start)
    }

    const fn has_clients(&self) -> bool {
        matches!(self.settings.role, Role::Gateway)
    }

    /// Clients must not see other events with the numbers of those that they have seen, and their
    /// topics must not disappear for a while.
    fn can_use(&self, start: &Start, cause: Cause) -> bool {
        let is_new = start.origin.origin != self.origin.origin;
        let number = match &start.checkpoint {
            Some(checkpoint) => checkpoint.place.position.number,
            None if self.has_clients() => return false,
            None => 0,
        };
        match cause {
            Cause::Gone => is_new || number > self.position.number,
            Cause::Origin => is_new,
            Cause::Diverged => is_new || !self.has_clients(),
        }
    }

    async fn go_on_from(&mut self, start: Start) -> Result<(), FollowError> {
        match start.checkpoint {
            Some(checkpoint) => {
                let number = checkpoint.place.position.number;
                let is_same = checkpoint.catalog.continues(self.unpacker.catalog());
                if self.has_clients() && !is_same {
                    return Err(FollowError::Catalog(number));
                }
                self.restore(*checkpoint).await?;
            }
            None => self.go_on_from_first(start).await?,
        }
        // The sources are in the states that the log describes.
        self.is_silent = false;
        self.status.set_silent(false);
        Ok(())
    }

    async fn go_on_from_first(&mut self, start: Start) -> Result<(), FollowError> {
        let state = ForeignState {
            origin: start.origin,
            items: Vec::new(),
            catalog: std::sync::Arc::default(),
            tx: UnixNanos::default(),
            output: None,
        };
        self.restore_bus(state, 0).await?;
        self.origin = start.origin;
        self.unpacker = Unpacker::default();
        self.conditions = Vec::new();
        self.author = Author { term: 0, node: 0 };
        self.position = Position::default();
        self.is_handed_over = false;
        self.kept = super::kept_records(&self.settings);
        self.sums = RecentSums::default();
        Ok(())
    }

    /// Replaces the state of the bus by that behind a record.
    pub(super) async fn restore_bus(
        &self,
        state: ForeignState,
        number: u64,
    ) -> Result<(), FollowError> {
        match self.bus.restore(state).await {
            Some(true) => Ok(()),
            Some(false) => Err(FollowError::Contradiction(number)),
            None => Err(FollowError::Stopping),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_checksums_are_found_by_number() {
        let mut sums = RecentSums::default();
        let count = SUMS_KEPT as u64 + 10;
        for number in 1..=count {
            sums.push(number * 3);
        }
        let position = Position {
            number: count,
            sum: count * 3,
        };
        let of = |number| sums.of(number, position);
        assert_eq!(of(count), Some(count * 3));
        assert_eq!(of(11), Some(33));
        assert_eq!(of(10), None, "no longer kept");
        assert_eq!(of(count + 1), None, "not read yet");
    }
}
