//! Changes of the catalog that the log of another server describes: numbers are given, not
//! assigned.

use std::ops::Range;
use std::sync::Arc;

use super::catalog::{InstrumentInfo, Unsorted};
use super::{Catalog, InstrumentId, SourceId, TopicId};
use crate::market::{Instrument, Symbol};
use crate::topic::Channel;

/// Instruments that a log announces, with their new topics.
#[derive(Debug, Clone, PartialEq)]
pub struct Announcement {
    /// Announced instruments, with their numbers and sources.
    pub instruments: Vec<(InstrumentId, SourceId, Instrument)>,
    /// New topics, in the order of their numbers.
    pub topics: Vec<(InstrumentId, Channel)>,
}

/// Reason for which a described change does not apply to the catalog: the log is damaged, or
/// another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForeignFault {
    /// An instrument number that is not announced, or not the next one.
    #[error("unexpected instrument number {0}")]
    Instrument(u32),
    /// A source number that is not announced.
    #[error("unexpected source number {0}")]
    Source(u16),
    /// A symbol that is invalid, or has another number.
    #[error("unexpected symbol of instrument {0}")]
    Symbol(u32),
    /// A topic that exists.
    #[error("second topic of one channel for instrument {0}")]
    Topic(u32),
}

impl Catalog {
    /// Applies an announcement; returns the numbers of the new topics.
    pub fn announce(&mut self, announced: Announcement) -> Result<Range<u32>, ForeignFault> {
        let first_topic = self.len() as u32;
        let mut unsorted = Unsorted::default();
        for (id, source, instrument) in announced.instruments {
            self.check_source(source)?;
            let is_new = id.0 as usize == self.instruments_len();
            if is_new {
                self.check_new_symbol(id, &instrument.symbol, &unsorted)?;
                let info = InstrumentInfo {
                    instrument,
                    source,
                    topics: [None; Channel::COUNT],
                };
                self.push_instrument(info, &mut unsorted);
            } else {
                let symbol = instrument.symbol.clone();
                self.describe_foreign(id, Some(source), instrument)?;
                self.relist(&symbol, &mut unsorted);
            }
        }
        for (id, channel) in announced.topics {
            self.check_instrument(id)?;
            let known = self.instrument(id);
            if known.topics[channel.index()].is_some() {
                return Err(ForeignFault::Topic(id.0));
            }
            let (instrument, source) = (known.instrument.clone(), known.source);
            let mut topics = known.topics;
            topics[channel.index()] = Some(self.add_topic(channel, &instrument.symbol, source));
            self.set_instrument(
                id,
                InstrumentInfo {
                    instrument,
                    source,
                    topics,
                },
            );
        }
        self.list(first_topic, unsorted);
        Ok(first_topic..self.len() as u32)
    }

    /// Replaces the description of an instrument, and its source if one is given.
    pub fn describe_foreign(
        &mut self,
        id: InstrumentId,
        source: Option<SourceId>,
        instrument: Instrument,
    ) -> Result<(), ForeignFault> {
        self.check_instrument(id)?;
        let known = self.instrument(id);
        if known.instrument.symbol != instrument.symbol {
            return Err(ForeignFault::Symbol(id.0));
        }
        let info = InstrumentInfo {
            instrument,
            source: source.unwrap_or(known.source),
            topics: known.topics,
        };
        self.set_instrument(id, info);
        Ok(())
    }

    /// True if all sources, instruments and topics of an earlier catalog have the same numbers here.
    pub fn continues(&self, earlier: &Self) -> bool {
        let has_source = |(at, name): (usize, &Arc<str>)| self.sources().get(at) == Some(name);
        let has_instrument = |at: u32| {
            let id = InstrumentId(at);
            (at as usize) < self.instruments_len()
                && self.instrument(id).instrument.symbol == earlier.instrument(id).instrument.symbol
        };
        let has_topic = |at: u32| {
            let id = TopicId(at);
            id.index() < self.len() && self.topic(id).topic == earlier.topic(id).topic
        };
        earlier.sources().iter().enumerate().all(has_source)
            && (0..earlier.instruments_len() as u32).all(has_instrument)
            && (0..earlier.len() as u32).all(has_topic)
    }

    /// Lists removed instruments again.
    pub fn list_again(&mut self, ids: &[InstrumentId]) -> Result<(), ForeignFault> {
        let mut unsorted = Unsorted::default();
        for id in ids {
            self.check_instrument(*id)?;
            let symbol = self.instrument(*id).instrument.symbol.clone();
            self.relist(&symbol, &mut unsorted);
        }
        self.list(self.len() as u32, unsorted);
        Ok(())
    }

    /// Checks that an instrument with this number has been announced.
    pub fn check_instrument(&self, id: InstrumentId) -> Result<(), ForeignFault> {
        let is_known = (id.0 as usize) < self.instruments_len();
        is_known.then_some(()).ok_or(ForeignFault::Instrument(id.0))
    }

    /// Checks that a source with this number has been announced.
    pub fn check_source(&self, source: SourceId) -> Result<(), ForeignFault> {
        let is_known = (source.0 as usize) < self.sources().len();
        is_known.then_some(()).ok_or(ForeignFault::Source(source.0))
    }

    fn check_new_symbol(
        &self,
        id: InstrumentId,
        symbol: &Symbol,
        unsorted: &Unsorted,
    ) -> Result<(), ForeignFault> {
        let is_valid = Symbol::new(symbol.as_str()).is_ok()
            && self.known(symbol).is_none()
            && !unsorted.instruments.contains_key(symbol);
        is_valid.then_some(()).ok_or(ForeignFault::Symbol(id.0))
    }
}
