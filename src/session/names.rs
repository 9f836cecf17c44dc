//! The names a client subscribed to, and which of them decides for a topic.

use super::{View, topic_entry};
use crate::bus::{Catalog, TopicId};
use crate::protocol::{Entry, Settings};
use crate::topic::{Topic, TopicName, TopicPattern};

/// A subscription's name, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Topic(TopicId),
    Pattern(TopicPattern),
}

impl Name {
    /// `None` for a topic that doesn't exist.
    pub(super) fn resolve(name: TopicName, catalog: &Catalog) -> Option<Self> {
        match name {
            TopicName::Topic(topic) => catalog.find(&topic).map(Self::Topic),
            TopicName::Pattern(pattern) => Some(Self::Pattern(pattern)),
        }
    }

    /// The topics it means.
    pub(super) fn topics<'a>(&'a self, catalog: &'a Catalog) -> &'a [TopicId] {
        match self {
            Self::Topic(topic) => std::slice::from_ref(topic),
            Self::Pattern(pattern) => catalog.matching(pattern),
        }
    }
}

/// All subscriptions of a client.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// In the order of their topics.
    topics: Vec<(TopicId, Settings)>,
    /// In the order in which they were made.
    patterns: Vec<(TopicPattern, Settings)>,
}

impl Names {
    /// Makes room for so many topics more, and no more than those.
    pub(super) fn reserve(&mut self, topics: usize) {
        self.topics.reserve_exact(topics);
    }

    /// How many patterns there are.
    pub(super) fn patterns(&self) -> usize {
        self.patterns.len()
    }

    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn place(&self, topic: TopicId) -> Result<usize, usize> {
        self.topics.binary_search_by_key(&topic, |(held, _)| *held)
    }

    /// The settings of the subscription of that name.
    pub(super) fn settings(&self, name: &Name) -> Option<Settings> {
        match name {
            Name::Topic(topic) => self.place(*topic).ok().map(|at| self.topics[at].1),
            Name::Pattern(pattern) => self
                .patterns
                .iter()
                .find(|(held, _)| held == pattern)
                .map(|(_, settings)| *settings),
        }
    }

    pub(super) fn set(&mut self, name: Name, settings: Settings) {
        match name {
            Name::Topic(topic) => match self.place(topic) {
                Ok(at) => self.topics[at].1 = settings,
                Err(at) => self.topics.insert(at, (topic, settings)),
            },
            Name::Pattern(pattern) => {
                match self.patterns.iter_mut().find(|(held, _)| *held == pattern) {
                    Some((_, held)) => *held = settings,
                    None => self.patterns.push((pattern, settings)),
                }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &Name) -> bool {
        match name {
            Name::Topic(topic) => self.place(*topic).map(|at| self.topics.remove(at)).is_ok(),
            Name::Pattern(pattern) => {
                let at = self.patterns.iter().position(|(held, _)| held == pattern);
                at.map(|at| self.patterns.remove(at)).is_some()
            }
        }
    }

    pub(super) fn rest(&mut self) {
        self.topics.shrink_to_fit();
        self.patterns.shrink_to_fit();
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The settings in force for a topic: those of the narrowest name that covers it.
    pub(super) fn in_force(&self, topic: TopicId, catalog: &Catalog) -> Option<Settings> {
        if let Ok(at) = self.place(topic) {
            return Some(self.topics[at].1);
        }
        let name: &Topic = &catalog.topic(topic).topic;
        let covering = self
            .patterns
            .iter()
            .filter(|(pattern, _)| pattern.matches(name));
        covering
            .max_by_key(|(pattern, _)| pattern.prefix.len())
            .map(|(_, settings)| *settings)
    }

    /// A name as it stands in `ok`: a topic with the settings in force, a pattern with what it matches and is held.
    pub(super) fn entry(&self, name: &Name, view: View<'_>) -> Option<Entry> {
        let catalog = view.catalog();
        match name {
            Name::Topic(topic) => Some(topic_entry(*topic, self.in_force(*topic, catalog)?, view)),
            Name::Pattern(pattern) => {
                let mut entry = Entry::new(pattern.to_string(), self.settings(name)?);
                let held = catalog.matching(pattern).iter();
                let held = held.filter_map(|topic| {
                    Some(topic_entry(*topic, self.in_force(*topic, catalog)?, view))
                });
                entry.matched = Some(held.collect());
                Some(entry)
            }
        }
    }

    /// All names, as they stand in `subscriptions`.
    pub(super) fn entries<'a>(&'a self, view: View<'a>) -> impl Iterator<Item = Entry> + 'a {
        let topics = self.topics.iter().map(|(topic, _)| Name::Topic(*topic));
        let patterns = self
            .patterns
            .iter()
            .map(|(pattern, _)| Name::Pattern(pattern.clone()));
        topics
            .chain(patterns)
            .filter_map(move |name| self.entry_of_held(&name, view))
    }

    /// A name as it stands in `ok`, with what of it is held now.
    pub(super) fn entry_of_held(&self, name: &Name, view: View<'_>) -> Option<Entry> {
        let mut entry = self.entry(name, view)?;
        if let (Name::Pattern(pattern), Some(matched)) = (name, &mut entry.matched) {
            let mut topics = view.catalog().matching(pattern).iter();
            matched.retain(|_| topics.next().is_some_and(|topic| view.held.holds(*topic)));
        }
        Some(entry)
    }
}
