//! The bytes that go to the socket, in their final order: frames, and the array that is still open
//! at their end.

use std::num::NonZeroU32;

use crate::protocol::{Encoding, MESSAGE_BYTES_MAX};

/// Room in front of an array for what is known only when it is sealed: 10 bytes of frame header, 5
/// of array header.
const FRONT: usize = 15;

/// Min sent bytes that are dropped at once, if they also exceed the unsent ones.
const COMPACT_AT: usize = 64 * 1024;

/// Unused bytes of a buffer for which it is not worth a copy.
const KEPT_MIN: usize = 4 * 1024;

/// Units that a position advances for each message in addition to its bytes, because clients spend
/// time on each.
pub(super) const MESSAGE_COST: u64 = 1024;

/// Positions at which something is due before more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// A ping is put among the data, to learn how far the client has read.
    pub ping_at: u64,
    /// The client must have read before more is sent.
    pub hold_at: u64,
    /// Bytes that are put on the wire at once.
    pub step: u64,
}

impl SendLimits {
    /// No limits.
    pub const NONE: Self = Self {
        ping_at: u64::MAX,
        hold_at: u64::MAX,
        step: u64::MAX,
    };
}

/// WebSocket opcodes (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The last frame of a side.
    Close = 8,
    /// Are you there?
    Ping = 9,
}

#[derive(Debug)]
struct OpenArray {
    /// Start of its first event, behind the front.
    start: NonZeroU32,
    events: u32,
}

impl OpenArray {
    /// Start of the front.
    const fn at(&self) -> usize {
        self.start.get() as usize - FRONT
    }
}

/// Output in its final order. What is in here is on its way: it counts as delivered.
#[derive(Debug)]
pub struct FrameBuffer {
    encoding: Encoding,
    /// Bytes of an array at which it is ended.
    frame: u32,
    /// Bytes of a message that the client takes.
    message_max: u32,
    buf: Vec<u8>,
    /// Length of the sent part of `buf`.
    sent: u32,
    /// Bytes that the socket has taken since the connection began.
    taken: u64,
    open: Option<OpenArray>,
    /// The socket refused bytes, and hasn't said since that it takes more.
    pub blocked: bool,
    limits: SendLimits,
    /// Costs of the messages so far.
    message_costs: u64,
    /// Part of the position that the client asked for.
    asked: u64,
}

impl FrameBuffer {
    /// An empty one, whose arrays are ended at `frame` bytes.
    pub const fn new(encoding: Encoding, frame: usize) -> Self {
        Self {
            encoding,
            frame: frame as u32,
            message_max: MESSAGE_BYTES_MAX as u32,
            buf: Vec::new(),
            sent: 0,
            taken: 0,
            open: None,
            blocked: false,
            limits: SendLimits::NONE,
            message_costs: 0,
            asked: 0,
        }
    }

    /// No message is larger from now on.
    pub fn limit_messages(&mut self, bytes_max: u32) {
        // An array that has begun by an older bound ends here.
        self.seal();
        self.message_max = bytes_max;
        self.frame = self.frame.min(bytes_max);
    }

    /// Bytes of the largest message.
    pub const fn message_max(&self) -> usize {
        self.message_max as usize
    }

    /// True if events of this total length in bytes fit into one array.
    pub const fn fits_an_array(&self, bytes: usize) -> bool {
        bytes + FRONT <= self.frame as usize
    }

    /// The connection's encoding.
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Bytes that the socket hasn't taken.
    pub const fn len(&self) -> usize {
        self.buf.len() - self.sent as usize
    }

    /// Bytes that the socket has taken since the connection began.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// True if the socket has accepted all bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Position behind what is on the wire: bytes since the connection began, and the costs of
    /// messages.
    pub const fn position(&self) -> u64 {
        self.taken + self.len() as u64 + self.message_costs
    }

    /// True if the client must read before more is sent to it.
    pub const fn is_held(&self) -> bool {
        self.position() >= self.limits.hold_at
    }

    /// True if a ping is due.
    pub const fn is_ping_due(&self) -> bool {
        self.position() >= self.limits.ping_at
    }

    /// Bytes that may be put on the wire before it is written; at least one.
    pub fn room(&self) -> usize {
        let left = self.limits.hold_at.saturating_sub(self.position());
        left.min(self.limits.step).max(1) as usize
    }

    /// Sets the limits.
    pub const fn limit_to(&mut self, limits: SendLimits) {
        self.limits = limits;
    }

    /// Sends at most this many bytes more until the client has read.
    #[cfg(test)]
    pub(super) const fn hold_after(&mut self, bytes: u64) {
        self.limits.hold_at = self.position() + bytes;
    }

    /// A ping is due behind the next data, if it isn't already.
    pub fn ping_next(&mut self) {
        self.limits.ping_at = self.limits.ping_at.min(self.position() + 1);
    }

    /// No ping is due until its limits are set again.
    pub const fn is_pinged(&mut self) {
        self.limits.ping_at = u64::MAX;
    }

