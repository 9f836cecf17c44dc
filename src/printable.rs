//! Escaping of untrusted text for terminals and logs.

use std::borrow::Cow;
use std::fmt::Write;

/// True for characters that affect a terminal beyond their own cell: control characters, line and
/// paragraph separators, and directional formatting characters (Unicode Bidirectional Algorithm,
/// UAX #9).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text with every unsafe character escaped, as in `\n` or `\u{1b}`.
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

/// Truncated text, with an ellipsis if characters were removed.
pub fn shortened(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// JSON text with every unsafe character inside its strings replaced by a JSON escape, so that it
/// remains valid JSON.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    // Between the strings of a JSON text, only these three can occur.
    let needs_escape = |c: char| is_unsafe(c) && !matches!(c, '\t' | '\n' | '\r');
    if !text.contains(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if needs_escape(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("a String takes all");
            }
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
    fn json_stays_the_same_value() {
        let text = "{\"a\":\"\u{202e}\u{9b}31m\"}";
        let safe = printable_json(text);
        assert_eq!(safe, "{\"a\":\"\\u202e\\u009b31m\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&safe), value(text));
    }

    #[test]
    fn control_and_direction_characters_are_escaped_and_others_stay() {
        assert_eq!(printable("a\r\nINFO forged"), "a\\r\\nINFO forged");
        assert_eq!(printable("\u{202e}live"), "\\u{202e}live");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(printable("币安人生USDT €"), "币安人生USDT €");
    }
}
