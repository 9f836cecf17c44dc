/// Error and close codes (protocol, *Errors and closing*).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request violates the protocol.
    BadRequest,
    /// The client must authenticate first.
    AuthRequired,
    /// The token is invalid or has expired.
    AuthFailed,
    /// The client did not authenticate in time.
    AuthTimeout,
    /// The topic limit is exceeded.
    TopicLimit,
    /// The connection limit is exceeded.
    ConnectionLimit,
    /// The client cannot keep up.
    SlowConsumer,
    /// Idle timeout or incomplete message.
    Timeout,
    /// The client is not entitled to the topic.
    NotEntitled,
    /// The topic does not exist or is not subscribed.
    UnknownTopic,
    /// The channel does not support the requested mode.
    ModeRefused,
    /// Another topic of an atomic request was rejected.
    Atomic,
    /// Too many requests per second.
    RateLimit,
    /// The server is shutting down.
    Draining,
}

impl Code {
    /// All codes, in the order of the protocol page.
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

    /// Code number on the wire.
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

    /// Code name on the wire.
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

    /// WebSocket close code for this reason: 1012 when draining, otherwise 4000 + number.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Draining => 1012,
            other => 4000 + other.number(),
        }
    }
}
