//! Foreign text made safe for terminals and logs.

use std::borrow::Cow;

/// Whether a character changes what a terminal shows beyond itself: control characters, line and paragraph separators, and
/// the marks that turn the direction of text (Unicode Bidirectional Algorithm, UAX #9).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with every unsafe character as its escape, as in `\n` or `\u{1b}`.
///
/// ```
/// use tickcast::printable::printable;
///
/// assert_eq!(printable("BTC-USD"), "BTC-USD");
/// assert_eq!(printable("\u{1b}]0;title"), "\\u{1b}]0;title");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_escaped_and_others_stay() {
        assert_eq!(printable("a\r\nINFO forged"), "a\\r\\nINFO forged");
        assert_eq!(printable("\u{202e}live"), "\\u{202e}live");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(printable("币安人生USDT €"), "币安人生USDT €");
    }
}
