//! Decoder for clients that need the head of each event only: MessagePack is validated in place,
//! without an allocation.
//!
//! The short path accepts the forms in which servers write events: known keys, plain decimals,
//! ASCII symbols. The ordinary decoder handles an event with anything else, so both
//! accept the same messages.

#![deny(clippy::arithmetic_side_effects)]

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "the numbers of the tests are their own"
)]
mod tests;

mod fields;

use super::decode_error::{DecodeError, MessageFault};
use super::message::decode_server_message;
use super::read;
use crate::market::{Aggressor, Body, UnixNanos};
use crate::protocol::{DataEvent, Encoding, Seq, ServerMessage};
use crate::topic::Channel;
use fields::{WORD_BYTES_MAX, bit, decimal_bit, is_complete, key, word};

/// Head of a data event: topic, numbers and times, borrowed from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRef<'a> {
    /// Channel of the topic.
    pub channel: Channel,
    /// Symbol of the topic.
    pub symbol: &'a str,
    /// Sequence number within the epoch of the topic.
    pub seq: Seq,
    /// Event time at the source.
    pub ts: UnixNanos,
    /// Publication time.
    pub tx: UnixNanos,
    /// Start of the bar, and true if it is closed; `None` for other channels.
    pub bar: Option<(UnixNanos, bool)>,
}

impl EventRef<'_> {
    /// Name of the topic.
    pub fn topic(&self) -> String {
        let (name, symbol) = (self.channel.name(), self.symbol);
        match self.channel.param() {
            Some(param) => format!("{name}:{symbol}:{param}"),
            None => format!("{name}:{symbol}"),
        }
    }
}

impl<'a> From<&'a DataEvent> for EventRef<'a> {
    fn from(event: &'a DataEvent) -> Self {
        Self {
            channel: event.topic.channel,
            symbol: event.topic.symbol.as_str(),
            seq: event.seq,
            ts: event.body.ts(),
            tx: event.tx,
            bar: match &event.body {
                Body::Bar(bar) => Some((bar.start, bar.done)),
                _ => None,
            },
        }
    }
}

