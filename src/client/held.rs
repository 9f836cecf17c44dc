//! Accounts of the topics that a connection holds, found by name or by channel and symbol.

#![deny(clippy::arithmetic_side_effects)]

use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;

use super::account::Account;
use crate::topic::Channel;

/// Accounts by topic. An event finds its account without its topic's name being composed.
#[derive(Debug)]
pub(super) struct HeldTopics {
    table: HashTable<Held>,
    /// Secret start of all hashes, so that a server cannot choose symbols that collide.
    seed: u64,
}

#[derive(Debug)]
struct Held {
    name: String,
    key: Key<Box<str>>,
    account: Account,
}

/// Channel and symbol of a topic; a name with an unknown channel is kept whole.
#[derive(Debug, Clone, Copy)]
struct Key<S> {
    channel: Option<Channel>,
    symbol: S,
}

impl<'a> Key<&'a str> {
    fn of(name: &'a str) -> Self {
        let mut parts = name.splitn(3, ':');
        let (channel, symbol) = (parts.next().unwrap_or_default(), parts.next());
        match (Channel::parse(channel, parts.next()), symbol) {
            (Ok(channel), Some(symbol)) => Self {
                channel: Some(channel),
                symbol,
            },
            _ => Self {
                channel: None,
                symbol: name,
            },
        }
    }
}

impl<S: AsRef<str>> Key<S> {
    /// FNV-1a: symbols are short, and an event is looked up in a few nanoseconds.
    fn hash(&self, seed: u64) -> u64 {
        const PRIME: u64 = 0x0100_0000_01b3;
        let channel = self
            .channel
            .map_or(u8::MAX, |channel| channel.index() as u8);
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        let bytes = self.symbol.as_ref().bytes();
        let hash = bytes.fold(step(seed, channel), step);
        // The table uses the upper and the lower bits.
        hash ^ hash >> 32
    }

    fn is(&self, other: &Key<&str>) -> bool {
        self.channel == other.channel && self.symbol.as_ref() == other.symbol
    }
}

impl Default for HeldTopics {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            seed: RandomState::new().hash_one(()),
        }
    }
}

impl HeldTopics {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Account)> {
        self.table.iter().map(|held| (&held.name, &held.account))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Account> {
        let key = Key::of(name);
        let found = self
            .table
            .find(key.hash(self.seed), |held| held.key.is(&key));
        found.map(|held| &held.account)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Account> {
        let key = Key::of(name);
        self.find_mut(key).map(|(_, account)| account)
    }

    /// Account of an event, with the name of its topic.
    pub(super) fn of_event(
        &mut self,
        channel: Channel,
        symbol: &str,
    ) -> Option<(&str, &mut Account)> {
        self.find_mut(Key {
            channel: Some(channel),
            symbol,
        })
    }

    fn find_mut(&mut self, key: Key<&str>) -> Option<(&str, &mut Account)> {
        let hash = key.hash(self.seed);
        let found = self.table.find_mut(hash, |held| held.key.is(&key));
        found.map(|held| (held.name.as_str(), &mut held.account))
    }

    /// Adds the account of a topic that is not held.
    pub(super) fn insert(&mut self, name: &str, account: Account) {
        let key = Key::of(name);
        let held = Held {
            name: name.to_owned(),
            key: Key {
                channel: key.channel,
                symbol: key.symbol.into(),
            },
            account,
        };
        let seed = self.seed;
        let hash = key.hash(seed);
        self.table
            .insert_unique(hash, held, |held| held.key.hash(seed));
    }

    pub(super) fn remove(&mut self, name: &str) {
        let key = Key::of(name);
        let hash = key.hash(self.seed);
        if let Ok(entry) = self.table.find_entry(hash, |held| held.key.is(&key)) {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Interval;
    use crate::protocol::{Entry, Mode, OnSlow, Seq, Settings};

    #[test]
    fn accounts_are_found_by_name_and_by_event() {
        let settings = Settings {
            mode: Mode::Raw,
            on_slow: OnSlow::Gap,
        };
        let names = [
            "trade:A", "quote:A", "quote:AB", "bar:A:1m", "bar:A:5m", "candle:A", "trade",
        ];
        let mut held = HeldTopics::default();
        for (at, name) in names.iter().enumerate() {
            let entry = Entry::new((*name).to_owned(), settings);
            held.insert(name, Account::new(&entry, settings, Seq(at as u64)));
        }
        for (at, name) in names.iter().enumerate() {
            assert_eq!(held.get(name).map(|own| own.head), Some(Seq(at as u64)));
        }
        let mut of = |channel, symbol| {
            let found = held.of_event(channel, symbol);
            found.map(|(name, account)| (name.to_owned(), account.head.0))
        };
        assert_eq!(of(Channel::Quote, "AB"), Some(("quote:AB".to_owned(), 2)));
        assert_eq!(
            of(Channel::Bar(Interval::M5), "A"),
            Some(("bar:A:5m".to_owned(), 4))
        );
        assert_eq!(of(Channel::Ticker, "A"), None);
        held.remove("quote:A");
        held.remove("quote:A");
        assert_eq!((held.len(), held.iter().count()), (6, 6));
        assert!(held.get("quote:A").is_none() && held.get("trade:A").is_some());
    }
}
