//! Instrument lists, read in parts.

use std::ops::Range;
use std::sync::Arc;

use super::Principal;
use crate::log::{Catalog, InstrumentInfo};

/// Visible instruments that match a symbol or pattern, as of one catalog, in symbol order.
#[derive(Debug)]
pub struct InstrumentList {
    catalog: Arc<Catalog>,
    /// Remaining instruments, as index range in the order of the catalog.
    rest: Range<usize>,
}

impl InstrumentList {
    /// Instruments that match `pattern`: a symbol, or a prefix ending in `*`.
    pub fn new(catalog: Arc<Catalog>, principal: &Principal, pattern: &str) -> Self {
        let rest = match principal {
            Principal::Everyone => catalog.symbols(pattern),
        };
        Self { catalog, rest }
    }

    /// True if no instruments remain.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes up to `most` instruments.
    pub fn take(&mut self, most: usize) -> impl ExactSizeIterator<Item = &InstrumentInfo> {
        let from = self.rest.start;
        let upto = self.rest.end.min(from.saturating_add(most));
        self.rest.start = upto;
        self.catalog.instruments_at(from..upto)
    }
}
