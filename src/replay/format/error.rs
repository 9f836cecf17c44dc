use crate::market::SymbolError;
use crate::source::account::shown;

/// Supported formats.
const SUPPORTED: &str =
    "Tardis trades, quotes and book_snapshot, Binance trades, aggTrades and bookTicker";

/// Reason why the format of a file is not detected or not supported.
#[derive(Debug, thiserror::Error)]
pub(in crate::replay) enum FormatError {
    /// The first line cannot be split into cells.
    #[error(
        "no columns in the first line: the first 64 KiB are empty, or a quoted cell of the first line \
         has no closing quote on that line, or characters after it"
    )]
    NoColumns,
    /// Known format that is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// Bars of Binance, which have no header.
    #[error("klines (bars) cannot be replayed; use trades; tickcast derives bars from them")]
    Klines,
    /// No known format matches.
    #[error(
        "unknown file format; expected {SUPPORTED}, or a column mapping under `columns` in the config, e.g. {{time: ts, symbol: sym, price: px, qty: size}}, by header or by number from 1; first line: {}",
        shown(first)
    )]
    Unknown {
        /// The first line.
        first: String,
    },
    /// The name of the file has no symbol.
    #[error(
        "no symbol in the file name; expected SYMBOL-TYPE-DATE, e.g. BTCUSDT-trades-2024-08-08.csv, or set `columns.symbol`, `symbol` or --symbol"
    )]
    NoSymbol,
    /// The symbol in the file name is not a valid symbol.
    #[error("file name: {0}; set `symbol` or --symbol instead")]
    Symbol(SymbolError),
    /// A column number of the config is too large.
    #[error("no column {wanted}: the file has {columns} columns")]
    NoColumnNumber {
        /// Number of columns.
        columns: usize,
        /// Number in the config.
        wanted: String,
    },
    /// A column name of the config is not in the header.
    #[error("no column \"{wanted}\": the header has {}", shown(available))]
    NoColumn {
        /// Name in the config.
        wanted: String,
        /// Names in the header.
        available: String,
    },
    /// Trades need both.
    #[error("`columns`: trades need both `price` and `qty`")]
    IncompleteTrade,
    /// A side of quotes needs a price.
    #[error("`columns`: a quote size (`bid_qty`, `ask_qty`) needs its price (`bid`, `ask`)")]
    SizeWithoutPrice,
    /// The config names columns, but the file begins with a row.
    #[error(
        "the first line is a data row, not a header: {}; map the columns by number from 1",
        shown(first)
    )]
    NoHeader {
        /// The first line.
        first: String,
    },
}

impl FormatError {
    pub(super) fn unknown(first: &[&str]) -> Self {
        Self::Unknown {
            first: first.join(","),
        }
    }
}
