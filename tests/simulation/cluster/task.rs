//! Tasks of a simulation: futures that are polled when somebody has woken them, and when the
//! simulation lets them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[derive(Debug)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future and its wake-up.
pub(crate) struct Task {
    /// `None` once it has ended.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
    waker: Waker,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl Task {
    pub(crate) fn new(future: impl Future<Output = ()> + 'static) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Self {
            future: Some(Box::pin(future)),
            waker: Waker::from(Arc::clone(&woken)),
            woken,
        }
    }

    /// True if it can go on.
    pub(crate) fn is_ready(&self) -> bool {
        self.future.is_some() && self.woken.0.load(Ordering::Relaxed)
    }

    /// Lets it go on until it waits again.
    pub(crate) fn poll(&mut self) {
        let Some(future) = &mut self.future else {
            return;
        };
        self.woken.0.store(false, Ordering::Relaxed);
        let mut context = Context::from_waker(&self.waker);
        if let Poll::Ready(()) = future.as_mut().poll(&mut context) {
            self.future = None;
        }
    }
}
