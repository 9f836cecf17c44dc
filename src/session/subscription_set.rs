//! Subscribed names of a client, and which of them applies to a topic.

use super::slice::{Budget, TOPICS_A_STEP};
use super::{View, topic_entry};
use crate::access::{Name, Visible};
use crate::log::TopicId;
use crate::protocol::{Entry, PackedSettings, Settings};
use crate::topic::{Topic, TopicPattern};

/// Subscribed topics that match a name; each examined topic is charged to the budget.
pub(super) fn subscribed_of(name: &Name, view: View<'_>, budget: &mut Budget) -> Vec<TopicId> {
    let topics = name.topics(view.visible());
    budget.spend(topics.count().min(4 * view.held.count()) / TOPICS_A_STEP);
    match name {
        // A pattern over far more topics than a client may subscribe to: the shorter list is
        // searched.
        Name::Pattern(pattern) if topics.count() / 4 > view.held.count() => {
            let mut held = view.held.topics();
            held.retain(|topic| pattern.matches(&view.visible().topic(*topic).topic));
            held
        }
        _ => topics
            .iter()
            .filter(|topic| view.held.holds(*topic))
            .collect(),
    }
}

/// Map from patterns to values, with a lookup time that hardly grows with the number of patterns.
#[derive(Debug)]
pub(super) struct PatternMap<T> {
    /// Sorted by channel and prefix.
    sorted: Vec<(TopicPattern, T)>,
}

impl<T> Default for PatternMap<T> {
    fn default() -> Self {
        Self { sorted: Vec::new() }
    }
}

fn key(pattern: &TopicPattern) -> (usize, &[u8]) {
    (pattern.channel.index(), pattern.prefix.as_bytes())
}

impl<T> PatternMap<T> {
    /// Adds patterns; of duplicates, the last one applies.
    pub(super) fn extend(&mut self, patterns: impl IntoIterator<Item = (TopicPattern, T)>) {
        let before = self.sorted.len();
        self.sorted.extend(patterns);
        if self.sorted.len() == before {
            return;
        }
        // Stable sort, so that the later of two equal patterns comes second.
        self.sorted.sort_by(|(a, _), (b, _)| key(a).cmp(&key(b)));
        self.sorted.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }

    fn place(&self, pattern: &TopicPattern) -> Result<usize, usize> {
        self.sorted
            .binary_search_by(|(held, _)| key(held).cmp(&key(pattern)))
    }

    fn get(&self, pattern: &TopicPattern) -> Option<&T> {
        self.place(pattern).ok().map(|at| &self.sorted[at].1)
    }

    /// Value of the longest pattern that matches the topic.
    pub(super) fn longest(&self, topic: &Topic) -> Option<&T> {
        let symbol = topic.symbol.as_str().as_bytes();
        let mut upto = symbol.len();
        loop {
            let probe = (topic.channel.index(), &symbol[..upto]);
            let after = self
                .sorted
                .partition_point(|(pattern, _)| key(pattern) <= probe);
            let (pattern, value) = self.sorted[..after].last()?;
            if pattern.channel != topic.channel {
                return None;
            }
            let common = pattern
                .prefix
                .bytes()
                .zip(probe.1)
                .take_while(|(a, b)| a == *b)
                .count();
            if common == pattern.prefix.len() {
                return Some(value);
            }
            // A longer match would lie between this pattern and the probe.
            upto = common;
        }
    }
}

/// All subscriptions of a client.
#[derive(Debug, Default)]
pub(super) struct SubscriptionSet {
    /// Sorted by topic.
    topics: Vec<(TopicId, PackedSettings)>,
    /// Most clients have none.
    patterns: Option<Box<PatternMap<Settings>>>,
}

impl SubscriptionSet {
    /// Number of patterns.
    pub(super) fn patterns(&self) -> usize {
        let patterns = self.patterns.as_ref();
        patterns.map_or(0, |patterns| patterns.sorted.len())
    }

    pub(super) fn has_patterns(&self) -> bool {
        self.patterns() > 0
    }

    fn place(&self, topic: TopicId) -> Result<usize, usize> {
        self.topics.binary_search_by_key(&topic, |(held, _)| *held)
    }

    /// Settings of the subscription with this name.
    pub(super) fn settings(&self, name: &Name) -> Option<Settings> {
        match name {
            Name::Topic(topic) => self.place(*topic).ok().map(|at| self.topics[at].1.into()),
            Name::Pattern(pattern) => self.patterns.as_ref()?.get(pattern).copied(),
        }
    }

