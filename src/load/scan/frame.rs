//! Frames of a server: headers and close codes, with everything that RFC 6455 forbids.

#![deny(clippy::arithmetic_side_effects)]

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A violation of RFC 6455 by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame that no server may send (section 5).
    #[error("the server violated RFC 6455: {0}")]
    Protocol(&'static str),
    /// A text message or a close reason that is not UTF-8 (section 8.1).
    #[error("the server violated RFC 6455: invalid UTF-8 in {0}")]
    Utf8(&'static str),
    /// A message longer than the tester gathers.
    #[error("the server sent a message longer than 64 MiB")]
    TooLong,
}

impl FrameError {
    /// The close code that RFC 6455, section 7.4.1, gives the violation.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8(_) => 1007,
            Self::TooLong => 1009,
        }
    }
}

/// Header of a frame.
pub(super) struct Header {
    pub opcode: u8,
    pub is_final: bool,
    /// Bytes of the header itself.
    pub len: usize,
    /// Bytes of the payload.
    pub payload: u64,
}

/// Reads a frame's header; `None` where more bytes are needed.
pub(super) fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::Protocol("reserved bit set"));
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Protocol("masked server frame"));
    }
    let (opcode, is_final) = (first & 0x0f, first & 0x80 != 0);
    if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
        return Err(FrameError::Protocol("reserved opcode"));
    }
    let (len, payload, shortest) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b])), 126),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(long) => (10, u64::from_be_bytes(*long), 0x1_0000),
            None => return Ok(None),
        },
        short => (2, u64::from(short), 0),
    };
    if payload < shortest {
        return Err(FrameError::Protocol(
            "payload length not in its shortest form",
        ));
    }
    if payload > i64::MAX as u64 {
        return Err(FrameError::Protocol(
            "payload length of 64 bits; at most 63 are allowed",
        ));
    }
    if opcode >= CLOSE && (!is_final || payload > CONTROL_BYTES_MAX) {
        return Err(FrameError::Protocol(
            "control frame fragmented or longer than 125 bytes",
        ));
    }
    Ok(Some(Header {
        opcode,
        is_final,
        len,
        payload,
    }))
}

/// The code of a close frame (RFC 6455, sections 5.5.1 and 7.4); 1005 without one.
pub(super) fn close_code(payload: &[u8]) -> Result<u16, FrameError> {
    match payload {
        [] => Ok(1005),
        [_] => Err(FrameError::Protocol(
            "close frame with a payload of one byte",
        )),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(FrameError::Protocol("reserved close code"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(FrameError::Utf8("a close reason"));
            }
            Ok(code)
        }
    }
}
