//! Market-data sources. A source reads the format of a venue or a file and emits market values and
//! watermarks; it has no knowledge of subscribers.

pub mod account;
pub mod faults;
pub mod push;
pub mod rules;
pub mod sim;
mod status;
mod supervisor;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::bus::{Emit, Emitter};
use crate::clock::Clock;
use crate::log::DemandSignal;
use crate::market::{Instrument, Symbol, UnixNanos};
use crate::metrics::Metrics;

use faults::Injector;
use rules::Screen;
pub use status::SourceStatus;
pub use supervisor::{SourceTask, supervise};

/// Future of a running source.
pub type SourceFuture<'a> = Pin<Box<dyn Future<Output = Result<(), SourceError>> + Send + 'a>>;

/// Producer of market events. The supervisor runs it again from the start after a failure; `Ok`
/// means that the source is exhausted.
pub trait Source: Send {
    /// Emits events until the end of the source or an error.
    fn run<'a>(&'a mut self, out: &'a mut Output) -> SourceFuture<'a>;

    /// Position to resume from after a graceful stop, if any.
    fn place(&mut self) -> Option<Vec<u8>>;
}

/// Reason for which a source stopped.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bus has stopped because the server is shutting down.
    #[error("the bus has stopped")]
    Stopped,
    /// Recoverable failure; the source is restarted after a delay.
    #[error("{0}")]
    Failed(String),
    /// Permanent failure; a restart would fail in the same way.
    #[error("{0}")]
    Final(String),
}

/// Connection of a source to the bus, kept across restarts of the source.
#[derive(Debug)]
pub struct Output {
    /// Clock shared by the whole server.
    pub clock: Clock,
    /// Server metrics.
    pub metrics: Arc<Metrics>,
    /// Name of the source in the config.
    pub name: Arc<str>,
    /// Signal that is raised by the first subscriber.
    pub demand: Arc<DemandSignal>,
    emitter: Emitter,
    faults: Injector,
    screen: Option<Screen>,
    announced: HashMap<Symbol, u32>,
    /// Time of the last watermark; read by the supervisor.
    alive: Arc<AtomicU64>,
    /// Status of the source, for readiness checks and operators.
    pub status: Arc<SourceStatus>,
    /// True once the source must stop.
    stop: watch::Receiver<bool>,
    /// Time from which the next position is due; `None` for a server outside of a cluster.
    position_due: Option<UnixNanos>,
}

/// Interval of the positions in the log of a cluster.
const POSITION_EVERY: Duration = Duration::from_secs(1);

impl Output {
    /// Emits events in order; waits while the queue of the bus is full.
    pub async fn emit(&mut self, emitted: &mut Vec<Emit>) -> Result<(), SourceError> {
        self.faults.inject(emitted);
        if !self.faults.is_settled() {
            // A source that goes on from here would not emit again what a fault holds back.
            emitted.retain(|emit| !matches!(emit, Emit::Position(_)));
        }
        for kind in self.faults.take_begun() {
            self.metrics
                .injected_faults
                .with_label_values(&[kind.name()])
                .inc();
            tracing::warn!(source = &*self.name, kind = kind.name(), "fault injected");
        }
        if let Some(screen) = &mut self.screen {
            screen.filter(emitted);
        }
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

    /// Emits what an injected fault holds back. Called once the source has stopped.
    async fn finish(&mut self) {
        let mut held = self.faults.finish();
        if let Some(screen) = &mut self.screen {
            screen.filter(&mut held);
        }
        self.emitter.emit(&mut held).await;
    }

    /// True if the source should emit its position, from which another server can go on.
    pub fn position_is_due(&mut self) -> bool {
        let now = self.clock.now();
        let is_due = self.position_due.is_some_and(|due| due <= now);
        if is_due {
            self.position_due = Some(now.plus(POSITION_EVERY));
        }
        is_due
    }

    /// True if the source must stop at a position from which it can resume.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits until the source must stop.
    pub async fn stopping(&self) {
        let mut stop = self.stop.clone();
        if stop.wait_for(|stops| *stops).await.is_err() {
            // The sender is gone, so no stop request can arrive.
            std::future::pending::<()>().await;
        }
    }

    /// Announces instruments not announced before. They are numbered in order of announcement.
    pub async fn announce(&mut self, instruments: Vec<Instrument>) -> Result<(), SourceError> {
        let mut fresh = Vec::new();
        for instrument in instruments {
            let next = self.announced.len() as u32;
            if let Entry::Vacant(place) = self.announced.entry(instrument.symbol.clone()) {
                place.insert(next);
                self.faults.announce(instrument.symbol.clone());
                fresh.push(instrument);
            }
        }
        if !fresh.is_empty() {
            self.emit(&mut vec![Emit::Instruments(fresh)]).await?;
        }
        self.status.start();
        Ok(())
    }

    /// Local number of an announced instrument.
    pub fn number(&self, symbol: &Symbol) -> Option<u32> {
        self.announced.get(symbol).copied()
    }
}
