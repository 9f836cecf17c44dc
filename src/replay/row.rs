//! One row of a recording as a trade or a quote.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::HashMap;

use super::ReplayConfig;
use super::record::Cells;
use super::times::TimeRules;
use crate::market::{
    Aggressor, Level, Price, PriceFault, PriceRules, Qty, Quote, Symbol, Trade, TradeId, UnixNanos,
    parse_decimal,
};
use crate::source::account::{RowFault, Skip, shown};

/// Row to be replayed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Venue of the trade, if the file names it.
    pub venue: Option<Symbol>,
    pub symbol: Symbol,
    pub body: RowBody,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum RowBody {
    Trade(Trade),
    Quote(Quote),
}

impl Row {
    pub(super) const fn ts(&self) -> UnixNanos {
        match &self.body {
            RowBody::Trade(trade) => trade.ts,
            RowBody::Quote(quote) => quote.ts,
        }
    }
}

/// Format of the side column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideColumn {
    /// A word of [`side`].
    Word(usize),
    /// True if the buyer was the maker: then the seller was the aggressor.
    BuyerIsMaker(usize),
    None,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TradeColumns {
    pub px: usize,
    pub qty: usize,
    pub side: SideColumn,
    pub id: Option<usize>,
}

/// Price and quantity of each side; a file may have no sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuoteColumns {
    pub bid: Option<(usize, Option<usize>)>,
    pub ask: Option<(usize, Option<usize>)>,
}

/// Distinguishes trades from quotes in a file with both.
#[derive(Debug, Clone)]
pub(super) struct RowType {
    pub column: usize,
    pub trade: String,
    pub quote: String,
}

#[derive(Debug, Clone)]
pub(super) enum SymbolAt {
    Column(usize),
    Fixed(Symbol),
}

#[derive(Debug, Clone)]
pub(super) enum VenueAt {
    Column(usize),
    Fixed(Symbol),
}

/// Parser of the rows of one file.
#[derive(Debug)]
pub(super) struct RowReader {
    pub time: usize,
    pub venue: Option<VenueAt>,
    pub symbol: SymbolAt,
    pub row_type: Option<RowType>,
    pub trade: Option<TradeColumns>,
    pub quote: Option<QuoteColumns>,
    prices: PriceRules,
    times: TimeRules,
    /// Symbols seen, so that each is checked and allocated once.
    known: HashMap<String, Symbol>,
}

impl RowReader {
    pub(super) fn new(time: usize, symbol: SymbolAt, config: &ReplayConfig) -> Self {
        Self {
            time,
            venue: None,
            symbol,
            row_type: None,
            trade: None,
            quote: None,
            prices: config.prices,
            times: config.times.clone(),
            known: HashMap::new(),
        }
    }

    /// Parses one row.
    pub(super) fn row(&mut self, cells: &Cells) -> Result<Row, RowFault> {
        let (trade, quote) = match &self.row_type {
            None => (self.trade, self.quote),
            Some(row_type) => {
                let kind = cell(cells, row_type.column)?;
                (
                    self.trade.filter(|_| kind == row_type.trade),
                    self.quote.filter(|_| kind == row_type.quote),
                )
            }
        };
        let ts = self.times.read(cell(cells, self.time)?)?;
        let body = if let Some(columns) = trade {
            let trade = read_trade(cells, columns, ts)?;
            let checked = self.prices.check_trade(&trade);
            checked.map_err(|fault| refused(fault, trade.qty.0.is_zero()))?;
            RowBody::Trade(trade)
        } else if let Some(columns) = quote {
            let quote = Quote {
                ts,
                bid: level(cells, columns.bid)?,
                ask: level(cells, columns.ask)?,
            };
            let admitted = self.prices.admit_quote(quote);
            RowBody::Quote(admitted.map_err(|fault| refused(fault, false))?)
        } else {
            return Err(RowFault::new(
                Skip::OtherType,
                "the row is neither a trade nor a quote",
            ));
        };
        let venue = match &self.venue {
            None => None,
            Some(VenueAt::Fixed(venue)) => Some(venue.clone()),
            Some(VenueAt::Column(at)) => match cell(cells, *at)? {
                "" => None,
                text => Some(known(&mut self.known, text)?),
            },
        };
        let symbol = match &self.symbol {
            SymbolAt::Fixed(symbol) => symbol.clone(),
            SymbolAt::Column(at) => known(&mut self.known, cell(cells, *at)?)?,
        };
        Ok(Row {
            venue,
            symbol,
            body,
        })
    }
}

fn malformed(text: impl Into<String>) -> RowFault {
    RowFault::new(Skip::Malformed, text)
}

fn cell(cells: &Cells, at: usize) -> Result<&str, RowFault> {
    cells.cell(at).ok_or_else(|| {
        malformed(format!(
            "the row has {} columns; column {} is missing",
            cells.len(),
            at.saturating_add(1)
        ))
    })
}

/// Maximum number of cached symbols of a file, so that a hostile file cannot exhaust memory.
const KNOWN_MAX: usize = 100_000;