/// Decodes a list of events and calls `visit` for each, in order; returns the number of events, or
/// `None` if the message is not a list.
///
/// Every field is validated as by [`decode_server_message`], but prices and quantities are not
/// kept: MessagePack takes a fraction of the time, and JSON the same time. After an error, the
/// events before it have been visited.
///
/// ```
/// use tickcast::client::{EventRef, decode_server_message, visit_events};
/// use tickcast::protocol::{Encoding, Seq};
///
/// # fn main() -> Result<(), tickcast::client::DecodeError> {
/// let message = br#"[{"ch":"trade","sym":"BTC-USD","seq":7,"ts":1,"tx":2,"px":"1.5","qty":"2"}]"#;
/// let mut last = Seq::START;
/// let count = visit_events(message, Encoding::Json, |event: EventRef<'_>| last = event.seq)?;
/// assert_eq!((count, last), (Some(1), Seq(7)));
/// # Ok(())
/// # }
/// ```
pub fn visit_events(
    bytes: &[u8],
    encoding: Encoding,
    mut visit: impl FnMut(EventRef<'_>),
) -> Result<Option<u64>, DecodeError> {
    match (encoding, bytes.first()) {
        (Encoding::Msgpack, Some(0x90..=0x9f | 0xdc | 0xdd)) => {
            Ok(Some(visit_msgpack(bytes, &mut visit)?))
        }
        (Encoding::Json, Some(b'[')) => {
            let ServerMessage::Events(events) = decode_server_message(bytes, encoding)? else {
                return Ok(None);
            };
            for event in &events {
                visit(event.into());
            }
            Ok(Some(events.len() as u64))
        }
        _ => Ok(None),
    }
}

fn visit_msgpack(bytes: &[u8], visit: &mut impl FnMut(EventRef<'_>)) -> Result<u64, MessageFault> {
    let mut input = bytes;
    let mut visited = 0u64;
    let mut symbol = "";
    for _ in 0..read::entries(&mut input, 0x90, 0xdc)? {
        if let Some((event, after)) = plain(input, symbol) {
            symbol = event.symbol;
            input = after;
            visit(event);
        } else if let Some(event) = read::event(&mut input)?.into_event()? {
            visit((&event).into());
        } else {
            continue;
        }
        visited = visited.saturating_add(1);
    }
    if input.is_empty() {
        Ok(visited)
    } else {
        Err(MessageFault::BytesAfter)
    }
}

/// Reads an event in the usual form; returns it with the bytes behind it, or `None` if the ordinary
/// decoder must read it.
fn plain<'a>(message: &'a [u8], known_symbol: &'a str) -> Option<(EventRef<'a>, &'a [u8])> {
    let (marker, mut input) = message.split_first()?;
    if marker & 0xf0 != 0x80 {
        return None;
    }
    let mut has = 0u32;
    let (mut name, mut param, mut symbol) = (0, 0, known_symbol);
    let (mut seq, mut ts, mut tx, mut start, mut is_done) = (0, 0, 0, 0, false);
    for _ in 0..marker & 0x0f {
        let key = take_word(&mut input)?;
        if let [0xc0, rest @ ..] = input {
            // Any key may have no value, but each is UTF-8. The first byte of a word is its length.
            if key >> 8 & HIGH != 0 {
                return None;
            }
            input = rest;
            continue;
        }
        let bit = match key {
            key::CH => set(&mut name, take_word(&mut input)?, bit::CH),
            key::IV => set(&mut param, take_word(&mut input)?, bit::IV),
            key::SYM => set(
                &mut symbol,
                take_symbol(&mut input, known_symbol)?,
                bit::SYM,
            ),
            key::SEQ => set(&mut seq, take_integer(&mut input)?, bit::SEQ),
            key::TS => set(&mut ts, take_integer(&mut input)?, bit::TS),
            key::TX => set(&mut tx, take_integer(&mut input)?, bit::TX),
            key::N => take_integer(&mut input).map(|_| bit::N)?,
            key::START => set(&mut start, take_integer(&mut input)?, bit::START),
            key::DONE => set(&mut is_done, take_flag(&mut input)?, bit::DONE),
            key::SIDE => take_side(&mut input).map(|()| bit::SIDE)?,
            key::ID => take_id(&mut input).map(|()| bit::ID)?,
            _ => {
                let bit = decimal_bit(key)?;
                take_decimal(&mut input)?;
                bit
            }
        };
        has |= bit;
    }
    let channel = channel_of(name, param)?;
    let is_bar = matches!(channel, Channel::Bar(_));
    let event = EventRef {
        channel,
        symbol,
        seq: Seq(seq),
        ts: UnixNanos(ts),
        tx: UnixNanos(tx),
        bar: is_bar.then_some((UnixNanos(start), is_done)),
    };
    is_complete(channel, has).then_some((event, input))
}

/// Stores the value of a field; returns the bit of the field.
fn set<T>(into: &mut T, value: T, bit: u32) -> u32 {
    *into = value;
    bit
}

/// Bytes of a word that belong to a text, by its length.
const KEPT: [u64; 8] = [
    0xff,
    0xffff,
    0xff_ffff,
    0xffff_ffff,
    0xff_ffff_ffff,
    0xffff_ffff_ffff,
    0xff_ffff_ffff_ffff,
    u64::MAX,
];
/// High bit of each byte of a word, which no ASCII character has.
const HIGH: u64 = 0x8080_8080_8080_8080;
/// Longest decimal that is certainly in range: its digits are fewer than those of 2^96.
const PLAIN_DECIMAL_MAX: usize = 28;

/// Takes a text of up to 7 bytes. Near the end of the message there are not enough bytes to take it
/// at once, so the last fields are taken in steps.
fn take_word(input: &mut &[u8]) -> Option<u64> {
    let (len, word) = peek_word(input)?;
    *input = input.get(len.checked_add(1)?..)?;
    Some(word)
}

/// Length of the next text and its word, if it is short.
fn peek_word(input: &[u8]) -> Option<(usize, u64)> {
    let len = usize::from(input.first()? ^ 0xa0);
    if len > WORD_BYTES_MAX {
        return None;
    }
    let word = match input.first_chunk::<8>() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => input
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    (input.len() > len).then_some((len, word & KEPT[len]))
}

/// Takes a text of up to 31 bytes.
fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (marker, rest) = input.split_first()?;
    if marker & 0xe0 != 0xa0 {
        return None;
    }
    let (text, rest) = rest.split_at_checked(usize::from(marker & 0x1f))?;
    *input = rest;
    Some(text)
}

