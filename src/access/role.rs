//! Roles: the topics, delivery modes, limits and rights of a group of clients.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::grants::{SymbolRule, SymbolRuleError, SymbolSet};
use crate::protocol::{Limits, Mode};
use crate::topic::{Channel, Topic, TopicError, TopicPattern};

/// Rules of a role that its error messages list; more are counted.
const RULES_SHOWN: usize = 8;

/// Set of channels, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChannelSet(u16);

const _: () = assert!(Channel::COUNT <= 16, "each channel has its bit");

impl ChannelSet {
    /// No channel.
    pub const NONE: Self = Self(0);
    /// Every channel.
    pub const ALL: Self = Self((1 << Channel::COUNT) - 1);

    /// Channels with this name: `trade`, `bar:1m`, or `bar` for all intervals.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let (name, param) = match text.split_once(':') {
            Some((name, param)) => (name, Some(param)),
            None => (text, None),
        };
        if param.is_some() {
            return Channel::parse(name, param).map(Self::of);
        }
        let named = Channel::ALL.iter().filter(|channel| channel.name() == name);
        let set = named.fold(Self::NONE, |set, channel| set.with(Self::of(*channel)));
        if set == Self::NONE {
            // Never `Ok`: no channel has this name.
            Channel::parse(name, None).map(Self::of)
        } else {
            Ok(set)
        }
    }

    /// One channel.
    pub const fn of(channel: Channel) -> Self {
        Self(1 << channel.index())
    }

    /// Channels of either set.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True if the channel is in the set.
    pub const fn has(self, channel: Channel) -> bool {
        self.0 & (1 << channel.index()) != 0
    }
}

/// Topics of some channels with some symbols: `quote:BTC-*`, `bar:*`, `*:BTC-USD`, `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRule {
    text: Box<str>,
    channels: ChannelSet,
    symbols: SymbolRule,
}

/// Error for a text that is not a topic rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicRuleError {
    /// The text does not have the form `channel:symbol`.
    #[error(
        "expected *, channel:symbol or channel:symbol:param, e.g. quote:BTC-*, bar:*:1m or *:BTC-USD"
    )]
    Form,
    /// The channel or its parameter is invalid.
    #[error(transparent)]
    Channel(#[from] TopicError),
    /// The symbol is invalid.
    #[error(transparent)]
    Symbol(#[from] SymbolRuleError),
}

impl TopicRule {
    /// Parses a rule. The channel may be `*` for all; `bar` without an interval means all
    /// intervals.
    pub fn parse(text: &str) -> Result<Self, TopicRuleError> {
        let all = |channels, symbols| Self {
            text: text.into(),
            channels,
            symbols,
        };
        if text == "*" {
            return Ok(all(ChannelSet::ALL, SymbolRule::all()));
        }
        let mut parts = text.splitn(3, ':');
        let (Some(channel), Some(symbol)) = (parts.next(), parts.next()) else {
            return Err(TopicRuleError::Form);
        };
        let channels = match (channel, parts.next()) {
            ("*", None) => ChannelSet::ALL,
            (channel, None) => ChannelSet::parse(channel)?,
            (channel, param) => Channel::parse(channel, param).map(ChannelSet::of)?,
        };
        Ok(all(channels, SymbolRule::parse(symbol)?))
    }
}

/// Limits of a role that replace those of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoleLimits {
    /// Max concurrent connections per client.
    pub connections: Option<usize>,
    /// Max subscribed topics per connection.
    pub topics: Option<u64>,
    /// Max requests per second and connection, and HTTP requests per second of a client.
    pub requests_per_s: Option<u64>,
    /// Max events per snapshot.
    pub snapshot_events: Option<u64>,
}

/// Topics, delivery modes, limits and rights of a group of clients (config `roles`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Name in the config.
    pub name: Box<str>,
    /// Age of the events that the role sees; zero: events as they are published.
    pub delay: Duration,
    /// Max depth of order books.
    pub book_depth: Option<u16>,
    /// Limits that replace those of the server.
    pub limits: RoleLimits,
    /// Symbols that the role may publish, by source.
    pub publish: Vec<(Box<str>, SymbolSet)>,
    /// True if the role may read the admin routes.
    pub may_administer: bool,
    /// True if the role may read the metrics.
    pub may_read_metrics: bool,
    /// Shortest interval of deliveries in milliseconds, one of `INTERVALS_MS`; `None`: any mode.
    min_interval_ms: Option<u16>,
    /// Granted symbols by channel.
    symbols: [SymbolSet; Channel::COUNT],
    /// Granted symbols of any channel.
    any_channel: SymbolSet,
    /// Granted topics in words, for errors.
    rule: Box<str>,
}

impl Role {
    /// Role that sees the topics of the rules in the channels. With a minimum interval, channels
    /// without conflation are excluded.
    pub fn new(
        name: &str,
        rules: &[TopicRule],
        channels: ChannelSet,
        min_interval_ms: Option<u16>,
    ) -> Self {
        let is_open = |channel: Channel| {
            channels.has(channel) && (min_interval_ms.is_none() || channel.kind().conflates())
        };
        let of = |channel: Channel| {
            let granted = rules
                .iter()
                .filter(|rule| is_open(channel) && rule.channels.has(channel));
            SymbolSet::new(granted.map(|rule| rule.symbols.clone()).collect())
        };
        let symbols = Channel::ALL.map(of);
        let any = rules.iter().filter(|rule| {
            let mut open = Channel::ALL.into_iter().filter(|channel| is_open(*channel));
            open.any(|channel| rule.channels.has(channel))
        });
        Self {
            any_channel: SymbolSet::new(any.map(|rule| rule.symbols.clone()).collect()),
            symbols,
            rule: in_words(name, rules, channels, min_interval_ms).into(),
            name: name.into(),
            delay: Duration::ZERO,
            book_depth: None,
            limits: RoleLimits::default(),
            publish: Vec::new(),
            may_administer: false,
            may_read_metrics: false,
            min_interval_ms,
        }
    }

