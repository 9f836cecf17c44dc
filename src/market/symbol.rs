//! Instrument names, and the mapping of venue spellings to them.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Symbol of an instrument: 1 to 64 bytes of printable Unicode except `:`, `*` and `,`;
/// case-sensitive.
///
/// Symbols are compared byte by byte; no Unicode normalization takes place. A venue's spelling that
/// contains other characters is mapped by [`Self::from_venue`].
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Symbol(Arc<str>);

/// Rejection of a text as a [`Symbol`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymbolError {
    /// The text is empty.
    #[error("missing symbol: expected 1 to 64 bytes, e.g. BTC-USD")]
    Empty,
    /// The text exceeds [`Symbol::BYTES_MAX`].
    #[error("symbol \"{0}\" is too long: expected at most 64 bytes of UTF-8")]
    Long(String),
    /// The text contains an invalid character; the second field is the spelling to use instead.
    #[error(
        "invalid symbol \"{0}\": it contains a character that topics cannot carry (`:`, `*`, `,`, white space, control or format \
         characters); write it as \"{1}\""
    )]
    Character(String, String),
}

/// True if a human-readable text may contain `c`: visible characters and the plain space.
pub fn is_printable(c: char) -> bool {
    c == ' ' || is_visible(c)
}

fn is_visible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    !matches!(
        c.general_category(),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::Surrogate
            | GeneralCategory::PrivateUse
            | GeneralCategory::Unassigned
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

/// First 40 characters of an untrusted text, escaped for logs and messages.
pub fn excerpt(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

impl Symbol {
    /// Maximum length of a symbol, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Validates the text of a symbol.
    pub fn new(text: &str) -> Result<Self, SymbolError> {
        if text.is_empty() {
            return Err(SymbolError::Empty);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(SymbolError::Long(excerpt(text)));
        }
        if !text.chars().all(Self::allows) {
            return Err(SymbolError::Character(
                excerpt(text),
                escaped(text, Self::allows),
            ));
        }
        Ok(Self(text.into()))
    }

    /// True if a symbol may contain `c`.
    pub fn allows(c: char) -> bool {
        !matches!(c, ':' | '*' | ',') && is_visible(c)
    }

    /// Maps a venue's spelling to a symbol: each byte of a character that topics cannot contain,
    /// and of `~` itself, is replaced by `~` and two hexadecimal digits. Different spellings give
    /// different symbols.
    pub fn from_venue(text: &str) -> Result<Self, SymbolError> {
        if text.chars().all(is_plain) {
            return Self::new(text);
        }
        Self::new(&escaped(text, is_plain))
    }

    /// Adds a venue prefix: `binance.BTCUSDT`. A dot in the venue's own name becomes `~2E`, so that
    /// different pairs give different symbols.
    pub fn with_venue(&self, venue: &Self) -> Result<Self, SymbolError> {
        let venue = escaped(venue.as_str(), |c| c != '.');
        Self::new(&format!("{venue}.{self}"))
    }

    /// Venue spelling from which [`Self::from_venue`] made this symbol.
    pub fn venue_spelling(&self) -> Cow<'_, str> {
        if !self.0.contains('~') {
            return Cow::Borrowed(&self.0);
        }
        let mut bytes = Vec::with_capacity(self.0.len());
        let mut rest = self.0.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            let code = after
                .get(..2)
                .filter(|_| *first == b'~')
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            bytes.push(code.unwrap_or(*first));
            rest = if code.is_some() { &after[2..] } else { after };
        }
        String::from_utf8(bytes).map_or(Cow::Borrowed(&*self.0), Cow::Owned)
    }

    /// Text of the symbol, as used in topics.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_plain(c: char) -> bool {
    c != '~' && Symbol::allows(c)
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_kept(c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            out.push('~');
            for nibble in [byte >> 4, byte & 0xf] {
                out.extend(char::from_digit(u32::from(nibble), 16).map(|d| d.to_ascii_uppercase()));
            }
        }
    }
    out
}

impl Borrow<str> for Symbol {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<Symbol> for String {
    fn from(symbol: Symbol) -> Self {
        symbol.0.as_ref().into()
    }
}

impl TryFrom<String> for Symbol {
    type Error = SymbolError;

    fn try_from(text: String) -> Result<Self, SymbolError> {
        Self::new(&text)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn symbols_of_real_venues_are_accepted_unchanged() {
        for text in [
            "币安人生USDT",
            "^GSPC",
            "ES=F",
            "@107",
            "BTC-USD",
            "A/B_c.d",
            "1000%",
            "a\"b",
            "été",
            "~",
        ] {
            assert_eq!(Symbol::new(text).as_ref().map(Symbol::as_str), Ok(text));
        }
        let longest = "x".repeat(Symbol::BYTES_MAX);
        assert!(Symbol::new(&longest).is_ok() && Symbol::new(&format!("{longest}x")).is_err());
        for bad in [
            "",
            "A:B",
            "A*",
            "A,B",
            "A B",
            "A\u{a0}B",
            "A\u{3000}",
            "\n",
            "\u{202e}evil",
            "A\u{200b}",
            "\u{feff}A",
            "A\u{ad}",
            "\u{e000}",
            "\u{2028}",
        ] {
            assert!(Symbol::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn characters_not_allowed_in_topics_are_escaped() {
        for (venue, symbol) in [
            ("BTCF0:USTF0", "BTCF0~3AUSTF0"),
            ("AAPL  240119C00150000", "AAPL~20~20240119C00150000"),
            ("A~B", "A~7EB"),
            ("A\u{202e}", "A~E2~80~AE"),
            ("BTCUSDT", "BTCUSDT"),
        ] {
            let mapped = Symbol::from_venue(venue).expect("short symbol");
            assert_eq!(
                (mapped.as_str(), &*mapped.venue_spelling()),
                (symbol, venue)
            );
        }
        let message = Symbol::new("BTC/USDT:USDT").map_err(|error| error.to_string());
        assert!(message.is_err_and(|text| text.contains("write it as \"BTC/USDT~3AUSDT\"")));
    }

    #[test]
    fn venues_and_symbols_with_dots_do_not_collide() {
        let pair = |venue: &str, symbol: &str| {
            let [venue, symbol] =
                [venue, symbol].map(|text| Symbol::new(text).expect("valid symbol"));
            symbol.with_venue(&venue).expect("short symbol").to_string()
        };
        assert_eq!(pair("binance", "BTCUSDT"), "binance.BTCUSDT");
        assert_ne!(pair("a.b", "c"), pair("a", "b.c"));
    }

    proptest! {
        #[test]
        fn the_mapping_is_injective(text in "\\PC{1,16}|.{1,8}|[~A-F0-9:* ]{1,10}") {
            if let Ok(symbol) = Symbol::from_venue(&text) {
                let spelling = symbol.venue_spelling();
                prop_assert_eq!(&*spelling, text.as_str());
            }
        }
    }
}
