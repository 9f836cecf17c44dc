use crate::market::SymbolError;
use crate::source::account::shown;

/// Supported formats.
const KNOWN: &str =
    "Tardis trades, quotes and book_snapshot, Binance trades, aggTrades and bookTicker";

/// Reason why the format of a file is not detected or not supported.
#[derive(Debug, thiserror::Error)]
pub(in crate::replay) enum FormError {
    /// The first line cannot be split into cells.
    #[error(
        "it has no first line of cells: its first 64 KiB are empty lines, or a quoted cell of \
     its first line has no closing quote on that line, or characters after it"
    )]
    Unclosed,
    /// Known format that is not supported.
    #[error("{0}")]
    NotPlayed(String),
    /// Bars of Binance, which have no header.
    #[error("this holds klines (bars), which are not played; tickcast makes bars from trades")]
    Klines,
    /// No known format matches.
    #[error(
        "its form is unknown (known: {KNOWN}); name its columns under `columns` in a config, by header or by number from 1; its first line is {}",
        shown(first)
    )]
    Unknown {
        /// The first line.
        first: String,
    },
    /// The name of the file has no symbol.
    #[error(
        "no symbol in its name (SYMBOL-type-date); name its column, or give one with --symbol or `symbol`"
    )]
    NoSymbol,
    /// The symbol in the file name is not a valid symbol.
    #[error("in its name, {0}; give one with --symbol or `symbol`")]
    Symbol(SymbolError),
    /// A column number of the config is too large.
    #[error("it has {columns} columns, so none has the number {wanted}")]
    NoNumber {
        /// Number of columns.
        columns: usize,
        /// Number in the config.
        wanted: String,
    },
    /// A column name of the config is not in the header.
    #[error("it has no column \"{wanted}\"; it has {}", shown(there))]
    NoColumn {
        /// Name in the config.
        wanted: String,
        /// Names in the header.
        there: String,
    },
    /// Trades need both.
    #[error("the price and the quantity of trades must be named together")]
    HalfTrade,
    /// A side of quotes needs a price.
    #[error("the size of a side of quotes is named, but not its price")]
    SizeAlone,
    /// The config names columns, but the file begins with a row.
    #[error(
        "its first line is a row and no header: {}; name the columns by their numbers from 1",
        shown(first)
    )]
    NoHeader {
        /// The first line.
        first: String,
    },
}

impl FormError {
    pub(super) fn unknown(first: &[&str]) -> Self {
        Self::Unknown {
            first: first.join(","),
        }
    }
}
