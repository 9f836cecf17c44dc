//! Frames of a server, as they come in pieces: counted without a copy, or handed on whole.

#![deny(clippy::arithmetic_side_effects)]

/// Purpose for which a payload is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Arrays of MessagePack are counted by their header and skipped; all else is handed on whole.
    Count,
    /// Every message is handed on whole.
    Whole,
    /// Messages are counted and skipped, whatever is in them.
    Messages,
}

/// One thing that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// An array of so many events that was skipped.
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

/// Header of a server's frame: 2 bytes and up to 8 of length; behind it up to 5 of an array's header.
const PREFIX_MAX: usize = 15;
/// The longest array header of MessagePack.
const ARRAY_HEADER: u64 = 5;
/// A message longer than this is refused where it would have to be gathered.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// A larger buffer isn't kept once its message is told.
const KEPT_CAPACITY_MAX: usize = 64 << 10;
/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Incremental validation of text that is skipped, not gathered.
#[derive(Debug, Default)]
struct Utf8Check {
    /// Start of a character of which the rest has not come yet.
    partial: Vec<u8>,
}

impl Utf8Check {
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !self.partial.is_empty() {
            let [next, rest @ ..] = bytes else {
                return Ok(());
            };
            self.partial.push(*next);
            bytes = rest;
            match std::str::from_utf8(&self.partial) {
                Ok(_) => self.partial.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(FrameError::Utf8("a text message")),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.partial
                    .extend_from_slice(&bytes[error.valid_up_to()..]);
                Ok(())
            }
            Err(_) => Err(FrameError::Utf8("a text message")),
        }
    }

    fn finish(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Utf8("a text message"))
        }
    }
}

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

struct Header {
    opcode: u8,
    is_final: bool,
    len: usize,
    payload: u64,
}

