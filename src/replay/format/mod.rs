//! Formats of recorded CSV files, detected from the header, the first row and the file name.

mod columns;
mod error;
mod start;
mod symbol;

use super::record::Cells;
use super::row::{QuoteColumns, RowReader, SideColumn, SymbolAt, TradeColumns};
use super::{ReplayConfig, unsupported};
use crate::market::Symbol;
use crate::source::account::{RowFault, Skip};
use columns::Mapping;
use error::FormatError;
use start::Start;
use symbol::symbol_of;

/// Format of a file.
#[derive(Debug)]
pub(super) struct Format {
    pub delimiter: u8,
    /// Cells of the header, if the file has one.
    pub header: Option<Vec<String>>,
    pub rows: RowReader,
}

const TARDIS_TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount";
const TARDIS_QUOTES: &str =
    "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount";
const TARDIS_BOOK: &str = "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount";
const BOOK_TICKER: &str =
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time";
const FUTURES_TRADES: [&str; 2] = [
    "id,price,qty,quote_qty,time,is_buyer_maker",
    "id,price,qty,base_qty,time,is_buyer_maker",
];
const FUTURES_AGG_TRADES: &str =
    "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker";
impl Format {
    /// Detects the format from the first lines and the name of a file.
    pub(super) fn detect(
        start: &str,
        name: &str,
        config: &ReplayConfig,
    ) -> Result<Self, FormatError> {
        let start = Start::of(start);
        if let Some(columns) = &config.columns {
            let Mapping {
                delimiter,
                header,
                rows,
            } = columns::map(&start, name, columns, config)?;
            return Ok(Self {
                delimiter,
                header,
                rows,
            });
        }
        let delimiter = start.delimiter();
        let first = start.cells(0, delimiter);
        if first.is_empty() {
            return Err(FormatError::NoColumns);
        }
        let names: Vec<&str> = first.iter().map(String::as_str).collect();
        let joined = names.join(",").to_ascii_lowercase();
        if let Some(why) = unsupported::by_header(&names, name) {
            return Err(FormatError::Unsupported(why));
        }
        if unsupported::is_klines(&names) {
            return Err(FormatError::Klines);
        }
        let rows = if let Some(rows) = tardis(&joined, config) {
            rows
        } else {
            let second = start.cells(1, delimiter);
            binance(&names, &joined, &second, name, config)?
        };
        let has_header = names[0].parse::<f64>().is_err();
        Ok(Self {
            delimiter,
            header: has_header.then_some(first),
            rows,
        })
    }

    /// True if a row repeats the header, as in concatenated files.
    pub(super) fn is_header(&self, cells: &Cells) -> bool {
        self.header
            .as_ref()
            .is_some_and(|header| header.len() == cells.len() && cells.iter().eq(header))
    }
}

const fn sized((px, qty): (usize, usize)) -> (usize, Option<usize>) {
    (px, Some(qty))
}

fn tardis(header: &str, config: &ReplayConfig) -> Option<RowReader> {
    let trade = |px, qty, side, id| TradeColumns {
        px,
        qty,
        side: SideColumn::Word(side),
        id: Some(id),
    };
    let quote = |bid, ask| QuoteColumns {
        bid: Some(sized(bid)),
        ask: Some(sized(ask)),
    };
    let (trade, quote) = if header == TARDIS_TRADES {
        (Some(trade(6, 7, 5, 4)), None)
    } else if header == TARDIS_QUOTES {
        (None, Some(quote((6, 7), (5, 4))))
    } else if header.starts_with(TARDIS_BOOK) {
        (None, Some(quote((6, 7), (4, 5))))
    } else {
        return None;
    };
    let mut rows = RowReader::new(2, SymbolAt::Column(1), config);
    rows.venue = Some(super::row::VenueAt::Column(0));
    (rows.trade, rows.quote) = (trade, quote);
    Some(rows)
}

/// True if the market of a Binance file is the spot market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Market {
    Spot,
    Futures,
}

impl Market {
    /// Name of the venue, as Tardis writes it.
    fn venue(self, symbol: &str) -> &'static str {
        let is_coin_margined = symbol
            .split_once('_')
            .is_some_and(|(base, _)| base.ends_with("USD"));
        match self {
            Self::Spot => "binance",
            Self::Futures if is_coin_margined => "binance-delivery",
            Self::Futures => "binance-futures",
        }
    }
}

fn binance(
    first: &[&str],
    joined: &str,
    second: &[String],
    name: &str,
    config: &ReplayConfig,
) -> Result<RowReader, FormatError> {
    let has_header = first[0].parse::<f64>().is_err();
    let is_flag =
        |cell: &str| cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false");
    let flags: Vec<bool> = if has_header {
        second.iter().map(|cell| is_flag(cell)).collect()
    } else {
        first.iter().map(|cell| is_flag(cell)).collect()
    };
    let flags: String = flags.iter().map(|is| if *is { 'f' } else { '-' }).collect();
    let (trade, time, market) = match (joined, flags.as_str()) {
        (BOOK_TICKER, _) => (None, 5, Market::Futures),
        (header, _) if FUTURES_TRADES.contains(&header) => (Some(5), 4, Market::Futures),
        (FUTURES_AGG_TRADES, _) => (Some(6), 5, Market::Futures),
        (_, "-----ff") => (Some(5), 4, Market::Spot),
        (_, "-----f") => (Some(5), 4, Market::Futures),
        (_, "------ff") => (Some(6), 5, Market::Spot),
        (_, "------f") => (Some(6), 5, Market::Futures),
        (_, "-------") if !has_header => (None, 5, Market::Futures),
        _ => return Err(FormatError::unknown(first)),
    };
    let symbol = symbol_of(name, config)?;
    let mut rows = RowReader::new(time, SymbolAt::Fixed(symbol.clone()), config);
    let venue = Symbol::new(market.venue(symbol.as_str())).ok();
    rows.venue = venue.map(super::row::VenueAt::Fixed);
    match trade {
        Some(buyer_is_maker) => {
            rows.trade = Some(TradeColumns {
                px: 1,
                qty: 2,
                side: SideColumn::BuyerIsMaker(buyer_is_maker),
                id: Some(0),
            });
        }
        None => {
            rows.quote = Some(QuoteColumns {
                bid: Some(sized((1, 2))),
                ask: Some(sized((3, 4))),
            });
        }
    }
    Ok(rows)
}

/// Parses one line of a format.
pub(super) fn read_line(
    format: &mut Format,
    cells: &mut Cells,
    line: &[u8],
) -> Result<super::row::Row, RowFault> {
    let text = std::str::from_utf8(line)
        .map_err(|_wrong| RowFault::new(Skip::NotUtf8, "invalid UTF-8"))?;
    cells
        .split(text, format.delimiter)
        .map_err(|fault| RowFault::new(Skip::Quote, fault.to_string()))?;
    if format.is_header(cells) {
        return Err(RowFault::new(Skip::Header, "repeated header"));
    }
    format.rows.row(cells)
}

#[cfg(test)]
mod tests;
