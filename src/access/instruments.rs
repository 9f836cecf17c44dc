//! Lists of instruments, read in parts.

use std::ops::Range;
use std::sync::Arc;

use super::Principal;
use crate::log::{Catalog, InstrumentInfo};

/// The visible instruments that a symbol or pattern matches, as of one catalog, in the order of their symbols.
#[derive(Debug)]
pub struct InstrumentList {
    catalog: Arc<Catalog>,
    /// Instruments that were not taken yet, as positions in the catalog's order.
    rest: Range<usize>,
}

impl InstrumentList {
    /// The instruments that `pattern` matches: a symbol, or a prefix with `*`.
    pub fn new(catalog: Arc<Catalog>, principal: &Principal, pattern: &str) -> Self {
        let rest = match principal {
            Principal::Everyone => catalog.symbols(pattern),
        };
        Self { catalog, rest }
    }

    /// True if all instruments were taken.
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
