use std::fmt;

use serde::{Deserialize, Serialize};

/// Sequence number of an event within the epoch of its topic: 1 for the first event, increasing by
/// 1 per event.
///
/// As a reader position, it is the sequence number of the last event received; [`Seq::START`] is
/// the position before the first event.
///
/// ```
/// use tickcast::protocol::Seq;
///
/// let head = Seq::START.next().next();
/// assert_eq!(head, Seq(2));
/// assert_eq!(head.since(Seq(1)), 1);
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Position before the first event of an epoch.
    pub const START: Self = Self(0);
    /// Upper bound of all sequence numbers; never assigned to an event.
    pub const MAX: Self = Self(u64::MAX);

    /// Next sequence number. Saturates at [`Seq::MAX`], because a number received from a peer can
    /// have any value.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Previous sequence number. Saturates at [`Seq::START`].
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// Number of events after `earlier` up to this one; zero if `earlier` is ahead.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Number of events after `earlier` up to this one; `None` if `earlier` is ahead.
    pub const fn checked_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
