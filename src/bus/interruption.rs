//! Interruption of the log: the state changes in another way than by the batches. Readers go on
//! from the state behind the interruption, and miss none of the batches behind it.

use std::sync::Arc;
use std::time::Duration;

use super::Bus;
use crate::log::Checkpoint;
use crate::market::UnixNanos;

/// Time for which the state at an interruption is kept for readers. Later ones get the state of
/// that time, like after an overrun.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// State behind an interruption.
#[derive(Debug)]
pub(super) struct Interruption {
    checkpoint: Arc<Checkpoint>,
    until: UnixNanos,
}

impl Interruption {
    /// State for a reader whose next batch would have this number, if it is that of the
    /// interruption.
    pub(super) fn state_at(&self, next: u64) -> Option<Arc<Checkpoint>> {
        let is_here = next.checked_add(1) == Some(self.checkpoint.next);
        is_here.then(|| Arc::clone(&self.checkpoint))
    }
}

impl Bus {
    /// Interrupts the log: every reader goes on from the present state.
    pub(super) fn interrupt(&mut self) {
        self.log.interrupt();
        self.interruption = Some(Interruption {
            checkpoint: Arc::new(self.checkpoint()),
            until: self.clock.now().plus(KEPT_FOR),
        });
    }

    /// Releases the state at an interruption once it was kept for long enough.
    pub(super) fn forget_interruption(&mut self) {
        let now = self.clock.now();
        self.interruption.take_if(|kept| kept.until < now);
    }
}
