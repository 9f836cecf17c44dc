//! Names and numbers of replayed instruments: maps symbols of files to topics, so that no two
//! markets share one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::checkpoint::Named;
use super::file_stream::FileStream;
use super::row::{Row, RowBody};
use super::{ReplayConfig, VenueRule};
use crate::market::{Instrument, SourceKind, Symbol};
use crate::source::account::{RowFault, Skip};
use crate::source::{Output, SourceError};

/// Market in a file: venue and symbol.
type Market = (Option<Symbol>, Symbol);

/// Two markets that would share a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "symbol {wire} occurs at two venues, {first} and {second}, which cannot share a topic; prefix symbols with `venue: always`, or use one source per venue with `venue: NAME`"
)]
pub(super) struct TopicConflict {
    wire: Symbol,
    first: Symbol,
    second: Symbol,
}

/// Instruments of a replay by name.
#[derive(Debug, Default)]
pub(super) struct Names {
    rule: Option<VenueRule>,
    /// Symbols of several venues, which get the venue as a prefix.
    shared: HashSet<Symbol>,
    wires: HashMap<Market, Symbol>,
    /// Names on the wire in use, with their venue.
    taken: HashMap<Symbol, Option<Symbol>>,
    numbers: HashMap<Market, u32>,
    /// Markets whose name cannot be the name of a topic.
    refused: HashSet<Market>,
    announced: BTreeMap<Symbol, Instrument>,
    has_trades: bool,
    has_quotes: bool,
}

/// Reason why a row has no instrument.
#[derive(Debug)]
pub(super) enum NoInstrument {
    /// The row is skipped.
    Skipped(RowFault),
    /// The source cannot continue.
    Source(SourceError),
}

impl Names {
    /// Names by the first rows of the files and by the checkpoint.
    pub(super) fn of(config: &ReplayConfig, streams: &[FileStream], before: Vec<Named>) -> Self {
        let mut venues: HashMap<&Symbol, HashSet<&Symbol>> = HashMap::new();
        for located in streams.iter().flat_map(|stream| &stream.rows) {
            let of_symbol = venues.entry(&located.row.symbol).or_default();
            of_symbol.extend(&located.row.venue);
        }
        let has_column = config
            .columns
            .as_ref()
            .is_some_and(|columns| columns.venue.is_some());
        let rule = match &config.venue {
            // Naming the column requests the venue.
            VenueRule::Auto if has_column => VenueRule::Always,
            other => other.clone(),
        };
        let mut names = Self {
            shared: venues
                .into_iter()
                .filter(|(_, venues)| venues.len() > 1)
                .map(|(symbol, _)| symbol.clone())
                .collect(),
            rule: Some(rule),
            has_trades: streams.iter().any(|stream| stream.has_trades),
            has_quotes: streams.iter().any(|stream| stream.has_quotes),
            ..Self::default()
        };
        for named in before {
            let market = (named.venue, named.symbol);
            names.take(&named.wire, market.0.as_ref());
            names.wires.insert(market, named.wire);
        }
        names
    }

    /// Announces the instruments of the checkpoint and of the first rows, all at once.
    pub(super) async fn announce(
        &mut self,
        before: Vec<Instrument>,
        streams: &[FileStream],
        out: &mut Output,
    ) -> Result<(), SourceError> {
        let mut seen = HashSet::new();
        let rows = streams.iter().flat_map(|stream| &stream.rows);
        let mut instruments = before;
        for located in rows {
            if seen.insert((&located.row.venue, &located.row.symbol)) {
                match self.instrument(&located.row) {
                    Ok(instrument) => instruments.push(instrument),
                    // It is announced and counted when the row is replayed.
                    Err(NoInstrument::Skipped(_)) => {}
                    // Earlier rows are replayed first.
                    Err(NoInstrument::Source(_)) => break,
                }
            }
        }
        let each = instruments.iter().cloned();
        self.announced
            .extend(each.map(|instrument| (instrument.symbol.clone(), instrument)));
        // A file without rows has no instrument, but its source has begun all the same.
        out.announce(instruments).await
    }

    pub(super) fn announced(&self) -> Vec<Instrument> {
        self.announced.values().cloned().collect()
    }

    pub(super) fn named(&self) -> Vec<Named> {
        let named = |((venue, symbol), wire): (&Market, &Symbol)| Named {
            venue: venue.clone(),
            symbol: symbol.clone(),
            wire: wire.clone(),
        };
        let mut all: Vec<Named> = self.wires.iter().map(named).collect();
        all.sort_by(|a, b| (&a.wire, &a.venue).cmp(&(&b.wire, &b.venue)));
        all
    }

