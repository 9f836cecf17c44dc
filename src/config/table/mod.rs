//! Every key of the config: what it means, its unit, its default, its bounds. `check`, the errors and the operations guide
//! are made from this table.

mod server;
mod sources;

/// Type and bounds of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer(u64, u64),
    /// A number with decimals.
    Number(f64, f64),
    /// An exact decimal, in quotes or plain.
    Decimal,
    /// A length of time; the bounds as texts.
    Duration(&'static str, &'static str),
    /// Bytes; the bounds as texts.
    Size(&'static str, &'static str),
    /// Events a second, as in `20/s`.
    Rate,
    /// `HOST:PORT`, with an address of this machine.
    Address,
    /// A UTC time.
    Time,
    /// A list of texts.
    Texts,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A section or list, whose own keys follow.
    Section,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Path of the key; a source's own keys are listed under its kind.
    pub path: &'static str,
    /// Type and bounds of the value.
    pub kind: Kind,
    /// Value if the key is absent; `None`: required, or no default.
    pub default: Option<&'static str>,
    /// Meaning of the key.
    pub doc: &'static str,
    /// A running server can't take it up.
    pub needs_restart: bool,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Some(default),
        doc,
        needs_restart: false,
    }
}

const fn without_default(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: None,
        doc,
        needs_restart: false,
    }
}

const fn fixed(key: Key) -> Key {
    Key {
        needs_restart: true,
        ..key
    }
}

/// All keys, in the order of the guide.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [server::BASE, sources::SOURCES, server::LIMITS]
        .into_iter()
        .flatten()
}

/// The key at `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once() {
        let mut paths: Vec<_> = keys().map(|key| key.path).collect();
        paths.sort_unstable();
        assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
