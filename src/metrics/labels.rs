//! The closed sets of label values.

/// Clients that keep up, and those whose socket was full or that were told of a lag when the events were written.
pub(super) const FANOUT_CLIENTS: [&str; 2] = ["keeping_up", "lagging"];

/// Reason why a connection or its request is refused or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many sockets.
    Sockets,
    /// Nothing came in time.
    Silent,
    /// The head was begun and not ended in time.
    Slow,
    /// The client left in the middle of a head.
    Incomplete,
    /// The bytes are no HTTP/1.1.
    Malformed,
    /// The head is longer than heads may be.
    TooLarge,
    /// missing `Host` header: expected exactly one, twice, or not one of ours.
    Host,
    /// A page of this origin may not use the feed.
    Origin,
    /// Not a handshake by RFC 6455.
    Handshake,
    /// Too many requests at once.
    Busy,
    /// More requests a second than the limit.
    Rate,
    /// The body of a publish request came too slowly.
    SlowBody,
    /// The client did not take its answer.
    Unread,
}

impl Refused {
    pub(super) const ALL: [Self; 13] = [
        Self::Sockets,
        Self::Silent,
        Self::Slow,
        Self::Incomplete,
        Self::Malformed,
        Self::TooLarge,
        Self::Host,
        Self::Origin,
        Self::Handshake,
        Self::Busy,
        Self::Rate,
        Self::SlowBody,
        Self::Unread,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Incomplete => "incomplete",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Handshake => "handshake",
            Self::Busy => "busy",
            Self::Rate => "rate",
            Self::SlowBody => "slow_body",
            Self::Unread => "unread",
        }
    }
}

/// The reasons why the bus does not publish an event: another source owns the symbol, `limits.instruments` is reached, the
/// instrument lacks the channel, the source has not announced it, or a session's sum has no room for it.
pub(crate) const DROPPED: [&str; 5] = [
    "symbol_taken",
    "instrument_limit",
    "channel",
    "unannounced",
    "overflow",
];
/// Why input is refused.
pub(super) const REJECTED_INPUT: [&str; 14] = [
    "malformed",
    "channel",
    "symbol",
    "quantity",
    "negative_price",
    "zero_price",
    "too_large",
    "crossed",
    "late",
    "ahead",
    "behind",
    "unit",
    "full",
    "bad_line",
];

/// Why a saved state is refused.
pub const REJECTED_STATE: [&str; 6] = [
    "missing",
    "unreadable",
    "damaged",
    "not_the_last",
    "old",
    "ahead",
];
