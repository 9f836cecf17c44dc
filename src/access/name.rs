//! Subscription names and the topics that they match.

use std::ops::Range;

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
            Self::Topic(topic) => Topics::all(std::slice::from_ref(topic)),
            Self::Pattern(pattern) => visible.matching(pattern),
        }
    }
}

/// Visible topics that a name matches, in symbol order.
#[derive(Debug, Clone)]
pub struct Topics<'a> {
    list: &'a [TopicId],
    /// Visible ranges of the list.
    ranges: Ranges,
}

#[derive(Debug, Clone)]
enum Ranges {
    All,
    Some(Vec<Range<usize>>),
}

impl<'a> Topics<'a> {
    /// The whole list.
    pub(super) const fn all(list: &'a [TopicId]) -> Self {
        let ranges = Ranges::All;
        Self { list, ranges }
    }

    /// Some ranges of the list.
    pub(super) const fn some(list: &'a [TopicId], ranges: Vec<Range<usize>>) -> Self {
        let ranges = Ranges::Some(ranges);
        Self { list, ranges }
    }

    /// Number of topics.
    pub fn count(&self) -> usize {
        match &self.ranges {
            Ranges::All => self.list.len(),
            Ranges::Some(ranges) => ranges.iter().map(ExactSizeIterator::len).sum(),
        }
    }

    /// Iterator over the topics, in order.
    pub fn iter(self) -> impl Iterator<Item = TopicId> + use<'a> {
        let (list, all, some) = match self.ranges {
            Ranges::All => (self.list, Some(0..self.list.len()), Vec::new()),
            Ranges::Some(ranges) => (self.list, None, ranges),
        };
        let ranges = all.into_iter().chain(some);
        ranges.flat_map(move |range| list[range].iter().copied())
    }
}
