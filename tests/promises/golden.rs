//! Bytes of every message in both encodings, compared with `golden.txt`. A change there is a change
//! of the wire protocol.
//!
//! `TICKCAST_GOLDEN=write cargo test golden` rewrites the file.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use rust_decimal::Decimal;
use tickcast::codec::{
    EventHead, SnapshotHead, decode_request, decode_server_message, encode_control, encode_event,
    encode_request, write_snapshot,
};
use tickcast::market::{
    Aggressor, Bar, Body, Interval, Level, Price, Qty, Quote, SourceKind, Status, Symbol, Ticker,
    Trade, TradeId, TradingState, UnixNanos,
};
use tickcast::protocol::{
    Authenticated, Bye, Code, Control, DeliveryWish, Encoding, Entry, Gap, GapCause, Heartbeat, Id,
    InstrumentEntry, Instruments, Lag, LagLevel, LedgerAnswer, LedgerEntry, Limits, Mode, OnSlow,
    Op, Pong, ProtocolError, Refusal, Request, ResumeFrom, Seq, ServerMessage, Settings,
    SnapshotWish, SourceChange, SourceState, Subscribe, Subscribed, Subscriptions, TopicsAsked,
    TopicsChange, Unsubscribed, Welcome,
};
use tickcast::topic::{Channel, Topic};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/promises/golden.txt");
const TS: UnixNanos = UnixNanos(1_767_225_600_123_456_789);
const TX: UnixNanos = UnixNanos(1_767_225_600_123_999_999);

fn decimal(text: &str) -> Decimal {
    tickcast::market::parse_decimal(text).unwrap_or_default()
}

fn px(text: &str) -> Price {
    Price(decimal(text))
}

fn qty(text: &str) -> Qty {
    Qty(decimal(text))
}

fn level(price: &str, size: &str) -> Level {
    Level {
        px: px(price),
        qty: (!size.is_empty()).then(|| qty(size)),
    }
}

