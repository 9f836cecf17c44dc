//! Frames of a server, as they come in pieces: counted without a copy, or handed on whole.

#![deny(clippy::arithmetic_side_effects)]

mod frame;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "tests compute with small constants"
)]
mod tests;
mod utf8_check;

pub use frame::FrameError;
use frame::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_code, header};
use utf8_check::Utf8Check;

/// Purpose for which a payload is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Arrays of MessagePack are counted by their header and skipped; all else is handed on whole.
    Count,
    /// Every message is delivered whole.
    Whole,
    /// All messages are counted and skipped.
    Messages,
}

/// Item found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Skipped array, with its number of events.
    Counted(u32),
    /// A message that was skipped.
    Message,
    /// A whole message.
    Whole(&'a [u8]),
    /// A ping, with what the pong must repeat.
    Ping(&'a [u8]),
    /// A close frame's code; 1005 without one.
    Close(u16),
}

/// Header of a server's frame: 2 bytes and up to 8 of length; behind it up to 5 of an array's
/// header.
const PREFIX_MAX: usize = 15;
/// The longest array header of MessagePack.
const ARRAY_HEADER: u64 = 5;
/// A message longer than this is refused where it would have to be gathered.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// Largest buffer that is kept after its message has been reported.
const KEPT_CAPACITY_MAX: usize = 64 << 10;
/// Follows the frames of one connection.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The start of a frame of which not enough is there.
    prefix: Vec<u8>,
    /// Payload bytes of the frame at hand that are still to come.
    left: u64,
    /// The frame at hand is gathered; otherwise it is skipped.
    gathers: bool,
    /// The frame at hand is its message's last.
    is_final: bool,
    /// The opcode of the frame at hand.
    opcode: u8,
    /// The message at hand is text; validates it where it is skipped.
    text: Option<Utf8Check>,
    /// A message of several frames has begun.
    in_message: bool,
    /// Received part of a message that is delivered whole.
    message: Vec<u8>,
    /// Received part of a control frame, which may be placed between a message's frames.
    control: Vec<u8>,
}

/// Number of entries of a MessagePack array, from its header.
fn array_len(payload: &[u8]) -> Option<u32> {
    match payload {
        [marker @ 0x90..=0x9f, ..] => Some(u32::from(marker & 0x0f)),
        [0xdc, a, b, ..] => Some(u32::from(u16::from_be_bytes([*a, *b]))),
        [0xdd, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

impl Scanner {
    /// Scans received bytes; calls `found` for each message in order.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        want: Want,
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                bytes = self.go_on(bytes, found)?;
            } else if self.prefix.is_empty() {
                match self.begin(bytes, want, found)? {
                    Some(used) => bytes = &bytes[used..],
                    None => {
                        self.prefix.extend_from_slice(bytes);
                        return Ok(());
                    }
                }
            } else {
                bytes = self.begin_behind_prefix(bytes, want, found)?;
            }
        }
        Ok(())
    }

    /// Takes more of the frame at hand; returns the bytes behind it.
    fn go_on<'a>(
        &mut self,
        bytes: &'a [u8],
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<&'a [u8], FrameError> {
        let taken = self.left.min(bytes.len() as u64) as usize;
        self.left = self.left.saturating_sub(taken as u64);
        let (own, rest) = bytes.split_at(taken);
        if self.gathers {
            self.gather(own, found)?;
        } else {
            self.skip(own)?;
        }
        Ok(rest)
    }

    /// Passes over bytes of a data frame, of which only text is looked at.
    fn skip(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let Some(text) = &mut self.text else {
            return Ok(());
        };
        text.feed(bytes)?;
        if self.left == 0 && self.is_final {
            text.finish()?;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        bytes: &[u8],
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<(), FrameError> {
        let is_text = self.text.is_some();
        let kept = if self.opcode >= CLOSE {
            &mut self.control
        } else {
            &mut self.message
        };
        kept.extend_from_slice(bytes);
        if self.left == 0 && self.is_final {
            deliver(self.opcode, is_text, kept, found)?;
            kept.clear();
            kept.shrink_to(KEPT_CAPACITY_MAX);
        }
        Ok(())
    }

    /// Completes a frame's beginning that came in pieces; returns the bytes behind what was added
    /// to it.
    fn begin_behind_prefix<'a>(
        &mut self,
        bytes: &'a [u8],
        want: Want,
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<&'a [u8], FrameError> {
        let mut prefix = std::mem::take(&mut self.prefix);
        let (added, rest) =
            bytes.split_at(bytes.len().min(PREFIX_MAX.saturating_sub(prefix.len())));
        prefix.extend_from_slice(added);
        match self.begin(&prefix, want, found)? {
            Some(used) => self.feed(&prefix[used..], want, found)?,
            None => self.prefix = prefix,
        }
        Ok(rest)
    }

    /// Begins a frame, and ends it where all of it is there. Returns how many bytes it took;
    /// `None`: more are needed.
    fn begin(
        &mut self,
        bytes: &[u8],
        want: Want,
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<Option<usize>, FrameError> {
        let Some(header) = header(bytes)? else {
            return Ok(None);
        };
        // The bytes behind the frame belong to the next one.
        let payload = &bytes[header.len..];
        let own = &payload[..header.payload.min(payload.len() as u64) as usize];
        let is_data = header.opcode < CLOSE;
        if is_data && (header.opcode == CONTINUATION) != self.in_message {
            return Err(FrameError::Protocol(
                "continuation frame without a message, or new message before the end of a fragmented one",
            ));
        }
        let counts = want == Want::Count && header.opcode == BINARY && header.is_final;
        if counts && (payload.len() as u64) < header.payload.min(ARRAY_HEADER) {
            return Ok(None);
        }
        if is_data {
            self.in_message = !header.is_final;
        }
        if is_data && header.opcode != CONTINUATION {
            self.text = (header.opcode == TEXT).then(Utf8Check::default);
        }
        (self.opcode, self.is_final, self.left, self.gathers) =
            (header.opcode, header.is_final, header.payload, false);
        if is_data && want == Want::Messages {
            if header.is_final {
                found(Found::Message);
            }
            if header.payload == 0 {
                self.skip(&[])?;
            }
            return Ok(Some(header.len));
        }
        if let (true, Some(count)) = (counts, array_len(own)) {
            found(Found::Counted(count));
            return Ok(Some(header.len));
        }
        if header.payload.saturating_add(self.message.len() as u64) > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        if header.is_final
            && header.opcode != CONTINUATION
            && payload.len() as u64 >= header.payload
        {
            let len = header.payload as usize;
            self.left = 0;
            deliver(header.opcode, self.text.is_some(), &payload[..len], found)?;
            return Ok(Some(header.len.saturating_add(len)));
        }
        self.gathers = true;
        if header.payload == 0 {
            self.gather(&[], found)?;
        }
        Ok(Some(header.len))
    }
}

fn deliver(
    opcode: u8,
    is_text: bool,
    payload: &[u8],
    found: &mut impl FnMut(Found<'_>),
) -> Result<(), FrameError> {
    match opcode {
        CLOSE => found(Found::Close(close_code(payload)?)),
        PING => found(Found::Ping(payload)),
        PONG => {}
        _ if is_text && std::str::from_utf8(payload).is_err() => {
            return Err(FrameError::Utf8("a text message"));
        }
        _ => found(Found::Whole(payload)),
    }
    Ok(())
}
