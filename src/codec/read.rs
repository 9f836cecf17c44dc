//! Hand-written decoder for MessagePack arrays of events: a client that keeps up with a fast feed
//! decodes millions per second.

#![deny(clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use super::decode_error::MessageFault;
use super::event::Flat;
use crate::market::SourceKind;
use crate::protocol::{DataEvent, Seq};

/// Maximum nesting depth of the value of an unknown key.
const DEPTH_MAX: usize = 16;
/// Bytes of a short event. Memory is reserved for as many as the message has room for, whatever
/// number it announces.
const EVENT_BYTES: usize = 32;

type Read<T> = Result<T, MessageFault>;

const fn unexpected(wanted: &'static str, marker: u8) -> MessageFault {
    MessageFault::Marker { wanted, marker }
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Read<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(len).ok_or(MessageFault::CutShort)?;
    *input = rest;
    Ok(taken)
}

fn byte(input: &mut &[u8]) -> Read<u8> {
    let (first, rest) = input.split_first().ok_or(MessageFault::CutShort)?;
    *input = rest;
    Ok(*first)
}

/// Reads a big-endian number of `len` bytes.
fn number(input: &mut &[u8], len: usize) -> Read<u64> {
    Ok(take(input, len)?
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn text<'a>(input: &mut &'a [u8]) -> Read<&'a str> {
    let len = match byte(input)? {
        marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
        0xd9 => number(input, 1)? as usize,
        0xda => number(input, 2)? as usize,
        0xdb => number(input, 4)? as usize,
        marker => return Err(unexpected("a string", marker)),
    };
    Ok(std::str::from_utf8(take(input, len)?)?)
}

fn integer(input: &mut &[u8]) -> Read<u64> {
    match byte(input)? {
        small @ 0..=0x7f => Ok(small.into()),
        0xcc => number(input, 1),
        0xcd => number(input, 2),
        0xce => number(input, 4),
        0xcf => number(input, 8),
        // Some encoders write positive integers in a signed format.
        marker @ 0xd0..=0xd3 => {
            let len: usize = [1, 2, 4, 8][usize::from(marker & 3)];
            let value = number(input, len)?;
            let sign = [7, 15, 31, 63][usize::from(marker & 3)];
            let is_negative = value.unbounded_shr(sign) == 1;
            if is_negative {
                Err(MessageFault::Negative)
            } else {
                Ok(value)
            }
        }
        marker => Err(unexpected("an unsigned integer", marker)),
    }
}

fn flag(input: &mut &[u8]) -> Read<bool> {
    match byte(input)? {
        0xc2 => Ok(false),
        0xc3 => Ok(true),
        marker => Err(unexpected("true or false", marker)),
    }
}

/// Reads the number of entries of a map or an array from its marker and length.
pub(super) fn entries(input: &mut &[u8], small: u8, large: u8) -> Read<usize> {
    match byte(input)? {
        marker if marker & 0xf0 == small => Ok(usize::from(marker & 0x0f)),
        marker if marker == large => Ok(number(input, 2)? as usize),
        marker if marker.checked_sub(1) == Some(large) => Ok(number(input, 4)? as usize),
        marker => {
            let wanted = if small == 0x80 { "a map" } else { "a list" };
            Err(unexpected(wanted, marker))
        }
    }
}

/// Checks that the message has all values that its lengths announce.
pub(super) fn check_complete(bytes: &[u8]) -> Read<()> {
    skip(&mut &bytes[..], 0)
}

