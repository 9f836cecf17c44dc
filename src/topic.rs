//! Subscribable names: [`Channel`], [`Topic`], [`TopicPattern`]. Pure.
//!
//! ```
//! use tickcast::market::Interval;
//! use tickcast::topic::{Channel, Kind, Topic, TopicError, TopicName, TopicPattern};
//!
//! # fn main() -> Result<(), TopicError> {
//! let TopicName::Topic(topic) = TopicName::parse("bar:BTC-USD:1m")? else {
//!     return Ok(());
//! };
//! assert_eq!(topic.channel, Channel::Bar(Interval::M1));
//! assert_eq!(topic.channel.kind(), Kind::Bar);
//! assert_eq!(topic.to_string(), "bar:BTC-USD:1m");
//!
//! let TopicName::Pattern(pattern) = TopicName::parse("bar:BTC-*:1m")? else {
//!     return Ok(());
//! };
//! assert!(matches(&pattern, &topic));
//! assert!(matches!(TopicName::parse("candle:A"), Err(TopicError::Channel(_))));
//!
//! fn matches(pattern: &TopicPattern, topic: &Topic) -> bool {
//!     pattern.matches(topic)
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;

use crate::market::{Interval, Symbol, excerpt};

/// Kind of data, with its parameter but without the symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Trades; none replaces another.
    Trade,
    /// Best bid and offer; state.
    Quote,
    /// Session summary; state.
    Ticker,
    /// Bars of an interval; each bar is a separate state.
    Bar(Interval),
    /// Trading state of the symbol; state.
    Status,
}

/// Replacement relation between the events of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No event replaces another.
    Event,
    /// A newer event replaces an older one.
    State,
    /// A newer event replaces an older one of the same bar; a closed bar is never replaced.
    Bar,
}

impl Kind {
    /// True if a newer event may replace an older one, so that a subscription can be conflated.
    pub const fn conflates(self) -> bool {
        match self {
            Self::Event => false,
            Self::State | Self::Bar => true,
        }
    }
}

impl Channel {
    /// Number of channels.
    pub const COUNT: usize = 9;

    /// All channels, in the order of the protocol page.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Trade,
        Self::Quote,
        Self::Ticker,
        Self::Bar(Interval::S1),
        Self::Bar(Interval::M1),
        Self::Bar(Interval::M5),
        Self::Bar(Interval::H1),
        Self::Bar(Interval::D1),
        Self::Status,
    ];

    /// Name on the wire, without the parameter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trade => "trade",
            Self::Quote => "quote",
            Self::Ticker => "ticker",
            Self::Bar(_) => "bar",
            Self::Status => "status",
        }
    }

    /// Parameter of the channel, if any.
    pub const fn param(self) -> Option<&'static str> {
        match self {
            Self::Bar(interval) => Some(interval.name()),
            _ => None,
        }
    }

    /// Name with the parameter: `trade`, `bar:1m`.
    pub const fn full_name(self) -> &'static str {
        match self {
            Self::Bar(Interval::S1) => "bar:1s",
            Self::Bar(Interval::M1) => "bar:1m",
            Self::Bar(Interval::M5) => "bar:5m",
            Self::Bar(Interval::H1) => "bar:1h",
            Self::Bar(Interval::D1) => "bar:1d",
            _ => self.name(),
        }
    }

    /// Kind of the events of the channel.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Trade => Kind::Event,
            Self::Bar(_) => Kind::Bar,
            Self::Quote | Self::Ticker | Self::Status => Kind::State,
        }
    }

    /// Index in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Trade => 0,
            Self::Quote => 1,
            Self::Ticker => 2,
            Self::Bar(Interval::S1) => 3,
            Self::Bar(Interval::M1) => 4,
            Self::Bar(Interval::M5) => 5,
            Self::Bar(Interval::H1) => 6,
            Self::Bar(Interval::D1) => 7,
            Self::Status => 8,
        }
    }

    /// Parses the name of a channel and its parameter.
    pub fn parse(name: &str, param: Option<&str>) -> Result<Self, TopicError> {
        let plain = Self::ALL.into_iter().find(|channel| channel.name() == name);
        match (plain, param) {
            (None, _) => Err(TopicError::Channel(excerpt(name))),
            (Some(Self::Bar(_)), None) => Err(TopicError::Param(
                "bar requires an interval, e.g. bar:BTC-USD:1m".into(),
            )),
            (Some(Self::Bar(_)), Some(text)) => {
                Interval::parse(text).map(Self::Bar).ok_or_else(|| {
                    TopicError::Param(format!(
                        "unknown interval \"{}\": expected 1s, 1m, 5m, 1h or 1d",
                        excerpt(text)
                    ))
                })
            }
            (Some(channel), None) => Ok(channel),
            (Some(_), Some(text)) => Err(TopicError::Param(format!(
                "{name} takes no parameter, got \"{}\"",
                excerpt(text)
            ))),
        }
    }
}

