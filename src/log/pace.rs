use std::sync::{Condvar, Mutex, PoisonError};

/// Bound of the batches that the uplink of a cluster has not delivered: the writer of the log
/// waits at the bound.
#[derive(Debug)]
pub struct Pace {
    ahead: Mutex<Ahead>,
    room: Condvar,
    bytes_max: usize,
    batches_max: usize,
}

#[derive(Debug, Default)]
struct Ahead {
    bytes: usize,
    batches: usize,
    is_released: bool,
}

impl Pace {
    /// Creates a bound of `bytes_max` and `batches_max`.
    pub fn new(bytes_max: usize, batches_max: usize) -> Self {
        Self {
            ahead: Mutex::default(),
            room: Condvar::new(),
            bytes_max,
            batches_max,
        }
    }

    /// Adds a batch; waits while the bound is reached. A batch larger than the bound is added once
    /// nothing else is ahead.
    pub fn add(&self, bytes: usize) {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |ahead: &mut Ahead| {
            let has_room =
                ahead.bytes + bytes <= self.bytes_max && ahead.batches < self.batches_max;
            !has_room && ahead.batches > 0 && !ahead.is_released
        };
        let waited = self.room.wait_while(ahead, is_full);
        let mut ahead = waited.unwrap_or_else(PoisonError::into_inner);
        ahead.bytes += bytes;
        ahead.batches += 1;
    }

    /// Removes a delivered batch.
    pub fn done(&self, bytes: usize) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.bytes = ahead.bytes.saturating_sub(bytes);
        ahead.batches = ahead.batches.saturating_sub(1);
        self.room.notify_one();
    }

    /// Bytes of the added batches that were not delivered.
    pub fn bytes(&self) -> usize {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.bytes
    }

    /// Ends all waits: the server stops.
    pub fn release(&self) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        ahead.is_released = true;
        self.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc;

    #[test]
    fn the_writer_waits_at_the_bound_until_a_batch_is_delivered() {
        let pace = Arc::new(Pace::new(100, 2));
        pace.add(1000);
        let (added, was_added) = mpsc::channel();
        let writer = Arc::clone(&pace);
        let thread = std::thread::spawn(move || {
            writer.add(60);
            added.send("second")?;
            writer.add(60);
            added.send("third")
        });
        assert_eq!(was_added.try_recv(), Err(mpsc::TryRecvError::Empty));
        pace.done(1000);
        assert_eq!(was_added.recv(), Ok("second"));
        assert_eq!(was_added.try_recv(), Err(mpsc::TryRecvError::Empty));
        pace.release();
        assert_eq!(was_added.recv(), Ok("third"));
        assert!(thread.join().is_ok_and(|sent| sent.is_ok()));
    }
}
