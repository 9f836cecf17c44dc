//! Frames of a server, as they come in pieces: counted without a copy, or handed on whole.

/// What a payload is wanted for.
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

/// The bytes came in an order that no server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server broke RFC 6455: {0}")]
pub struct FrameError(&'static str);

/// Header of a server's frame: 2 bytes and up to 8 of length; behind it up to 5 of an array's header.
const PREFIX_MAX: usize = 15;
/// The longest array header of MessagePack.
const ARRAY_HEADER: u64 = 5;
/// A message longer than this is refused where it would have to be gathered.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;
/// A larger buffer isn't kept once its message is told.
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
    /// A message of several frames has begun.
    in_message: bool,
    /// What is there of a message that is handed on whole.
    message: Vec<u8>,
    /// What is there of a control frame, which may stand between a message's frames.
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
        return Err(FrameError("a reserved bit is set"));
    }
    if second & 0x80 != 0 {
        return Err(FrameError("a server's frame is masked"));
    }
    let (len, payload) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(long) => (10, u64::from_be_bytes(*long)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    Ok(Some(Header {
        opcode: first & 0x0f,
        is_final: first & 0x80 != 0,
        len,
        payload,
    }))
}

/// How many entries a MessagePack array has, by its header.
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
                bytes = self.go_on(bytes, found);
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
    fn go_on<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Found<'_>)) -> &'a [u8] {
        let taken = self.left.min(bytes.len() as u64) as usize;
        self.left -= taken as u64;
        if self.gathers {
            self.gather(&bytes[..taken], found);
        }
        &bytes[taken..]
    }

    fn gather(&mut self, bytes: &[u8], found: &mut impl FnMut(Found<'_>)) {
        let kept = if self.opcode >= 8 {
            &mut self.control
        } else {
            &mut self.message
        };
        kept.extend_from_slice(bytes);
        if self.left == 0 && self.is_final {
            tell(self.opcode, kept, found);
            kept.clear();
            kept.shrink_to(KEPT_CAPACITY_MAX);
        }
    }

    /// Completes a frame's beginning that came in pieces; returns the bytes behind what was added to it.
    fn begin_behind_prefix<'a>(
        &mut self,
        bytes: &'a [u8],
        want: Want,
        found: &mut impl FnMut(Found<'_>),
    ) -> Result<&'a [u8], FrameError> {
        let mut prefix = std::mem::take(&mut self.prefix);
        let (added, rest) = bytes.split_at(bytes.len().min(PREFIX_MAX - prefix.len()));
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
        let is_data = header.opcode < 8;
        if is_data && (header.opcode == 0) != self.in_message {
            return Err(FrameError(
                "a message begins inside another, or goes on without a beginning",
            ));
        }
        let counts = want == Want::Count && header.opcode == 2 && header.is_final;
        if counts && (payload.len() as u64) < header.payload.min(ARRAY_HEADER) {
            return Ok(None);
        }
        if is_data {
            self.in_message = !header.is_final;
        }
        (self.opcode, self.is_final, self.left, self.gathers) =
            (header.opcode, header.is_final, header.payload, false);
        if is_data && want == Want::Messages {
            if header.is_final {
                found(Found::Message);
            }
            return Ok(Some(header.len));
        }
        if let (true, Some(count)) = (counts, array_len(payload)) {
            found(Found::Counted(count));
            return Ok(Some(header.len));
        }
        if header.payload.saturating_add(self.message.len() as u64) > MESSAGE_BYTES_MAX {
            return Err(FrameError("a message is longer than 64 MiB"));
        }
        if header.is_final && header.opcode != 0 && payload.len() as u64 >= header.payload {
            let len = header.payload as usize;
            self.left = 0;
            tell(header.opcode, &payload[..len], found);
            return Ok(Some(header.len + len));
        }
        self.gathers = true;
        if header.payload == 0 {
            self.gather(&[], found);
        }
        Ok(Some(header.len))
    }
}

fn tell(opcode: u8, payload: &[u8], found: &mut impl FnMut(Found<'_>)) {
    match opcode {
        8 => found(Found::Close(
            payload
                .first_chunk::<2>()
                .map_or(1005, |code| u16::from_be_bytes(*code)),
        )),
        9 => found(Found::Ping(payload)),
        10 => {}
        _ => found(Found::Whole(payload)),
    }
}

#[cfg(test)]
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

    fn told(pieces: &[&[u8]], want: Want) -> Vec<String> {
        let (mut scanner, mut list) = (Scanner::default(), Vec::new());
        for piece in pieces {
            let fed = scanner.feed(piece, want, &mut |found| list.push(format!("{found:?}")));
            list.extend(fed.err().map(|error| error.to_string()));
        }
        list
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bytes in [
            &[0xc2, 1, 0][..],
            &[0x82, 0x81, 0],
            &[0x80, 0],
            &[2, 0, 0x82, 0],
            &[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0],
        ] {
            assert!(
                told(&[bytes], Want::Count)
                    .iter()
                    .any(|told| told.contains("RFC 6455")),
                "{bytes:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_cut_finds_the_same(cuts in proptest::collection::vec(1usize..90, 0..12), events in 0usize..40) {
            let long = vec![0x81; 70_000];
            let bytes = [
                frame(0x82, &array(events)), frame(0x82, &[0x81, 7]), frame(0x89, b"?"), frame(2, &[0x81]), frame(0x8a, b""), frame(0, b""),
                frame(0x89, b"between"), frame(0x80, b"end"), frame(0x82, &array(70_000)), frame(0x82, &long), frame(0x81, b""), frame(0x88, &[3, 232]),
            ].concat();
            for want in [Want::Count, Want::Whole, Want::Messages] {
                let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
                for cut in &cuts {
                    let (piece, after) = rest.split_at((*cut).min(rest.len()));
                    pieces.push(piece);
                    rest = after;
                }
                pieces.push(rest);
                let all = told(&[&bytes], want);
                prop_assert_eq!(&told(&pieces, want), &all);
                let ping = format!("{:?}", Found::Ping(b"between"));
                prop_assert!(all.contains(&"Close(1000)".to_owned()) && all.contains(&ping), "{all:?}");
                let counted = format!("Counted({events})");
                prop_assert_eq!(all.contains(&counted), want == Want::Count);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            told(&[&bytes], Want::Count);
        }
    }
}
