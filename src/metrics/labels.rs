//! Closed sets of label values.

/// Clients that keep up, and clients that lag: their socket was full, or they had been notified of
/// a lag, when the events were written.
pub(super) const FANOUT_CLIENTS: [&str; 2] = ["keeping_up", "lagging"];

/// Versions of TLS.
pub(super) const TLS_VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// Reason for which a connection or its request is rejected or aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many open sockets.
    Sockets,
    /// Too many connections of an address or IPv6 network.
    AddressLimit,
    /// Too many handshakes per second, of an address or over all.
    HandshakeRate,
    /// The memory limit is near.
    Memory,
    /// The PROXY header is missing or invalid, or from an untrusted address.
    ProxyHeader,
    /// No data was received before the timeout.
    Silent,
    /// The request head was not completed before the timeout.
    Slow,
    /// The client disconnected in the middle of a request head.
    Incomplete,
    /// The data is not valid HTTP/1.1.
    Malformed,
    /// The request head exceeds the size limit.
    TooLarge,
    /// The `Host` header is missing, repeated, or not an accepted host.
    Host,
    /// The browser origin is not allowed.
    Origin,
    /// The request is not a valid handshake as of RFC 6455.
    Handshake,
    /// Too many concurrent requests.
    Busy,
    /// The request rate exceeds the limit.
    Rate,
    /// The body of a publish request arrived too slowly.
    SlowBody,
    /// The client did not read the response.
    Unread,
    /// The TLS handshake was not completed before the timeout.
    TlsSlow,
    /// The TLS handshake failed.
    TlsFailed,
    /// A client without TLS on the TLS port.
    NoTls,
}

impl Refused {
    pub(super) const ALL: [Self; 20] = [
        Self::Sockets,
        Self::AddressLimit,
        Self::HandshakeRate,
        Self::Memory,
        Self::ProxyHeader,
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
        Self::TlsSlow,
        Self::TlsFailed,
        Self::NoTls,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::AddressLimit => "address_limit",
            Self::HandshakeRate => "handshake_rate",
            Self::Memory => "memory",
            Self::ProxyHeader => "proxy_header",
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
            Self::TlsSlow => "tls_slow",
            Self::TlsFailed => "tls_failed",
            Self::NoTls => "no_tls",
        }
    }
}

/// Event in the authentication of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthEvent {
    /// Credentials were accepted.
    Ok,
    /// Credentials were refused.
    Failed,
    /// A token had expired, or ended in the session.
    Expired,
    /// A client did not authenticate in time.
    Timeout,
    /// The key of a connected client was removed.
    Revoked,
    /// Credentials were not checked: too many attempts.
    Limited,
}

impl AuthEvent {
    pub(super) const ALL: [Self; 6] = [
        Self::Ok,
        Self::Failed,
        Self::Expired,
        Self::Timeout,
        Self::Revoked,
        Self::Limited,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Timeout => "timeout",
            Self::Revoked => "revoked",
            Self::Limited => "limited",
        }
    }
}

/// Holders of memory.
pub const MEMORY_HOLDERS: [&str; 7] = [
    "connections",
    "outboxes",
    "log",
    "bus_queue",
    "handshakes",
    "http_responses",
    "publish_bodies",
];

/// Part of the server in which a panic ended one connection only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicIn {
    /// Parsing of received frames.
    Frames,
    /// Decoding or execution of a request.
    Request,
    /// Handshake or HTTP.
    Http,
}

impl PanicIn {
    pub(super) const ALL: [Self; 3] = [Self::Frames, Self::Request, Self::Http];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Frames => "frames",
            Self::Request => "request",
            Self::Http => "http",
        }
    }
}

/// Outcomes of reading the keys of the authentication again.
pub(super) const AUTH_KEYS: [&str; 2] = ["applied", "rejected"];

/// Reasons for which the bus does not publish an event: another source owns the symbol,
/// `limits.instruments` is reached, the instrument lacks the channel, the source has not announced
/// it, or a sum of the session would overflow.
pub(crate) const DROPPED: [&str; 5] = [
    "symbol_taken",
    "instrument_limit",
    "channel",
    "unannounced",
    "overflow",
];
/// Rules for bad market data.
pub(super) const RULES: [&str; 6] = ["crossed", "move", "duplicate", "late", "clock", "flood"];
/// Kinds of injected faults.
pub(super) const FAULT_KINDS: [&str; 8] = [
    "drop",
    "duplicate",
    "reorder",
    "freeze",
    "cross",
    "spike",
    "clock",
    "restart",
];
/// Reasons for rejecting input.
pub(super) const REJECTED_INPUT: [&str; 16] = [
    "malformed",
    "channel",
    "symbol",
    "not_entitled",
    "quantity",
    "negative_price",
    "zero_price",
    "too_large",
    "crossed",
    "late",
    "ahead",
    "behind",
    "unit",
    "rule",
    "full",
    "bad_line",
];

/// Reasons for rejecting a saved state.
pub const REJECTED_STATE: [&str; 6] = [
    "missing",
    "unreadable",
    "damaged",
    "not_the_last",
    "old",
    "ahead",
];