#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn events() -> Vec<(&'static str, Channel, Body)> {
    let trade = |id| {
        Body::Trade(Trade {
            ts: TS,
            px: px("64250.10"),
            qty: qty("0.5000"),
            side: Aggressor::Buy,
            id,
        })
    };
    let status = Status {
        ts: TS,
        state: TradingState::Stale,
        since: TS,
        src: SourceKind::Sim,
    };
    let bar = Bar {
        vol: qty("3.5"),
        n: 2,
        done: true,
        ..Bar::first(
            UnixNanos(1_767_225_600_000_000_000),
            TS,
            px("-1.50"),
            qty("1"),
        )
    };
    let ticker = Ticker {
        ts: TS,
        last: px("64250.10"),
        open: px("64000"),
        high: px("64300.5"),
        low: px("63990"),
        vol: qty("12.3456"),
        vwap: decimal("64123.45678901"),
        n: 4096,
        chg: Some(decimal("0.00390781")),
    };
    vec![
        (
            "trade",
            Channel::Trade,
            trade(TradeId::Number(12_345_678_901)),
        ),
        (
            "trade_text_id",
            Channel::Trade,
            trade(TradeId::Text("a\"b-ü".into())),
        ),
        ("trade_no_id", Channel::Trade, trade(TradeId::None)),
        (
            "quote",
            Channel::Quote,
            Body::Quote(Quote {
                ts: TS,
                bid: Some(level("64250.00", "1")),
                ask: Some(level("64250.10", "2.50")),
            }),
        ),
        (
            "quote_empty_side",
            Channel::Quote,
            Body::Quote(Quote {
                ts: TS,
                bid: Some(level("0.00000001", "79228162514264337593543950335")),
                ask: None,
            }),
        ),
        (
            "quote_without_sizes",
            Channel::Quote,
            Body::Quote(Quote {
                ts: TS,
                bid: Some(level("1.13412", "")),
                ask: Some(level("1.13415", "")),
            }),
        ),
        ("ticker", Channel::Ticker, Body::Ticker(ticker)),
        ("bar", Channel::Bar(Interval::M1), Body::Bar(bar)),
        ("status", Channel::Status, Body::Status(status)),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list of messages")]
fn controls() -> Vec<(&'static str, Control)> {
    let limits = Limits {
        topics: 1024,
        requests_per_s: 10,
        message_bytes: 65_536,
        snapshot_events: 1000,
    };
    let id = || Some(Id::Number(7));
    let raw = Settings {
        mode: Mode::Raw,
        on_slow: OnSlow::Gap,
    };
    let timed = Settings {
        mode: Mode::Interval(100),
        on_slow: OnSlow::Conflate,
    };
    let topic = |settings| Entry {
        epoch: Some("00000000000000ff".into()),
        seq: Some(Seq(41)),
        ..Entry::new("trade:BTC-USD".into(), settings)
    };
    let pattern = Entry {
        matched: Some(vec![topic(timed)]),
        ..Entry::new("quote:*".into(), timed)
    };
    let refusal = || Refusal::new("trade:NO", Code::UnknownTopic, "there is no such topic");
    let recovered = Entry {
        recovered: Some(true),
        ..topic(raw)
    };
    let ledger = LedgerEntry {
        topic: "trade:BTC-USD".into(),
        epoch: "00000000000000ff-2".into(),
        start: Seq(1),
        head: Seq(10),
        delivered: 5,
        merged: 3,
        lost: 1,
        pending: 2,
    };
    let gap = Gap {
        topic: "trade:BTC-USD".into(),
        epoch: "00000000000000ff".into(),
        from: Seq(3),
        to: Seq(9),
        n: 7,
        cause: GapCause::Slow,
        missing: None,
    };
    let instrument = InstrumentEntry {
        symbol: "BTC-USD".into(),
        channels: vec!["trade".into(), "bar:1m".into()],
        price_scale: 2,
        qty_scale: 4,
        src: SourceKind::Replay,
        description: "Bitcoin".into(),
        venue_symbol: None,
    };
    vec![
        (
            "welcome",
            Control::Welcome(Welcome {
                server: "tickcast/1".into(),
                session: "0-0-1".into(),
                epoch: "00000000000000ff".into(),
                ts: TS.0,
                encoding: Encoding::Msgpack,
                heartbeat_ms: 5000,
                limits,
                auth: "none".into(),
                max_message: 512 * 1024,
            }),
        ),
        (
            "authenticated",
            Control::Authenticated(Authenticated {
                id: id(),
                expires: None,
                limits,
            }),
        ),
        (
            "subscribed",
            Control::Subscribed(Subscribed {
                id: id(),
                ok: vec![recovered, pattern],
                err: vec![refusal()],
                count: 2,
                max_message: None,
                more: false,
            }),
        ),
        (
            "subscribed_part",
            Control::Subscribed(Subscribed {
                id: None,
                ok: vec![],
                err: vec![],
                count: 0,
                max_message: None,
                more: true,
            }),
        ),
        (
            "unsubscribed",
            Control::Unsubscribed(Unsubscribed {
                id: id(),
                topics: vec!["quote:A".into()],
                ok: vec![topic(raw)],
                err: vec![],
                count: 1,
                more: false,
            }),
        ),
        (
            "subscriptions",
            Control::Subscriptions(Subscriptions {
                id: id(),
                ok: vec![topic(raw)],
                count: 1,
                more: false,
            }),
        ),
        (
            "instruments",
            Control::Instruments(Instruments {
                id: id(),
                instruments: vec![instrument.clone()],
                more: false,
            }),
        ),
        (
            "pong",
            Control::Pong(Pong {
                id: Some(Id::Text("p".into())),
                t: -5,
                ts: TS.0,
            }),
        ),
        ("gap", Control::Gap(gap.clone())),
        (
            "gap_source",
            Control::Gap(Gap {
                from: Seq(10),
                to: Seq(9),
                n: 0,
                cause: GapCause::Source,
                missing: Some(4),
                ..gap.clone()
            }),
        ),
        (
            "gap_source_unknown",
            Control::Gap(Gap {
                from: Seq(10),
                to: Seq(9),
                n: 0,
                cause: GapCause::Source,
                missing: None,
                ..gap
            }),
        ),
        (
            "lag",
            Control::Lag(Lag {
                level: LagLevel::Degraded,
                queued_bytes: 1_048_576,
                behind_ms: 1234,
            }),
        ),
        (
            "heartbeat",
            Control::Heartbeat(Heartbeat {
                ts: TS.0,
                delivered: 300,
                merged: 20,
                lost: 1,
                queued_bytes: 0,
            }),
        ),
        (
            "ledger",
            Control::Ledger(LedgerAnswer {
                id: id(),
                topics: vec![ledger],
                more: false,
            }),
        ),
        (
            "topics",
            Control::Topics(TopicsChange {
                added: vec![topic(raw)],
                removed: vec![refusal()],
                err: vec![refusal()],
                more: false,
            }),
        ),
        (
            "instrument",
            Control::Instrument(InstrumentEntry {
                symbol: "BTCF0~3AUSTF0".into(),
                venue_symbol: Some("BTCF0:USTF0".into()),
                ..instrument.clone()
            }),
        ),
        (
            "source",
            Control::Source(SourceChange {
                name: "sim".into(),
                state: SourceState::Reconnecting,
                since: TS.0,
                error: None,
            }),
        ),
        (
            "source with an error",
            Control::Source(SourceChange {
                name: "tape".into(),
                state: SourceState::Ended,
                since: TS.0,
                error: Some("tape.csv.gz: the file is cut".into()),
            }),
        ),
        (
            "error",
            Control::Error(ProtocolError {
                retry_ms: Some(100),
                ..ProtocolError::new(None, Code::RateLimit, "too many")
            }),
        ),
        (
            "bye",
            Control::Bye(Bye {
                code: 503,
                message: "stopping".into(),
                reconnect: true,
                after_ms: 250,
            }),
        ),
    ]
}

fn requests() -> Vec<(&'static str, Op)> {
    let topics = || vec!["trade:BTC-USD".into(), "quote:*".into()];
    let wish = DeliveryWish {
        mode: Some(Mode::Interval(100)),
        interval_ms: Some(100),
        on_slow: Some(OnSlow::Gap),
    };
    let from = ResumeFrom {
        epoch: "00000000000000ff".into(),
        seqs: vec![("trade:BTC-USD".into(), Seq(41))],
        epochs: vec![("quote:A".into(), "00000000000000ff-1".into())],
    };
    let subscribe = Subscribe {
        topics: topics(),
        wish,
        snapshot: Some(SnapshotWish::Events(20)),
        from: Some(from),
        max_message: Some(32_768),
        atomic: true,
    };
    let plain = DeliveryWish {
        mode: Some(Mode::Conflate),
        ..DeliveryWish::default()
    };
    vec![
        ("subscribe", Op::Subscribe(subscribe)),
        ("unsubscribe", Op::Unsubscribe(TopicsAsked::These(topics()))),
        ("unsubscribe_all", Op::Unsubscribe(TopicsAsked::All)),
        (
            "modify",
            Op::Modify {
                topics: topics(),
                wish: plain,
            },
        ),
        ("resync", Op::Resync { topics: topics() }),
        ("subscriptions", Op::Subscriptions),
        (
            "instruments",
            Op::Instruments {
                pattern: "BTC*".into(),
            },
        ),
        ("ledger", Op::Ledger),
        ("ping", Op::Ping { t: -42 }),
        ("auth", Op::Auth { token: "t".into() }),
    ]
}

fn head(channel: Channel) -> Result<EventHead> {
    Ok(EventHead::new(&Topic {
        channel,
        symbol: Symbol::new("BTC-USD")?,
    }))
}

/// Every message: name, encoding, bytes.
fn messages() -> Result<Vec<(String, Encoding, Vec<u8>)>> {
    let mut all = Vec::new();
    for encoding in Encoding::ALL {
        for (name, channel, body) in events() {
            let mut bytes = Vec::new();
            encode_event(&mut bytes, encoding, &head(channel)?, Seq(42), TX, &body);
            all.push((format!("event {name}"), encoding, bytes));
        }
        let quote = events().swap_remove(3);
        let mut event = Vec::new();
        encode_event(
            &mut event,
            encoding,
            &head(Channel::Quote)?,
            Seq(42),
            TX,
            &quote.2,
        );
        for count in [0, 1] {
            let mut bytes = Vec::new();
            let shape = SnapshotHead {
                topic: "quote:BTC-USD",
                epoch: "00000000000000ff",
                seq: Seq(42 * count as u64),
            };
            write_snapshot(
                &mut bytes,
                encoding,
                &shape,
                count,
                std::iter::repeat_n(event.as_slice(), count),
            );
            all.push((format!("control snapshot_of_{count}"), encoding, bytes));
        }
        for (name, control) in controls() {
            all.push((
                format!("control {name}"),
                encoding,
                encode_control(&control, encoding),
            ));
        }
        for (name, op) in requests() {
            let request = Request {
                id: Some(Id::Number(7)),
                op,
            };
            all.push((
                format!("request {name}"),
                encoding,
                encode_request(&request, encoding),
            ));
        }
    }
    Ok(all)
}

fn shown(encoding: Encoding, bytes: &[u8]) -> String {
    match encoding {
        Encoding::Json => String::from_utf8_lossy(bytes).into_owned(),
        Encoding::Msgpack => bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").ok();
            hex
        }),
    }
}