    /// True if the role sees the topic. Depends on the name alone, not on the existence of the
    /// topic.
    pub fn sees(&self, topic: &Topic) -> bool {
        self.symbols[topic.channel.index()].has(topic.symbol.as_str())
    }

    /// True if the role can see topics that match the pattern.
    pub fn sees_some(&self, pattern: &TopicPattern) -> bool {
        self.symbols[pattern.channel.index()].meets(&pattern.prefix)
    }

    /// Granted symbols of a channel.
    pub(super) const fn symbols(&self, channel: Channel) -> &SymbolSet {
        &self.symbols[channel.index()]
    }

    /// Symbols of which the role sees a topic.
    pub(super) const fn any_channel(&self) -> &SymbolSet {
        &self.any_channel
    }

    /// Shortest interval of deliveries, in milliseconds; `None`: any mode.
    pub const fn min_interval_ms(&self) -> Option<u16> {
        self.min_interval_ms
    }

    /// True if the role may use a delivery mode.
    pub const fn allows(&self, mode: Mode) -> bool {
        match (self.min_interval_ms, mode) {
            (None, _) => true,
            (Some(least), Mode::Interval(ms)) => ms >= least,
            (Some(_), Mode::Raw | Mode::Conflate) => false,
        }
    }

    /// Granted topics in words.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// True if the role may publish this symbol to a source.
    pub fn may_publish(&self, source: &str, symbol: &str) -> bool {
        let symbols = self.symbols_of_publisher(source);
        symbols.is_some_and(|symbols| symbols.has(symbol))
    }

    /// Symbols that the role may publish to a source; `None`: no right to the source.
    pub fn symbols_of_publisher(&self, source: &str) -> Option<&SymbolSet> {
        let mut granted = self.publish.iter();
        granted
            .find(|(name, _)| **name == *source)
            .map(|(_, symbols)| symbols)
    }

    /// Limits of a connection, derived from those of the server.
    pub fn limits(&self, server: &Limits) -> Limits {
        let own = &self.limits;
        Limits {
            topics: own.topics.unwrap_or(server.topics),
            requests_per_s: own.requests_per_s.unwrap_or(server.requests_per_s),
            message_bytes: server.message_bytes,
            snapshot_events: own.snapshot_events.unwrap_or(server.snapshot_events),
        }
    }
}

/// Granted topics of a role in words.
fn in_words(
    name: &str,
    rules: &[TopicRule],
    channels: ChannelSet,
    min_interval_ms: Option<u16>,
) -> String {
    let mut text = format!("role \"{}\" allows ", name.escape_debug());
    if rules.is_empty() {
        text.push_str("no topics");
        return text;
    }
    let shown: Vec<&str> = rules
        .iter()
        .take(RULES_SHOWN)
        .map(|rule| &*rule.text)
        .collect();
    text.push_str(&shown.join(", "));
    // Writing to a string cannot fail.
    if let Some(more) = rules
        .len()
        .checked_sub(RULES_SHOWN)
        .filter(|more| *more > 0)
    {
        _ = write!(text, " and {more} more");
    }
    if channels != ChannelSet::ALL {
        let open = Channel::ALL.into_iter().filter(|one| channels.has(*one));
        let open: Vec<&str> = open.map(Channel::full_name).collect();
        _ = write!(text, " on channels {}", open.join(", "));
    }
    if let Some(ms) = min_interval_ms {
        _ = write!(text, " with mode interval of at least {ms} ms");
    }
    text
}

/// Roles of the config, and the role of clients without credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    by_name: BTreeMap<Box<str>, Arc<Role>>,
    anonymous: Option<Arc<Role>>,
}

impl Roles {
    /// Roles by name; `anonymous` is the role of clients without credentials, if they have one.
    pub fn new(roles: Vec<Role>, anonymous: Option<&str>) -> Self {
        let by_name: BTreeMap<Box<str>, Arc<Role>> = roles
            .into_iter()
            .map(|role| (role.name.clone(), Arc::new(role)))
            .collect();
        let anonymous = anonymous.and_then(|name| by_name.get(name)).cloned();
        Self { by_name, anonymous }
    }

    /// Role with this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Role>> {
        self.by_name.get(name)
    }

    /// Role of clients without credentials; `None`: they have none.
    pub const fn anonymous(&self) -> Option<&Arc<Role>> {
        self.anonymous.as_ref()
    }

    /// Distinct delays of the roles, shortest first.
    pub fn delays(&self) -> Vec<Duration> {
        let delays = self.iter().map(|role| role.delay);
        let mut delays: Vec<Duration> = delays.filter(|delay| !delay.is_zero()).collect();
        delays.sort_unstable();
        delays.dedup();
        delays
    }

    /// All roles, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.by_name.values()
    }
}