/// `None` where more bytes are needed.
fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
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
        return Err(FrameError::Protocol("payload length beyond 63 bits"));
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
    /// Takes bytes in; `found` is told of each thing in order.
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
            tell(self.opcode, is_text, kept, found)?;
            kept.clear();
            kept.shrink_to(KEPT_CAPACITY_MAX);
        }
        Ok(())
    }

    /// Completes a frame's beginning that came in pieces; returns the bytes behind what was added to it.
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

    /// Begins a frame, and ends it where all of it is there. Returns how many bytes it took; `None`: more are needed.
    fn begin(
        &mut self,
        bytes: &[u8],
        want: Want,
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<Option<usize>, FrameError> {
        let Some(header) = header(bytes)? else {
            return Ok(None);
        };
        let payload = &bytes[header.len..];
        let is_data = header.opcode < CLOSE;
        if is_data && (header.opcode == CONTINUATION) != self.in_message {
            return Err(FrameError::Protocol(
                "unexpected continuation frame, or a new message inside a fragmented one",
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
        if let (true, Some(count)) = (counts, array_len(payload)) {
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
            tell(header.opcode, self.text.is_some(), &payload[..len], found)?;
            return Ok(Some(header.len.saturating_add(len)));
        }
        self.gathers = true;
        if header.payload == 0 {
            self.gather(&[], found)?;
        }
        Ok(Some(header.len))
    }
}

fn tell(
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

/// The code of a close frame (RFC 6455, sections 5.5.1 and 7.4); 1005 without one.
fn close_code(payload: &[u8]) -> Result<u16, FrameError> {
    match payload {
        [] => Ok(1005),
        [_] => Err(FrameError::Protocol("close frame of one byte")),
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

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "their numbers are their own"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(short as u8),
            middle @ 126..=0xffff => {
                out.push(126);
                out.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                out.push(127);
                out.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    fn array(events: usize) -> Vec<u8> {
        let mut out = Vec::new();
        rmp::encode::write_array_len(&mut out, events as u32).expect("a Vec takes all");
        out.resize(out.len() + events * 3, 1);
        out
    }

    fn totals(pieces: &[&[u8]], want: Want) -> Vec<String> {
        let (mut scanner, mut list) = (Scanner::default(), Vec::new());
        for piece in pieces {
            let fed = scanner.feed(piece, want, &mut |found| list.push(format!("{found:?}")));
            list.extend(fed.err().map(|error| error.to_string()));
        }
        list
    }

    /// Every violation, fed whole and byte by byte, with the close code that answers it.
    #[test]
    fn violations_of_rfc_6455_are_refused_with_their_close_codes() {
        let long_ping = frame(0x89, &[0; 126]);
        let split_text: &[u8] = &[0x01, 2, b'a', 0xe2, 0x80, 1, 0x28];
        let cases: [(&str, &[u8], u16); 17] = [
            ("a reserved bit", &[0xc2, 1, 0], 1002),
            ("a mask", &[0x82, 0x81, 0], 1002),
            ("a continuation without a beginning", &[0x80, 0], 1002),
            ("a message inside another", &[2, 0, 0x82, 0], 1002),
            ("opcode 3", &[0x83, 0], 1002),
            ("opcode 11", &[0x8b, 0], 1002),
            ("a ping in fragments", &[0x09, 0], 1002),
            ("a ping of 126 bytes", &long_ping, 1002),
            ("a length of 5 in two bytes", &[0x82, 126, 0, 5], 1002),
            (
                "a length of 5 in eight bytes",
                &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 5],
                1002,
            ),
            ("2^63 bytes", &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002),
            ("a close of one byte", &[0x88, 1, 3], 1002),
            ("close code 1005", &[0x88, 2, 0x03, 0xed], 1002),
            ("close code 999", &[0x88, 2, 0x03, 0xe7], 1002),
            (
                "a close reason that is no UTF-8",
                &[0x88, 3, 0x03, 0xe8, 0xff],
                1007,
            ),
            ("text that is no UTF-8", &[0x81, 2, b'a', 0xff], 1007),
            ("text whose frames are no UTF-8 together", split_text, 1007),
        ];
        for (name, bytes, code) in cases {
            let wants = match code {
                1007 => &[Want::Whole, Want::Messages][..],
                _ => &[Want::Count, Want::Whole, Want::Messages][..],
            };
            for want in wants {
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                for pieces in [vec![bytes], single] {
                    let mut scanner = Scanner::default();
                    let failed = pieces
                        .iter()
                        .find_map(|piece| scanner.feed(piece, *want, &mut |_| {}).err());
                    assert_eq!(
                        failed.map(FrameError::close_code),
                        Some(code),
                        "{name}, {want:?}, {} pieces",
                        pieces.len()
                    );
                }
            }
        }
    }

    #[test]
    fn text_in_pieces_is_valid_wherever_it_is_cut() {
        let text = "a€𝄞b".as_bytes();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let bytes = [frame(0x01, first), frame(0x80, second)].concat();
            for want in [Want::Count, Want::Whole, Want::Messages] {
                let found = totals(&bytes.chunks(1).collect::<Vec<_>>(), want);
                assert_eq!(found.len(), 1, "cut at {cut}: {found:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_cut_finds_the_same(cuts in proptest::collection::vec(1usize..90, 0..12), events in 0usize..40) {
            let long = vec![0x81; 70_000];
            let bytes = [
                frame(0x82, &array(events)), frame(0x82, &[0x81, 7]), frame(0x89, b"?"), frame(2, &[0x81]), frame(0x8a, b""), frame(0, b""),
                frame(0x89, b"between"), frame(0x80, b"end"), frame(0x82, &array(70_000)), frame(0x82, &long), frame(0x81, b""), frame(0x81, "a€".as_bytes()), frame(0x88, &[3, 232]),
            ].concat();
            for want in [Want::Count, Want::Whole, Want::Messages] {
                let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
                for cut in &cuts {
                    let (piece, after) = rest.split_at((*cut).min(rest.len()));
                    pieces.push(piece);
                    rest = after;
                }
                pieces.push(rest);
                let all = totals(&[&bytes], want);
                prop_assert_eq!(&totals(&pieces, want), &all);
                let ping = format!("{:?}", Found::Ping(b"between"));
                prop_assert!(all.contains(&"Close(1000)".to_owned()) && all.contains(&ping), "{all:?}");
                let counted = format!("Counted({events})");
                prop_assert_eq!(all.contains(&counted), want == Want::Count);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            totals(&[&bytes], Want::Count);
        }
    }
}