/// Error for a text that is not a valid topic or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// The text does not have the form `channel:symbol`.
    #[error(
        "invalid topic \"{0}\": expected channel:symbol or channel:symbol:param, e.g. trade:BTC-USD or bar:BTC-USD:1m"
    )]
    Form(String),
    /// The channel does not exist.
    #[error("unknown channel \"{0}\": expected trade, quote, ticker, bar or status")]
    Channel(String),
    /// The parameter does not exist.
    #[error("{0}")]
    Param(String),
    /// The symbol contains an invalid character or is too long.
    #[error(
        "invalid symbol \"{0}\": expected 1 to 64 bytes of printable characters except `:`, `*`, `,` and white space, and, in a \
         pattern, one * at the end"
    )]
    Symbol(String),
}

/// Channel of one symbol: `trade:BTC-USD`, `bar:BTC-USD:1m`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic {
    /// The channel with its parameter.
    pub channel: Channel,
    /// The instrument's symbol.
    pub symbol: Symbol,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, self.channel, self.symbol.as_str())
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, channel: Channel, symbol: &str) -> fmt::Result {
    write!(f, "{}:{symbol}", channel.name())?;
    channel
        .param()
        .map_or(Ok(()), |param| write!(f, ":{param}"))
}

/// Channel of all symbols with a common prefix: `quote:*`, `bar:BTC-*:1m`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicPattern {
    /// The channel with its parameter.
    pub channel: Channel,
    /// Common prefix of the symbols; empty for all.
    pub prefix: Box<str>,
}

impl TopicPattern {
    /// True if `topic` matches.
    pub fn matches(&self, topic: &Topic) -> bool {
        self.channel == topic.channel && topic.symbol.as_str().starts_with(&*self.prefix)
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, self.channel, &format!("{}*", self.prefix))
    }
}

/// Name in a request: a topic, or a pattern of topics.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TopicName {
    /// One topic.
    Topic(Topic),
    /// All topics with a common prefix.
    Pattern(TopicPattern),
}

impl TopicName {
    /// Parses `channel:symbol[:param]`, where the symbol may be `*` or end in `*`.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let mut parts = text.splitn(3, ':');
        let (Some(channel), Some(symbol)) = (parts.next(), parts.next()) else {
            return Err(TopicError::Form(excerpt(text)));
        };
        let channel = Channel::parse(channel, parts.next())?;
        if let Some(prefix) = symbol.strip_suffix('*') {
            let fits = prefix.len() <= Symbol::BYTES_MAX && prefix.chars().all(Symbol::allows);
            return if fits {
                Ok(Self::Pattern(TopicPattern {
                    channel,
                    prefix: prefix.into(),
                }))
            } else {
                Err(TopicError::Symbol(excerpt(symbol)))
            };
        }
        let symbol = Symbol::new(symbol).map_err(|_invalid| TopicError::Symbol(excerpt(symbol)))?;
        Ok(Self::Topic(Topic { channel, symbol }))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => topic.fmt(f),
            Self::Pattern(pattern) => pattern.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_name_is_the_name_and_the_parameter() {
        for channel in Channel::ALL {
            let written = channel.param().map_or(channel.name().to_owned(), |param| {
                format!("{}:{param}", channel.name())
            });
            assert_eq!(channel.full_name(), written);
        }
    }

    #[test]
    fn names_are_read_and_written_alike() {
        for text in [
            "trade:BTC-USD",
            "bar:BTC-USD:1m",
            "quote:*",
            "bar:BTC-*:1d",
            "status:binance.A/B_c",
            "trade:币安人生USDT",
            "quote:币*",
            "bar:^GSPC:1m",
        ] {
            assert_eq!(
                TopicName::parse(text).map(|name| name.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        let error = |text: &str| {
            TopicName::parse(text)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        assert!(error("BTC-USD").contains("invalid topic"));
        assert!(error("trades:X").contains("unknown channel \"trades\""));
        assert!(error("bar:X").contains("requires an interval"));
        assert!(error("bar:X:2m").contains("unknown interval \"2m\""));
        assert!(error("trade:X:1m").contains("takes no parameter"));
        assert!(error("trade:").contains("invalid symbol"));
        assert!(error("trade:A*B").contains("invalid symbol"));
        assert!(error("trade:A B").contains("invalid symbol"));
        assert!(error("trade:\u{202e}A").contains("\\u{202e}A"));
    }

    #[test]
    fn every_channel_stands_at_its_index() {
        for (at, channel) in Channel::ALL.into_iter().enumerate() {
            assert_eq!(channel.index(), at);
        }
    }

    proptest! {
        #[test]
        fn patterns_agree_with_a_naive_matcher(prefix in "[A-C]{0,3}", symbol in "[A-C]{1,4}", a in 0usize..9, b in 0usize..9) {
            let pattern = TopicPattern { channel: Channel::ALL[a], prefix: prefix.as_str().into() };
            let topic = Topic { channel: Channel::ALL[b], symbol: Symbol::new(&symbol).expect("letters") };
            let naive = a == b && symbol.len() >= prefix.len() && symbol[..prefix.len()] == prefix;
            prop_assert_eq!(pattern.matches(&topic), naive);
        }

        #[test]
        fn names_never_panic(text in ".{0,80}") {
            let _unused = TopicName::parse(&text);
        }
    }
}
