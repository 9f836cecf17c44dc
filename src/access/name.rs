//! Subscription names and the topics that they match.

use super::Visible;
use crate::log::TopicId;
use crate::topic::{Channel, TopicPattern};

/// Subscription name, resolved by [`Visible::resolve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// One topic.
    Topic(TopicId),
    /// All topics that the pattern matches, including future ones.
    Pattern(TopicPattern),
}

impl Name {
    /// Channel of the topics.
    pub fn channel(&self, visible: Visible<'_>) -> Channel {
        match self {
            Self::Topic(topic) => visible.topic(*topic).topic.channel,
            Self::Pattern(pattern) => pattern.channel,
        }
    }

    /// Topics that the name matches.
    pub fn topics<'a>(&'a self, visible: Visible<'a>) -> Topics<'a> {
        match self {
            Self::Topic(topic) => Topics::new(std::slice::from_ref(topic)),
            Self::Pattern(pattern) => visible.matching(pattern),
        }
    }
}

/// Visible topics that a name matches, in symbol order.
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

    /// Iterator over the topics, in order.
    pub fn iter(self) -> impl Iterator<Item = TopicId> + use<'a> {
        self.0.iter().copied()
    }
}
