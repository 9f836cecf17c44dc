use super::{Price, Qty, UnixNanos};

/// Side of the aggressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggressor {
    /// The buyer lifted the offer.
    Buy,
    /// The seller hit the bid.
    Sell,
    /// Unknown, or an auction.
    None,
}

impl Aggressor {
    /// Name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
            Self::None => "none",
        }
    }

    /// Parses the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Buy, Self::Sell, Self::None]
            .into_iter()
            .find(|side| side.name() == text)
    }
}

/// Trade id as provided by the source. Most are plain numbers, which need no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TradeId {
    /// The source provides no id.
    None,
    /// A number without leading zeros.
    Number(u64),
    /// Any other text.
    Text(Box<str>),
}

impl TradeId {
    /// Maximum length of an id, in bytes.
    pub const LEN_MAX: usize = 64;

    /// Parses the id of a source; an empty text means none. `None` if it exceeds [`Self::LEN_MAX`]
    /// or is not printable.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::None);
        }
        if text.len() > Self::LEN_MAX || !text.chars().all(super::is_printable) {
            return None;
        }
        let canonical =
            text == "0" || (!text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()));
        match text.parse() {
            Ok(number) if canonical => Some(Self::Number(number)),
            _ => Some(Self::Text(text.into())),
        }
    }

    /// Text on the wire; empty for no id.
    pub fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.to_string(),
        }
    }
}

/// A trade (print).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Trade {
    /// Event time at the source.
    pub ts: UnixNanos,
    /// Trade price.
    pub px: Price,
    /// Traded quantity, greater than zero.
    pub qty: Qty,
    /// Aggressor side.
    pub side: Aggressor,
    /// Trade id of the source.
    pub id: TradeId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trade_ids_keep_their_text() {
        for text in [
            "",
            "0",
            "42377944",
            "007",
            "18446744073709551616",
            "a-b",
            "f9d0b3a0-1",
        ] {
            assert_eq!(
                TradeId::parse(text).map(|id| id.text()),
                Some(text.to_owned())
            );
        }
        assert_eq!(TradeId::parse("7"), Some(TradeId::Number(7)));
        assert_eq!(TradeId::parse("a\nb"), None);
        assert_eq!(TradeId::parse("\u{202e}1"), None);
    }
}
