//! Messages of servers as clients decode them.

use tickcast::client::EventRef;
use tickcast::codec::{decode_server_message, encode_control, visit_events};
use tickcast::protocol::{Control, Encoding, ServerMessage};

use super::{MILLIS, Memory, Target, assert_printable};

pub(crate) const TARGET: Target = Target {
    name: "server_message",
    check,
    work,
    // An event of a few bytes is decoded into a value of some hundred.
    memory: Memory {
        per_byte: 64,
        constant: 64 << 10,
    },
    millis: MILLIS,
    bytes_max: 512 << 10,
    words: &[
        b"\"op\":\"snapshot\"",
        b"\"events\":[",
        b"\"ch\":\"bar\"",
        b"\"sym\":\"A\"",
        b"\"seq\":18446744073709551615",
        b"\"px\":\"79228162514264337593543950335\"",
        b"\xa2ch\xa5trade",
        b"\xa3sym\xa1A",
        b"\xa3seq\x01",
        b"null",
    ],
};

/// The short decoder accepts the same messages as the complete one, with the same fields; a control
/// message is the same after it was encoded again.
pub(crate) fn check(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        let mut topics = Vec::new();
        let count = visit_events(bytes, encoding, |event| {
            topics.push((event.topic(), event.seq, event.ts, event.tx, event.bar));
        });
        match decode_server_message(bytes, encoding) {
            Ok(ServerMessage::Events(events)) => {
                assert_eq!(count, Ok(Some(events.len() as u64)));
                let heads = events.iter().map(EventRef::from);
                let wanted: Vec<_> = heads
                    .map(|event| (event.topic(), event.seq, event.ts, event.tx, event.bar))
                    .collect();
                assert_eq!(topics, wanted);
            }
            Ok(ServerMessage::Control(control)) => {
                assert_eq!((count, topics.len()), (Ok(None), 0));
                if let Control::Snapshot(_) = control {
                    // Servers write snapshots around encoded events.
                    return;
                }
                for other in Encoding::ALL {
                    let again = decode_server_message(&encode_control(&control, other), other);
                    let same = Ok(ServerMessage::Control(control.clone()));
                    assert_eq!(again, same, "{other:?}");
                }
            }
            Err(error) => {
                assert_printable(&error.to_string());
                if let Ok(Some(_)) = count {
                    assert_eq!(count, Err(error));
                }
            }
        }
    }
}

pub(crate) fn work(bytes: &[u8]) {
    for encoding in Encoding::ALL {
        let _events = visit_events(bytes, encoding, |event| {
            std::hint::black_box(event.seq);
        });
        let _message = decode_server_message(bytes, encoding);
    }
}
