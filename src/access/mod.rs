//! Access to topics: the only way from a client to the catalog.
//!
//! Everything that a client can learn about topics comes through a [`Visible`], the view of the
//! catalog for one [`Principal`]: names and patterns of requests, suggestions in errors, lists of
//! instruments, snapshots over HTTP, the growth of patterns, and the states of sources. A topic
//! that is no longer listed is visible to nobody.
//!
//! Without authentication everybody sees everything, so `Principal` has one value. Entitlements are
//! added here alone: a principal with topic patterns, channels and limits extends the matches on
//! `Principal`, and a rule that refuses a name becomes a variant of [`Refused`]. The types are
//! borrowed and copied, and a pattern remains a binary search.

mod instruments;
mod name;
mod refused;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use instruments::InstrumentList;
pub use name::{Name, Topics};
pub use refused::Refused;

use crate::log::{Catalog, SourceId, TopicId, TopicInfo};
use crate::protocol::Limits;
use crate::topic::{Topic, TopicName, TopicPattern};

/// Identity on whose behalf topics are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Any client, without authentication: sees all topics.
    Everyone,
}

impl Principal {
    /// Limits of a connection, derived from those of the server.
    pub fn limits(&self, server: &Arc<Limits>) -> Arc<Limits> {
        match self {
            Self::Everyone => Arc::clone(server),
        }
    }
}

/// View of the catalog for one principal.
#[derive(Debug, Clone, Copy)]
pub struct Visible<'a> {
    catalog: &'a Catalog,
    principal: &'a Principal,
}

impl<'a> Visible<'a> {
    /// Creates the view of a catalog for a principal.
    pub const fn new(catalog: &'a Catalog, principal: &'a Principal) -> Self {
        Self { catalog, principal }
    }

    /// Resolves a name; the error identifies the rule that rejects it.
    pub fn resolve(self, name: TopicName) -> Result<Name, Refused<'a>> {
        match name {
            TopicName::Topic(topic) => match self.find(&topic) {
                Some(id) => Ok(Name::Topic(id)),
                None => Err(Refused::Unlisted {
                    nearest: self.nearest(&topic),
                }),
            },
            TopicName::Pattern(pattern) => Ok(Name::Pattern(pattern)),
        }
    }

    /// Topic with this name, if visible.
    pub fn find(self, topic: &Topic) -> Option<TopicId> {
        let found = self.catalog.find(topic)?;
        self.is_granted(found).then_some(found)
    }

    /// Visible topics that a pattern matches, in symbol order.
    pub fn matching(self, pattern: &TopicPattern) -> Topics<'a> {
        match self.principal {
            Principal::Everyone => Topics::new(self.catalog.matching(pattern)),
        }
    }

    /// True if the topic is listed and the principal may see it.
    pub fn shows(self, topic: TopicId) -> bool {
        self.catalog.is_listed(topic) && self.is_granted(topic)
    }

    /// Properties of a topic that was visible when the client subscribed to it.
    pub fn topic(self, id: TopicId) -> &'a TopicInfo {
        self.catalog.topic(id)
    }

    /// Name of the source of visible topics.
    pub fn source(self, id: SourceId) -> &'a str {
        self.catalog.source(id)
    }

    /// Number of instruments visible to the principal.
    pub fn instruments(self) -> usize {
        match self.principal {
            Principal::Everyone => self.catalog.instruments().len(),
        }
    }

    const fn is_granted(self, _topic: TopicId) -> bool {
        match self.principal {
            Principal::Everyone => true,
        }
    }

    /// Visible topic with the most similar symbol, to be suggested in an error.
    fn nearest(self, topic: &Topic) -> Option<&'a TopicInfo> {
        let nearest = self.catalog.nearest(topic)?;
        self.is_granted(nearest.id).then_some(nearest)
    }
}
