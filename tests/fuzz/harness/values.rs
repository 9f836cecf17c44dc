//! Texts of single values: topics, patterns, symbols, decimals and times.

use tickcast::market::{Symbol, UnixNanos, parse_decimal};
use tickcast::topic::{TopicName, TopicPattern};

use super::{MILLIS, OF_A_MESSAGE, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "values",
    check,
    work,
    memory: OF_A_MESSAGE,
    millis: MILLIS,
    bytes_max: 64 << 10,
    words: &[
        b"trade:",
        b"quote:",
        b"bar:",
        b":1m",
        b":1d",
        b"*",
        b"~3A",
        b"~",
        b"\xe2\x80\xae",
        b"\xc3\xa9",
        b"79228162514264337593543950335",
        b"0.0000000000000000000000000001",
        b"1e-28",
        b"-0",
        b"2026-01-05T14:30:00.999999999Z",
        b"+14:00",
        b"2500-01-01",
        b"18446744073.999999999",
    ],
};

/// A text that is accepted is written as it was read.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match TopicName::parse(text) {
        Ok(name) => {
            assert_eq!(name.to_string(), text);
            if let TopicName::Topic(topic) = &name {
                matches_its_prefixes(topic);
            }
        }
        Err(error) => assert_printable(&error.to_string()),
    }
    match Symbol::new(text) {
        Ok(symbol) => assert_eq!(symbol.as_str(), text),
        Err(error) => assert_printable(&error.to_string()),
    }
    if let Err(error) = Symbol::from_venue(text) {
        assert_printable(&error.to_string());
    }
    match parse_decimal(text) {
        Ok(value) => assert_eq!(parse_decimal(&value.to_string()), Ok(value)),
        Err(error) => assert_printable(&error.to_string()),
    }
    if let Err(error) = UnixNanos::parse_utc(text) {
        assert_printable(&error.to_string());
    }
}

fn matches_its_prefixes(topic: &tickcast::topic::Topic) {
    let symbol = topic.symbol.as_str();
    for (at, _) in symbol.char_indices() {
        let pattern = TopicPattern {
            channel: topic.channel,
            prefix: symbol[..at].into(),
        };
        assert!(pattern.matches(topic), "{pattern} {topic}");
        let again = TopicName::parse(&pattern.to_string());
        assert_eq!(again, Ok(TopicName::Pattern(pattern)));
    }
}

pub(crate) fn work(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _name = TopicName::parse(text);
    let _symbol = Symbol::from_venue(text);
    let _decimal = parse_decimal(text);
    let _time = UnixNanos::parse_utc(text);
}
