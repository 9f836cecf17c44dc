//! Names of subscriptions, and the topics that they match.

use super::Visible;
use crate::log::TopicId;
use crate::topic::{Channel, TopicPattern};

/// Name of a subscription, resolved by [`Visible::resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// One topic.
    Topic(TopicId),
    /// All topics that the pattern matches, now and later.
    Pattern(TopicPattern),
}

impl Name {
    /// The channel of its topics.
    pub fn channel(&self, visible: Visible<'_>) -> Channel {
        match self {
            Self::Topic(topic) => visible.topic(*topic).topic.channel,
            Self::Pattern(pattern) => pattern.channel,
        }
    }

    /// The topics that it matches.
    pub fn topics<'a>(&'a self, visible: Visible<'a>) -> Topics<'a> {
        match self {
            Self::Topic(topic) => Topics::new(std::slice::from_ref(topic)),
            Self::Pattern(pattern) => visible.matching(pattern),
        }
    }
}

/// Visible topics that a name matches, in the order of their symbols.
#[derive(Debug, Clone, Copy)]
pub struct Topics<'a>(&'a [TopicId]);

impl<'a> Topics<'a> {
    pub(super) const fn new(topics: &'a [TopicId]) -> Self {
        Self(topics)
    }

    /// Number of topics.
    pub const fn count(self) -> usize {
        self.0.len()
    }

    /// The topics in order.
    pub fn iter(self) -> impl Iterator<Item = TopicId> + use<'a> {
        self.0.iter().copied()
    }
}