    /// Holds back all that is not on the wire.
    pub const fn hold_here(&mut self) {
        self.limits.hold_at = self.position();
    }

    /// Holds nothing back.
    pub const fn release(&mut self) {
        self.limits.hold_at = u64::MAX;
        self.limits.step = u64::MAX;
    }

    /// Counts what was added since this position as asked for by the client.
    pub const fn count_asked_since(&mut self, position: u64) {
        self.asked += self.position() - position;
    }

    /// Part of the position that the client asked for.
    pub const fn asked(&self) -> u64 {
        self.asked
    }

    /// True if it has no buffer of its own and needs one before events are added.
    pub const fn needs_buffer(&self) -> bool {
        self.buf.capacity() == 0
    }

    /// Gives it an empty buffer.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        debug_assert!(
            self.buf.is_empty() && buffer.is_empty(),
            "a buffer is lent empty, to one that has none"
        );
        self.buf = buffer;
    }

    /// Takes the buffer back from a client that waits, if most of it is unused; what is unsent is
    /// kept in a buffer of its length.
    pub fn reclaim_unused(&mut self) -> Option<Vec<u8>> {
        debug_assert!(self.open.is_none(), "only sealed arrays wait");
        if !self.is_empty() && self.buf.capacity() < 2 * self.len() + KEPT_MIN {
            return None;
        }
        let unsent = self.buf[self.sent as usize..].to_vec();
        self.sent = 0;
        let mut buffer = std::mem::replace(&mut self.buf, unsent);
        buffer.clear();
        Some(buffer)
    }

    /// Takes the buffer back, once all is sent.
    pub fn reclaim(&mut self) -> Vec<u8> {
        debug_assert!(self.is_empty(), "a buffer is reclaimed when all is sent");
        self.sent = 0;
        let mut buffer = std::mem::take(&mut self.buf);
        buffer.clear();
        buffer
    }

    /// Puts events into the open array, as they stand in one: `count` of them, in all no longer
    /// than a frame.
    pub fn events(&mut self, bytes: &[u8], count: u32) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| self.buf.len() - open.at() + bytes.len() > self.frame as usize)
        {
            self.seal();
        }
        match &mut self.open {
            Some(open) => {
                open.events += count;
                self.buf.extend(self.encoding.separator());
            }
            None => {
                self.buf.extend_from_slice(&[0; FRONT]);
                let start = NonZeroU32::new(self.buf.len() as u32);
                self.open = start.map(|start| OpenArray {
                    start,
                    events: count,
                });
            }
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Ends the open array: what follows is a message of its own.
    pub fn seal(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.message_costs += MESSAGE_COST;
        let (at, events) = (open.at(), open.events);
        let mut front = [0; FRONT];
        let array = match self.encoding {
            Encoding::Json => {
                self.buf.push(b']');
                front[FRONT - 1] = b'[';
                1
            }
            Encoding::Msgpack => array_header(&mut front, events),
        };
        let payload = self.buf.len() - at - FRONT + array;
        let mut header = [0; 10];
        let frame = frame_header(&mut header, data_opcode(self.encoding), payload);
        let from = FRONT - array - frame;
        front[from..from + frame].copy_from_slice(&header[..frame]);
        if self.sent as usize == at {
            self.buf[at..at + FRONT].copy_from_slice(&front);
            self.sent += from as u32;
            return;
        }
        self.buf[at..at + FRONT - from].copy_from_slice(&front[from..]);
        self.buf.copy_within(at + FRONT.., at + FRONT - from);
        self.buf.truncate(self.buf.len() - from);
    }

    /// Puts a control message behind what is there.
    pub fn control(&mut self, payload: &[u8]) {
        self.frame(data_opcode(self.encoding), payload);
    }

    /// Puts a frame behind what is there.
    pub fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.seal();
        self.message_costs += MESSAGE_COST;
        let mut header = [0; 10];
        let len = frame_header(&mut header, opcode, payload.len());
        self.buf.extend_from_slice(&header[..len]);
        self.buf.extend_from_slice(payload);
    }

    /// Puts whole frames, as they are, behind what is there.
    pub fn frames(&mut self, bytes: &[u8]) {
        self.seal();
        self.buf.extend_from_slice(bytes);
    }

    /// Bytes to send; the array must be sealed.
    pub fn unsent(&self) -> &[u8] {
        debug_assert!(self.open.is_none(), "only sealed arrays are written");
        &self.buf[self.sent as usize..]
    }

    /// Records the number of bytes that the socket accepted.
    pub fn advance(&mut self, bytes: usize) {
        let sent = self.sent as usize + bytes;
        self.sent = sent as u32;
        self.taken += bytes as u64;
        debug_assert!(
            sent <= self.buf.len(),
            "a socket takes no more than it is given"
        );
        debug_assert!(self.open.is_none(), "only sealed arrays are written");
        if sent == self.buf.len() {
            self.buf.clear();
            self.sent = 0;
        } else if sent > COMPACT_AT && sent * 2 > self.buf.len() {
            self.buf.drain(..sent);
            self.sent = 0;
        }
    }
}

