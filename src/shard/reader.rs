//! Reader: from the bytes of a socket to complete messages. tungstenite checks the rules of the
//! protocol; a context exists only while a message is incomplete, so that an idle connection needs
//! no memory here.

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use crate::market::UnixNanos;
use crate::protocol::Encoding;

/// Bytes read at once by a context.
const READ_BUFFER_BYTES: usize = 4096;
/// The longest frame header of a client: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Span over which control frames and fragments are counted.
pub(super) const SMALL_FRAMES_SPAN: Duration = Duration::from_secs(10);

/// Result of parsing received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Request, with the encoding given by its opcode: a client may use either, whichever encoding
    /// its connection has negotiated for responses.
    Request(Vec<u8>, Encoding),
    /// Pong: an answer to a ping, or unsolicited.
    Pong(Vec<u8>),
    /// The client has closed; the answer is in the reply bytes.
    Closed,
    /// Violation of RFC 6455, with the close code.
    Violation(u16, String),
    /// More small frames than allowed within the span.
    Flood,
}

/// Incomplete message, with the frames received so far.
#[derive(Debug)]
pub(super) struct Partial {
    context: WebSocketContext,
    walk: FrameBoundary,
    /// Time of its first byte.
    pub since: UnixNanos,
}

/// Follows frame borders.
#[derive(Debug, Default)]
struct FrameBoundary {
    /// Remaining payload bytes of a frame.
    payload_left: u64,
    /// Incomplete frame header.
    header: Vec<u8>,
    /// A fragmented message is incomplete.
    in_message: bool,
    small_frames: u32,
}

/// A frame whose length is not in its shortest form (RFC 6455, section 5.2), by the place where it
/// begins.
#[derive(Debug, PartialEq, Eq)]
struct PaddedLength {
    /// Offset in the received bytes; 0 if the frame began before them.
    at: usize,
}

impl FrameBoundary {
    fn is_idle(&self) -> bool {
        self.payload_left == 0 && self.header.is_empty() && !self.in_message
    }

    fn feed(&mut self, all: &[u8]) -> Result<(), PaddedLength> {
        let mut bytes = all;
        while !bytes.is_empty() {
            let skipped = self.payload_left.min(bytes.len() as u64);
            self.payload_left -= skipped;
            bytes = &bytes[skipped as usize..];
            if self.payload_left > 0 || bytes.is_empty() {
                break;
            }
            let had = self.header.len();
            let taken = bytes.len().min(HEADER_BYTES_MAX - had);
            self.header.extend_from_slice(&bytes[..taken]);
            let mut cursor = Cursor::new(&self.header);
            match FrameHeader::parse(&mut cursor) {
                Ok(Some((header, payload))) => {
                    let used = cursor.position() as usize - had;
                    if is_padded(self.header[1], payload) {
                        let at = all.len() - bytes.len();
                        return Err(PaddedLength { at });
                    }
                    self.header.clear();
                    self.payload_left = payload;
                    let is_control = matches!(
                        header.opcode,
                        OpCode::Control(Control::Ping | Control::Pong | Control::Close)
                    );
                    self.small_frames += u32::from(is_control || !header.is_final);
                    if !is_control {
                        self.in_message = !header.is_final;
                    }
                    bytes = &bytes[used..];
                }
                // Cut inside a header; or a broken one, which the context refuses.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }
}

/// True if a length was written in more bytes than it needs; `second` is the header's second byte.
const fn is_padded(second: u8, payload: u64) -> bool {
    match second & 0x7f {
        126 => payload < 126,
        127 => payload <= u16::MAX as u64,
        _ => false,
    }
}

/// Counts small frames over a span of time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FrameRateLimit {
    since: UnixNanos,
    frames: u32,
}

impl FrameRateLimit {
    fn count(&mut self, frames: u32, SmallFrames { per_second, now }: SmallFrames) -> bool {
        if now.since(self.since) > SMALL_FRAMES_SPAN {
            *self = Self {
                since: now,
                frames: 0,
            };
        }
        self.frames += frames;
        // The test suites of the echo route send more than honest clients.
        u64::from(self.frames) > u64::from(per_second) * SMALL_FRAMES_SPAN.as_secs()
            && !cfg!(feature = "echo")
    }

    /// Removes one frame from the count, because the server requested it.
    pub(super) const fn forgive(&mut self) {
        self.frames = self.frames.saturating_sub(1);
    }
}

/// Limit of control frames and fragments, and the current time.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallFrames {
    pub per_second: u32,
    pub now: UnixNanos,
}

struct InMemoryStream<'a> {
    input: &'a [u8],
    replies: &'a mut Vec<u8>,
}

impl Read for InMemoryStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buf)
    }
}

impl Write for InMemoryStream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.replies.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The settings of every context.
pub(super) fn websocket_config(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}