    /// Adds names or replaces the settings of existing ones. Sorts once, regardless of their
    /// number.
    pub(super) fn set_all(&mut self, names: &[(Name, Settings)]) {
        let (mut topics, mut patterns) = (Vec::new(), Vec::new());
        for (name, settings) in names {
            match name {
                Name::Topic(topic) => match self.place(*topic) {
                    Ok(at) => self.topics[at].1 = (*settings).into(),
                    Err(_) => topics.push((*topic, (*settings).into())),
                },
                Name::Pattern(pattern) => patterns.push((pattern.clone(), *settings)),
            }
        }
        // Reserves exactly, to keep a session small.
        self.topics.reserve_exact(topics.len());
        self.topics.extend(topics);
        self.topics.sort_by_key(|(topic, _)| *topic);
        self.topics.dedup_by_key(|(topic, _)| *topic);
        if !patterns.is_empty() {
            self.patterns.get_or_insert_default().extend(patterns);
        }
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        match name {
            Name::Topic(topic) => self.place(*topic).map(|at| self.topics.remove(at)).is_ok(),
            Name::Pattern(pattern) => {
                let Some(patterns) = &mut self.patterns else {
                    return false;
                };
                let place = patterns.place(pattern);
                place.map(|at| patterns.sorted.remove(at)).is_ok()
            }
        }
    }

    pub(super) fn rest(&mut self) {
        self.topics.shrink_to_fit();
        self.patterns.take_if(|patterns| patterns.sorted.is_empty());
        if let Some(patterns) = &mut self.patterns {
            patterns.sorted.shrink_to_fit();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// All names, topics first.
    pub(super) fn all(&self) -> Vec<Name> {
        let topics = self.topics.iter().map(|(topic, _)| Name::Topic(*topic));
        let patterns = self.patterns.iter().flat_map(|patterns| &patterns.sorted);
        topics
            .chain(patterns.map(|(pattern, _)| Name::Pattern(pattern.clone())))
            .collect()
    }

    /// Effective settings of a topic: those of the most specific name that covers it.
    pub(super) fn in_force(&self, topic: TopicId, visible: Visible<'_>) -> Option<Settings> {
        if let Ok(at) = self.place(topic) {
            return Some(self.topics[at].1.into());
        }
        let patterns = self.patterns.as_ref().filter(|_| self.has_patterns())?;
        patterns.longest(&visible.topic(topic).topic).copied()
    }

    /// Entry of a name in `ok`: a topic with its effective settings, a pattern with some of its
    /// matching topics.
    pub(super) fn entry(&self, name: &Name, topics: &[TopicId], view: View<'_>) -> Option<Entry> {
        let visible = view.visible();
        match name {
            Name::Topic(topic) => Some(topic_entry(*topic, self.in_force(*topic, visible)?, view)),
            Name::Pattern(pattern) => {
                let mut entry = Entry::new(pattern.to_string(), self.settings(name)?);
                let matched = topics.iter().filter_map(|topic| {
                    Some(topic_entry(*topic, self.in_force(*topic, visible)?, view))
                });
                entry.matched = Some(matched.collect());
                Some(entry)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::Symbol;
    use crate::topic::Channel;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_pattern_matches_a_linear_search(
            prefixes in proptest::collection::vec(("[AB]{0,5}", 0usize..2), 0..20),
            symbol in "[AB]{1,6}",
            channel in 0usize..2,
        ) {
            let pattern = |(prefix, channel): &(String, usize)| TopicPattern {
                channel: Channel::ALL[*channel],
                prefix: prefix.as_str().into(),
            };
            let mut map = PatternMap::default();
            // In two steps; of duplicates, the last one applies.
            let (first, second) = prefixes.split_at(prefixes.len() / 2);
            map.extend(first.iter().map(pattern).zip(0..));
            map.extend(second.iter().map(pattern).zip(first.len()..));
            let topic = Topic {
                channel: Channel::ALL[channel],
                symbol: Symbol::new(&symbol).expect("letters"),
            };
            let expected = prefixes
                .iter()
                .enumerate()
                .filter(|(_, one)| pattern(one).matches(&topic))
                .max_by_key(|(at, (prefix, _))| (prefix.len(), *at))
                .map(|(at, _)| at);
            prop_assert_eq!(map.longest(&topic).copied(), expected);
        }
    }
}
