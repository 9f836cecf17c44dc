//! Table of all config keys: meaning, unit, default and bounds. `check`, the errors and the
//! configuration reference are generated from it.

mod auth;
mod cluster;
mod faults;
mod roles;
mod rules;
mod server;
mod sources;

/// Type and bounds of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any string.
    Text,
    /// `true` or `false`.
    Flag,
    /// Integer, with its bounds.
    Integer(u64, u64),
    /// Number with decimals, with its bounds.
    Number(f64, f64),
    /// Exact decimal, quoted or plain.
    Decimal,
    /// Duration; the bounds are given as text.
    Duration(&'static str, &'static str),
    /// Size in bytes; the bounds are given as text.
    Size(&'static str, &'static str),
    /// Rate of events, as in `20/s`.
    Rate,
    /// Local address, `HOST:PORT`, or `off`.
    Address,
    /// UTC time.
    Time,
    /// List of strings.
    Texts,
    /// One of these keywords.
    Word(&'static [&'static str]),
    /// Section or list, whose keys follow in the table.
    Section,
}

/// One config key.
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
    /// True if a running server cannot apply a change of the key.
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

/// All keys, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [
        server::BASE,
        sources::SOURCES,
        rules::RULES,
        faults::FAULTS,
        server::LIMITS,
        auth::AUTH,
        roles::ROLES,
        cluster::CLUSTER,
    ]
    .into_iter()
    .flatten()
}

/// Key at `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_unique() {
        let mut paths: Vec<_> = keys().map(|key| key.path).collect();
        paths.sort_unstable();
        assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
