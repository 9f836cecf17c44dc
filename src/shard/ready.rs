//! Ready list: connections that the runtime found ready, entered by their wakers.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use tokio::sync::Notify;

use super::connection::ConnectionKey;

/// Connections whose socket is readable or writable. The lock is not on the path of an event: it is
/// taken when a socket changes, by the shard's own thread.
#[derive(Debug, Default)]
pub(super) struct ReadyList {
    keys: Mutex<Vec<ConnectionKey>>,
    notify: Notify,
}

struct ReadyWaker {
    list: Arc<ReadyList>,
    key: ConnectionKey,
}

impl Wake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.list.push(self.key);
    }
}

impl ReadyList {
    pub(super) fn waker(self: &Arc<Self>, key: ConnectionKey) -> Waker {
        Waker::from(Arc::new(ReadyWaker {
            list: Arc::clone(self),
            key,
        }))
    }

    pub(super) fn push(&self, key: ConnectionKey) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(key);
        self.notify.notify_one();
    }

    /// Takes the list into `into`, which must be empty.
    pub(super) fn take(&self, into: &mut Vec<ConnectionKey>) {
        std::mem::swap(
            &mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner),
            into,
        );
    }

    /// Puts back the connections that a turn had no time for, in front of those found ready since.
    pub(super) fn put_back(&self, rest: impl Iterator<Item = ConnectionKey>) {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .splice(0..0, rest);
        self.notify.notify_one();
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }
}