fn take_integer(input: &mut &[u8]) -> Option<u64> {
    fn bytes<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
        let (bytes, rest) = input.split_first_chunk::<N>()?;
        *input = rest;
        Some(*bytes)
    }
    let [marker] = bytes(input)?;
    Some(match marker {
        0xcf => u64::from_be_bytes(bytes(input)?),
        0..=0x7f => marker.into(),
        0xcc => u8::from_be_bytes(bytes(input)?).into(),
        0xcd => u16::from_be_bytes(bytes(input)?).into(),
        0xce => u32::from_be_bytes(bytes(input)?).into(),
        _ => return None,
    })
}

/// Takes a plain decimal: digits, with up to one point between them and a minus sign before them.
fn take_decimal(input: &mut &[u8]) -> Option<()> {
    if let Some((len, word)) = peek_word(input)
        && is_short_decimal(len, word)
    {
        *input = input.get(len.checked_add(1)?..)?;
        return Some(());
    }
    let text = take_text(input)?;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (first, last) = (digits.first()?, digits.last()?);
    let mut points = 0u8;
    for byte in digits {
        match byte {
            b'0'..=b'9' => {}
            b'.' => points = points.saturating_add(1),
            _ => return None,
        }
    }
    let is_plain =
        points <= 1 && *first != b'.' && *last != b'.' && digits.len() <= PLAIN_DECIMAL_MAX;
    is_plain.then_some(())
}

/// True for 1 to 7 bytes of digits with up to one point between them; tests all bytes at once.
fn is_short_decimal(len: usize, word: u64) -> bool {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const POINTS: u64 = 0x2e2e_2e2e_2e2e_2e2e;
    let Some(end) = (len as u32).checked_mul(8).filter(|end| *end > 0) else {
        return false;
    };
    // The text, and zeros behind it.
    let text = word >> 8 | ZEROS.unbounded_shl(end);
    if text & HIGH != 0 {
        return false;
    }
    // No sum exceeds a byte. The high bit of each byte that is a point:
    let points = !(text ^ POINTS).wrapping_add(0x7f7f_7f7f_7f7f_7f7f) & HIGH;
    // A point becomes a zero; then each byte is a digit.
    let digits = text.wrapping_add(points >> 6) ^ ZEROS;
    let others = digits.wrapping_add(0x7676_7676_7676_7676) & HIGH;
    let ends = 0x80 | HIGH & (0xff_u64.unbounded_shl(end.saturating_sub(8)));
    others == 0 && points & ends == 0 && points & points.wrapping_sub(1) == 0
}

/// True for the ASCII characters of symbols.
const fn is_symbol_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b':' | b'*' | b',')
}

/// Takes a symbol of ASCII characters. The events of a topic are adjacent in most messages, so it
/// is compared with the `known` one first.
fn take_symbol<'a>(input: &mut &'a [u8], known: &'a str) -> Option<&'a str> {
    let text = take_text(input)?;
    if text == known.as_bytes() && !known.is_empty() {
        return Some(known);
    }
    if text.is_empty() || !text.iter().copied().all(is_symbol_byte) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

/// Takes an id of printable ASCII characters.
fn take_id(input: &mut &[u8]) -> Option<()> {
    let text = take_text(input)?;
    let is_plain = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_plain.then_some(())
}

fn take_flag(input: &mut &[u8]) -> Option<bool> {
    let (marker, rest) = input.split_first()?;
    *input = rest;
    match marker {
        0xc2 => Some(false),
        0xc3 => Some(true),
        _ => None,
    }
}

fn take_side(input: &mut &[u8]) -> Option<()> {
    const SIDES: [u64; 3] = [
        word(Aggressor::Buy.name()),
        word(Aggressor::Sell.name()),
        word(Aggressor::None.name()),
    ];
    SIDES.contains(&take_word(input)?).then_some(())
}

/// Channel of the words of `ch` and `iv`, the second of which is 0 if it is missing.
fn channel_of(name: u64, param: u64) -> Option<Channel> {
    const CHANNELS: [(u64, u64, Channel); Channel::COUNT] = {
        let mut list = [(0, 0, Channel::Trade); Channel::COUNT];
        let mut at = 0;
        while at < Channel::COUNT {
            let channel = Channel::ALL[at];
            let param = match channel.param() {
                Some(param) => word(param),
                None => 0,
            };
            list[at] = (word(channel.name()), param, channel);
            at += 1;
        }
        list
    };
    let found = CHANNELS
        .iter()
        .find(|channel| (channel.0, channel.1) == (name, param));
    found.map(|channel| channel.2)
}
