//! Access to topics: the only way from a client to the catalog.
//!
//! Everything that a client can learn about topics comes through a [`Visible`], the view of the
//! catalog for one [`Principal`]: names and patterns of requests, suggestions in errors, lists of
//! instruments, snapshots over HTTP, the growth of patterns, and the states of sources. A topic
//! that is no longer listed is visible to nobody.
//!
//! Without entitlements everybody sees everything ([`Principal::Everyone`]). A client with a [`Role`]
//! sees the topics that its rules name. Whether a role sees a topic depends on the name of the topic
//! alone: an existing topic that is not granted gets the same answer as one that does not exist, and
//! the answer names the rule. The granted topics of a pattern are ranges of the sorted list of
//! topics, found by binary search.

mod entitlements;
mod grants;
mod instruments;
mod name;
mod offer;
mod principal;
mod refused;
mod role;
mod seats;
#[cfg(test)]
mod tests;

pub use entitlements::Entitlements;
pub use grants::{SymbolRule, SymbolRuleError, SymbolSet};
pub use instruments::{InstrumentList, ListedInstrument};
pub use name::{Name, Topics};
pub use offer::Offer;
pub use principal::{Client, Principal};
pub use refused::Refused;
pub use role::{ChannelSet, Role, RoleLimits, Roles, TopicRule, TopicRuleError};
pub use seats::{NoSeat, Seat, Seats};

use crate::log::{Catalog, SourceId, TopicId, TopicInfo};
use crate::protocol::{Mode, Settings};
use crate::topic::{Channel, Topic, TopicName, TopicPattern};

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
            TopicName::Topic(topic) => {
                self.check(&topic)?;
                let found = self.catalog.find(&topic);
                found.map(Name::Topic).ok_or_else(|| Refused::Unlisted {
                    nearest: self.nearest(&topic),
                })
            }
            TopicName::Pattern(pattern) => match self.role() {
                Some(role) if !role.sees_some(&pattern) => Err(Refused::NotEntitled(role)),
                _ => Ok(Name::Pattern(pattern)),
            },
        }
    }

    /// Checks whether the principal may see topics of this name, which need not exist.
    pub fn check(self, topic: &Topic) -> Result<(), Refused<'a>> {
        match self.role() {
            Some(role) if !role.sees(topic) => Err(Refused::NotEntitled(role)),
            _ => Ok(()),
        }
    }

    /// Topic with this name, if visible.
    pub fn find(self, topic: &Topic) -> Option<TopicId> {
        self.check(topic).ok()?;
        self.catalog.find(topic)
    }

    /// Visible topics that a pattern matches, in symbol order.
    pub fn matching(self, pattern: &TopicPattern) -> Topics<'a> {
        let list = self.catalog.matching(pattern);
        let Some(role) = self.role() else {
            return Topics::all(list);
        };
        let symbol = |id: TopicId| self.catalog.topic(id).topic.symbol.as_str();
        let symbols = role.symbols(pattern.channel);
        Topics::some(list, symbols.ranges(&pattern.prefix, list, symbol))
    }

    /// True if the topic is listed and the principal may see it.
    pub fn shows(self, topic: TopicId) -> bool {
        self.catalog.is_listed(topic) && self.is_granted(topic)
    }

    /// True if the principal may see the topic, listed or not.
    pub fn is_granted(self, topic: TopicId) -> bool {
        self.role()
            .is_none_or(|role| role.sees(&self.catalog.topic(topic).topic))
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
        let ranges = instruments::visible(self.catalog, self.principal, "*");
        ranges.iter().map(ExactSizeIterator::len).sum()
    }

    /// Delivery settings of a subscription that requests none.
    pub fn default_settings(self, channel: Channel) -> Settings {
        let settings = Settings::default_of(channel);
        // A role with a minimum interval sees no topics of channels without conflation.
        let role = self.role().filter(|_| channel.kind().conflates());
        let interval = role.and_then(Role::min_interval_ms);
        Settings {
            mode: interval.map_or(settings.mode, Mode::Interval),
            ..settings
        }
    }

    /// Checks whether the principal may use a delivery mode.
    pub fn check_mode(self, mode: Mode) -> Result<(), Refused<'a>> {
        match self.role() {
            Some(role) if !role.allows(mode) => Err(Refused::NotEntitled(role)),
            _ => Ok(()),
        }
    }

    fn role(self) -> Option<&'a Role> {
        match self.principal {
            Principal::Everyone => None,
            Principal::Client(client) => Some(&client.role),
        }
    }

    /// Visible topic with the most similar symbol, to be suggested in an error.
    fn nearest(self, topic: &Topic) -> Option<&'a TopicInfo> {
        self.catalog.nearest(topic, |id| self.is_granted(id))
    }
}
