//! Readers for the value types in the table of keys.

use std::net::SocketAddr;
use std::time::Duration;

use rust_decimal::Decimal;

use super::super::table::{self, Kind};
use super::super::yaml::{Node, Value};
use super::super::{Problem, units};
use super::Section;
use crate::market::{UnixNanos, parse_decimal};

impl Section<'_> {
    /// String value; empty if absent.
    pub(in crate::config) fn text(&self, key: &str) -> String {
        self.read(key, "a string", |text| Some(text.to_owned()))
            .unwrap_or_default()
    }

    /// Required string value.
    pub(in crate::config) fn required(&self, key: &str) -> String {
        if !self.has(key) {
            self.findings.problem(Problem::new(
                self.mark,
                &self.shown_path(key),
                "missing; this key is required".into(),
            ));
        }
        self.text(key)
    }

    pub(in crate::config) fn flag(&self, key: &str) -> bool {
        let parse = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        self.read(key, "true or false", parse).unwrap_or_default()
    }

    pub(in crate::config) fn integer(&self, key: &str) -> u64 {
        let Kind::Integer(least, most) = self.kind(key) else {
            return 0;
        };
        let wanted = if most == u64::MAX {
            format!("an integer of at least {least}")
        } else {
            format!("an integer from {least} to {most}")
        };
        self.read(key, &wanted, |text| {
            text.parse()
                .ok()
                .filter(|value| (least..=most).contains(value))
        })
        .unwrap_or_default()
    }

    /// Integer; `None` if the key is absent.
    pub(in crate::config) fn integer_if_any(&self, key: &str) -> Option<u64> {
        if !self.has(key) {
            self.taken.borrow_mut().push(key.to_owned());
            return None;
        }
        Some(self.integer(key))
    }

    pub(in crate::config) fn number(&self, key: &str) -> f64 {
        let Kind::Number(least, most) = self.kind(key) else {
            return 0.0;
        };
        let wanted = format!("a number from {least} to {most}");
        self.read(key, &wanted, |text| {
            text.parse()
                .ok()
                .filter(|value| (least..=most).contains(value))
        })
        .unwrap_or_default()
    }

    pub(in crate::config) fn decimal(&self, key: &str) -> Decimal {
        self.read(key, "a decimal number, e.g. \"64000.50\"", |text| {
            parse_decimal(text).ok()
        })
        .unwrap_or_default()
    }

    /// Duration; `None` if the key is absent and the table has no default.
    pub(in crate::config) fn duration_if_any(&self, key: &str) -> Option<Duration> {
        if !self.has(key)
            && table::find(&self.table_path(key))
                .is_none_or(|entry| entry.default.is_none_or(str::is_empty))
        {
            self.taken.borrow_mut().push(key.to_owned());
            return None;
        }
        Some(self.duration(key))
    }

    pub(in crate::config) fn duration(&self, key: &str) -> Duration {
        let Kind::Duration(least, most) = self.kind(key) else {
            return Duration::ZERO;
        };
        let wanted = format!("a duration from {least} to {most}, e.g. 250ms, 5s, 10m, 2d");
        let bounds = units::duration(least).unwrap_or_default()
            ..=units::duration(most).unwrap_or(Duration::MAX);
        self.read(key, &wanted, |text| {
            units::duration(text).filter(|value| bounds.contains(value))
        })
        .unwrap_or_default()
    }

    pub(in crate::config) fn size(&self, key: &str) -> usize {
        let Kind::Size(least, most) = self.kind(key) else {
            return 0;
        };
        let wanted = format!("a size from {least} to {most}, e.g. 64KiB, 1MiB");
        let bounds =
            units::size(least).unwrap_or_default()..=units::size(most).unwrap_or(usize::MAX);
        self.read(key, &wanted, |text| {
            units::size(text).filter(|value| bounds.contains(value))
        })
        .unwrap_or_default()
    }

    pub(in crate::config) fn rate(&self, key: &str) -> f64 {
        let positive = |text: &str| units::rate(text).filter(|rate| *rate > 0.0 && *rate <= 1e7);
        self.read(key, "a rate above zero, e.g. 20/s, 30/m", positive)
            .unwrap_or(1.0)
    }

    pub(in crate::config) fn address(&self, key: &str) -> SocketAddr {
        let wanted = "host:port, e.g. 127.0.0.1:8080, [::1]:8080 or localhost:8080";
        self.read(key, wanted, units::parse_address)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Listen address; `None` if it is disabled by `off`.
    pub(in crate::config) fn address_or_off(&self, key: &str) -> Option<SocketAddr> {
        (self.text(key) != "off").then(|| self.address(key))
    }

    pub(in crate::config) fn time_if_any(&self, key: &str) -> Option<UnixNanos> {
        if !self.has(key) {
            self.taken.borrow_mut().push(key.to_owned());
            return None;
        }
        self.read(key, "a UTC time, e.g. 2026-01-31T09:30:00Z", |text| {
            UnixNanos::parse_utc(text).ok()
        })
    }

    pub(in crate::config) fn word(&self, key: &str) -> &'static str {
        let Kind::Word(words) = self.kind(key) else {
            return "";
        };
        let wanted = match words {
            [others @ .., last] if !others.is_empty() => {
                format!("{} or {last}", others.join(", "))
            }
            words => words.join(""),
        };
        self.read(key, &wanted, |text| {
            words.iter().copied().find(|word| *word == text)
        })
        .unwrap_or_default()
    }

    /// List of strings, each parsed by `parse`; entries that fail to parse are reported as
    /// problems.
    pub(in crate::config) fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let read = |text: String| {
            let parsed = parse(&text);
            if parsed.is_none() {
                let found = text.escape_debug();
                self.problem(key, format!("invalid value \"{found}\": expected {wanted}"));
            }
            parsed
        };
        self.texts(key).into_iter().filter_map(read).collect()
    }

    /// List of strings; a single string counts as a list of one. A default from the table is split
    /// at commas.
    pub(in crate::config) fn texts(&self, key: &str) -> Vec<String> {
        let texts = self.given_texts(key);
        self.record(self.table_path(key), &texts);
        texts
    }

    pub(super) fn given_texts(&self, key: &str) -> Vec<String> {
        match self.take(key) {
            None
            | Some(Node {
                value: Value::Null, ..
            }) => {
                let default = table::find(&self.table_path(key)).and_then(|entry| entry.default);
                let words = default.unwrap_or_default().split(',').map(str::trim);
                words
                    .filter(|word| !word.is_empty())
                    .map(str::to_owned)
                    .collect()
            }
            Some(Node {
                value: Value::Text(text),
                ..
            }) => vec![text.clone()],
            Some(Node {
                value: Value::List(items),
                ..
            }) => {
                let text = |item: &Node| match &item.value {
                    Value::Text(text) => Some(text.clone()),
                    other => {
                        let message = format!("expected a string, got {}", other.kind());
                        self.findings.problem(Problem::new(
                            item.mark,
                            &self.shown_path(key),
                            message,
                        ));
                        None
                    }
                };
                items.iter().filter_map(text).collect()
            }
            Some(Node {
                value: Value::Map(_),
                ..
            }) => {
                self.problem(key, "expected a list, got a section");
                Vec::new()
            }
        }
    }
}
