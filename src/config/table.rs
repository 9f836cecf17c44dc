//! Every key of the config: what it means, its unit, its default, its bounds. `check`, the errors and the operations guide
//! are made from this table.

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Integer(u64, u64),
    /// A number with decimals.
    Number(f64, f64),
    /// An exact decimal, in quotes or plain.
    Decimal,
    /// A length of time; the bounds as texts.
    Duration(&'static str, &'static str),
    /// Bytes; the bounds as texts.
    Size(&'static str, &'static str),
    /// Events a second, as in `20/s`.
    Rate,
    /// `HOST:PORT`, with an address of this machine.
    Address,
    /// A UTC time.
    Time,
    /// A list of texts.
    Texts,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A section or list, whose own keys follow.
    Section,
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Key {
    /// Where it stands; a source's own keys under its kind.
    pub path: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What holds where it isn't given; `None`: it must be given, or nothing holds.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
    /// A running server can't take it up.
    pub needs_restart: bool,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Some(default),
        doc,
        needs_restart: false,
    }
}

const fn without_default(path: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: None,
        doc,
        needs_restart: false,
    }
}

const fn fixed(key: Key) -> Key {
    Key {
        needs_restart: true,
        ..key
    }
}

/// All keys, in the order of the guide.
pub const KEYS: &[Key] = &[
    fixed(key(
        "listen",
        Kind::Address,
        "127.0.0.1:8080",
        "Where the feed and HTTP listen.",
    )),
    fixed(key(
        "shards",
        Kind::Text,
        "auto",
        "Threads that own clients' sockets: a number, or auto (the cores but one, at least one).",
    )),
    fixed(key(
        "state_dir",
        Kind::Text,
        "",
        "Where a stopping server leaves its state for the next one; empty: nowhere, and each start begins a new epoch.",
    )),
    without_default(
        "sources",
        Kind::Section,
        "Where prices come from; at least one.",
    ),
    without_default(
        "sources.name",
        Kind::Text,
        "The source's name in messages, metrics and logs.",
    ),
    without_default(
        "sources.kind",
        Kind::Word(&["sim", "replay", "push"]),
        "What it is.",
    ),
    key(
        "sources.stale_after",
        Kind::Duration("100ms", "30d"),
        "5s",
        "Silence after which an instrument of it is stale, unless it has its own.",
    ),
    key(
        "sources.sim.seed",
        Kind::Integer(0, u64::MAX),
        "1",
        "Decides everything that is random.",
    ),
    without_default(
        "sources.sim.start",
        Kind::Time,
        "The simulated time at which it begins; now, where it isn't given.",
    ),
    key(
        "sources.sim.history",
        Kind::Duration("0", "60d"),
        "0",
        "How much of the past to make up as bars.",
    ),
    key(
        "sources.sim.every",
        Kind::Duration("0", "1m"),
        "0",
        "Have events come together at multiples of this time; 0: each at a time of its own.",
    ),
    without_default(
        "sources.sim.instruments",
        Kind::Section,
        "What trades; at least one.",
    ),
    without_default(
        "sources.sim.instruments.symbol",
        Kind::Text,
        "Its name on the wire.",
    ),
    key(
        "sources.sim.instruments.description",
        Kind::Text,
        "",
        "For people; up to 200 printable characters.",
    ),
    without_default(
        "sources.sim.instruments.start",
        Kind::Decimal,
        "The price at the start.",
    ),
    key(
        "sources.sim.instruments.tick_size",
        Kind::Decimal,
        "0.01",
        "The step of prices.",
    ),
    key(
        "sources.sim.instruments.lot_size",
        Kind::Decimal,
        "1",
        "The step of quantities.",
    ),
    key(
        "sources.sim.instruments.size",
        Kind::Number(1.0, 1e9),
        "10",
        "The usual quantity of a trade, in lots.",
    ),
    key(
        "sources.sim.instruments.spread",
        Kind::Number(1.0, 1e6),
        "2",
        "The usual spread, in ticks.",
    ),
    key(
        "sources.sim.instruments.rate",
        Kind::Rate,
        "10/s",
        "Trades and quotes a second.",
    ),
    key(
        "sources.sim.instruments.trades",
        Kind::Number(0.0, 1.0),
        "0.5",
        "The share of trades among them.",
    ),
    key(
        "sources.sim.instruments.stale_after",
        Kind::Duration("100ms", "30d"),
        "",
        "Silence after which it is stale; the source's, where it isn't given.",
    ),
    without_default(
        "sources.sim.instruments.model",
        Kind::Section,
        "How its price moves: gbm, jump or mean_reverting, with its parameters; gbm of volatility 0.3, where it isn't given.",
    ),
    key(
        "sources.sim.instruments.model.volatility",
        Kind::Number(0.0, 100.0),
        "0.3",
        "A year's standard deviation of the log-price.",
    ),
    key(
        "sources.sim.instruments.model.jumps_per_day",
        Kind::Number(0.0, 1e5),
        "5",
        "Jumps a day; of jump.",
    ),
    key(
        "sources.sim.instruments.model.jump",
        Kind::Number(0.0, 1.0),
        "0.01",
        "A jump's standard deviation; of jump.",
    ),
    key(
        "sources.sim.instruments.model.half_life",
        Kind::Duration("1s", "3650d"),
        "1h",
        "After how long half of a deviation is gone; of mean_reverting.",
    ),
    without_default(
        "sources.sim.instruments.arrivals",
        Kind::Section,
        "When events come: poisson or hawkes, with its parameters; poisson, where it isn't given.",
    ),
    key(
        "sources.sim.instruments.arrivals.branching",
        Kind::Number(0.0, 0.95),
        "0.6",
        "The share of events that others caused; of hawkes.",
    ),
    key(
        "sources.sim.instruments.arrivals.decay",
        Kind::Duration("1ms", "1h"),
        "500ms",
        "How long an event's effect lasts; of hawkes.",
    ),
    without_default(
        "sources.sim.instruments.factor",
        Kind::Section,
        "The common factor that it follows, with how closely (0 to 1): {crypto: 0.7}.",
    ),
    without_default(
        "sources.sim.instruments.hours",
        Kind::Section,
        "When it trades; always, where it isn't given.",
    ),
    without_default(
        "sources.sim.instruments.hours.open",
        Kind::Text,
        "The local time at which it opens: 09:30.",
    ),
    without_default(
        "sources.sim.instruments.hours.close",
        Kind::Text,
        "The local time at which it closes: 16:00; where that isn't later than open, of the next day.",
    ),
    key(
        "sources.sim.instruments.hours.utc_offset",
        Kind::Text,
        "+00:00",
        "How far local time is ahead of UTC: -05:00.",
    ),
    key(
        "sources.sim.instruments.hours.days",
        Kind::Text,
        "mon-fri",
        "The days on which it trades: mon-fri, or mon,wed,sun.",
    ),
    without_default(
        "sources.replay.files",
        Kind::Texts,
        "Recorded files, merged by time; a * in the last part stands for any characters.",
    ),
    key(
        "sources.replay.speed",
        Kind::Text,
        "1",
        "How fast: 0.1 to 1000 times the recorded time, or max.",
    ),
    key(
        "sources.replay.loop",
        Kind::Flag,
        "false",
        "Begin again at the end, in a new epoch.",
    ),
    key(
        "sources.replay.begin",
        Kind::Word(&["now", "first-subscriber"]),
        "now",
        "When to begin: now, or after the first subscription to one of its topics.",
    ),
    key(
        "sources.replay.symbol",
        Kind::Text,
        "",
        "The symbol, where a file tells none.",
    ),
    key(
        "sources.replay.max_bad",
        Kind::Integer(0, u64::MAX),
        "100",
        "Bad lines after which the source stops with an error.",
    ),
    without_default(
        "sources.replay.columns",
        Kind::Section,
        "For CSV of an unknown form: which column is what.",
    ),
    without_default(
        "sources.replay.columns.time",
        Kind::Text,
        "The event's time: a number of seconds, ms, us or ns since 1970, told by its size, or ISO.",
    ),
    key(
        "sources.replay.columns.symbol",
        Kind::Text,
        "",
        "The symbol.",
    ),
    key(
        "sources.replay.columns.venue",
        Kind::Text,
        "",
        "The venue, put in front of the symbol.",
    ),
    key(
        "sources.replay.columns.type",
        Kind::Text,
        "",
        "What the row is.",
    ),
    key(
        "sources.replay.columns.trade",
        Kind::Text,
        "trade",
        "What the type column holds in a trade's row.",
    ),
    key(
        "sources.replay.columns.quote",
        Kind::Text,
        "quote",
        "What the type column holds in a quote's row.",
    ),
    key(
        "sources.replay.columns.price",
        Kind::Text,
        "",
        "A trade's price.",
    ),
    key(
        "sources.replay.columns.qty",
        Kind::Text,
        "",
        "A trade's quantity.",
    ),
    key(
        "sources.replay.columns.side",
        Kind::Text,
        "",
        "A trade's aggressor: buy or sell.",
    ),
    key("sources.replay.columns.id", Kind::Text, "", "A trade's id."),
    key(
        "sources.replay.columns.bid",
        Kind::Text,
        "",
        "The best bid's price.",
    ),
    key(
        "sources.replay.columns.bid_qty",
        Kind::Text,
        "",
        "The best bid's quantity.",
    ),
    key(
        "sources.replay.columns.ask",
        Kind::Text,
        "",
        "The best offer's price.",
    ),
    key(
        "sources.replay.columns.ask_qty",
        Kind::Text,
        "",
        "The best offer's quantity.",
    ),
    key(
        "sources.push.token_sha256",
        Kind::Text,
        "",
        "The publisher's token as SHA-256 in hex; without one, publishing is for this machine only.",
    ),
    key(
        "sources.push.crossed",
        Kind::Flag,
        "false",
        "Let quotes pass whose bid is above their ask.",
    ),
    key(
        "sources.push.negative_prices",
        Kind::Flag,
        "false",
        "Let negative prices pass.",
    ),
    key(
        "sources.push.late",
        Kind::Flag,
        "false",
        "Let events pass that are older than the one before.",
    ),
    without_default(
        "sources.push.instruments",
        Kind::Section,
        "What may be published; at least one.",
    ),
    without_default(
        "sources.push.instruments.symbol",
        Kind::Text,
        "Its name on the wire.",
    ),
    key(
        "sources.push.instruments.description",
        Kind::Text,
        "",
        "For people; up to 200 printable characters.",
    ),
    key(
        "sources.push.instruments.price_scale",
        Kind::Integer(0, 18),
        "2",
        "The usual decimals of its prices.",
    ),
    key(
        "sources.push.instruments.qty_scale",
        Kind::Integer(0, 18),
        "0",
        "The usual decimals of its quantities.",
    ),
    key(
        "sources.push.instruments.session",
        Kind::Duration("0", "1d"),
        "0",
        "When its session's day begins, after 00:00 UTC: the ticker starts anew then.",
    ),
    key(
        "sources.push.instruments.stale_after",
        Kind::Duration("100ms", "30d"),
        "",
        "Silence after which it is stale; the source's, where it isn't given.",
    ),
    fixed(key(
        "bus.queue",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "What sources may be ahead of the bus.",
    )),
    fixed(key(
        "bus.log",
        Kind::Size("1MiB", "4GiB"),
        "64MiB",
        "What the bus may be ahead of the slowest shard.",
    )),
    key(
        "bus.history.events",
        Kind::Integer(50, 1_000_000),
        "1000",
        "Events of each topic kept for those who come back.",
    ),
    key(
        "bus.history.bytes",
        Kind::Size("1MiB", "64GiB"),
        "64MiB",
        "Memory of the history over all topics, for each shard.",
    ),
    key(
        "bus.history.age",
        Kind::Duration("1s", "7d"),
        "5m",
        "Age up to which events are kept; what snapshots need is kept whatever its age.",
    ),
    key(
        "fanout.flush_window",
        Kind::Duration("0", "50ms"),
        "0",
        "How long events may be gathered before they are written.",
    ),
    key(
        "fanout.outbox",
        Kind::Size("64KiB", "1GiB"),
        "1MiB",
        "Live events that may wait for one client.",
    ),
    key(
        "fanout.control",
        Kind::Size("8KiB", "16MiB"),
        "64KiB",
        "Control messages that may wait for one client without its asking.",
    ),
    fixed(key(
        "fanout.frame",
        Kind::Size("1KiB", "384KiB"),
        "256KiB",
        "The size of a data message at which the next begins.",
    )),
    key(
        "fanout.behind",
        Kind::Duration("50ms", "10m"),
        "10s",
        "Age of the oldest waiting event at which a client counts as slow.",
    ),
    key(
        "fanout.unsent",
        Kind::Size("4KiB", "16MiB"),
        "128KiB",
        "Unsent bytes at which a client's socket counts as full.",
    ),
    key(
        "session.heartbeat",
        Kind::Duration("10ms", "10m"),
        "5s",
        "How often a heartbeat goes out.",
    ),
    key(
        "session.ping_after",
        Kind::Duration("100ms", "1h"),
        "20s",
        "Silence after which a client is pinged.",
    ),
    key(
        "session.drop_after",
        Kind::Duration("200ms", "2h"),
        "60s",
        "Silence after which a client is dropped; longer than ping_after.",
    ),
    key(
        "session.message_timeout",
        Kind::Duration("100ms", "10m"),
        "10s",
        "How long a message may take from its first byte to its last.",
    ),
    key(
        "limits.connections",
        Kind::Integer(1, 1_000_000),
        "10000",
        "WebSocket connections at once.",
    ),
    key(
        "limits.topics",
        Kind::Integer(1, 60_000),
        "1024",
        "Topics that one connection may hold.",
    ),
    key(
        "limits.requests_per_s",
        Kind::Integer(1, 100_000),
        "10",
        "Requests a second of one connection; five seconds' worth may come at once.",
    ),
    fixed(key(
        "limits.message",
        Kind::Size("1KiB", "16MiB"),
        "64KiB",
        "The size of a client's message.",
    )),
    key(
        "limits.snapshot_events",
        Kind::Integer(1, 1000),
        "1000",
        "Events that a snapshot may be asked for.",
    ),
    key(
        "limits.handshake",
        Kind::Duration("100ms", "1m"),
        "5s",
        "How long a client may take to say what it wants.",
    ),
    key(
        "limits.publish",
        Kind::Size("1KiB", "256MiB"),
        "8MiB",
        "The size of one POST /v1/publish.",
    ),
    fixed(key(
        "auth.scheme",
        Kind::Word(&["none"]),
        "none",
        "How clients prove who they are.",
    )),
    fixed(key(
        "admin.listen",
        Kind::Text,
        "127.0.0.1:8081",
        "Where metrics and health are served for operators; off for nowhere.",
    )),
    key(
        "drain.deadline",
        Kind::Duration("0", "10m"),
        "10s",
        "How long stopping may take.",
    ),
    key(
        "drain.spread",
        Kind::Duration("0", "10m"),
        "5s",
        "Over how long clients are asked to come back.",
    ),
];

/// The key at `path`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_once() {
        let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
        paths.sort_unstable();
        assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
