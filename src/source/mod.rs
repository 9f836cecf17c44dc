//! Market-data sources. A source reads a venue's or a file's format and emits market values and time marks; it knows
//! nothing of subscribers.

pub mod account;
pub mod push;
pub mod sim;
mod status;
mod supervisor;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::bus::{Emit, Emitter};
use crate::clock::Clock;
use crate::log::DemandSignal;
use crate::market::{Instrument, Symbol};
use crate::metrics::Metrics;

pub use status::SourceStatus;
pub use supervisor::{SourceTask, supervise};

/// Future of a running source.
pub type SourceFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + 'a>>;

/// Something that emits. Run again from the start after it failed; `Ok` means that it has come to its end.
pub trait Source: Send {
    /// Emits until the end, or an error.
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a>;

    /// Position to resume from after a graceful stop, if any.
    fn place(&mut self) -> Option<Vec<u8>>;
}

/// Why a source stopped.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bus has stopped, because the server does.
    #[error("the bus has stopped")]
    Stopped,
    /// The source itself failed; it is started again after a while.
    #[error("{0}")]
    Failed(String),
    /// It failed for good: starting it again would fail the same way.
    #[error("{0}")]
    Final(String),
}

/// A source's way to the bus, kept over its restarts.
#[derive(Debug)]
pub struct Output {
    /// The clock of the whole server.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The source's name in the config.
    pub name: Arc<str>,
    /// Opens when somebody listens.
    pub demand: Arc<DemandSignal>,
    emitter: Emitter,
    announced: HashMap<Symbol, u32>,
    /// Time of the last time mark; read by the supervisor.
    alive: Arc<AtomicU64>,
    /// Its condition, for readiness checks and operators.
    pub status: Arc<SourceStatus>,
    /// True once the source is to stop.
    stop: watch::Receiver<bool>,
}

impl Output {
    /// Emits in order, waiting while the bus' queue is full.
    pub async fn emit(&self, emitted: &mut Vec<Emit>) -> Result<(), SourceError> {
        if emitted
            .iter()
            .any(|emit| matches!(emit, Emit::Watermark(_)))
        {
            self.alive.store(self.clock.now().0, Ordering::Relaxed);
        }
        if self.emitter.emit(emitted).await {
            Ok(())
        } else {
            Err(SourceError::Stopped)
        }
    }

    /// True if the source must stop at a position from which it can resume.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the source is to stop.
    pub async fn stopping(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stops| *stops).await.is_err() {
            // Nobody can say it any more.
            std::future::pending::<()>().await;
        }
    }

    /// Tells the instruments that weren't told before; they are numbered in the order in which they were told.
    pub async fn announce(&mut self, instruments: Vec<Instrument>) -> Result<(), SourceError> {
        let mut fresh = Vec::new();
        for instrument in instruments {
            let next = self.announced.len() as u32;
            if let Entry::Vacant(place) = self.announced.entry(instrument.symbol.clone()) {
                place.insert(next);
                fresh.push(instrument);
            }
        }
        if !fresh.is_empty() {
            self.emit(&mut vec![Emit::Instruments(fresh)]).await?;
        }
        self.status.start();
        Ok(())
    }

    /// The number of an instrument that was announced.
    pub fn number(&self, symbol: &Symbol) -> Option<u32> {
        self.announced.get(symbol).copied()
    }
}
