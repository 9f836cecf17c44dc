//! Accounting of a recording: every row read is either emitted as an event or skipped for a reason.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::printable::{printable, shortened};

/// Reason for skipping a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// A cell is missing or has an invalid value.
    Malformed,
    /// A quoted cell is not closed on its line.
    Quote,
    /// The line is longer than the limit.
    TooLong,
    /// The line is not UTF-8.
    NotUtf8,
    /// The time cannot be parsed.
    Time,
    /// The time is far from neighboring times, or outside the configured band.
    TimeBand,
    /// The side is not a known keyword.
    Side,
    /// The symbol is not valid in a topic.
    Symbol,
    /// A trade with quantity zero.
    ZeroQuantity,
    /// A negative price, where the source does not allow it.
    NegativePrice,
    /// A price of zero, where the source does not allow it.
    ZeroPrice,
    /// A quote whose bid is above its ask, where the source does not allow it.
    Crossed,
    /// A price or quantity above the supported maximum.
    TooLarge,
    /// A repeated header row.
    Header,
    /// A row of a type that is neither a trade nor a quote.
    OtherType,
    /// The last row of a truncated or damaged file.
    Cut,
    /// The file is in descending time order and too long to be sorted.
    Order,
    /// The row was already played before the server stopped.
    PlayedBefore,
    /// The file was added after the server stopped, and the row is older than the replay position.
    BeforePosition,
}

impl Skip {
    /// Number of reasons.
    pub const COUNT: usize = 19;
    /// All reasons, ordered by index.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::Quote,
        Self::TooLong,
        Self::NotUtf8,
        Self::Time,
        Self::TimeBand,
        Self::Side,
        Self::Symbol,
        Self::ZeroQuantity,
        Self::NegativePrice,
        Self::ZeroPrice,
        Self::Crossed,
        Self::TooLarge,
        Self::Header,
        Self::OtherType,
        Self::Cut,
        Self::Order,
        Self::PlayedBefore,
        Self::BeforePosition,
    ];

    /// Identifier of the reason in metrics, logs and responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Quote => "quote",
            Self::TooLong => "too_long",
            Self::NotUtf8 => "not_utf8",
            Self::Time => "time",
            Self::TimeBand => "time_band",
            Self::Side => "side",
            Self::Symbol => "symbol",
            Self::ZeroQuantity => "zero_quantity",
            Self::NegativePrice => "negative_price",
            Self::ZeroPrice => "zero_price",
            Self::Crossed => "crossed",
            Self::TooLarge => "too_large",
            Self::Header => "header",
            Self::OtherType => "other_type",
            Self::Cut => "cut",
            Self::Order => "order",
            Self::PlayedBefore => "played_before",
            Self::BeforePosition => "before_position",
        }
    }

    /// True if the row counts against `max_bad`: the file is malformed.
    pub const fn is_bad(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::Quote
                | Self::TooLong
                | Self::NotUtf8
                | Self::Time
                | Self::TimeBand
                | Self::Side
        )
    }
}

/// Reason for skipping one row, with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct RowFault {
    pub skip: Skip,
    pub text: String,
}

impl RowFault {
    pub(crate) fn new(skip: Skip, text: impl Into<String>) -> Self {
        Self {
            skip,
            text: text.into(),
        }
    }
}

/// Skipped rows by reason.
pub(crate) type SkipCounts = [u64; Skip::COUNT];

/// Live account of one file, written by the source and read over HTTP.
#[derive(Debug)]
pub struct FileAccount {
    name: String,
    rows: AtomicU64,
    trades: AtomicU64,
    quotes: AtomicU64,
    skipped: [AtomicU64; Skip::COUNT],
    fault: OnceLock<Arc<str>>,
    is_done: AtomicBool,
}

/// Snapshot of one file's account, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Path of the file, followed by the name of its entry if it is an archive.
    pub file: String,
    /// Number of rows read.
    pub rows: u64,
    /// Number of trades emitted.
    pub trades: u64,
    /// Number of quotes emitted.
    pub quotes: u64,
    /// Number of rows skipped, by reason; reasons without rows are omitted.
    pub skipped: std::collections::BTreeMap<&'static str, u64>,
    /// Number of rows read ahead that are neither emitted nor skipped yet.
    pub waiting: u64,
    /// Error that prevented reading the file to its end, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// True if the whole file has been read and played.
    pub done: bool,
}

impl FileAccount {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            rows: AtomicU64::new(0),
            trades: AtomicU64::new(0),
            quotes: AtomicU64::new(0),
            skipped: [const { AtomicU64::new(0) }; Skip::COUNT],
            fault: OnceLock::new(),
            is_done: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn read(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn skip(&self, reason: Skip, rows: u64) {
        self.skipped[reason as usize].fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn emit_trade(&self) {
        self.trades.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn emit_quote(&self) {
        self.quotes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fail(&self, fault: &str) {
        // Keep the first fault: it is the one that ended the file.
        let _set_before = self.fault.set(fault.into());
    }

    pub(crate) fn fault(&self) -> Option<Arc<str>> {
        self.fault.get().cloned()
    }

    pub(crate) fn finish(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }

    /// Snapshot of the account.
    pub fn report(&self) -> FileReport {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (trades, quotes) = (of(&self.trades), of(&self.quotes));
        let skipped = Skip::ALL
            .into_iter()
            .map(|reason| (reason.name(), of(&self.skipped[reason as usize])))
            .filter(|(_, rows)| *rows > 0)
            .collect::<std::collections::BTreeMap<_, _>>();
        let rows = of(&self.rows);
        FileReport {
            file: self.name.clone(),
            rows,
            trades,
            quotes,
            waiting: rows.saturating_sub(trades + quotes + skipped.values().sum::<u64>()),
            skipped,
            error: self.fault().as_deref().map(str::to_owned),
            done: of_flag(&self.is_done),
        }
    }
}

fn of_flag(flag: &AtomicBool) -> bool {
    flag.load(Ordering::Relaxed)
}

impl FileReport {
    /// Skip reasons with their row counts, as in `header 1, zero_quantity 200`.
    pub(crate) fn skipped_text(&self) -> String {
        let each = self.skipped.iter();
        let texts: Vec<String> = each.map(|(why, rows)| format!("{why} {rows}")).collect();
        texts.join(", ")
    }
}

/// Maximum number of characters quoted from a file in messages.
const SHOWN_CHARS_MAX: usize = 200;

/// Text from a file, for a message: control characters escaped, truncated to 200 characters.
pub(crate) fn shown(text: &str) -> String {
    printable(&shortened(text, SHOWN_CHARS_MAX)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_name() {
        for (at, reason) in Skip::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        let names: std::collections::HashSet<_> = Skip::ALL.map(Skip::name).into_iter().collect();
        assert_eq!(names.len(), Skip::COUNT);
    }

    #[test]
    fn external_text_is_escaped_and_truncated() {
        assert_eq!(shown("a\r\nb\u{1b}[0m"), "a\\r\\nb\\u{1b}[0m");
        assert_eq!(shown("\u{202e}x"), "\\u{202e}x");
        let long = shown(&"é".repeat(1000));
        assert_eq!(long.chars().count(), 201);
    }
}