#[test]
fn every_message_has_its_golden_bytes() -> Result<()> {
    let text: String = messages()?
        .iter()
        .map(|(name, encoding, bytes)| {
            format!("{} {name}: {}\n", encoding.name(), shown(*encoding, bytes))
        })
        .collect();
    if std::env::var_os("TICKCAST_GOLDEN").is_some() {
        std::fs::write(FILE, &text)?;
    }
    let golden = std::fs::read_to_string(FILE).context("cannot read golden.txt")?;
    for (ours, theirs) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
    Ok(())
}

#[test]
fn golden_bytes_decode_to_the_original_messages() -> Result<()> {
    for encoding in Encoding::ALL {
        for (name, channel, body) in events() {
            let mut bytes = match encoding {
                Encoding::Msgpack => vec![0x91],
                Encoding::Json => b"[".to_vec(),
            };
            encode_event(&mut bytes, encoding, &head(channel)?, Seq(42), TX, &body);
            bytes.extend(if encoding == Encoding::Json {
                b"]".as_slice()
            } else {
                b""
            });
            let ServerMessage::Events(read) = decode_server_message(&bytes, encoding)? else {
                anyhow::bail!("{name}")
            };
            assert_eq!(
                (read[0].seq, read[0].tx, &read[0].body),
                (Seq(42), TX, &body),
                "{name}"
            );
        }
        for (name, control) in controls() {
            let read = decode_server_message(&encode_control(&control, encoding), encoding)?;
            assert_eq!(read, ServerMessage::Control(control), "{name}");
        }
        for (name, op) in requests() {
            let request = Request {
                id: Some(Id::Number(7)),
                op,
            };
            let read = decode_request(&encode_request(&request, encoding), encoding)?;
            let same =
                |request: &Request| format!("{request:?}").replace("Interval(0)", "Interval(100)");
            assert_eq!(same(&read), same(&request), "{name}");
        }
    }
    Ok(())
}

#[test]
fn messages_of_later_versions_are_ignored() -> Result<()> {
    let read = decode_server_message(br#"{"op":"fireworks","x":1}"#, Encoding::Json)?;
    assert_eq!(read, ServerMessage::Control(Control::Unknown));
    let read = decode_server_message(
        br#"[{"ch":"mood","sym":"A","seq":1,"ts":1,"tx":1,"new":true}]"#,
        Encoding::Json,
    )?;
    assert_eq!(read, ServerMessage::Events(Vec::new()));
    Ok(())
}
