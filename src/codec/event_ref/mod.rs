//! Decoder for clients that need the head of each event only: MessagePack is validated in place,
//! without an allocation.
//!
//! The short path accepts the forms in which servers write events: known keys once each, plain
//! decimals, ASCII symbols. The ordinary decoder handles an event with anything else, so both
//! accept the same messages.

#![deny(clippy::arithmetic_side_effects)]

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "the numbers of the tests are their own"
)]
mod tests;

use super::decode_error::{DecodeError, MessageFault};
use super::message::decode_server_message;
use super::read;
use crate::market::{Aggressor, Body, Symbol, UnixNanos};
use crate::protocol::{DataEvent, Encoding, Seq, ServerMessage};
use crate::topic::Channel;

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
        let mut after = input;
        if let Some(event) = plain(&mut after, symbol) {
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

/// Keys of events as words.
mod key {
    use super::word;

    pub(super) const CH: u64 = word("ch");
    pub(super) const SYM: u64 = word("sym");
    pub(super) const SEQ: u64 = word("seq");
    pub(super) const TS: u64 = word("ts");
    pub(super) const TX: u64 = word("tx");
    pub(super) const IV: u64 = word("iv");
    pub(super) const PX: u64 = word("px");
    pub(super) const QTY: u64 = word("qty");
    pub(super) const SIDE: u64 = word("side");
    pub(super) const ID: u64 = word("id");
    pub(super) const BID: u64 = word("bid");
    pub(super) const BIDQ: u64 = word("bidq");
    pub(super) const ASK: u64 = word("ask");
    pub(super) const ASKQ: u64 = word("askq");
    pub(super) const LAST: u64 = word("last");
    pub(super) const OPEN: u64 = word("open");
    pub(super) const HIGH: u64 = word("high");
    pub(super) const LOW: u64 = word("low");
    pub(super) const VOL: u64 = word("vol");
    pub(super) const VWAP: u64 = word("vwap");
    pub(super) const CHG: u64 = word("chg");
    pub(super) const N: u64 = word("n");
    pub(super) const START: u64 = word("start");
    pub(super) const O: u64 = word("o");
    pub(super) const H: u64 = word("h");
    pub(super) const L: u64 = word("l");
    pub(super) const C: u64 = word("c");
    pub(super) const DONE: u64 = word("done");
}

/// Bits of the fields in the set of those that an event has.
mod bit {
    pub(super) const CH: u32 = 1 << 0;
    pub(super) const SYM: u32 = 1 << 1;
    pub(super) const SEQ: u32 = 1 << 2;
    pub(super) const TS: u32 = 1 << 3;
    pub(super) const TX: u32 = 1 << 4;
    pub(super) const IV: u32 = 1 << 5;
    pub(super) const PX: u32 = 1 << 6;
    pub(super) const QTY: u32 = 1 << 7;
    pub(super) const SIDE: u32 = 1 << 8;
    pub(super) const ID: u32 = 1 << 9;
    pub(super) const BID: u32 = 1 << 10;
    pub(super) const BIDQ: u32 = 1 << 11;
    pub(super) const ASK: u32 = 1 << 12;
    pub(super) const ASKQ: u32 = 1 << 13;
    pub(super) const LAST: u32 = 1 << 14;
    pub(super) const OPEN: u32 = 1 << 15;
    pub(super) const HIGH: u32 = 1 << 16;
    pub(super) const LOW: u32 = 1 << 17;
    pub(super) const VOL: u32 = 1 << 18;
    pub(super) const VWAP: u32 = 1 << 19;
    pub(super) const CHG: u32 = 1 << 20;
    pub(super) const N: u32 = 1 << 21;
    pub(super) const START: u32 = 1 << 22;
    pub(super) const O: u32 = 1 << 23;
    pub(super) const H: u32 = 1 << 24;
    pub(super) const L: u32 = 1 << 25;
    pub(super) const C: u32 = 1 << 26;
    pub(super) const DONE: u32 = 1 << 27;
}

/// Reads an event in the usual form; `None` if the ordinary decoder must read it.
fn plain<'a>(input: &mut &'a [u8], known_symbol: &'a str) -> Option<EventRef<'a>> {
    let (marker, rest) = input.split_first()?;
    *input = rest;
    if marker & 0xf0 != 0x80 {
        return None;
    }
    let mut has = 0u32;
    let (mut name, mut param, mut symbol) = (0, 0, known_symbol);
    let (mut seq, mut ts, mut tx, mut start, mut is_done) = (0, 0, 0, 0, false);
    for _ in 0..marker & 0x0f {
        let key = take_word(input)?;
        if let [0xc0, rest @ ..] = *input {
            *input = rest;
            continue;
        }
        let bit = match key {
            key::CH => set(&mut name, take_word(input)?, bit::CH),
            key::IV => set(&mut param, take_word(input)?, bit::IV),
            key::SYM => set(&mut symbol, take_symbol(input, known_symbol)?, bit::SYM),
            key::SEQ => set(&mut seq, take_integer(input)?, bit::SEQ),
            key::TS => set(&mut ts, take_integer(input)?, bit::TS),
            key::TX => set(&mut tx, take_integer(input)?, bit::TX),
            key::N => take_integer(input).map(|_| bit::N)?,
            key::START => set(&mut start, take_integer(input)?, bit::START),
            key::DONE => set(&mut is_done, take_flag(input)?, bit::DONE),
            key::SIDE => take_side(input).map(|()| bit::SIDE)?,
            key::ID => take_id(input).map(|()| bit::ID)?,
            _ => {
                let bit = decimal_bit(key)?;
                take_decimal(input)?;
                bit
            }
        };
        if has & bit != 0 {
            return None;
        }
        has |= bit;
    }
    let channel = channel_of(name, param)?;
    let is_bar = matches!(channel, Channel::Bar(_));
    is_complete(channel, has).then_some(EventRef {
        channel,
        symbol,
        seq: Seq(seq),
        ts: UnixNanos(ts),
        tx: UnixNanos(tx),
        bar: is_bar.then_some((UnixNanos(start), is_done)),
    })
}

/// Stores the value of a field; returns the bit of the field.
fn set<T>(into: &mut T, value: T, bit: u32) -> u32 {
    *into = value;
    bit
}

/// Bit of a field with a decimal, by its key.
const fn decimal_bit(key: u64) -> Option<u32> {
    Some(match key {
        key::BID => bit::BID,
        key::BIDQ => bit::BIDQ,
        key::ASK => bit::ASK,
        key::ASKQ => bit::ASKQ,
        key::PX => bit::PX,
        key::QTY => bit::QTY,
        key::LAST => bit::LAST,
        key::OPEN => bit::OPEN,
        key::HIGH => bit::HIGH,
        key::LOW => bit::LOW,
        key::VOL => bit::VOL,
        key::VWAP => bit::VWAP,
        key::CHG => bit::CHG,
        key::O => bit::O,
        key::H => bit::H,
        key::L => bit::L,
        key::C => bit::C,
        _ => return None,
    })
}

/// True if the event has the fields of its channel.
const fn is_complete(channel: Channel, has: u32) -> bool {
    const HEAD: u32 = bit::CH | bit::SYM | bit::SEQ | bit::TS | bit::TX;
    let body = match channel {
        Channel::Trade => bit::PX | bit::QTY,
        Channel::Quote => {
            // A side may be empty, and a level may have no quantity.
            let has_bid = has & bit::BID != 0 || has & bit::BIDQ == 0;
            let has_ask = has & bit::ASK != 0 || has & bit::ASKQ == 0;
            if !(has_bid && has_ask) {
                return false;
            }
            0
        }
        Channel::Ticker => {
            bit::LAST | bit::OPEN | bit::HIGH | bit::LOW | bit::VOL | bit::VWAP | bit::N
        }
        Channel::Bar(_) => {
            bit::START | bit::O | bit::H | bit::L | bit::C | bit::VOL | bit::N | bit::DONE
        }
        // Rare; the ordinary decoder reads it.
        Channel::Status => return false,
    };
    has & (HEAD | body) == HEAD | body
}

/// A short MessagePack text as one number: marker and bytes, the first in the lowest byte.
const fn word(text: &str) -> u64 {
    let bytes = text.as_bytes();
    assert!(
        bytes.len() <= WORD_BYTES_MAX,
        "a word has its marker and up to 7 bytes"
    );
    let mut word = [0; 8];
    word[0] = 0xa0 | bytes.len() as u8;
    let (_, texts) = word.split_at_mut(1);
    let (text, _) = texts.split_at_mut(bytes.len());
    text.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

const WORD_BYTES_MAX: usize = 7;
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
    // 1 to 8 bytes are kept.
    let kept = u64::MAX.unbounded_shr(56u32.saturating_sub(8u32.saturating_mul(len as u32)));
    (input.len() > len).then_some((len, word & kept))
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
    const HIGH: u64 = 0x8080_8080_8080_8080;
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

/// Takes a symbol of ASCII characters. The events of a topic are adjacent in most messages, so it
/// is compared with the `known` one first.
fn take_symbol<'a>(input: &mut &'a [u8], known: &'a str) -> Option<&'a str> {
    let text = take_text(input)?;
    if text == known.as_bytes() && !known.is_empty() {
        return Some(known);
    }
    let is_plain = |byte: &u8| byte.is_ascii() && Symbol::allows(char::from(*byte));
    if text.is_empty() || !text.iter().all(is_plain) {
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
