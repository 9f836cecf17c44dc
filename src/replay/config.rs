//! Configuration of a replay.

use std::path::PathBuf;

use super::times::TimeRules;
use crate::market::{PriceRules, Symbol};

/// Replay speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// Multiple of the recorded pace.
    Times(f64),
    /// As fast as the bus accepts events.
    Max,
}

impl Speed {
    /// Reads `max`, or a number from 0.1 to 1000.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "max" {
            return Some(Self::Max);
        }
        text.parse()
            .ok()
            .filter(|times| (0.1..=1000.0).contains(times))
            .map(Self::Times)
    }
}

/// Start of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At server start.
    Now,
    /// After the first subscription to one of its topics.
    FirstSubscriber,
}

/// Use of the venue as a prefix of the symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VenueRule {
    /// Only if the first rows of the files have one symbol from several venues.
    Auto,
    /// The venue that the file names.
    Always,
    /// Never.
    Never,
    /// Always this venue.
    Named(Symbol),
}

impl VenueRule {
    /// Reads `auto`, `always`, `never`, or the name of a venue.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "auto" => Self::Auto,
            "always" => Self::Always,
            "never" => Self::Never,
            name => Self::Named(Symbol::new(name).ok()?),
        })
    }
}

/// Configuration of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayConfig {
    /// Files, folders, or patterns of files.
    pub files: Vec<PathBuf>,
    /// Replay speed.
    pub speed: Speed,
    /// Restart at the end.
    pub repeat: bool,
    /// Start of the replay.
    pub begin: Begin,
    /// Symbol for files that contain none.
    pub symbol: Option<Symbol>,
    /// Use of the venue as a prefix of symbols.
    pub venue: VenueRule,
    /// Number of bad lines after which the source stops.
    pub max_bad: u64,
    /// Bound of decompressed bytes per packed byte of a file.
    pub expansion_max: u64,
    /// Negative, zero and crossed prices.
    pub prices: PriceRules,
    /// Format of times, and the band of accepted times.
    pub times: TimeRules,
    /// Columns of CSV files whose format is not detected.
    pub columns: Option<Columns>,
}

/// Columns of a CSV file, by their names in its header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// The event's time.
    pub time: String,
    /// The symbol.
    pub symbol: Option<String>,
    /// The venue, put in front of the symbol.
    pub venue: Option<String>,
    /// Column that distinguishes trades from quotes.
    pub row_type: Option<String>,
    /// Value of that column for a trade.
    pub trade: String,
    /// Value of that column for a quote.
    pub quote: String,
    /// A trade's price.
    pub price: Option<String>,
    /// A trade's quantity.
    pub qty: Option<String>,
    /// A trade's aggressor.
    pub side: Option<String>,
    /// A trade's id.
    pub id: Option<String>,
    /// The best bid's price.
    pub bid: Option<String>,
    /// The best bid's quantity.
    pub bid_qty: Option<String>,
    /// The best offer's price.
    pub ask: Option<String>,
    /// The best offer's quantity.
    pub ask_qty: Option<String>,
}

impl ReplayConfig {
    /// Default number of bad lines after which a source stops.
    pub const MAX_BAD: u64 = 100;
    /// Default bound of decompressed bytes per packed byte.
    pub const EXPANSION_MAX: u64 = 500;

    /// Configuration of these files at the recorded pace, with defaults for all other keys.
    pub const fn of(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            speed: Speed::Times(1.0),
            repeat: false,
            begin: Begin::Now,
            symbol: None,
            venue: VenueRule::Auto,
            max_bad: Self::MAX_BAD,
            expansion_max: Self::EXPANSION_MAX,
            prices: PriceRules {
                negative: false,
                zero: false,
                crossed: true,
                zero_size_is_empty: false,
            },
            times: TimeRules::DEFAULT,
            columns: None,
        }
    }
}
