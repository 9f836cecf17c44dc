//! The forms of recorded CSV: which column is what, and how times and sides are written.

use std::collections::HashMap;

use crate::market::{
    Aggressor, Level, Price, PriceRules, Qty, Quote, Symbol, Trade, TradeId, UnixNanos,
    parse_decimal,
};

use super::Columns;

/// One row that says something.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Where it was traded, where the file tells.
    pub venue: Option<Symbol>,
    pub symbol: Symbol,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Trade(Trade),
    Quote(Quote),
}

impl Row {
    pub(super) const fn ts(&self) -> UnixNanos {
        match &self.what {
            What::Trade(trade) => trade.ts,
            What::Quote(quote) => quote.ts,
        }
    }
}

/// Why a line is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct RowError(pub String);

/// How a side is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// `buy`, `sell`, in any case; anything else is unknown.
    Word(usize),
    /// Whether the buyer was the maker: then the seller was the aggressor.
    BuyerIsMaker(usize),
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct TradeColumns {
    px: usize,
    qty: usize,
    side: Side,
    id: Option<usize>,
}

/// Price and quantity of each side.
#[derive(Debug, Clone, Copy)]
struct QuoteColumns {
    bid: Option<(usize, usize)>,
    ask: Option<(usize, usize)>,
}

/// Tells trades from quotes where both are in one file.
#[derive(Debug, Clone)]
struct RowType {
    column: usize,
    trade: String,
    quote: String,
}

#[derive(Debug, Clone)]
enum SymbolAt {
    Column(usize),
    Fixed(Symbol),
}

/// One file's form.
#[derive(Debug)]
pub(super) struct Format {
    delimiter: u8,
    has_header: bool,
    time: usize,
    venue: Option<usize>,
    symbol: SymbolAt,
    row_type: Option<RowType>,
    trade: Option<TradeColumns>,
    quote: Option<QuoteColumns>,
    /// Symbols seen, so that each is checked and allocated once.
    known: HashMap<String, Symbol>,
    prices: PriceRules,
}

const TARDIS_TRADES: &str = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount";
const TARDIS_QUOTES: &str =
    "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount";
const TARDIS_BOOK: &str = "exchange,symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,bids[0].amount";
const BINANCE_BOOK_TICKER: &str =
    "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time";
const KNOWN: &str =
    "Tardis trades, quotes and book_snapshot, Binance trades, aggTrades and bookTicker";

impl Format {
    /// Finds out the form from a file's first lines and its name.
    pub(super) fn detect(
        start: &str,
        name: &str,
        columns: Option<&Columns>,
        symbol: Option<&str>,
    ) -> Result<Self, String> {
        let first = start.lines().next().unwrap_or_default().trim_end();
        if first.is_empty() {
            return Err("the file is empty".to_owned());
        }
        if let Some(columns) = columns {
            return Self::mapped(first, name, columns, symbol);
        }
        if let Some(tardis) = Self::tardis(first) {
            return Ok(tardis);
        }
        let cells: Vec<&str> = first.split(',').collect();
        let has_header = cells[0].parse::<f64>().is_err();
        let sample = if has_header {
            start.lines().nth(1).unwrap_or_default()
        } else {
            first
        };
        let is_flag =
            |cell: &&str| cell.eq_ignore_ascii_case("true") || cell.eq_ignore_ascii_case("false");
        let flags: Vec<bool> = sample
            .trim_end()
            .split(',')
            .map(|cell| is_flag(&cell))
            .collect();
        let (trade, quote, time) = match (flags.as_slice(), first) {
            (_, BINANCE_BOOK_TICKER) => (None, Some(BOOK_TICKER), 5),
            ([false, false, false, false, false, true, true], _) => {
                (Some(binance_trade(5)), None, 4)
            }
            ([false, false, false, false, false, true], _) => (Some(binance_trade(5)), None, 4),
            ([false, false, false, false, false, false, true, true], _) => {
                (Some(binance_trade(6)), None, 5)
            }
            ([false, false, false, false, false, false, true], _) => {
                (Some(binance_trade(6)), None, 5)
            }
            ([false, false, false, false, false, false, false], _) if !has_header => {
                (None, Some(BOOK_TICKER), 5)
            }
            _ => {
                return Err(format!(
                    "its form is unknown (known: {KNOWN}); say which column is what under `columns` in a config"
                ));
            }
        };
        let symbol = fixed_symbol(symbol, name)?;
        Ok(Self {
            delimiter: b',',
            has_header,
            time,
            venue: None,
            symbol: SymbolAt::Fixed(symbol),
            row_type: None,
            trade,
            quote,
            known: HashMap::new(),
            prices: PriceRules::default(),
        })
    }