const fn data_opcode(encoding: Encoding) -> Opcode {
    if encoding.is_text() {
        Opcode::Text
    } else {
        Opcode::Binary
    }
}

/// Writes a server's frame header (unmasked, one fragment); returns its length.
fn frame_header(out: &mut [u8; 10], opcode: Opcode, payload: usize) -> usize {
    out[0] = 0x80 | opcode as u8;
    match payload {
        0..=125 => {
            out[1] = payload as u8;
            2
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    }
}

/// Writes a MessagePack array header against the end of the front; returns its length.
fn array_header(front: &mut [u8; FRONT], events: u32) -> usize {
    match events {
        0..=15 => {
            front[FRONT - 1] = 0x90 | events as u8;
            1
        }
        16..=0xffff => {
            front[FRONT - 3] = 0xdc;
            front[FRONT - 2..].copy_from_slice(&(events as u16).to_be_bytes());
            3
        }
        _ => {
            front[FRONT - 5] = 0xdd;
            front[FRONT - 4..].copy_from_slice(&events.to_be_bytes());
            5
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketContext};

    fn read_back(frames: &FrameBuffer) -> Vec<Vec<u8>> {
        let mut stream = std::io::Cursor::new(frames.unsent().to_vec());
        let mut context = WebSocketContext::new(Role::Client, None);
        let mut messages = Vec::new();
        while let Ok(message) = context.read(&mut stream) {
            match message {
                Message::Binary(bytes) => messages.push(bytes.to_vec()),
                Message::Text(text) => messages.push(text.as_bytes().to_vec()),
                _ => {}
            }
        }
        messages
    }

    #[test]
    fn arrays_of_every_size_between_control_messages_decode() {
        for events in [1usize, 15, 16, 200, 70_000] {
            let mut frames = FrameBuffer::new(Encoding::Msgpack, 1 << 20);
            for _ in 0..2 {
                (0..events).for_each(|_| frames.events(&[7], 1));
                frames.control(&[0x80]);
            }
            frames.seal();
            let messages = read_back(&frames);
            assert_eq!(messages.len(), 4);
            let array: Vec<u8> = rmp_serde::from_slice(&messages[0]).expect("an array of events");
            assert_eq!(array, vec![7; events]);
            assert_eq!((&messages[0], &messages[1]), (&messages[2], &messages[3]));
        }
    }

    #[test]
    fn json_arrays_have_commas_between_events() {
        let mut frames = FrameBuffer::new(Encoding::Json, 1 << 20);
        frames.events(b"{}", 1);
        frames.events(b"{}", 1);
        frames.control(b"{\"op\":1}");
        frames.events(b"{}", 1);
        frames.seal();
        let texts: Vec<_> = read_back(&frames)
            .into_iter()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect();
        assert_eq!(texts, ["[{},{}]", "{\"op\":1}", "[{}]"]);
    }

    #[test]
    fn an_array_after_a_partly_sent_one_keeps_its_order() {
        let mut frames = FrameBuffer::new(Encoding::Msgpack, 1 << 20);
        frames.events(&[1], 1);
        frames.seal();
        let mut got = frames.unsent()[..2].to_vec();
        frames.advance(2);
        frames.events(&[2], 1);
        frames.seal();
        got.extend_from_slice(frames.unsent());
        assert_eq!(got, [0x82, 2, 0x91, 1, 0x82, 2, 0x91, 2]);
    }

    #[test]
    fn a_client_that_waits_keeps_only_what_is_unsent() {
        let mut frames = FrameBuffer::new(Encoding::Msgpack, 1 << 20);
        frames.lend(Vec::with_capacity(1 << 20));
        (0..40).for_each(|n| frames.events(&[n; 1000], 1));
        frames.seal();
        frames.advance(30_000);
        let unsent = frames.unsent().to_vec();
        let buffer = frames.reclaim_unused().expect("most of it is unused");
        assert!(buffer.is_empty() && buffer.capacity() >= 1 << 20);
        assert_eq!(frames.unsent(), unsent);
        assert_eq!(frames.buf.capacity(), unsent.len());
        assert!(
            frames.reclaim_unused().is_none(),
            "no copy of a full buffer"
        );
        frames.advance(unsent.len());
        assert!(frames.reclaim_unused().is_some() && frames.needs_buffer());
    }

    #[test]
    fn sent_bytes_are_freed_even_if_the_client_never_catches_up() {
        let mut frames = FrameBuffer::new(Encoding::Msgpack, 1 << 20);
        for _ in 0..10_000 {
            frames.events(&[7; 1000], 1);
            frames.seal();
            let taken = frames.len().min(1_003);
            frames.advance(taken.saturating_sub(usize::from(frames.len() < 100_000)));
        }
        assert!(
            frames.buf.capacity() < 1 << 20,
            "{} bytes for {} that wait",
            frames.buf.capacity(),
            frames.len()
        );
    }
}