    /// Number of a row's instrument within the source, if it is announced.
    pub(super) fn known(&self, row: &Row) -> Option<u32> {
        // A tuple of references is no key; the clones are of counted references.
        self.numbers
            .get(&(row.venue.clone(), row.symbol.clone()))
            .copied()
    }

    /// Number of a row's instrument within the source; a new instrument is announced.
    pub(super) async fn number(
        &mut self,
        row: &Row,
        out: &mut Output,
    ) -> Result<u32, NoInstrument> {
        let instrument = self.instrument(row)?;
        let symbol = instrument.symbol.clone();
        self.announced.insert(symbol.clone(), instrument.clone());
        let announced = out.announce(vec![instrument]).await;
        announced.map_err(NoInstrument::Source)?;
        let number = out
            .number(&symbol)
            .expect("announced instruments have a number");
        self.numbers
            .insert((row.venue.clone(), row.symbol.clone()), number);
        Ok(number)
    }

    fn instrument(&mut self, row: &Row) -> Result<Instrument, NoInstrument> {
        let symbol = self.wire(row)?;
        let (price_scale, qty_scale) = match &row.body {
            RowBody::Trade(trade) => (trade.px.0.scale(), trade.qty.0.scale()),
            RowBody::Quote(quote) => quote.bid.or(quote.ask).map_or((0, 0), |level| {
                let qty_scale = level.qty.map_or(0, |qty| qty.0.scale());
                (level.px.0.scale(), qty_scale)
            }),
        };
        let spelling = row.symbol.venue_spelling();
        let venue_symbol = (spelling != symbol.as_str()).then(|| Box::from(&*spelling));
        Ok(Instrument {
            symbol,
            venue_symbol,
            description: String::new(),
            price_scale,
            qty_scale,
            src: SourceKind::Replay,
            has_trades: self.has_trades,
            has_quotes: self.has_quotes,
            stale_after: None,
            session_start: Duration::ZERO,
        })
    }

    /// Name on the wire of a row's market.
    fn wire(&mut self, row: &Row) -> Result<Symbol, NoInstrument> {
        let market = (row.venue.clone(), row.symbol.clone());
        if let Some(wire) = self.wires.get(&market) {
            return Ok(wire.clone());
        }
        if self.refused.contains(&market) {
            return Err(NoInstrument::Skipped(RowFault::new(Skip::Symbol, "")));
        }
        let prefix = match self.rule.as_ref().unwrap_or(&VenueRule::Auto) {
            VenueRule::Named(venue) => Some(venue.clone()),
            VenueRule::Never => None,
            VenueRule::Always => row.venue.clone(),
            VenueRule::Auto => {
                let is_shared = self.shared.contains(&row.symbol);
                row.venue.clone().filter(|_| is_shared)
            }
        };
        let wire = match prefix {
            None => row.symbol.clone(),
            Some(venue) => match row.symbol.with_venue(&venue) {
                Ok(wire) => wire,
                Err(error) => {
                    self.refused.insert(market);
                    let text = format!("with its venue prefix: {error}");
                    return Err(NoInstrument::Skipped(RowFault::new(Skip::Symbol, text)));
                }
            },
        };
        if self.rule == Some(VenueRule::Always) && row.venue.is_none() {
            let text = format!(
                "`venue: always` needs a venue, but the file has none for {wire}; set `venue: NAME`"
            );
            return Err(NoInstrument::Source(SourceError::Final(text)));
        }
        if let Some(first) = self.take(&wire, row.venue.as_ref()) {
            let second = row.venue.clone().unwrap_or_else(|| wire.clone());
            let conflict = TopicConflict {
                wire,
                first,
                second,
            };
            return Err(NoInstrument::Source(SourceError::Final(
                conflict.to_string(),
            )));
        }
        self.wires.insert(market, wire.clone());
        Ok(wire)
    }

    /// Reserves a name for a venue; returns the other venue if it is in use. A file without a venue
    /// matches any.
    fn take(&mut self, wire: &Symbol, venue: Option<&Symbol>) -> Option<Symbol> {
        let owner = self.taken.entry(wire.clone()).or_default();
        match (owner.as_ref(), venue) {
            (Some(owner), Some(venue)) if owner != venue => Some(owner.clone()),
            (Some(_), _) => None,
            (None, _) => {
                *owner = venue.cloned();
                None
            }
        }
    }
}