    fn tardis(header: &str) -> Option<Self> {
        let (trade, quote) = match header {
            TARDIS_TRADES => (
                Some(TradeColumns {
                    px: 6,
                    qty: 7,
                    side: Side::Word(5),
                    id: Some(4),
                }),
                None,
            ),
            TARDIS_QUOTES => (
                None,
                Some(QuoteColumns {
                    bid: Some((6, 7)),
                    ask: Some((5, 4)),
                }),
            ),
            header if header.starts_with(TARDIS_BOOK) => (
                None,
                Some(QuoteColumns {
                    bid: Some((6, 7)),
                    ask: Some((4, 5)),
                }),
            ),
            _ => return None,
        };
        Some(Self {
            delimiter: b',',
            has_header: true,
            time: 2,
            venue: Some(0),
            symbol: SymbolAt::Column(1),
            row_type: None,
            trade,
            quote,
            known: HashMap::new(),
            prices: PriceRules::default(),
        })
    }

    fn mapped(
        header: &str,
        name: &str,
        columns: &Columns,
        symbol: Option<&str>,
    ) -> Result<Self, String> {
        let delimiter = [',', ';', '|', '\t']
            .into_iter()
            .max_by_key(|delimiter| header.matches(*delimiter).count())
            .unwrap_or(',');
        let names: Vec<&str> = header
            .split(delimiter)
            .map(|name| name.trim().trim_matches('"'))
            .collect();
        let place = |wanted: &str| {
            let found = names.iter().position(|name| *name == wanted);
            found.ok_or_else(|| {
                format!(
                    "it has no column \"{wanted}\"; there are {}",
                    names.join(", ")
                )
            })
        };
        let optional = |wanted: &Option<String>| wanted.as_deref().map(place).transpose();
        let pair = |px: &Option<String>, qty: &Option<String>| match (optional(px)?, optional(qty)?)
        {
            (Some(px), Some(qty)) => Ok(Some((px, qty))),
            (None, None) => Ok(None),
            _ => Err("a price and its quantity must be named together".to_owned()),
        };
        let trade = pair(&columns.price, &columns.qty)?;
        let side = optional(&columns.side)?.map_or(Side::Unknown, Side::Word);
        let id = optional(&columns.id)?;
        let (bid, ask) = (
            pair(&columns.bid, &columns.bid_qty)?,
            pair(&columns.ask, &columns.ask_qty)?,
        );
        let row_type = optional(&columns.row_type)?;
        let fixed = || fixed_symbol(symbol, name).map(SymbolAt::Fixed);
        Ok(Self {
            delimiter: delimiter as u8,
            has_header: true,
            time: place(&columns.time)?,
            venue: optional(&columns.venue)?,
            symbol: optional(&columns.symbol)?
                .map(SymbolAt::Column)
                .map_or_else(fixed, Ok)?,
            row_type: row_type.map(|column| RowType {
                column,
                trade: columns.trade.clone(),
                quote: columns.quote.clone(),
            }),
            trade: trade.map(|(px, qty)| TradeColumns { px, qty, side, id }),
            quote: (bid.is_some() || ask.is_some()).then_some(QuoteColumns { bid, ask }),
            known: HashMap::new(),
            prices: PriceRules::default(),
        })
    }

    pub(super) fn with_rules(self, prices: PriceRules) -> Self {
        Self { prices, ..self }
    }

    pub(super) const fn has_header(&self) -> bool {
        self.has_header
    }

