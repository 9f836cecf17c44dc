//! Bodies of `POST /v1/publish`.

use std::cell::RefCell;
use std::time::Duration;

use tickcast::bus::{Emit, InputQueue, input_queue};
use tickcast::clock::Clock;
use tickcast::market::{Instrument, PriceRules, SourceKind, Symbol, UnixNanos, VALUE_MAX};
use tickcast::server::doors::{BodyFormat, for_each_record};
use tickcast::source::push::{Field, PublishedEvent, PushInlet, PushRules};

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "publish",
    check,
    work,
    // Records are decoded one by one; only the errors of some are kept by the product.
    memory: Memory {
        per_byte: 16,
        constant: 64 << 10,
    },
    millis: MILLIS,
    bytes_max: 8 << 20,
    words: &[
        b"{\"ch\":\"trade\",\"sym\":\"A\",\"px\":\"1\",\"qty\":\"2\"}\n",
        b"{\"ch\":\"quote\",\"sym\":\"A\",\"bid\":\"1\",\"bidq\":1,\"ask\":null}\n",
        b"\"ts\":1767225600000000000",
        b"\\u0000",
        b"\n",
        b"1\n",
        b"\xc0",
        b"\x80",
        b"\x91",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\x7f\xff\xff\xff",
        b"\xa2px\xa11",
    ],
};

/// Limit of records, lower than the default so that inputs exceed it.
const RECORDS_MAX: usize = 5000;
/// Clock of the server.
const NOW: UnixNanos = UnixNanos(1_767_225_600_000_000_000);

thread_local! {
    static INLET: RefCell<Option<(PushInlet, InputQueue)>> = const { RefCell::new(None) };
}

/// A record of NDJSON is the same event in MessagePack; an accepted event is within the bounds of
/// its values, and errors are bounded.
pub(crate) fn check(bytes: &[u8]) {
    for encoding in [BodyFormat::Ndjson, BodyFormat::Msgpack] {
        let mut last = 0;
        let result = for_each_record(bytes, encoding, RECORDS_MAX, &mut |line, record| {
            assert!(line > last, "records are numbered in order");
            last = line;
            match record {
                Err(fault) => assert_printable(&fault.to_string()),
                Ok(event) => {
                    accept(&event);
                    if encoding == BodyFormat::Ndjson {
                        agrees_in_messagepack(&event);
                    }
                }
            }
        });
        if let Err(error) = result {
            assert_eq!(last, 0, "a body is rejected as a whole");
            assert_printable(&error.to_string());
        }
    }
}

pub(crate) fn work(bytes: &[u8]) {
    let encoding = match bytes.first() {
        Some(0x90..=0x9f | 0xdc | 0xdd) => BodyFormat::Msgpack,
        _ => BodyFormat::Ndjson,
    };
    let _result = for_each_record(bytes, encoding, RECORDS_MAX, &mut |_, record| {
        std::hint::black_box(record.is_ok());
    });
}

fn accept(event: &PublishedEvent<'_>) {
    INLET.with_borrow_mut(|inlet| {
        let (inlet, _queue) = inlet.get_or_insert_with(inlet_of_a);
        match inlet.check(event, NOW) {
            Ok(Emit::Trade(_, trade)) => {
                assert!(trade.px.0.abs() <= VALUE_MAX && trade.qty.0 <= VALUE_MAX);
            }
            Ok(emit) => assert!(matches!(emit, Emit::Quote(..)), "{emit:?}"),
            Err(fault) => assert_printable(&fault.to_string()),
        }
    });
}

fn inlet_of_a() -> (PushInlet, InputQueue) {
    let (emitter, queue) = input_queue(0, Clock::start());
    let symbol = Symbol::new("A").expect("a letter");
    let instruments = [Instrument::new(symbol, SourceKind::Live)];
    let rules = PushRules {
        prices: PriceRules::default(),
        late: true,
        ahead_max: Duration::from_secs(60),
        behind_max: Duration::from_secs(60),
    };
    (PushInlet::new(&instruments, rules, emitter, None), queue)
}

/// Fields of an event with their names.
fn fields<'e, 'a>(event: &'e PublishedEvent<'a>) -> [(&'static str, &'e Option<Field<'a>>); 11] {
    [
        ("ch", &event.ch),
        ("sym", &event.sym),
        ("ts", &event.ts),
        ("px", &event.px),
        ("qty", &event.qty),
        ("side", &event.side),
        ("id", &event.id),
        ("bid", &event.bid),
        ("bidq", &event.bidq),
        ("ask", &event.ask),
        ("askq", &event.askq),
    ]
}

fn agrees_in_messagepack(event: &PublishedEvent<'_>) {
    let mut map = serde_json::Map::new();
    for (name, field) in fields(event) {
        let value = match field {
            None => continue,
            Some(Field::Text(text)) => serde_json::Value::from(&**text),
            // MessagePack has integers of 64 bits, and binary floats for all else.
            Some(Field::Number(digits)) => match digits.parse::<u64>() {
                Ok(number) if number.to_string() == **digits => number.into(),
                _ => return,
            },
            Some(_) => return,
        };
        map.insert(name.to_owned(), value);
    }
    let body = rmp_serde::to_vec(&[map]).expect("plain values");
    let mut records = 0;
    let result = for_each_record(&body, BodyFormat::Msgpack, 1, &mut |_, record| {
        let again = record.expect("a valid record");
        assert_eq!(
            fields(&again).map(|(_, field)| field.clone()),
            fields(event).map(|(_, field)| field.clone())
        );
        records += 1;
    });
    assert_eq!((result, records), (Ok(()), 1));
}
