use std::str::Utf8Error;

use crate::market::{DecimalError, SymbolError};

/// Error in decoding a server message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode the server message: {0}")]
pub struct DecodeError(#[from] MessageFault);

/// Fault of a server's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MessageFault {
    /// Error of the encoding's parser.
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
    #[error("a value is nested too deeply: expected at most {0} levels")]
    TooDeep(usize),
    #[error("unexpected bytes after the list of events")]
    BytesAfter,
    #[error("incomplete event: expected `ch`, `sym`, `seq`, `ts` and `tx`")]
    NoEvent,
    #[error("unknown source kind \"{}\"", .0.escape_debug())]
    Source(String),
    #[error(transparent)]
    Symbol(#[from] SymbolError),
    #[error("missing `{field}` in the {of}")]
    Missing {
        of: &'static str,
        field: &'static str,
    },
    #[error("`{field}`: {error}")]
    Decimal {
        field: &'static str,
        error: DecimalError,
    },
    #[error("invalid `id`: expected up to 64 printable bytes")]
    LongId,
    #[error("missing or unknown `state` in the status")]
    State,
}