/// Skips a value of a later version.
fn skip(input: &mut &[u8], depth: usize) -> Read<()> {
    if depth > DEPTH_MAX {
        return Err(MessageFault::TooDeep(DEPTH_MAX));
    }
    let marker = *input.first().ok_or(MessageFault::CutShort)?;
    let (items, len) = match marker {
        0x80..=0x8f | 0xde | 0xdf => (entries(input, 0x80, 0xde)?.saturating_mul(2), 0),
        0x90..=0x9f | 0xdc | 0xdd => (entries(input, 0x90, 0xdc)?, 0),
        0xa0..=0xbf | 0xd9..=0xdb => return text(input).map(|_| ()),
        _ => {
            byte(input)?;
            let len = match marker {
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 | 0xd4 => 2,
                0xd5 => 3,
                0xca | 0xce | 0xd2 => 4,
                0xd6 => 5,
                0xcb | 0xcf | 0xd3 => 8,
                0xd7 => 9,
                0xd8 => 17,
                0xc4 => number(input, 1)? as usize,
                0xc5 => number(input, 2)? as usize,
                0xc6 => number(input, 4)? as usize,
                0xc7 => (number(input, 1)? as usize).saturating_add(1),
                0xc8 => (number(input, 2)? as usize).saturating_add(1),
                0xc9 => (number(input, 4)? as usize).saturating_add(1),
                _ => 0,
            };
            (0, len)
        }
    };
    take(input, len)?;
    for _ in 0..items {
        skip(input, depth.saturating_add(1))?;
    }
    Ok(())
}

/// Decodes an array of events; events of unknown channels are omitted.
pub(super) fn events(bytes: &[u8]) -> Read<Vec<DataEvent>> {
    let mut input = bytes;
    let count = entries(&mut input, 0x90, 0xdc)?;
    let mut events = Vec::with_capacity(count.min(bytes.len() / EVENT_BYTES));
    for _ in 0..count {
        events.extend(event(&mut input)?.into_event()?);
    }
    if input.is_empty() {
        Ok(events)
    } else {
        Err(MessageFault::BytesAfter)
    }
}

/// Decodes one event.
pub(super) fn event<'a>(input: &mut &'a [u8]) -> Read<Flat<'a>> {
    let mut flat = Flat::default();
    // One bit for each field that every event has.
    let mut missing = 0b1_1111u8;
    for _ in 0..entries(input, 0x80, 0xde)? {
        let key = text(input)?;
        if input.first() == Some(&0xc0) {
            byte(input)?;
            continue;
        }
        let others = match key {
            "ch" => {
                flat.ch = Cow::Borrowed(text(input)?);
                0b1_1110
            }
            "sym" => {
                flat.sym = Cow::Borrowed(text(input)?);
                0b1_1101
            }
            "seq" => {
                flat.seq = Seq(integer(input)?);
                0b1_1011
            }
            "ts" => {
                flat.ts = integer(input)?;
                0b1_0111
            }
            "tx" => {
                flat.tx = integer(input)?;
                0b0_1111
            }
            _ => {
                field(&mut flat, key, input)?;
                continue;
            }
        };
        missing &= others;
    }
    if missing != 0 {
        Err(MessageFault::NoEvent)
    } else {
        Ok(flat)
    }
}

