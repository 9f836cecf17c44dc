//! Sets of symbols by exact names and prefixes.

use std::ops::Range;

use crate::market::{Symbol, excerpt};

/// One symbol (`BTC-USD`), or all symbols with a prefix (`BTC-*`, `*`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SymbolRule {
    /// The symbol or the prefix.
    text: Box<str>,
    /// True for a single symbol; a prefix sorts before the symbol of the same text.
    is_exact: bool,
}

/// Error for a text that is neither a symbol nor a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid symbol \"{0}\": expected a symbol, a prefix ending in * or *, e.g. BTC-*")]
pub struct SymbolRuleError(String);

impl SymbolRule {
    /// Parses a symbol, or a prefix that ends in `*`.
    pub fn parse(text: &str) -> Result<Self, SymbolRuleError> {
        let (text, is_exact) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, false),
            None => (text, true),
        };
        let fits = text.len() <= Symbol::BYTES_MAX && text.chars().all(Symbol::allows);
        if !fits || (is_exact && text.is_empty()) {
            return Err(SymbolRuleError(excerpt(text)));
        }
        Ok(Self {
            text: text.into(),
            is_exact,
        })
    }

    /// Rule for all symbols.
    pub fn all() -> Self {
        Self {
            text: "".into(),
            is_exact: false,
        }
    }

    fn covers(&self, symbol: &str) -> bool {
        if self.is_exact {
            *self.text == *symbol
        } else {
            symbol.starts_with(&*self.text)
        }
    }
}

/// Set of symbols, as sorted rules of which none covers another. A lookup is a binary search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymbolSet(Box<[SymbolRule]>);

impl SymbolSet {
    /// Set of the symbols that any of the rules covers.
    pub fn new(mut rules: Vec<SymbolRule>) -> Self {
        rules.sort();
        // A rule that covers others is directly before them.
        rules.dedup_by(|later, earlier| {
            let is_prefix = !earlier.is_exact && later.text.starts_with(&*earlier.text);
            is_prefix || later == earlier
        });
        Self(rules.into())
    }

    /// True if the set has no symbol.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if the symbol is in the set.
    pub fn has(&self, symbol: &str) -> bool {
        let after = self.0.partition_point(|rule| *rule.text <= *symbol);
        self.0[..after]
            .last()
            .is_some_and(|rule| rule.covers(symbol))
    }

    /// True if a symbol with this prefix can be in the set.
    pub fn meets(&self, prefix: &str) -> bool {
        self.has_all(prefix) || !self.below(prefix).is_empty()
    }

    /// True if all symbols with this prefix are in the set.
    fn has_all(&self, prefix: &str) -> bool {
        let after = self.0.partition_point(|rule| *rule.text <= *prefix);
        let last = self.0[..after].last();
        last.is_some_and(|rule| !rule.is_exact && prefix.starts_with(&*rule.text))
    }

    /// Rules whose text begins with the prefix.
    fn below(&self, prefix: &str) -> &[SymbolRule] {
        let from = self.0.partition_point(|rule| *rule.text < *prefix);
        let rest = &self.0[from..];
        &rest[..rest.partition_point(|rule| rule.text.starts_with(prefix))]
    }

    /// Index ranges of a list sorted by symbol, all with this prefix, whose symbols are in the set.
    pub(super) fn ranges<'s, T: Copy>(
        &self,
        prefix: &str,
        list: &[T],
        symbol: impl Fn(T) -> &'s str,
    ) -> Vec<Range<usize>> {
        if self.has_all(prefix) {
            return std::iter::once(0..list.len()).collect();
        }
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut from = 0;
        for rule in self.below(prefix) {
            let rest = &list[from..];
            from += rest.partition_point(|item| symbol(*item) < &*rule.text);
            let rest = &list[from..];
            let upto = from + rest.partition_point(|item| rule.covers(symbol(*item)));
            match ranges.last_mut() {
                Some(last) if last.end == from => last.end = upto,
                _ if from < upto => ranges.push(from..upto),
                _ => {}
            }
            from = upto;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> SymbolRule {
        SymbolRule::parse(text).expect("a rule")
    }

    #[test]
    fn rules_are_symbols_and_prefixes() {
        for text in ["BTC-USD", "BTC-*", "*"] {
            assert!(SymbolRule::parse(text).is_ok(), "{text}");
        }
        for text in ["", "A*B", "**", "A B", "trade:A"] {
            let error = SymbolRule::parse(text).expect_err("not a rule");
            assert!(error.to_string().contains("e.g. BTC-*"), "{error}");
        }
    }

    proptest! {
        /// Lookups, prefixes and ranges agree with a plain search over the rules.
        #[test]
        fn sets_agree_with_a_linear_search(
            rules in proptest::collection::vec(r"[AB]{0,3}\*?", 0..12),
            mut symbols in proptest::collection::vec("[AB]{1,4}", 0..30),
            prefix in "[AB]{0,3}",
        ) {
            let rules: Vec<_> = rules.iter().filter(|text| !text.is_empty()).map(|text| rule(text)).collect();
            let set = SymbolSet::new(rules.clone());
            let covers = |symbol: &str| rules.iter().any(|rule| rule.covers(symbol));
            symbols.sort();
            symbols.dedup();
            for symbol in &symbols {
                prop_assert_eq!(set.has(symbol), covers(symbol), "{}", symbol);
                if symbol.starts_with(&prefix) && covers(symbol) {
                    prop_assert!(set.meets(&prefix));
                }
            }
            symbols.retain(|symbol| symbol.starts_with(&prefix));
            let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
            let ranges = set.ranges(&prefix, &symbols, |symbol| symbol);
            let found: Vec<_> = ranges.into_iter().flat_map(|range| symbols[range].to_vec()).collect();
            let expected: Vec<_> = symbols.into_iter().filter(|symbol| covers(symbol)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
