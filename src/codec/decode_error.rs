use std::str::Utf8Error;

use crate::market::{DecimalError, SymbolError};

/// Why a server's message can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's message can't be read: {0}")]
pub struct DecodeError(#[from] MessageFault);

/// Fault of a server's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageFault {
    /// The parser of the encoding says so.
    #[error("{0}")]
    Malformed(String),
    #[error("the message ends in the middle of a value")]
    CutShort,
    #[error("expected {wanted}, found 0x{marker:02x}")]
    Marker { wanted: &'static str, marker: u8 },
    #[error("expected an unsigned integer, found a negative one")]
    Negative,
    #[error(transparent)]
    NotUtf8(#[from] Utf8Error),
    #[error("a value is nested deeper than {0}")]
    TooDeep(usize),
    #[error("bytes follow the list of events")]
    BytesAfter,
    #[error("an event has `ch`, `sym`, `seq`, `ts` and `tx`")]
    NoEvent,
    #[error("no source is \"{}\"", .0.escape_debug())]
    Source(String),
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    #[error("the {of} has no `{field}`")]
    Missing {
        of: &'static str,
        field: &'static str,
    },
    #[error("`{field}`: {error}")]
    Decimal {
        field: &'static str,
        error: DecimalError,
    },
    #[error("`id` is too long")]
    LongId,
    #[error("the status has no known `state`")]
    State,
}
