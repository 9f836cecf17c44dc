/// Error and close codes (protocol, *Errors and closing*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is not what the protocol says.
    BadRequest,
    /// First `auth`.
    AuthRequired,
    /// The token is wrong or has ended.
    AuthFailed,
    /// No `auth` came in time.
    AuthTimeout,
    /// One topic more than the limit.
    TopicLimit,
    /// One connection more than the limit.
    ConnectionLimit,
    /// The client can't keep up.
    SlowConsumer,
    /// Nothing came in time.
    Timeout,
    /// The client may not see it.
    NotEntitled,
    /// No such topic, or not held.
    UnknownTopic,
    /// The channel doesn't know the mode.
    ModeRefused,
    /// Another topic of an atomic request was refused.
    Atomic,
    /// Too many requests.
    RateLimit,
    /// The server is stopping.
    Draining,
}

impl Code {
    /// All, in the order of the protocol page.
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::AuthRequired,
        Self::AuthFailed,
        Self::AuthTimeout,
        Self::TopicLimit,
        Self::ConnectionLimit,
        Self::SlowConsumer,
        Self::Timeout,
        Self::NotEntitled,
        Self::UnknownTopic,
        Self::ModeRefused,
        Self::Atomic,
        Self::RateLimit,
        Self::Draining,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::AuthRequired => 401,
            Self::AuthFailed => 402,
            Self::AuthTimeout => 404,
            Self::TopicLimit => 405,
            Self::ConnectionLimit => 406,
            Self::SlowConsumer => 407,
            Self::Timeout => 408,
            Self::NotEntitled => 409,
            Self::UnknownTopic => 412,
            Self::ModeRefused => 413,
            Self::Atomic => 424,
            Self::RateLimit => 429,
            Self::Draining => 503,
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::AuthRequired => "auth_required",
            Self::AuthFailed => "auth_failed",
            Self::AuthTimeout => "auth_timeout",
            Self::TopicLimit => "topic_limit",
            Self::ConnectionLimit => "connection_limit",
            Self::SlowConsumer => "slow_consumer",
            Self::Timeout => "timeout",
            Self::NotEntitled => "not_entitled",
            Self::UnknownTopic => "unknown_topic",
            Self::ModeRefused => "mode_refused",
            Self::Atomic => "atomic",
            Self::RateLimit => "rate_limit",
            Self::Draining => "draining",
        }
    }

    /// The WebSocket close code of a close for this reason: 1012 when draining, else 4000 + number.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Draining => 1012,
            other => 4000 + other.number(),
        }
    }
}
