//! Fields of events: their keys as words, and the fields that each channel has.

use crate::topic::Channel;

/// Maximum length of a text that is one word.
pub(super) const WORD_BYTES_MAX: usize = 7;

/// A short MessagePack text as one number: marker and bytes, the first in the lowest byte.
pub(super) const fn word(text: &str) -> u64 {
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

/// Keys of events as words.
pub(super) mod key {
    use super::word;

    pub(crate) const CH: u64 = word("ch");
    pub(crate) const SYM: u64 = word("sym");
    pub(crate) const SEQ: u64 = word("seq");
    pub(crate) const TS: u64 = word("ts");
    pub(crate) const TX: u64 = word("tx");
    pub(crate) const IV: u64 = word("iv");
    pub(crate) const PX: u64 = word("px");
    pub(crate) const QTY: u64 = word("qty");
    pub(crate) const SIDE: u64 = word("side");
    pub(crate) const ID: u64 = word("id");
    pub(crate) const BID: u64 = word("bid");
    pub(crate) const BIDQ: u64 = word("bidq");
    pub(crate) const ASK: u64 = word("ask");
    pub(crate) const ASKQ: u64 = word("askq");
    pub(crate) const LAST: u64 = word("last");
    pub(crate) const OPEN: u64 = word("open");
    pub(crate) const HIGH: u64 = word("high");
    pub(crate) const LOW: u64 = word("low");
    pub(crate) const VOL: u64 = word("vol");
    pub(crate) const VWAP: u64 = word("vwap");
    pub(crate) const CHG: u64 = word("chg");
    pub(crate) const N: u64 = word("n");
    pub(crate) const START: u64 = word("start");
    pub(crate) const O: u64 = word("o");
    pub(crate) const H: u64 = word("h");
    pub(crate) const L: u64 = word("l");
    pub(crate) const C: u64 = word("c");
    pub(crate) const DONE: u64 = word("done");
}

/// Bits of the fields in the set of those that an event has.
pub(super) mod bit {
    pub(crate) const CH: u32 = 1 << 0;
    pub(crate) const SYM: u32 = 1 << 1;
    pub(crate) const SEQ: u32 = 1 << 2;
    pub(crate) const TS: u32 = 1 << 3;
    pub(crate) const TX: u32 = 1 << 4;
    pub(crate) const IV: u32 = 1 << 5;
    pub(crate) const PX: u32 = 1 << 6;
    pub(crate) const QTY: u32 = 1 << 7;
    pub(crate) const SIDE: u32 = 1 << 8;
    pub(crate) const ID: u32 = 1 << 9;
    pub(crate) const BID: u32 = 1 << 10;
    pub(crate) const BIDQ: u32 = 1 << 11;
    pub(crate) const ASK: u32 = 1 << 12;
    pub(crate) const ASKQ: u32 = 1 << 13;
    pub(crate) const LAST: u32 = 1 << 14;
    pub(crate) const OPEN: u32 = 1 << 15;
    pub(crate) const HIGH: u32 = 1 << 16;
    pub(crate) const LOW: u32 = 1 << 17;
    pub(crate) const VOL: u32 = 1 << 18;
    pub(crate) const VWAP: u32 = 1 << 19;
    pub(crate) const CHG: u32 = 1 << 20;
    pub(crate) const N: u32 = 1 << 21;
    pub(crate) const START: u32 = 1 << 22;
    pub(crate) const O: u32 = 1 << 23;
    pub(crate) const H: u32 = 1 << 24;
    pub(crate) const L: u32 = 1 << 25;
    pub(crate) const C: u32 = 1 << 26;
    pub(crate) const DONE: u32 = 1 << 27;
}

/// Bit of a field with a decimal, by its key.
pub(super) const fn decimal_bit(key: u64) -> Option<u32> {
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
pub(super) const fn is_complete(channel: Channel, has: u32) -> bool {
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