    pub(super) const fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) const fn has_trades(&self) -> bool {
        self.trade.is_some()
    }

    pub(super) const fn has_quotes(&self) -> bool {
        self.quote.is_some()
    }

    /// Reads one line; `None` for one of a type that isn't wanted.
    pub(super) fn row(&mut self, record: &csv::StringRecord) -> Result<Option<Row>, RowError> {
        let cell = |at: usize| {
            record.get(at).ok_or_else(|| {
                RowError(format!(
                    "has {} columns, but column {} is needed",
                    record.len(),
                    at + 1
                ))
            })
        };
        let (trade, quote) = match &self.row_type {
            None => (self.trade, self.quote),
            Some(row_type) => {
                let kind = cell(row_type.column)?;
                (
                    self.trade.filter(|_| kind == row_type.trade),
                    self.quote.filter(|_| kind == row_type.quote),
                )
            }
        };
        if trade.is_none() && quote.is_none() {
            return Ok(None);
        }
        let ts = time(cell(self.time)?)?;
        let venue = self
            .venue
            .map(|at| cell(at).and_then(|text| known(&mut self.known, text)))
            .transpose()?;
        let symbol = match &self.symbol {
            SymbolAt::Fixed(symbol) => symbol.clone(),
            SymbolAt::Column(at) => known(&mut self.known, cell(*at)?)?,
        };
        let what = if let Some(columns) = trade {
            What::Trade(trade_of(record, columns, ts)?)
        } else {
            let columns = quote.expect("one of both is there");
            let bid = columns
                .bid
                .map(|(px, qty)| level(cell(px)?, cell(qty)?))
                .transpose()?
                .flatten();
            let ask = columns
                .ask
                .map(|(px, qty)| level(cell(px)?, cell(qty)?))
                .transpose()?
                .flatten();
            What::Quote(Quote { ts, bid, ask })
        };
        match &what {
            What::Trade(trade) => self.prices.check_trade(trade),
            What::Quote(quote) => self.prices.check_quote(quote),
        }
        .map_err(|fault| RowError(fault.to_string()))?;
        Ok(Some(Row {
            venue,
            symbol,
            what,
        }))
    }
}

const BOOK_TICKER: QuoteColumns = QuoteColumns {
    bid: Some((1, 2)),
    ask: Some((3, 4)),
};

const fn binance_trade(buyer_is_maker: usize) -> TradeColumns {
    TradeColumns {
        px: 1,
        qty: 2,
        side: Side::BuyerIsMaker(buyer_is_maker),
        id: Some(0),
    }
}

fn trade_of(
    record: &csv::StringRecord,
    columns: TradeColumns,
    ts: UnixNanos,
) -> Result<Trade, RowError> {
    let cell = |at: usize| record.get(at).unwrap_or_default();
    let side = match columns.side {
        Side::Unknown => Aggressor::None,
        Side::Word(at) if cell(at).eq_ignore_ascii_case("buy") => Aggressor::Buy,
        Side::Word(at) if cell(at).eq_ignore_ascii_case("sell") => Aggressor::Sell,
        Side::Word(_) => Aggressor::None,
        Side::BuyerIsMaker(at) if cell(at).eq_ignore_ascii_case("true") => Aggressor::Sell,
        Side::BuyerIsMaker(at) if cell(at).eq_ignore_ascii_case("false") => Aggressor::Buy,
        Side::BuyerIsMaker(at) => {
            return Err(RowError(format!(
                "\"{}\" is neither true nor false",
                cell(at)
            )));
        }
    };
    let id = columns.id.map_or("", cell);
    let id = TradeId::parse(id)
        .ok_or_else(|| RowError("the id is longer than 64 characters".to_owned()))?;
    Ok(Trade {
        ts,
        px: Price(decimal(cell(columns.px))?),
        qty: Qty(decimal(cell(columns.qty))?),
        side,
        id,
    })
}

