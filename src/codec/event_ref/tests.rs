use super::*;
use crate::codec::{EventHead, encode_event};
use crate::market::{Bar, Level, Price, Qty, Quote, Symbol, Ticker, Trade, TradeId, parse_decimal};
use crate::topic::{Topic, TopicName};
use proptest::prelude::*;

/// Events that the decoder visited before its result.
fn visited(bytes: &[u8], encoding: Encoding) -> (Vec<Head>, Result<u64, String>) {
    let mut heads = Vec::new();
    let count = visit_events(bytes, encoding, |event| {
        heads.push(Head::from(event));
    });
    let count = count.map_err(|error| error.to_string());
    (heads, count.map(|count| count.expect("it is a list")))
}

#[derive(Debug, PartialEq)]
struct Head(String, Seq, UnixNanos, UnixNanos, Option<(UnixNanos, bool)>);

impl From<EventRef<'_>> for Head {
    fn from(event: EventRef<'_>) -> Self {
        let symbol = Symbol::new(event.symbol).expect("a valid symbol");
        let topic = Topic {
            channel: event.channel,
            symbol,
        };
        Self(topic.to_string(), event.seq, event.ts, event.tx, event.bar)
    }
}

/// The claim of this module: the same messages are accepted, with the same fields.
fn check(bytes: &[u8], encoding: Encoding) -> Result<(), TestCaseError> {
    let (heads, count) = visited(bytes, encoding);
    match decode_server_message(bytes, encoding) {
        Ok(ServerMessage::Events(events)) => {
            let wanted: Vec<_> = events
                .iter()
                .map(|event| Head::from(EventRef::from(event)))
                .collect();
            prop_assert_eq!(count, Ok(events.len() as u64));
            prop_assert_eq!(heads, wanted);
        }
        Err(error) => prop_assert_eq!(count, Err(error.to_string())),
        Ok(ServerMessage::Control(control)) => prop_assert!(false, "{:?}", control),
    }
    Ok(())
}

fn encoded(topic: &str, body: &Body) -> Vec<u8> {
    let Ok(TopicName::Topic(topic)) = TopicName::parse(topic) else {
        unreachable!("{topic} is a topic");
    };
    let (mut out, head) = (Vec::new(), EventHead::new(&topic));
    let (seq, tx) = (Seq(70_000), UnixNanos(1_767_225_600_000_000_000));
    encode_event(&mut out, Encoding::Msgpack, &head, seq, tx, body);
    out
}

#[test]
fn symbols_have_the_same_ascii_characters_in_both_decoders() {
    for byte in 0..=0x7f_u8 {
        assert_eq!(
            is_symbol_byte(byte),
            Symbol::allows(char::from(byte)),
            "{byte}"
        );
    }
    assert!((0x80..=0xff_u8).all(|byte| !is_symbol_byte(byte)));
}

/// Events as a server sends them most are decoded on the short path; otherwise it is of no use.
#[test]
fn the_events_of_a_server_take_the_short_path() {
    let ts = UnixNanos(1_767_225_600_000_000_000);
    let decimal = |text| parse_decimal(text).expect("a decimal");
    let (px, qty) = (Price(decimal("64250.10")), Qty(decimal("0.00000001")));
    let level = Level { px, qty: Some(qty) };
    let trade = Trade {
        ts,
        px,
        qty,
        side: Aggressor::Sell,
        id: TradeId::Text("a1-7".into()),
    };
    let quote = |bid, ask| Body::Quote(Quote { ts, bid, ask });
    let ticker = Ticker {
        ts,
        last: px,
        open: px,
        high: px,
        low: px,
        vol: qty,
        vwap: decimal("64250.1037"),
        n: 300,
        chg: Some(decimal("-0.25")),
    };
    let bar = Bar {
        ts,
        start: UnixNanos(ts.0 - 7),
        open: px,
        high: px,
        low: px,
        close: px,
        vol: qty,
        n: 3,
        done: true,
    };
    let without_size = Level { px, qty: None };
    for (topic, body) in [
        ("trade:BTC-USD", Body::Trade(trade)),
        ("quote:BTC-USD", quote(Some(level), Some(without_size))),
        ("quote:BTC-USD", quote(None, Some(level))),
        ("ticker:BTC-USD", Body::Ticker(ticker)),
        ("bar:BTC-USD:1m", Body::Bar(bar)),
    ] {
        let bytes = encoded(topic, &body);
        let (event, rest) = plain(&bytes, "").expect("the short path takes it");
        assert_eq!((event.topic(), event.seq), (topic.to_owned(), Seq(70_000)));
        assert!(rest.is_empty() && event.ts == ts && event.tx == ts);
        let is_bar = topic.starts_with("bar:");
        assert_eq!(event.bar, is_bar.then_some((UnixNanos(ts.0 - 7), true)));
    }
}

