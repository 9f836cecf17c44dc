use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Start signal of a source: holds it back until the first subscriber of one of its topics.
#[derive(Debug, Default)]
pub struct DemandSignal {
    is_raised: AtomicBool,
    raised: Notify,
}

impl DemandSignal {
    /// Raises the signal, which lets the source start.
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
