//! Columns that the config names, by their header or by their number.

use super::super::row::{
    QuoteColumns, RowReader, RowType, SideColumn, SymbolAt, TradeColumns, VenueAt,
};
use super::super::{Columns, ReplayConfig};
use super::error::FormatError;
use super::start::Start;
use super::symbol::symbol_of;

/// A file whose columns the config names.
pub(super) struct Mapping {
    pub delimiter: u8,
    pub header: Option<Vec<String>>,
    pub rows: RowReader,
}

/// The columns of a file by the names that the config has.
struct Names {
    first: Vec<String>,
    /// Every name of the config is a number.
    by_number: bool,
}

impl Names {
    fn place(&self, wanted: &str) -> Result<usize, FormatError> {
        let number = is_number(wanted).then(|| wanted.parse::<usize>());
        if let Some(number) =
            number.filter(|_| !self.first.iter().any(|name| name == wanted) || self.by_number)
        {
            let columns = self.first.len();
            return number
                .ok()
                .filter(|number| (1..=columns).contains(number))
                .map(|number| number - 1)
                .ok_or_else(|| FormatError::NoColumnNumber {
                    columns,
                    wanted: wanted.to_owned(),
                });
        }
        let found = self.first.iter().position(|name| name == wanted);
        found.ok_or_else(|| FormatError::NoColumn {
            wanted: wanted.to_owned(),
            available: self.first.join(", "),
        })
    }

    fn optional(&self, wanted: Option<&String>) -> Result<Option<usize>, FormatError> {
        wanted.map(|name| self.place(name)).transpose()
    }

    fn pair(
        &self,
        px: Option<&String>,
        qty: Option<&String>,
    ) -> Result<Option<(usize, usize)>, FormatError> {
        match (self.optional(px)?, self.optional(qty)?) {
            (Some(px), Some(qty)) => Ok(Some((px, qty))),
            (None, None) => Ok(None),
            _ => Err(FormatError::IncompleteTrade),
        }
    }

    /// A side of quotes, which may have no size.
    fn side(
        &self,
        px: Option<&String>,
        qty: Option<&String>,
    ) -> Result<Option<(usize, Option<usize>)>, FormatError> {
        match (self.optional(px)?, self.optional(qty)?) {
            (Some(px), qty) => Ok(Some((px, qty))),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(FormatError::SizeWithoutPrice),
        }
    }
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.len() <= 4 && name.bytes().all(|b| b.is_ascii_digit())
}

fn all_numbers(columns: &Columns) -> bool {
    let optional = [
        &columns.symbol,
        &columns.venue,
        &columns.row_type,
        &columns.price,
        &columns.qty,
        &columns.side,
        &columns.id,
        &columns.bid,
        &columns.bid_qty,
        &columns.ask,
        &columns.ask_qty,
    ];
    let named = optional.into_iter().flatten();
    std::iter::once(&columns.time)
        .chain(named)
        .all(|name| is_number(name))
}

pub(super) fn map(
    start: &Start<'_>,
    name: &str,
    columns: &Columns,
    config: &ReplayConfig,
) -> Result<Mapping, FormatError> {
    let delimiter = start.delimiter();
    let names = Names {
        first: start.cells(0, delimiter),
        by_number: all_numbers(columns),
    };
    if names.first.is_empty() {
        return Err(FormatError::NoColumns);
    }
    let trade = names.pair(columns.price.as_ref(), columns.qty.as_ref())?;
    let side = names
        .optional(columns.side.as_ref())?
        .map_or(SideColumn::None, SideColumn::Word);
    let id = names.optional(columns.id.as_ref())?;
    let (bid, ask) = (
        names.side(columns.bid.as_ref(), columns.bid_qty.as_ref())?,
        names.side(columns.ask.as_ref(), columns.ask_qty.as_ref())?,
    );
    let symbol = match names.optional(columns.symbol.as_ref())? {
        Some(at) => SymbolAt::Column(at),
        None => SymbolAt::Fixed(symbol_of(name, config)?),
    };
    let mut rows = RowReader::new(names.place(&columns.time)?, symbol, config);
    rows.venue = names.optional(columns.venue.as_ref())?.map(VenueAt::Column);
    rows.row_type = names
        .optional(columns.row_type.as_ref())?
        .map(|column| RowType {
            column,
            trade: columns.trade.clone(),
            quote: columns.quote.clone(),
        });
    rows.trade = trade.map(|(px, qty)| TradeColumns { px, qty, side, id });
    rows.quote = (bid.is_some() || ask.is_some()).then_some(QuoteColumns { bid, ask });
    if !names.by_number && config.times.is_time(&names.first[rows.time]) {
        return Err(FormatError::NoHeader {
            first: names.first.join(","),
        });
    }
    // Numbers need no header: there is one where the first row has no time.
    let has_header = !names.by_number
        || names
            .first
            .get(rows.time)
            .is_none_or(|cell| !config.times.is_time(cell));
    Ok(Mapping {
        delimiter,
        header: has_header.then_some(names.first),
        rows,
    })
}