/// A value of any kind that a field may have, usual and unusual.
fn value() -> impl Strategy<Value = rmpv::Value> {
    let texts = prop_oneof![
        "-?[0-9]{1,12}(\\.[0-9]{1,12})?",
        "[-+.0-9_eE]{0,34}",
        "trade|quote|ticker|bar|status|1s|1m|2m|buy|sell|none|up|live|sim",
        "[A-Z0-9-]{1,9}|[!-~]{0,40}|\\PC{0,12}|.{0,4}",
    ];
    prop_oneof![
        8 => texts.prop_map(rmpv::Value::from),
        3 => any::<u64>().prop_map(rmpv::Value::from),
        2 => (0u64..300).prop_map(rmpv::Value::from),
        1 => any::<i64>().prop_map(rmpv::Value::from),
        1 => any::<bool>().prop_map(rmpv::Value::from),
        1 => Just(rmpv::Value::Nil),
        1 => any::<f64>().prop_map(rmpv::Value::from),
        1 => Just(rmpv::Value::Array(vec![1.into()])),
    ]
}

fn decimal() -> impl Strategy<Value = rmpv::Value> {
    prop_oneof![
        9 => "[0-9]{1,5}(\\.[0-9]{1,3})?".prop_map(rmpv::Value::from),
        2 => "-?[0-9]{1,16}(\\.[0-9]{1,14})?".prop_map(rmpv::Value::from),
        1 => value(),
    ]
}

/// An event that is nearly one of its channel: fields in any order, some missing, repeated or of
/// another kind.
fn event() -> impl Strategy<Value = rmpv::Value> {
    const FIELDS: [(&str, &[&str]); 6] = [
        ("trade", &["px", "qty", "id", "side"]),
        ("quote", &["bid", "bidq", "ask", "askq"]),
        (
            "ticker",
            &["last", "open", "high", "low", "vol", "vwap", "n", "chg"],
        ),
        (
            "bar",
            &["iv", "start", "o", "h", "l", "c", "vol", "n", "done"],
        ),
        ("status", &["state", "src", "since"]),
        ("book", &["levels", "a key that is long"]),
    ];
    let integer = || prop_oneof![9 => any::<u64>().prop_map(rmpv::Value::from), 1 => value()];
    let word = |right: &'static [&'static str]| {
        let right = proptest::sample::select(right).prop_map(rmpv::Value::from);
        prop_oneof![9 => right, 1 => value()]
    };
    let changed = (0usize..8, 0usize..15, value());
    let parts = (0usize..FIELDS.len(), "[A-Z]{1,8}", any::<usize>(), changed);
    parts.prop_flat_map(move |(channel, symbol, order, (change, at, other))| {
        let (name, own) = FIELDS[channel];
        let mut fields: Vec<(&str, BoxedStrategy<rmpv::Value>)> = vec![
            ("ch", Just(rmpv::Value::from(name)).boxed()),
            ("sym", Just(rmpv::Value::from(symbol)).boxed()),
        ];
        fields.extend(["seq", "ts", "tx"].map(|key| (key, integer().boxed())));
        fields.extend(own.iter().map(|key| {
            let value = match *key {
                "n" | "start" | "since" => integer().boxed(),
                "done" => any::<bool>().prop_map(rmpv::Value::from).boxed(),
                "iv" => word(&["1s", "1m", "5m", "1h", "1d"]).boxed(),
                "side" => word(&["buy", "sell", "none"]).boxed(),
                "state" => word(&["live", "stale"]).boxed(),
                "src" => word(&["sim", "push"]).boxed(),
                "levels" | "a key that is long" => value().boxed(),
                _ => decimal().boxed(),
            };
            (*key, value)
        }));
        let at = at % fields.len();
        match change {
            0 => _ = fields.remove(at),
            1 => fields[at].1 = Just(other).boxed(),
            2 => fields.push((fields[at].0, Just(other).boxed())),
            3 => fields.push(("extra", Just(other).boxed())),
            4 => fields[at].1 = Just(rmpv::Value::Nil).boxed(),
            _ => {}
        }
        let count = fields.len();
        fields.rotate_left(order % count);
        if order % 2 == 1 {
            fields.reverse();
        }
        let (keys, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        values.prop_map(move |values| {
            let entries = keys.iter().map(|key| rmpv::Value::from(*key)).zip(values);
            rmpv::Value::Map(entries.collect())
        })
    })
}

fn packed(events: Vec<rmpv::Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &rmpv::Value::Array(events)).expect("a Vec takes all");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn both_decoders_accept_the_same_events(events in proptest::collection::vec(event(), 1..4)) {
        check(&packed(events), Encoding::Msgpack)?;
    }

    #[test]
    fn both_decoders_refuse_the_same_bytes(
        events in proptest::collection::vec(event(), 1..3), cut in 0usize..200, flip in 0usize..200, byte in any::<u8>(),
    ) {
        let mut bytes = packed(events);
        let at = flip % bytes.len();
        if at > 0 {
            bytes[at] = byte;
        }
        check(&bytes, Encoding::Msgpack)?;
        bytes.truncate(1.max(cut));
        check(&bytes, Encoding::Msgpack)?;
    }

    #[test]
    fn plain_decimals_are_decimals(text in "-?[0-9]{1,14}(\\.[0-9]{1,14})?|[-.0-9]{0,12}") {
        let bytes = [&[0xa0 | text.len() as u8], text.as_bytes(), b"behind.."].concat();
        for bytes in [&bytes[..], &bytes[..=text.len()]] {
            let mut input = bytes;
            if take_decimal(&mut input).is_some() {
                prop_assert!(parse_decimal(&text).is_ok(), "{}", text);
                prop_assert_eq!(bytes.len() - input.len(), text.len() + 1);
            }
        }
    }
}
