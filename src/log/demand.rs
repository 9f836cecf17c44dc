use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Holds a source back until the first subscriber of one of its topics.
#[derive(Debug, Default)]
pub struct DemandSignal {
    is_raised: AtomicBool,
    raised: Notify,
}

impl DemandSignal {
    /// Lets the source begin.
    pub fn raise(&self) {
        if !self.is_raised.swap(true, Ordering::Relaxed) {
            self.raised.notify_waiters();
        }
    }

    /// Waits until the signal is raised.
    pub async fn wait(&self) {
        let raised = self.raised.notified();
        if !self.is_raised.load(Ordering::Relaxed) {
            raised.await;
        }
    }
}