/// The symbol that the config gives, or that the file's name holds.
fn fixed_symbol(given: Option<&str>, name: &str) -> Result<Symbol, String> {
    if let Some(text) = given {
        return Symbol::new(text).map_err(|error| error.to_string());
    }
    let text = binance_symbol(name).ok_or(
        "no symbol in its name (SYMBOL-type-date); name its column, or give one with --symbol or `symbol`",
    )?;
    Symbol::from_venue(&text)
        .map_err(|error| format!("in its name, {error}; give one with --symbol or `symbol`"))
}

fn known(symbols: &mut HashMap<String, Symbol>, text: &str) -> Result<Symbol, RowError> {
    if let Some(symbol) = symbols.get(text) {
        return Ok(symbol.clone());
    }
    let symbol = Symbol::from_venue(text).map_err(|error| RowError(error.to_string()))?;
    symbols.insert(text.to_owned(), symbol.clone());
    Ok(symbol)
}

fn decimal(text: &str) -> Result<rust_decimal::Decimal, RowError> {
    parse_decimal(text).map_err(|error| RowError(error.to_string()))
}

/// A side of a quote; empty cells are an empty side.
fn level(px: &str, qty: &str) -> Result<Option<Level>, RowError> {
    if px.is_empty() {
        return Ok(None);
    }
    let qty = if qty.is_empty() { "0" } else { qty };
    Ok(Some(Level {
        px: Price(decimal(px)?),
        qty: Qty(decimal(qty)?),
    }))
}

/// A time: ISO, or a number since 1970 whose unit its size tells (from 10^17 on ns, 10^14 µs, 10^11 ms, else seconds, which
/// may have decimals).
fn time(text: &str) -> Result<UnixNanos, RowError> {
    let wrong = || {
        RowError(format!(
            "\"{}\" is no time",
            text.chars().take(40).collect::<String>()
        ))
    };
    let time = match (text.parse::<u64>(), text.split_once('.')) {
        (Ok(number), _) => UnixNanos::of_any_unit(number),
        (Err(_), Some((whole, fraction))) => UnixNanos::of_seconds(whole, fraction),
        (Err(_), None) => None,
    };
    time.or_else(|| UnixNanos::parse_utc(text).ok())
        .ok_or_else(wrong)
}