fn known(symbols: &mut HashMap<String, Symbol>, text: &str) -> Result<Symbol, RowFault> {
    if let Some(symbol) = symbols.get(text) {
        return Ok(symbol.clone());
    }
    let symbol =
        Symbol::from_venue(text).map_err(|error| RowFault::new(Skip::Symbol, error.to_string()))?;
    if symbols.len() < KNOWN_MAX {
        symbols.insert(text.to_owned(), symbol.clone());
    }
    Ok(symbol)
}

fn decimal(text: &str) -> Result<rust_decimal::Decimal, RowFault> {
    parse_decimal(text).map_err(|error| malformed(shown(&error.to_string())))
}

fn read_trade(cells: &Cells, columns: TradeColumns, ts: UnixNanos) -> Result<Trade, RowFault> {
    let id = columns.id.map_or(Ok(""), |at| cell(cells, at))?;
    let id = TradeId::parse(id)
        .ok_or_else(|| malformed(format!("the id \"{}\" is longer than 64 bytes", shown(id))))?;
    Ok(Trade {
        ts,
        px: Price(decimal(cell(cells, columns.px)?)?),
        qty: Qty(decimal(cell(cells, columns.qty)?)?),
        side: match columns.side {
            SideColumn::None => Aggressor::None,
            SideColumn::Word(at) => side(cell(cells, at)?)?,
            SideColumn::BuyerIsMaker(at) => maker_side(cell(cells, at)?)?,
        },
        id,
    })
}

fn refused(fault: PriceFault, is_nothing: bool) -> RowFault {
    let skip = match fault {
        PriceFault::Quantity if is_nothing => Skip::ZeroQuantity,
        PriceFault::Quantity => Skip::Malformed,
        PriceFault::NegativePrice => Skip::NegativePrice,
        PriceFault::ZeroPrice => Skip::ZeroPrice,
        PriceFault::Crossed => Skip::Crossed,
        PriceFault::TooLarge | PriceFault::Overflow => Skip::TooLarge,
    };
    RowFault::new(skip, fault.to_string())
}

/// Aggressor by the words of venues. `bid` and `ask` name the side of the aggressor's order.
fn side(text: &str) -> Result<Aggressor, RowFault> {
    const BUY: [&str; 6] = ["buy", "b", "bid", "buyer", "1", "+1"];
    const SELL: [&str; 6] = ["sell", "s", "ask", "a", "seller", "-1"];
    const NONE: [&str; 6] = ["", "unknown", "none", "n", "n/a", "null"];
    let is_of = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is_of(&BUY) {
        Ok(Aggressor::Buy)
    } else if is_of(&SELL) {
        Ok(Aggressor::Sell)
    } else if is_of(&NONE) {
        Ok(Aggressor::None)
    } else {
        let text = format!(
            "invalid side \"{}\"; expected buy, sell, b, s, bid, ask, 1, -1 or unknown",
            shown(text)
        );
        Err(RowFault::new(Skip::Side, text))
    }
}

fn maker_side(text: &str) -> Result<Aggressor, RowFault> {
    if text.eq_ignore_ascii_case("true") {
        Ok(Aggressor::Sell)
    } else if text.eq_ignore_ascii_case("false") {
        Ok(Aggressor::Buy)
    } else {
        let text = format!(
            "invalid maker flag \"{}\"; expected true or false",
            shown(text)
        );
        Err(RowFault::new(Skip::Side, text))
    }
}

/// A side of a quote; an empty price is an empty side, an empty quantity is an unknown size.
fn level(
    cells: &Cells,
    columns: Option<(usize, Option<usize>)>,
) -> Result<Option<Level>, RowFault> {
    let Some((px, qty)) = columns else {
        return Ok(None);
    };
    let px = cell(cells, px)?;
    let qty = qty.map_or(Ok(""), |at| cell(cells, at))?;
    if px.is_empty() {
        return Ok(None);
    }
    let qty = Some(qty).filter(|qty| !qty.is_empty());
    Ok(Some(Level {
        px: Price(decimal(px)?),
        qty: qty.map(decimal).transpose()?.map(Qty),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_parsed_in_all_venue_spellings_or_rejected() {
        for (text, aggressor) in [
            ("buy", Aggressor::Buy),
            ("B", Aggressor::Buy),
            ("b", Aggressor::Buy),
            ("BID", Aggressor::Buy),
            ("1", Aggressor::Buy),
            ("Sell", Aggressor::Sell),
            ("s", Aggressor::Sell),
            ("ask", Aggressor::Sell),
            ("A", Aggressor::Sell),
            ("-1", Aggressor::Sell),
            ("", Aggressor::None),
            ("N", Aggressor::None),
            ("unknown", Aggressor::None),
        ] {
            assert_eq!(side(text), Ok(aggressor), "{text}");
        }
        for text in ["up", "2", "0", "buyy", "\r", "true"] {
            assert_eq!(side(text).map_err(|fault| fault.skip), Err(Skip::Side));
        }
        for (text, aggressor) in [("True", Aggressor::Sell), ("FALSE", Aggressor::Buy)] {
            assert_eq!(maker_side(text), Ok(aggressor));
        }
        assert_eq!(maker_side("1").map_err(|fault| fault.skip), Err(Skip::Side));
    }
}