fn field<'a>(flat: &mut Flat<'a>, key: &str, input: &mut &'a [u8]) -> Read<()> {
    let place = match key {
        "iv" => &mut flat.iv,
        "px" => &mut flat.px,
        "qty" => &mut flat.qty,
        "side" => &mut flat.side,
        "id" => &mut flat.id,
        "bid" => &mut flat.bid,
        "bidq" => &mut flat.bidq,
        "ask" => &mut flat.ask,
        "askq" => &mut flat.askq,
        "last" => &mut flat.last,
        "open" => &mut flat.open,
        "high" => &mut flat.high,
        "low" => &mut flat.low,
        "vol" => &mut flat.vol,
        "vwap" => &mut flat.vwap,
        "chg" => &mut flat.chg,
        "o" => &mut flat.o,
        "h" => &mut flat.h,
        "l" => &mut flat.l,
        "c" => &mut flat.c,
        "state" => &mut flat.state,
        "n" => return integer(input).map(|n| flat.n = Some(n)),
        "start" => return integer(input).map(|start| flat.start = Some(start)),
        "since" => return integer(input).map(|since| flat.since = Some(since)),
        "done" => return flag(input).map(|done| flat.done = Some(done)),
        "src" => {
            let word = text(input)?;
            flat.src = SourceKind::parse(word);
            return flat
                .src
                .map(|_| ())
                .ok_or_else(|| MessageFault::Source(word.to_owned()));
        }
        _ => return skip(input, 0),
    };
    *place = Some(Cow::Borrowed(text(input)?));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn additions_of_later_versions_are_ignored() {
        let value = serde_json::json!([{
            "ch": "trade", "sym": "A", "seq": 7, "ts": 1, "tx": 300, "px": "1.50", "qty": "2", "side": "buy",
            "new": {"a": [1, -5, 2.5, null, true, "x".repeat(40)], "b": vec![0; 20]}, "big": u64::MAX,
        }, {"ch": "unheard", "sym": "A", "seq": 1, "ts": 1, "tx": 1}]);
        let bytes = rmp_serde::to_vec(&value).expect("plain values");
        let read = events(&bytes).expect("it is read");
        assert_eq!(read.len(), 1);
        assert_eq!(
            (read[0].topic.to_string(), read[0].seq, read[0].tx.0),
            ("trade:A".to_owned(), Seq(7), 300)
        );
    }

    #[test]
    fn integers_have_any_width() {
        let forms: [&[u8]; 9] = [
            &[7],
            &[0xcc, 7],
            &[0xcd, 0, 7],
            &[0xce, 0, 0, 0, 7],
            &[0xcf, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0xd0, 7],
            &[0xd1, 0, 7],
            &[0xd2, 0, 0, 0, 7],
            &[0xd3, 0, 0, 0, 0, 0, 0, 0, 7],
        ];
        for mut form in forms {
            assert_eq!((integer(&mut form), form.len()), (Ok(7), 0));
        }
        assert!(integer(&mut &[0xd0, 0xff][..]).is_err() && integer(&mut &[0xff][..]).is_err());
    }

    #[test]
    fn invalid_events_are_rejected_with_the_reason() {
        let error = |value: serde_json::Value| {
            events(&rmp_serde::to_vec(&value).expect("plain values"))
                .map_or_else(|fault| fault.to_string(), |_| String::new())
        };
        assert!(error(serde_json::json!({})).contains("expected a list"));
        assert!(error(serde_json::json!([1])).contains("expected a map"));
        assert!(error(serde_json::json!([{"ch": "trade"}])).contains("`seq`"));
        // A repeated field does not stand for one that is missing.
        let repeated = [&[0x91, 0x85][..], &b"\xa2ch\xa1x".repeat(5)].concat();
        assert_eq!(events(&repeated).err(), Some(MessageFault::NoEvent));
        assert!(error(serde_json::json!([{"ch": 5}])).contains("expected a string"));
        assert!(
            events(&[0x91]).is_err_and(|error| error.to_string().contains("ends in the middle"))
        );
        assert!(
            events(&[0x90, 0x90])
                .is_err_and(|error| error.to_string().contains("unexpected bytes after"))
        );
        let deep = [vec![0x91, 0x81, 0xa1, b'x'], vec![0x91; 100]].concat();
        assert!(events(&deep).is_err_and(|error| error.to_string().contains("nested too deeply")));
    }

    #[test]
    fn announced_lengths_are_checked_before_memory_is_reserved() {
        let map = &b"\xdf\xff\xff\xff\xff"[..];
        assert_eq!(check_complete(map), Err(MessageFault::CutShort));
        let nested = [b"\x81\xa2op\xa5pong\xa1x".as_slice(), &[0x91; 20], map].concat();
        assert!(check_complete(&nested).is_err());
        assert_eq!(check_complete(b"\x81\xa2op\xa4pong"), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _unused = events(&bytes);
        }
    }
}