/// `SYMBOL-type-date…`: what stands before a last `_` in front of it is no part, but for a future's own suffix.
fn binance_symbol(name: &str) -> Option<String> {
    let head = name
        .split('-')
        .next()
        .filter(|head| head.len() < name.len())?;
    let parts: Vec<&str> = head.split('_').collect();
    let (last, rest) = parts.split_last()?;
    let is_suffix =
        *last == "PERP" || (last.len() == 6 && last.bytes().all(|b| b.is_ascii_digit()));
    match rest.last() {
        Some(base) if is_suffix => Some(format!("{base}_{last}")),
        _ => Some((*last).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(text: &str, name: &str, columns: Option<&Columns>) -> Result<Vec<Row>, String> {
        let mut format = Format::detect(text, name, columns, None)?;
        let mut csv = csv::ReaderBuilder::new()
            .has_headers(format.has_header())
            .delimiter(format.delimiter())
            .flexible(true)
            .from_reader(text.as_bytes());
        let records = csv.records().filter_map(Result::ok).collect::<Vec<_>>();
        Ok(records
            .iter()
            .filter_map(|record| format.row(record).ok().flatten())
            .collect())
    }

    #[test]
    fn symbols_stand_in_binance_names() {
        for (name, symbol) in [
            ("BTCUSDT-trades-2024-08-08.zip", "BTCUSDT"),
            ("derived_usdm_BTCUSDT-trades-2024-08-08.csv.gz", "BTCUSDT"),
            ("BTCUSD_PERP-aggTrades-2024-08.csv", "BTCUSD_PERP"),
            ("BTCUSD_240927-trades-2024-08.csv", "BTCUSD_240927"),
        ] {
            assert_eq!(binance_symbol(name).as_deref(), Some(symbol));
        }
        assert_eq!(binance_symbol("trades.csv"), None);
    }

    #[test]
    fn times_are_read_in_the_unit_that_their_size_tells() {
        let nanos = UnixNanos(1_723_161_255_342_000_000);
        for text in [
            "1723161255342000000",
            "1723161255342000",
            "1723161255342",
            "1723161255.342",
            "2024-08-08T23:54:15.342Z",
        ] {
            assert_eq!(time(text), Ok(nanos), "{text}");
        }
        assert!(time("soon").is_err() && time("").is_err());
    }

    #[test]
    fn every_known_form_is_found_out_by_looking() {
        let px = |text: &str, name: &str| {
            let rows = rows(text, name, None).expect("a known form");
            match &rows[0].what {
                What::Trade(trade) => (trade.px.0.to_string(), trade.side.name()),
                What::Quote(quote) => (
                    quote.bid.expect("a bid").px.0.to_string(),
                    quote.ask.map_or("no ask", |_| "ask"),
                ),
            }
        };
        let name = "BTCUSDT-x-2024-08-08.csv";
        assert_eq!(
            px("1,5.10,2,9,1723161255342,True,True\n", name),
            ("5.10".into(), "sell"),
            "spot trades"
        );
        assert_eq!(
            px("1,5.10,2,9,1723161255342,false\n", name),
            ("5.10".into(), "buy"),
            "futures trades, no header"
        );
        assert_eq!(
            px(
                "id,price,qty,quote_qty,time,is_buyer_maker\n1,5.10,2,9,1723161255342,true\n",
                name
            ),
            ("5.10".into(), "sell")
        );
        assert_eq!(
            px("1,5.10,2,8,9,1723161255342,False,True\n", name),
            ("5.10".into(), "buy"),
            "spot aggTrades"
        );
        assert_eq!(
            px("1,5.10,2,8,9,1723161255342,true\n", name),
            ("5.10".into(), "sell"),
            "futures aggTrades, no header"
        );
        assert_eq!(
            px("1,5.10,2,5.20,3,1723161255342,1723161255342\n", name),
            ("5.10".into(), "ask"),
            "bookTicker, no header"
        );
        assert_eq!(
            px(
                &format!("{TARDIS_TRADES}\nx,A,1723161255342000,1,i,unknown,5.10,2\n"),
                "t.csv"
            ),
            ("5.10".into(), "none")
        );
        assert_eq!(
            px(
                &format!("{TARDIS_QUOTES}\nx,A,1723161255342000,1,3,,5.10,2\n"),
                "t.csv"
            ),
            ("5.10".into(), "no ask")
        );
        assert!(
            rows("a,b\n1,2\n", "f.csv", None)
                .is_err_and(|error| error.contains("its form is unknown"))
        );
    }

    #[test]
    fn columns_can_be_named() {
        let columns = Columns {
            time: "t".into(),
            symbol: Some("s".into()),
            price: Some("p".into()),
            qty: Some("q".into()),
            ..Columns::default()
        };
        let rows = rows(
            "q;s;t;p\n1;A;1723161255;2.50\n0;A;1723161255;2.50\n",
            "f.csv",
            Some(&columns),
        )
        .expect("a mapped form");
        assert_eq!(rows.len(), 1, "a trade of nothing is bad");
        let wrong = Columns {
            time: "time".into(),
            ..columns
        };
        assert!(
            Format::detect("q;s;t;p\n", "f.csv", Some(&wrong), None)
                .is_err_and(|error| error.contains("no column \"time\""))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(text in "[ -~\n]{0,300}") {
            let _known_form = rows(&text, "A-trades-2024-01-01.csv", None);
            let _tardis = rows(&format!("{TARDIS_TRADES}\n{text}"), "t.csv", None);
        }

        #[test]
        fn what_is_written_is_read(px in 1u64..1_000_000_000, qty in 1u64..1_000_000, ms in 100_000_000_000u64..4_000_000_000_000) {
            let line = format!("7,{}.{:02},{qty},1,{ms},true\n", px / 100, px % 100);
            let rows = rows(&line, "A-trades-2024-01-01.csv", None).expect("futures trades");
            let What::Trade(trade) = &rows[0].what else { return Err(TestCaseError::fail("a trade")) };
            prop_assert_eq!(trade.px.0, rust_decimal::Decimal::new(px as i64, 2));
            prop_assert_eq!(trade.ts.0, ms * 1_000_000);
        }
    }
}
