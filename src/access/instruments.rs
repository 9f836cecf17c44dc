//! Instrument lists, read in parts.

use std::ops::Range;
use std::sync::Arc;

use super::role::ChannelSet;
use super::{Principal, Visible};
use crate::log::{Catalog, InstrumentId, InstrumentInfo};
use crate::market::Instrument;

/// Visible instruments that match a symbol or pattern, as of one catalog, in symbol order.
#[derive(Debug)]
pub struct InstrumentList {
    catalog: Arc<Catalog>,
    principal: Principal,
    /// Remaining instruments, as index ranges in the order of the catalog, the last ones first.
    rest: Vec<Range<usize>>,
}

/// Instrument with its visible channels.
#[derive(Debug, Clone, Copy)]
pub struct ListedInstrument<'a> {
    /// The instrument.
    pub instrument: &'a Instrument,
    /// Its visible channels.
    pub channels: ChannelSet,
}

/// Index ranges of the instruments that match a pattern and of which the principal may see topics.
pub(super) fn visible(
    catalog: &Catalog,
    principal: &Principal,
    pattern: &str,
) -> Vec<Range<usize>> {
    let matching = catalog.symbols(pattern);
    let Some(role) = principal.role() else {
        return vec![matching];
    };
    let (prefix, is_pattern) = pattern
        .strip_suffix('*')
        .map_or((pattern, false), |prefix| (prefix, true));
    if !is_pattern {
        let is_visible = role.any_channel().has(prefix);
        return Vec::from_iter(is_visible.then_some(matching));
    }
    let ids = catalog.ids_at(matching.clone());
    let symbol = |id: InstrumentId| catalog.instrument(id).instrument.symbol.as_str();
    let ranges = role.any_channel().ranges(prefix, ids, symbol);
    let from = matching.start;
    let placed = ranges
        .into_iter()
        .map(|range| from + range.start..from + range.end);
    placed.collect()
}

impl<'a> Visible<'a> {
    /// The instrument with its visible channels.
    pub fn listed(self, info: &'a InstrumentInfo) -> ListedInstrument<'a> {
        let topics = info.topics.iter().flatten();
        let granted = topics.filter(|topic| self.is_granted(**topic));
        let channels = granted.map(|topic| ChannelSet::of(self.topic(*topic).topic.channel));
        let channels = match self.role() {
            None => ChannelSet::ALL,
            Some(_) => channels.fold(ChannelSet::NONE, ChannelSet::with),
        };
        ListedInstrument {
            instrument: &info.instrument,
            channels,
        }
    }
}

impl InstrumentList {
    /// Instruments that match `pattern`: a symbol, or a prefix ending in `*`.
    pub fn new(catalog: Arc<Catalog>, principal: &Principal, pattern: &str) -> Self {
        let mut rest = visible(&catalog, principal, pattern);
        rest.retain(|range| !range.is_empty());
        rest.reverse();
        Self {
            catalog,
            principal: principal.clone(),
            rest,
        }
    }

    /// True if no instruments remain.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes up to `most` instruments.
    pub fn take(&mut self, most: usize) -> Vec<ListedInstrument<'_>> {
        let mut taken: Vec<Range<usize>> = Vec::new();
        let mut left = most;
        while left > 0
            && let Some(range) = self.rest.last_mut()
        {
            let upto = range.end.min(range.start.saturating_add(left));
            taken.push(range.start..upto);
            left -= upto - range.start;
            range.start = upto;
            if range.start == range.end {
                self.rest.pop();
            }
        }
        let visible = Visible::new(&self.catalog, &self.principal);
        let infos = taken
            .into_iter()
            .flat_map(|range| self.catalog.instruments_at(range));
        infos
            .map(|info| visible.listed(info))
            .filter(|listed| listed.channels != ChannelSet::NONE)
            .collect()
    }
}
