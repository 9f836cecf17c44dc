use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(feature = "internals")]
use std::sync::{Mutex, OnceLock};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::Batch;

/// The log: a bounded ring of batches with one writer and one cursor per reader. The writer never
/// waits; an overrun reader is notified.
#[derive(Debug)]
pub struct Log {
    slots: Box<[ArcSwapOption<Numbered>]>,
    /// Number of the next batch. Written only by the bus.
    head: AtomicU64,
    /// Number of the oldest batch still kept. Written only by the bus.
    tail: AtomicU64,
    /// Memory of the kept batches, in bytes. Written only by the bus.
    bytes: AtomicUsize,
    bytes_max: usize,
    readers: Box<[Notify]>,
    /// All batches, for a simulation that observes them.
    #[cfg(feature = "internals")]
    observed: OnceLock<Mutex<Vec<Arc<Batch>>>>,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    batch: Arc<Batch>,
}

/// Result of a read.
#[derive(Debug)]
pub enum Next {
    /// Next batch.
    Batch(Arc<Batch>),
    /// No new batch.
    Empty,
    /// The next batch has been overwritten.
    Overrun,
}

/// Maximum number of batches in the ring, whatever their size.
const BATCHES_MAX: usize = 16_384;

impl Log {
    /// Creates a log of at most `bytes_max` with `readers` readers.
    pub fn new(bytes_max: usize, readers: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: (0..BATCHES_MAX).map(|_| ArcSwapOption::empty()).collect(),
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            bytes_max,
            readers: (0..readers).map(|_| Notify::new()).collect(),
            #[cfg(feature = "internals")]
            observed: OnceLock::new(),
        })
    }

    fn slot(&self, number: u64) -> &ArcSwapOption<Numbered> {
        &self.slots[number as usize % BATCHES_MAX]
    }

    /// Appends a batch to the log and wakes the readers. Called only by the bus.
    pub fn publish(&self, batch: Batch) {
        let number = self.head.load(Ordering::Relaxed);
        let footprint = batch.footprint();
        while self.len() == BATCHES_MAX as u64
            || (!self.is_empty() && self.bytes() + footprint > self.bytes_max)
        {
            self.evict_oldest();
        }
        let batch = Arc::new(batch);
        #[cfg(feature = "internals")]
        if let Some(Ok(mut observed)) = self.observed.get().map(Mutex::lock) {
            observed.push(Arc::clone(&batch));
        }
        self.slot(number)
            .store(Some(Arc::new(Numbered { number, batch })));
        self.bytes.fetch_add(footprint, Ordering::Relaxed);
        self.head.store(number + 1, Ordering::Release);
        for reader in &self.readers {
            reader.notify_one();
        }
    }

    /// Interrupts the log: a reader that has read everything so far finds an overrun, and goes on from
    /// a checkpoint. Called only by the bus, whose state is no longer the sum of the batches.
    pub fn interrupt(&self) {
        if self.len() == BATCHES_MAX as u64 {
            self.evict_oldest();
        }
        let number = self.head.load(Ordering::Relaxed);
        self.slot(number).store(None);
        self.head.store(number + 1, Ordering::Release);
        for reader in &self.readers {
            reader.notify_one();
        }
    }

    fn evict_oldest(&self) {
        let tail = self.tail.load(Ordering::Relaxed);
        self.tail.store(tail + 1, Ordering::Relaxed);
        if let Some(old) = self.slot(tail).swap(None) {
            self.bytes
                .fetch_sub(old.batch.footprint(), Ordering::Relaxed);
        }
    }

    /// Number of batches in the ring.
    pub fn len(&self) -> u64 {
        self.head.load(Ordering::Relaxed) - self.tail.load(Ordering::Relaxed)
    }

    /// True if the ring contains no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory of the kept batches, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Number of the next batch.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Reads the batch with this number.
    pub fn read(&self, number: u64) -> Next {
        if number >= self.head.load(Ordering::Acquire) {
            return Next::Empty;
        }
        match &*self.slot(number).load() {
            Some(there) if there.number == number => Next::Batch(Arc::clone(&there.batch)),
            _ => Next::Overrun,
        }
    }

    /// Takes the batches published since the last call, dropped ones included. The first call
    /// begins the observation.
    #[cfg(feature = "internals")]
    pub fn observe(&self) -> Vec<Arc<Batch>> {
        let observed = self.observed.get_or_init(Mutex::default).lock();
        observed.map_or_else(
            |_| Vec::new(),
            |mut observed| std::mem::take(&mut *observed),
        )
    }

    /// Wake-up signal of a reader.
    pub fn reader(&self, reader: usize) -> &Notify {
        &self.readers[reader]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Catalog;

    fn batch() -> Batch {
        Batch::new(Vec::new(), Arc::new(Catalog::default()))
    }

    #[test]
    fn a_fast_reader_gets_every_batch_and_a_slow_one_an_overrun() {
        let log = Log::new(batch().footprint() * 2, 1);
        assert!(matches!(log.read(0), Next::Empty));
        log.publish(batch());
        log.publish(batch());
        assert!(matches!(log.read(0), Next::Batch(_)));
        log.publish(batch());
        assert!(matches!(log.read(0), Next::Overrun));
        assert!(matches!(log.read(1), Next::Batch(_)));
        assert!(matches!(log.read(2), Next::Batch(_)));
        assert!(matches!(log.read(3), Next::Empty));
        assert_eq!((log.len(), log.bytes()), (2, batch().footprint() * 2));
    }

    #[test]
    fn every_reader_finds_an_overrun_at_an_interruption_and_not_before() {
        let log = Log::new(usize::MAX, 1);
        log.publish(batch());
        log.interrupt();
        log.publish(batch());
        assert!(matches!(log.read(0), Next::Batch(_)));
        assert!(matches!(log.read(1), Next::Overrun));
        assert!(matches!(log.read(2), Next::Batch(_)));
        for _ in 0..=BATCHES_MAX {
            log.interrupt();
        }
        assert_eq!((log.len(), log.bytes()), (BATCHES_MAX as u64, 0));
        log.publish(batch());
        assert!(matches!(log.read(log.head() - 1), Next::Batch(_)));
    }
}