/// Parses bytes of the socket; `partial` is the incomplete message before and after. Pongs and the
/// answer to a close are written to `replies` as complete frames.
pub(super) fn read_messages(
    bytes: &[u8],
    partial: &mut Option<Box<Partial>>,
    config: WebSocketConfig,
    guard: &mut FrameRateLimit,
    small_frames: SmallFrames,
    replies: &mut Vec<u8>,
) -> Vec<Incoming> {
    let mut reading = partial.take().unwrap_or_else(|| {
        Box::new(Partial {
            context: WebSocketContext::new(Role::Server, Some(config)),
            walk: FrameBoundary::default(),
            since: small_frames.now,
        })
    });
    let fed = reading.walk.feed(bytes);
    let bytes = fed
        .as_ref()
        .map_or_else(|padded| &bytes[..padded.at], |()| bytes);
    if guard.count(std::mem::take(&mut reading.walk.small_frames), small_frames) {
        return vec![Incoming::Flood];
    }
    let mut stream = InMemoryStream {
        input: bytes,
        replies,
    };
    let mut found = Vec::new();
    loop {
        match reading.context.read(&mut stream) {
            Ok(Message::Text(text)) => {
                found.push(Incoming::Request(text.as_bytes().to_vec(), Encoding::Json));
            }
            Ok(Message::Binary(data)) => {
                found.push(Incoming::Request(data.to_vec(), Encoding::Msgpack));
            }
            Ok(Message::Pong(payload)) => found.push(Incoming::Pong(payload.to_vec())),
            Ok(_) => {}
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                found.push(Incoming::Closed);
                return found;
            }
            Err(error) => {
                found.push(violation(&error));
                return found;
            }
        }
    }
    if fed.is_err() {
        let message = "frame length not in its shortest form".to_owned();
        found.push(Incoming::Violation(1002, message));
        return found;
    }
    if !reading.walk.is_idle() {
        if !found.is_empty() {
            reading.since = small_frames.now;
        }
        *partial = Some(reading);
    }
    found
}

/// Reader of a client's bytes without a connection, for the fuzz targets.
#[cfg(feature = "internals")]
#[derive(Debug)]
pub struct MessageReader {
    partial: Option<Box<Partial>>,
    config: WebSocketConfig,
    limit: FrameRateLimit,
    replies: Vec<u8>,
}

#[cfg(feature = "internals")]
impl MessageReader {
    /// Creates a reader of messages of at most this many bytes.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            partial: None,
            config: websocket_config(message_bytes_max),
            limit: FrameRateLimit::default(),
            replies: Vec::new(),
        }
    }

    /// Parses the next bytes of the socket.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        let (partial, limit) = (&mut self.partial, &mut self.limit);
        let small_frames = SmallFrames {
            per_second: 100,
            now: UnixNanos::default(),
        };
        let (config, replies) = (self.config, &mut self.replies);
        read_messages(bytes, partial, config, limit, small_frames, replies)
    }

    /// True if a message is incomplete.
    pub const fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Frames to be sent in response.
    pub fn replies(&self) -> &[u8] {
        &self.replies
    }
}

fn violation(error: &Error) -> Incoming {
    let code = match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => 1009,
        Error::Utf8(_) => 1007,
        _ => 1002,
    };
    Incoming::Violation(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, coding::Data};

    fn frame(opcode: Data, fin: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = Frame::message(payload.to_vec(), OpCode::Data(opcode), fin);
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        let mut out = Vec::new();
        frame
            .format(&mut out)
            .expect("writing to memory cannot fail");
        out
    }

    fn feed(pieces: &[&[u8]]) -> (Vec<Incoming>, bool) {
        let (mut partial, mut guard, mut replies) = (None, FrameRateLimit::default(), Vec::new());
        let mut found = Vec::new();
        for piece in pieces {
            found.extend(read_messages(
                piece,
                &mut partial,
                websocket_config(1000),
                &mut guard,
                SmallFrames {
                    per_second: 100,
                    now: UnixNanos(1),
                },
                &mut replies,
            ));
        }
        (found, partial.is_some())
    }

    #[test]
    fn no_parser_state_is_kept_between_complete_messages() {
        let bytes = [
            frame(Data::Text, true, b"a"),
            frame(Data::Binary, false, b"b"),
            frame(Data::Continue, true, b"c"),
        ]
        .concat();
        let (found, partial) = feed(&[&bytes]);
        assert_eq!(
            found,
            [
                Incoming::Request(b"a".into(), Encoding::Json),
                Incoming::Request(b"bc".into(), Encoding::Msgpack)
            ]
        );
        assert!(!partial);
    }

    #[test]
    fn violations_are_closed_with_the_codes_of_rfc_6455() {
        let code = |bytes: &[u8]| match feed(&[bytes]).0.as_slice() {
            [Incoming::Violation(code, _)] => *code,
            _ => 0,
        };
        assert_eq!(code(&[0x81, 0x01, b'a']), 1002, "not masked");
        assert_eq!(code(&frame(Data::Text, true, &[0xff])), 1007);
        assert_eq!(code(&frame(Data::Binary, true, &[0; 1001])), 1009);
        assert_eq!(
            code(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            1009,
            "2^63 bytes announced"
        );
        let padded = [0x82, 0xfe, 0, 1, 1, 2, 3, 4, b'a'];
        assert_eq!(code(&padded), 1002, "one byte's length in two");
        let wide = [&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff][..], &[0; 4]].concat();
        assert_eq!(code(&wide), 1002, "65,535 in eight bytes");
        let after_a_good_one = [&frame(Data::Text, true, b"a")[..], &padded].concat();
        for cut in 0..after_a_good_one.len() {
            let (found, _) = feed(&[&after_a_good_one[..cut], &after_a_good_one[cut..]]);
            let wanted = matches!(
                found.as_slice(),
                [Incoming::Request(..), Incoming::Violation(1002, _)]
            );
            assert!(wanted, "cut at {cut}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_messages(cuts in proptest::collection::vec(1usize..60, 0..8)) {
            let bytes = [frame(Data::Text, false, b"hel"), frame(Data::Continue, true, b"lo"), frame(Data::Binary, true, &[9; 200])].concat();
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let expected = vec![Incoming::Request(b"hello".into(), Encoding::Json), Incoming::Request(vec![9; 200], Encoding::Msgpack)];
            prop_assert_eq!(feed(&pieces), (expected, false));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            feed(&[&bytes]);
        }
    }
}
